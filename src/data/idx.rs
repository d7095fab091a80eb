//! IDX files: MNIST, Fashion-MNIST, KMNIST, QMNIST's pictures, EMNIST and whatever else keeps that layout, plain or
//! `.gz`.
//!
//! Layout (LeCun, Cortes and Burges, "The MNIST database of handwritten digits"): two zero bytes, a byte for the
//! element type (8 is an unsigned byte), a byte for the number of dimensions, each dimension as a big-endian u32, then
//! the elements, last dimension fastest.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::open::{OpenOptions, entries};
use super::{DataPair, Dataset};
use crate::error::{Error, Result};

/// An IDX file of unsigned bytes.
///
/// ```
/// # use shadegrad::{data::*, *};
/// # let file = tempfile::NamedTempFile::new().expect("a file");
/// # let path = file.path();
/// std::fs::write(path, [0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 9]).expect("a file"); // bytes of [1, 3]
/// let array = idx::read_idx(path, 2)?;
/// assert_eq!(array, idx::IdxArray { dims: vec![1, 3], data: vec![7, 8, 9] });
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxArray {
    /// Sizes, slowest first.
    pub dims: Vec<usize>,
    /// The elements, last dimension fastest; as many as the product of `dims`.
    pub data: Vec<u8>,
}

/// The most that deflate can expand: a claim beyond it is false before a byte is unpacked.
#[cfg(feature = "datasets")]
const MAX_DEFLATE_RATIO: u64 = 1032;
const GET_AGAIN: &str = "the download was probably cut short; get the file again";

/// Reads one IDX file of unsigned bytes with `rank` dimensions (3 for pictures, 1 for labels). A gzip file is
/// recognised by its first bytes, whatever its name.
///
/// Nothing is allocated from the header's claim: it is first compared with the size of the file.
///
/// ```
/// # use shadegrad::{data::*, *};
/// # let file = tempfile::NamedTempFile::new().expect("a file");
/// # let path = file.path();
/// std::fs::write(path, [0, 0, 8, 1, 0, 0, 0, 3, 5, 0, 4]).expect("a file"); // three labels
/// assert_eq!(idx::read_idx(path, 1)?.data, [5, 0, 4]);
/// assert!(idx::read_idx(path, 3).is_err()); // not pictures
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Data`] when it is no IDX file of unsigned bytes, has other
/// dimensions, or is shorter or longer than its header says.
pub fn read_idx(path: &Path, rank: u8) -> Result<IdxArray> {
    let mut file = File::open(path).map_err(|e| Error::io(path, &e))?;
    let size = file.metadata().map_err(|e| Error::io(path, &e))?.len();
    let mut start = [0; 2];
    let known = fill(path, &mut file, &mut start)?;
    let start = &start[..known];
    if start == [0x1f, 0x8b] {
        return read_gz(path, rank, start.chain(file), size);
    }
    read_body(path, rank, start.chain(file), size, Some(size))
}

#[cfg(feature = "datasets")]
fn read_gz(path: &Path, rank: u8, packed: impl Read, size: u64) -> Result<IdxArray> {
    let unpacked = flate2::read::MultiGzDecoder::new(packed);
    read_body(path, rank, unpacked, size.saturating_mul(MAX_DEFLATE_RATIO), None)
}

#[cfg(not(feature = "datasets"))]
fn read_gz(path: &Path, _rank: u8, _packed: impl Read, _size: u64) -> Result<IdxArray> {
    Err(Error::data(
        path,
        "is gzip-compressed, and this build cannot unpack it; run `gunzip` or build with the feature `datasets`",
    ))
}

/// Reads until `buf` is full or the source ends; returns how much there was.
fn fill(path: &Path, source: &mut impl Read, buf: &mut [u8]) -> Result<usize> {
    let mut got = 0;
    while got < buf.len() {
        match source.read(&mut buf[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(unreadable(path, &e)),
        }
    }
    Ok(got)
}

/// A failure while reading: of the disk, or of the gzip stream.
fn unreadable(path: &Path, e: &std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData => {
            Error::data(path, format!("the gzip data is damaged or ends early ({e}); {GET_AGAIN}"))
        }
        _ => Error::io(path, e),
    }
}

/// The header and the elements. `most` bounds the whole length, `exact` is the length where it is known.
fn read_body(path: &Path, rank: u8, mut source: impl Read, most: u64, exact: Option<u64>) -> Result<IdxArray> {
    let mut header = vec![0; 4 + 4 * usize::from(rank)];
    let got = fill(path, &mut source, &mut header)?;
    let kind = if rank == 1 { "labels" } else { "pictures" };
    if got >= 4 {
        let [a, b, element, found_rank] = [header[0], header[1], header[2], header[3]];
        if (a, b) != (0, 0) {
            let detail = format!(
                "starts with the bytes {a:02x} {b:02x} {element:02x} {found_rank:02x}, an IDX file of {kind} \
                 with 00 00 08 {rank:02x}; this is another kind of file, give the original"
            );
            return Err(Error::data(path, detail));
        }
        if element != 8 {
            let detail = format!(
                "its elements are of type 0x{element:02x}; only unsigned bytes (0x08) are read, convert the file"
            );
            return Err(Error::data(path, detail));
        }
        if found_rank != rank {
            let detail = format!(
                "has {found_rank} dimensions, {kind} have {rank}; files of pictures and of labels may have been \
                 exchanged, check their names"
            );
            return Err(Error::data(path, detail));
        }
    }
    if got < header.len() {
        let detail =
            format!("holds {got} bytes, less than the header of an IDX file of {kind} ({}); {GET_AGAIN}", header.len());
        return Err(Error::data(path, detail));
    }
    let dims: Vec<u32> = header[4..].chunks_exact(4).map(|d| u32::from_be_bytes([d[0], d[1], d[2], d[3]])).collect();
    let claimed = dims.iter().try_fold(1u64, |n, &d| n.checked_mul(u64::from(d)));
    let whole = claimed.and_then(|n| n.checked_add(header.len() as u64));
    let Some((claimed, whole)) = claimed.zip(whole).filter(|&(_, whole)| whole <= most) else {
        let detail = format!(
            "its header claims {dims:?} elements, {}; it is truncated or damaged, {GET_AGAIN}",
            match exact {
                Some(size) => format!("but the file has {size} bytes"),
                None => "more than a gzip file of this size can hold".into(),
            }
        );
        return Err(Error::data(path, detail));
    };
    if let Some(size) = exact.filter(|&size| size != whole) {
        let detail =
            format!("has {size} bytes, but its header says {dims:?}, {whole} bytes; it is damaged, get the file again");
        return Err(Error::data(path, detail));
    }
    // One byte more than claimed is asked for, so that a longer file is noticed.
    let mut data = Vec::new();
    source.take(claimed.saturating_add(1)).read_to_end(&mut data).map_err(|e| unreadable(path, &e))?;
    if data.len() as u64 != claimed {
        let found = if data.len() as u64 > claimed { "more".into() } else { data.len().to_string() };
        let detail = format!("unpacks to {found} elements, but its header says {dims:?}, {claimed}; {GET_AGAIN}");
        return Err(Error::data(path, detail));
    }
    Ok(IdxArray { dims: dims.iter().map(|&d| d as usize).collect(), data })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Train,
    Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Images,
    Labels,
}

/// What a file's name says: what stands before `train-` or `t10k-` (empty for MNIST, `emnist-letters-` for EMNIST), and
/// what it holds.
fn parse_name(name: &str) -> Option<(&str, Part, Kind)> {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let ends = |sep: char, what: &str| name.strip_suffix(what).and_then(|rest| rest.strip_suffix(sep));
    let images = ends('-', "idx3-ubyte").or_else(|| ends('.', "idx3-ubyte")).and_then(|r| r.strip_suffix("-images"));
    let labels = ends('-', "idx1-ubyte").or_else(|| ends('.', "idx1-ubyte")).and_then(|r| r.strip_suffix("-labels"));
    let (rest, kind) = images.map(|r| (r, Kind::Images)).or(labels.map(|r| (r, Kind::Labels)))?;
    for (word, part) in [("train", Part::Train), ("t10k", Part::Test), ("test", Part::Test)] {
        if let Some(prefix) = rest.strip_suffix(word) {
            return Some((prefix, part, kind));
        }
    }
    None
}

/// Whether a folder holds a file that is named like a part of such a set.
pub(super) fn is_idx_name(name: &str) -> bool {
    parse_name(name).is_some()
}

/// Opens a folder with the four files `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and `t10k-...` (or
/// `test-...`), plain or `.gz`.
///
/// Where several sets share the folder (EMNIST), `options.idx_prefix` chooses. `options.classes` says how many classes
/// there are; by default the family's number (MNIST 10, EMNIST by its name), else the largest training label and one.
/// EMNIST keeps its pictures transposed; they are returned as stored.
///
/// ```
/// # use shadegrad::{data::*, *};
/// # let folder = tempfile::tempdir().expect("a folder");
/// # for part in ["train", "t10k"] {
/// #     let images = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 10, 20, 30, 40]; // two of 1 x 2
/// #     std::fs::write(folder.path().join(format!("{part}-images-idx3-ubyte")), images).expect("a file");
/// #     let labels = [0, 0, 8, 1, 0, 0, 0, 2, 7, 1];
/// #     std::fs::write(folder.path().join(format!("{part}-labels-idx1-ubyte")), labels).expect("a file");
/// # }
/// // train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte:
/// let pair = idx::open_idx(folder.path(), &OpenOptions::default())?;
/// assert_eq!(pair.train.get(0), Some((&[10, 20][..], 7)));
/// assert_eq!(pair.train.classes.len(), 10); // MNIST's
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Data`] naming the file that is missing, damaged, of another length than its partner, or holds a label out
/// of range.
pub fn open_idx(folder: &Path, options: &OpenOptions) -> Result<DataPair> {
    let mut prefixes: Vec<String> = Vec::new();
    let mut files: Vec<(String, Part, Kind, PathBuf)> = Vec::new();
    for entry in entries(folder)? {
        if let Some((prefix, part, kind)) = parse_name(&entry.name) {
            prefixes.push(prefix.to_string());
            files.push((prefix.to_string(), part, kind, entry.path));
        }
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    let prefix = match (&options.idx_prefix, &prefixes[..]) {
        (Some(wanted), _) if prefixes.contains(wanted) => wanted.clone(),
        (Some(wanted), _) => {
            return Err(Error::data(
                folder,
                format!("no IDX files begin with {wanted:?}; found the beginnings {prefixes:?}, choose one"),
            ));
        }
        (None, [one]) => one.clone(),
        (None, []) => {
            return Err(Error::data(
                folder,
                "no IDX files; looked for train-images-idx3-ubyte[.gz] and its three partners",
            ));
        }
        (None, _) => {
            return Err(Error::data(
                folder,
                format!("holds several IDX sets, beginning with {prefixes:?}; choose one (`idx_prefix`)"),
            ));
        }
    };
    let find = |part: Part, kind: Kind| -> Result<&Path> {
        // Entries are sorted, so a plain file comes before its .gz twin.
        let found = files.iter().find(|(p, q, k, _)| *p == prefix && *q == part && *k == kind);
        found.map(|(.., path)| path.as_path()).ok_or_else(|| {
            let part = if part == Part::Train { "train" } else { "t10k" };
            let kind = if kind == Kind::Images { "images-idx3" } else { "labels-idx1" };
            Error::data(folder, format!("{prefix}{part}-{kind}-ubyte[.gz] is missing; put it beside the others"))
        })
    };
    let family = Family::of(folder, &prefix);
    let load = |part: Part, classes: Option<usize>| -> Result<Half> {
        load_part(find(part, Kind::Images)?, find(part, Kind::Labels)?, classes)
    };
    let train = load(Part::Train, options.classes.or(family.classes))?;
    let test = load(Part::Test, Some(train.classes))?;
    if (train.height, train.width) != (test.height, test.width) {
        let detail = format!(
            "pictures of {}x{}, but the training pictures are {}x{}; the files are of different sets, put each set \
             into a folder of its own",
            test.height, test.width, train.height, train.width
        );
        return Err(Error::data(find(Part::Test, Kind::Images)?, detail));
    }
    let names: Vec<String> = match family.names {
        Some(names) if names.len() == train.classes => names.iter().map(ToString::to_string).collect(),
        _ => (0..train.classes).map(|c| c.to_string()).collect(),
    };
    let set = |part: Half, which: &str| {
        Dataset::new(
            format!("{} {which}", family.name),
            part.images,
            part.labels,
            [part.height, part.width, 1],
            names.clone(),
        )
    };
    DataPair::new(set(train, "train")?, set(test, "test")?)
}

/// One half of a set as read.
struct Half {
    images: Vec<u8>,
    labels: Vec<u32>,
    height: usize,
    width: usize,
    classes: usize,
}

fn load_part(images_path: &Path, labels_path: &Path, classes: Option<usize>) -> Result<Half> {
    let labels = read_idx(labels_path, 1)?.data;
    let images = read_idx(images_path, 3)?;
    let [n, height, width] = images.dims[..] else {
        return Err(Error::data(images_path, format!("has dimensions {:?}; pictures have three", images.dims)));
    };
    if n == 0 || height == 0 || width == 0 {
        let detail =
            format!("holds {n} pictures of {height}x{width}; nothing can be learnt from it, get the file again");
        return Err(Error::data(images_path, detail));
    }
    if labels.len() != n {
        let detail = format!(
            "holds {} labels, but {} holds {n} pictures; the two belong to different sets or one is damaged, get both \
             again",
            labels.len(),
            images_path.display()
        );
        return Err(Error::data(labels_path, detail));
    }
    let largest = labels.iter().copied().max().unwrap_or(0);
    let classes = classes.unwrap_or(usize::from(largest) + 1);
    if let Some(i) = labels.iter().position(|&l| usize::from(l) >= classes) {
        let detail = format!(
            "label {} of picture {i}, expected 0..={}; the file is damaged, or say how many classes there are \
             (`classes`)",
            labels[i],
            classes.saturating_sub(1)
        );
        return Err(Error::data(labels_path, detail));
    }
    Ok(Half { images: images.data, labels: labels.into_iter().map(u32::from).collect(), height, width, classes })
}

/// What is known of a set from its name.
struct Family {
    name: String,
    classes: Option<usize>,
    names: Option<&'static [&'static str]>,
}

const FASHION: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

impl Family {
    fn of(folder: &Path, prefix: &str) -> Self {
        let split = |name: &str| match name {
            "balanced" | "bymerge" => Some(47),
            "byclass" => Some(62),
            // Letters are labelled 1..=26; label 0 stays unused.
            "letters" => Some(27),
            "digits" | "mnist" => Some(10),
            _ => None,
        };
        if let Some(which) = prefix.strip_prefix("emnist-") {
            let which = which.trim_end_matches('-');
            return Self { name: format!("EMNIST {which}"), classes: split(which), names: None };
        }
        if !prefix.is_empty() {
            return Self { name: prefix.trim_end_matches('-').to_string(), classes: None, names: None };
        }
        // The files of the relatives of MNIST have its names; only the folder tells them apart. torchvision keeps them
        // in `raw`.
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
        let mut named = folder.iter().rev().map(|s| s.to_string_lossy().to_lowercase()).filter(|s| s != "raw");
        match named.next() {
            Some(f) if f.contains("fashion") => {
                Self { name: "Fashion-MNIST".into(), classes: Some(10), names: Some(&FASHION) }
            }
            Some(f) if f.contains("kmnist") => Self { name: "KMNIST".into(), classes: Some(10), names: None },
            _ => Self { name: "MNIST".into(), classes: Some(10), names: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn idx(dims: &[u32], data: &[u8]) -> Vec<u8> {
        let mut out = vec![0, 0, 8, dims.len() as u8];
        dims.iter().for_each(|d| out.extend(d.to_be_bytes()));
        out.extend(data);
        out
    }

    #[cfg(feature = "datasets")]
    fn gz(data: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        e.write_all(data).unwrap();
        e.finish().unwrap()
    }

    /// A folder with a whole small set: 4 training and 2 test pictures of 2x3.
    fn folder(prefix: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (part, n) in [("train", 4u8), ("t10k", 2)] {
            let pixels: Vec<u8> = (0..n * 6).collect();
            let labels: Vec<u8> = (0..n).map(|i| i % 10).collect();
            let put = |kind: &str, bytes: Vec<u8>| {
                fs::write(dir.path().join(format!("{prefix}{part}-{kind}-ubyte")), bytes).unwrap()
            };
            put("images-idx3", idx(&[u32::from(n), 2, 3], &pixels));
            put("labels-idx1", idx(&[u32::from(n)], &labels));
        }
        dir
    }

    fn error(r: Result<impl std::fmt::Debug>, parts: &[&str]) {
        let e = r.unwrap_err();
        assert!(matches!(e, Error::Data { .. }), "{e:?}");
        let text = e.to_string();
        for p in parts {
            assert!(text.contains(p), "{text:?} lacks {p:?}");
        }
    }

    #[test]
    fn a_whole_set_is_read() {
        let dir = folder("");
        let d = open_idx(dir.path(), &OpenOptions::default()).unwrap();
        assert_eq!((d.train.len(), d.test.len(), d.train.classes.len()), (4, 2, 10));
        assert_eq!((d.train.height, d.train.width, d.train.channels), (2, 3, 1));
        assert_eq!(d.train.get(3), Some((&[18, 19, 20, 21, 22, 23][..], 3)));
        assert_eq!(d.train.name, "MNIST train");
    }

    #[cfg(feature = "datasets")]
    #[test]
    fn gzip_is_read_and_damage_found() {
        let dir = folder("");
        let plain = open_idx(dir.path(), &OpenOptions::default()).unwrap();
        let path = dir.path().join("train-images-idx3-ubyte");
        let bytes = fs::read(&path).unwrap();
        let packed = dir.path().join("train-images-idx3-ubyte.gz");
        fs::remove_file(&path).unwrap();
        fs::write(&packed, gz(&bytes)).unwrap();
        assert_eq!(open_idx(dir.path(), &OpenOptions::default()).unwrap(), plain);
        // Cut anywhere, in the gzip header as in the data.
        let whole = gz(&bytes);
        for cut in [5, 12, whole.len() / 2, whole.len() - 3] {
            fs::write(&packed, &whole[..cut]).unwrap();
            error(read_idx(&packed, 3), &["train-images", "get the file again"]);
        }
        let mut bad = whole.clone();
        let last = bad.len() - 6;
        bad[last] ^= 0xff;
        fs::write(&packed, &bad).unwrap();
        error(read_idx(&packed, 3), &["damaged"]);
        // Shorter and longer than the header says, and a claim that no gzip file of this size can hold.
        fs::write(&packed, gz(&bytes[..30])).unwrap();
        error(read_idx(&packed, 3), &["unpacks to 14 elements", "[4, 2, 3], 24"]);
        fs::write(&packed, gz(&[&bytes[..], &[1]].concat())).unwrap();
        error(read_idx(&packed, 3), &["unpacks to more elements"]);
        fs::write(&packed, gz(&idx(&[u32::MAX, 1000, 1000], &[]))).unwrap();
        error(read_idx(&packed, 3), &["more than a gzip file of this size"]);
    }

    #[cfg(not(feature = "datasets"))]
    #[test]
    fn gzip_needs_the_feature() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gz");
        fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
        error(read_idx(&path, 1), &["gunzip", "feature `datasets`"]);
    }

    #[test]
    fn headers_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let check = |bytes: &[u8], rank: u8, parts: &[&str]| {
            fs::write(&path, bytes).unwrap();
            error(read_idx(&path, rank), parts);
        };
        check(&[], 1, &["holds 0 bytes", "get the file again"]);
        check(&[0, 0], 1, &["holds 2 bytes"]);
        check(&idx(&[4, 2, 3], &[])[..10], 3, &["holds 10 bytes", "16"]);
        check(b"<!DOCTYPE html>..", 3, &["3c 21 44 4f", "another kind of file"]);
        check(&[0, 0, 0x0d, 1, 0, 0, 0, 0], 1, &["type 0x0d", "convert"]);
        check(&idx(&[1], &[7]), 3, &["has 1 dimensions, pictures have 3", "exchanged"]);
        check(&idx(&[4, 2, 3], &[0; 23]), 3, &["claims [4, 2, 3]", "39 bytes", "truncated"]);
        check(&idx(&[4, 2, 3], &[0; 25]), 3, &["has 41 bytes", "40 bytes"]);
        check(&idx(&[u32::MAX; 3], &[0; 25]), 3, &["claims", "truncated"]);
        fs::write(&path, idx(&[0], &[])).unwrap();
        assert_eq!(read_idx(&path, 1).unwrap(), IdxArray { dims: vec![0], data: vec![] });
        let missing = read_idx(&dir.path().join("none"), 1).unwrap_err();
        assert!(matches!(missing, Error::Io { .. }) && missing.to_string().contains("none"));
    }

    #[test]
    fn files_must_belong_together() {
        let dir = folder("");
        let file = |name: &str| dir.path().join(name);
        let open = || open_idx(dir.path(), &OpenOptions::default());
        let whole = fs::read(file("train-labels-idx1-ubyte")).unwrap();
        fs::write(file("train-labels-idx1-ubyte"), idx(&[3], &[0, 1, 2])).unwrap();
        error(open(), &["train-labels-idx1", "3 labels", "train-images-idx3", "4 pictures"]);
        fs::write(file("train-labels-idx1-ubyte"), idx(&[4], &[0, 1, 10, 2])).unwrap();
        error(open(), &["label 10 of picture 2", "0..=9", "`classes`"]);
        let more = OpenOptions { classes: Some(11), ..Default::default() };
        assert_eq!(open_idx(dir.path(), &more).unwrap().train.classes.len(), 11);
        fs::write(file("train-labels-idx1-ubyte"), whole).unwrap();
        let test = fs::read(file("t10k-images-idx3-ubyte")).unwrap();
        fs::write(file("t10k-images-idx3-ubyte"), idx(&[2, 3, 2], &[0; 12])).unwrap();
        error(open(), &["t10k-images", "3x2", "2x3"]);
        fs::write(file("t10k-images-idx3-ubyte"), idx(&[2, 0, 2], &[])).unwrap();
        error(open(), &["2 pictures of 0x2"]);
        fs::write(file("t10k-images-idx3-ubyte"), test).unwrap();
        fs::remove_file(file("t10k-labels-idx1-ubyte")).unwrap();
        error(open(), &["t10k-labels-idx1-ubyte[.gz] is missing"]);
        let empty = tempfile::tempdir().unwrap();
        error(open_idx(empty.path(), &OpenOptions::default()), &["looked for train-images-idx3-ubyte"]);
    }

    #[test]
    fn families_and_prefixes() {
        let dir = folder("emnist-letters-");
        let d = open_idx(dir.path(), &OpenOptions::default()).unwrap();
        assert_eq!((d.train.name.as_str(), d.train.classes.len()), ("EMNIST letters train", 27));
        for entry in fs::read_dir(folder("mine-").path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        error(open_idx(dir.path(), &OpenOptions::default()), &["several IDX sets", "emnist-letters-", "mine-"]);
        let choose = |p: &str| OpenOptions { idx_prefix: Some(p.into()), ..Default::default() };
        let mine = open_idx(dir.path(), &choose("mine-")).unwrap();
        assert_eq!((mine.train.name.as_str(), mine.train.classes.len()), ("mine train", 4));
        error(open_idx(dir.path(), &choose("other-")), &["other-", "choose one"]);
        // A test label beyond the training labels.
        fs::write(dir.path().join("mine-t10k-labels-idx1-ubyte"), idx(&[2], &[0, 4])).unwrap();
        error(open_idx(dir.path(), &choose("mine-")), &["mine-t10k-labels", "label 4 of picture 1", "0..=3"]);

        let root = tempfile::tempdir().unwrap();
        let raw = root.path().join("FashionMNIST").join("raw");
        fs::create_dir_all(raw.parent().unwrap()).unwrap();
        fs::rename(folder("").keep(), &raw).unwrap();
        let d = open_idx(&raw, &OpenOptions::default()).unwrap();
        assert_eq!((d.train.name.as_str(), d.train.classes[9].as_str()), ("Fashion-MNIST train", "Ankle boot"));
    }

    #[test]
    fn names_of_the_family_are_recognised() {
        assert_eq!(parse_name("train-images-idx3-ubyte"), Some(("", Part::Train, Kind::Images)));
        assert_eq!(parse_name("t10k-labels.idx1-ubyte.gz"), Some(("", Part::Test, Kind::Labels)));
        assert_eq!(
            parse_name("emnist-byclass-test-images-idx3-ubyte.gz"),
            Some(("emnist-byclass-", Part::Test, Kind::Images))
        );
        for other in ["train-images-idx1-ubyte", "qmnist-test-labels-idx2-int.gz", "images-idx3-ubyte", "x.gz"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
