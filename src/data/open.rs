//! Finding out what a folder holds.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CifarLabels, DataPair, cifar, idx};
use crate::error::{Error, Result};

/// The layouts that [`open`] reads.
///
/// ```
/// # use shadegrad::{data::*, *};
/// let options = OpenOptions { format: Some(DataFormat::Idx), ..OpenOptions::default() };
/// let missing = open("no-such-folder", &options);
/// assert!(matches!(missing, Err(Error::Data { .. })));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFormat {
    /// MNIST's files and those of its relatives, see [`super::idx`].
    Idx,
    /// CIFAR-10, binary version, see [`super::cifar`].
    Cifar10,
    /// CIFAR-100, binary version, see [`super::cifar`].
    Cifar100,
    /// A folder of pictures per class, see the module `folder` (cargo feature `datasets`).
    Folder,
}

/// How [`open`] reads a folder. Each format uses its own part.
///
/// ```
/// # use shadegrad::{data::*, *};
/// let options = OpenOptions { resize: Some((64, 64)), test_fraction: 0.1, ..OpenOptions::default() };
/// assert_eq!((options.format, options.seed), (None, 0)); // the layout is found by itself
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct OpenOptions {
    /// The layout; found by itself when `None`.
    pub format: Option<DataFormat>,
    /// Which CIFAR-100 label is the class.
    pub cifar_labels: CifarLabels,
    /// IDX: what the files' names begin with, where a folder holds several sets (`emnist-letters-`).
    pub idx_prefix: Option<String>,
    /// IDX: how many classes there are, where the set is not a known one.
    pub classes: Option<usize>,
    /// Folder: 1 for grey or 3 for RGB; by default RGB, unless every picture is grey.
    pub channels: Option<usize>,
    /// Folder: scale every picture to this (height, width); without it all must have one size.
    pub resize: Option<(usize, usize)>,
    /// Folder: which part of each class becomes the test set, where the folder does not split them itself.
    pub test_fraction: f64,
    /// Folder: the seed of that split.
    pub seed: u64,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            format: None,
            cifar_labels: CifarLabels::Fine,
            idx_prefix: None,
            classes: None,
            channels: None,
            resize: None,
            test_fraction: 0.2,
            seed: 0,
        }
    }
}

/// Opens the data set in a folder, its layout found by itself ([`DataFormat::detect`]) unless `options.format` names
/// it.
///
/// ```
/// # use shadegrad::{data::*, *};
/// # let photos = tempfile::tempdir().expect("a folder");
/// # for (class, n) in [("cat", 1), ("cat", 2), ("dog", 1), ("dog", 2)] {
/// #     std::fs::create_dir_all(photos.path().join(class)).expect("a folder");
/// #     let picture = image::RgbImage::from_pixel(40, 30, image::Rgb([200, 100, 50]));
/// #     picture.save(photos.path().join(class).join(format!("{n}.png"))).expect("a file");
/// # }
/// let options = OpenOptions { resize: Some((16, 16)), test_fraction: 0.5, ..OpenOptions::default() };
/// let pair = open(photos.path(), &options)?; // cat/1.png, cat/2.png, dog/1.png, dog/2.png
/// assert_eq!((pair.train.len(), pair.test.len()), (2, 2));
/// assert_eq!((pair.train.classes, pair.train.channels), (vec!["cat".to_string(), "dog".to_string()], 3));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Data`] when there is no such folder, when nothing or more than one thing is found in it (the message lists
/// what was looked for), and whatever the format's reader reports.
pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<DataPair> {
    let path = path.as_ref();
    let (format, folder) = match options.format {
        Some(format) => {
            must_be_folder(path)?;
            let found = candidates(path)?.into_iter().find(|(f, _)| *f == format);
            found.unwrap_or_else(|| (format, path.to_path_buf()))
        }
        None => DataFormat::detect(path)?,
    };
    match format {
        DataFormat::Idx => idx::open_idx(&folder, options),
        DataFormat::Cifar10 => cifar::open_cifar10(&folder),
        DataFormat::Cifar100 => cifar::open_cifar100(&folder, options),
        #[cfg(feature = "datasets")]
        DataFormat::Folder => super::folder::open_folder(&folder, options),
        #[cfg(not(feature = "datasets"))]
        DataFormat::Folder => Err(Error::data(
            folder,
            "is a folder of pictures, and this build cannot decode them; build with the feature `datasets`",
        )),
    }
}

/// The folders that the archives and other libraries unpack these sets into, looked into one level down.
const USUAL: [&str; 8] =
    ["cifar-10-batches-bin", "cifar-100-binary", "mnist", "fashionmnist", "fashion-mnist", "kmnist", "emnist", "raw"];

impl DataFormat {
    /// Finds the layout of a folder, and the folder that holds the files: the one given, or one of the usual names in
    /// it (`cifar-10-batches-bin`, `cifar-100-binary`, `MNIST/raw`, ...). Only names are looked at, no file is read.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// # let root = tempfile::tempdir().expect("a folder");
    /// std::fs::create_dir_all(root.path().join("MNIST/raw")).expect("a folder");
    /// std::fs::write(root.path().join("MNIST/raw/train-images-idx3-ubyte.gz"), b"").expect("a file");
    /// let (format, folder) = DataFormat::detect(root.path())?;
    /// assert_eq!((format, folder), (DataFormat::Idx, root.path().join("MNIST/raw")));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Data`] when `path` is no folder, or nothing or several things are found.
    pub fn detect(path: &Path) -> Result<(Self, PathBuf)> {
        must_be_folder(path)?;
        let mut found = candidates(path)?;
        if found.len() > 1 {
            let list: Vec<String> = found.iter().map(|(f, p)| format!("{f:?} in {}", p.display())).collect();
            let detail = format!("holds more than one data set ({}); give the folder of one of them", list.join(", "));
            return Err(Error::data(path, detail));
        }
        found.pop().ok_or_else(|| {
            let mut detail = String::from(
                "no data set found. Looked for train-images-idx3-ubyte[.gz] and its partners (MNIST and relatives); \
                 data_batch_1.bin (CIFAR-10, binary version); train.bin (CIFAR-100, binary version); \
                 train/<class>/ with PNG or JPEG pictures; <class>/ with pictures, two classes or more; \
                 here and in the usual folders (cifar-10-batches-bin, cifar-100-binary, MNIST/raw, ...)",
            );
            let python =
                ["data_batch_1", "cifar-10-batches-py", "cifar-100-python"].iter().any(|n| path.join(n).exists());
            detail += if python {
                "; this is CIFAR's Python version, get the binary version"
            } else {
                "; give the folder that holds these files, unpacked"
            };
            Error::data(path, detail)
        })
    }
}

fn must_be_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let name = path.to_string_lossy().to_lowercase();
    let archive = [".tar.gz", ".tgz", ".tar", ".zip"].iter().any(|end| name.ends_with(end));
    Err(Error::data(
        path,
        match (path.exists(), archive) {
            (true, true) => "is an archive; unpack it (`tar -xf`, `unzip`) and give the folder",
            (true, false) => "is a file; give the folder that holds the data set's files",
            (false, _) => {
                "does not exist; give the folder that holds the data set, or use the embedded digits, which need none"
            }
        },
    ))
}

/// Everything that could be meant by a folder.
fn candidates(path: &Path) -> Result<Vec<(DataFormat, PathBuf)>> {
    let mut found = binary_formats(path)?;
    if found.is_empty() {
        for entry in entries(path)? {
            if USUAL.contains(&entry.name.to_lowercase().as_str()) && entry.path.is_dir() {
                found.extend(binary_formats(&entry.path)?);
                let raw = entry.path.join("raw");
                if raw.is_dir() {
                    found.extend(binary_formats(&raw)?);
                }
            }
        }
    }
    if found.is_empty() && has_class_folders(path)? {
        found.push((DataFormat::Folder, path.to_path_buf()));
    }
    Ok(found)
}

fn binary_formats(folder: &Path) -> Result<Vec<(DataFormat, PathBuf)>> {
    let names: Vec<String> = entries(folder)?.into_iter().map(|e| e.name).collect();
    let formats = [
        (DataFormat::Idx, idx::is_idx_name as fn(&str) -> bool),
        (DataFormat::Cifar10, cifar::is_cifar10_name),
        (DataFormat::Cifar100, cifar::is_cifar100_name),
    ];
    let there = formats.iter().filter(|(_, is)| names.iter().any(|n| is(n)));
    Ok(there.map(|(format, _)| (*format, folder.to_path_buf())).collect())
}

/// Whether `folder/train` holds a folder with pictures, or `folder` two of them.
fn has_class_folders(folder: &Path) -> Result<bool> {
    let count = |folder: &Path, enough: usize| -> Result<bool> {
        let mut n = 0;
        for entry in entries(folder)? {
            if n < enough && entry.path.is_dir() && has_picture(&entry.path, PICTURE_DEPTH)? {
                n += 1;
            }
        }
        Ok(n >= enough)
    };
    let train = folder.join("train");
    Ok(if train.is_dir() { count(&train, 1)? } else { count(folder, 2)? })
}

/// How deep below a class's folder pictures are looked for; it also ends a circle of links.
pub(super) const PICTURE_DEPTH: usize = 4;

fn has_picture(folder: &Path, depth: usize) -> Result<bool> {
    for entry in entries(folder)? {
        if is_picture_name(&entry.name) || (depth > 1 && entry.path.is_dir() && has_picture(&entry.path, depth - 1)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a file's name ends like a PNG or JPEG picture's.
pub(super) fn is_picture_name(name: &str) -> bool {
    let end = name.rsplit_once('.').map(|(_, end)| end.to_lowercase());
    matches!(end.as_deref(), Some("png" | "jpg" | "jpeg"))
}

/// One entry of a folder.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// The entries of a folder sorted by name, hidden ones left out: the order does not depend on the file system.
pub(super) fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, &e))? {
        let path = entry.map_err(|e| Error::io(folder, &e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            all.push(Entry { name, path });
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, files: &[&str]) {
        for f in files {
            let path = root.join(f);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
    }

    #[test]
    fn layouts_are_found() {
        for (files, format, below) in [
            (&["train-images-idx3-ubyte.gz"][..], DataFormat::Idx, ""),
            (&["MNIST/raw/t10k-labels-idx1-ubyte"], DataFormat::Idx, "MNIST/raw"),
            (&["data_batch_1.bin", "readme.html"], DataFormat::Cifar10, ""),
            (&["cifar-10-batches-bin/test_batch.bin"], DataFormat::Cifar10, "cifar-10-batches-bin"),
            (&["cifar-100-binary/train.bin"], DataFormat::Cifar100, "cifar-100-binary"),
            (&["train/cat/1.png"], DataFormat::Folder, ""),
            (&["cat/1.JPG", "dog/deep/images/2.jpeg", "notes.txt"], DataFormat::Folder, ""),
        ] {
            let dir = tempfile::tempdir().unwrap();
            put(dir.path(), files);
            let want = if below.is_empty() { dir.path().to_path_buf() } else { dir.path().join(below) };
            assert_eq!(DataFormat::detect(dir.path()).unwrap(), (format, want), "{files:?}");
        }
    }

    #[test]
    fn what_was_looked_for_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &["notes.txt", "cat/1.gif", "only/1.png", ".hidden/2.png"]);
        let text = DataFormat::detect(dir.path()).unwrap_err().to_string();
        for part in ["train-images-idx3-ubyte", "data_batch_1.bin", "train.bin", "train/<class>/", "unpacked"] {
            assert!(text.contains(part), "{text}");
        }
        put(dir.path(), &["cifar-10-batches-py/data_batch_1"]);
        assert!(DataFormat::detect(dir.path()).unwrap_err().to_string().contains("binary version"));
    }

    #[test]
    fn two_sets_in_one_folder_are_ambiguous() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &["cifar-10-batches-bin/test_batch.bin", "mnist/train-images-idx3-ubyte"]);
        let text = DataFormat::detect(dir.path()).unwrap_err().to_string();
        assert!(
            text.contains("Cifar10 in") && text.contains("Idx in") && text.contains("give the folder of one"),
            "{text}"
        );
        // Naming the format chooses among them, and the reader then says what its set lacks.
        let options = OpenOptions { format: Some(DataFormat::Cifar10), ..Default::default() };
        let text = open(dir.path(), &options).unwrap_err().to_string();
        assert!(text.contains("cifar-10-batches-bin: no data_batch_1.bin"), "{text}");
        let options = OpenOptions { format: Some(DataFormat::Cifar100), ..Default::default() };
        assert!(open(dir.path(), &options).unwrap_err().to_string().contains("train.bin: is missing"));
    }

    #[test]
    fn a_path_that_is_no_folder_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &["cifar-10-binary.tar.gz", "data_batch_1.bin"]);
        let text = |name: &str| open(dir.path().join(name), &OpenOptions::default()).unwrap_err().to_string();
        assert!(text("cifar-10-binary.tar.gz").contains("unpack it"));
        assert!(text("data_batch_1.bin").contains("is a file; give the folder"));
        assert!(text("none").contains("does not exist") && text("none").contains("embedded digits"));
        let named = OpenOptions { format: Some(DataFormat::Idx), ..Default::default() };
        assert!(open(dir.path().join("none"), &named).is_err());
    }

    #[cfg(not(feature = "datasets"))]
    #[test]
    fn pictures_need_the_feature() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &["train/cat/1.png"]);
        assert!(open(dir.path(), &OpenOptions::default()).unwrap_err().to_string().contains("feature `datasets`"));
    }

    #[test]
    fn entries_are_sorted_and_visible() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &["b", "a", ".c", "B"]);
        let names: Vec<String> = entries(dir.path()).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["B", "a", "b"]);
        assert!(matches!(entries(&dir.path().join("none")), Err(Error::Io { .. })));
    }
}
