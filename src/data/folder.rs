//! Folders of pictures: `root/train/<class>/*.png` with `root/test/` or `root/val/`, or `root/<class>/` split by a
//! seed.

use std::path::{Path, PathBuf};

use image::{ColorType, DynamicImage, ImageDecoder, ImageReader, imageops::FilterType};

use super::open::{OpenOptions, PICTURE_DEPTH, entries, is_picture_name};
use super::{DataPair, Dataset, loader};
use crate::error::{Error, Result};

/// A picture's file and its class.
type Labelled = (PathBuf, u32);

/// Opens a folder of PNG or JPEG pictures, one folder per class.
///
/// With `root/train/<class>/`, the test set is `root/test/` or else `root/val/` or `root/valid/`; where there is none,
/// and with `root/<class>/`, `options.test_fraction` of each class is split off by `options.seed`. Classes and files
/// are taken in the order of their names, so a set is the same on every machine. Folders inside a class's folder belong
/// to it; other files are passed over.
///
/// All pictures must have one size unless `options.resize` gives one (bilinear, averaging when it shrinks). They are
/// decoded to 8 bits a channel; an alpha channel is dropped and an orientation note in the file is not applied.
/// Decoding uses every core.
///
/// ```
/// # use shadegrad::{data::*, *};
/// # let root = tempfile::tempdir().expect("a folder");
/// # for (name, grey) in [("train/dark", 10), ("train/light", 250), ("test/dark", 20)] {
/// #     std::fs::create_dir_all(root.path().join(name)).expect("a folder");
/// #     let picture = image::GrayImage::from_pixel(6, 4, image::Luma([grey]));
/// #     picture.save(root.path().join(name).join("1.png")).expect("a file");
/// # }
/// let options = OpenOptions { resize: Some((2, 2)), ..OpenOptions::default() };
/// let pair = folder::open_folder(root.path(), &options)?; // train/dark/1.png, train/light/1.png, test/dark/1.png
/// assert_eq!(pair.train.classes, ["dark", "light"]);
/// assert_eq!((pair.train.images, pair.train.labels), (vec![10, 10, 10, 10, 250, 250, 250, 250], vec![0, 1]));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Data`] naming the file or folder: a class without pictures, a test class that the training part lacks, a
/// picture that does not decode or has another size. [`Error::Io`] when something cannot be read; [`Error::Value`] for
/// an option out of range.
pub fn open_folder(root: &Path, options: &OpenOptions) -> Result<DataPair> {
    let sides = 1..=u16::MAX.into();
    let bad_size = options.resize.is_some_and(|(h, w)| !sides.contains(&h) || !sides.contains(&w));
    if bad_size || options.channels.is_some_and(|c| c != 1 && c != 3) {
        let detail = format!(
            "channels {:?}, resize {:?}; give 1 (grey) or 3 (RGB) channels, and a height and width in 1..=65535",
            options.channels, options.resize
        );
        return Err(Error::value("open_folder", detail));
    }
    let train_root = root.join("train");
    let test_root = ["test", "val", "valid"].iter().map(|n| root.join(n)).find(|p| p.is_dir());
    let split_given = train_root.is_dir();
    let base = if split_given { train_root } else { root.to_path_buf() };
    let (classes, all) = class_files(&base, None)?;
    let (train, test) = match test_root.filter(|_| split_given) {
        Some(test_root) => (all, class_files(&test_root, Some(&classes))?.1),
        None => {
            let labels: Vec<u32> = all.iter().map(|f| f.1).collect();
            let (rest, part) = loader::stratified_split(&labels, classes.len(), options.test_fraction, options.seed)?;
            let pick = |ix: &[u32]| ix.iter().map(|&i| all[i as usize].clone()).collect::<Vec<_>>();
            (pick(&rest), pick(&part))
        }
    };
    let channels = match options.channels {
        Some(c) => c,
        None => common_channels(train.iter().chain(&test))?,
    };
    // The first picture is decoded before anything is allocated: its size decides that of all.
    let (first, _) = &train[0];
    let [height, width] = match options.resize {
        Some((h, w)) => [h, w],
        None => size_of(&decode(first)?),
    };
    let target = Target { size: [height, width, channels], resize: options.resize.is_some(), first };
    let name = std::path::absolute(root).ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
    let name = name.unwrap_or_else(|| "pictures".into());
    let part = |files: &[Labelled], which: &str| {
        let labels = files.iter().map(|f| f.1).collect();
        Dataset::new(format!("{name} {which}"), target.load(root, files)?, labels, target.size, classes.clone())
    };
    DataPair::new(part(&train, "train")?, part(&test, "test")?)
}

/// The classes of a folder in order and their files. With `known` given, each folder must be one of them, and labels
/// follow it.
fn class_files(root: &Path, known: Option<&[String]>) -> Result<(Vec<String>, Vec<Labelled>)> {
    let (mut classes, mut files) = (Vec::new(), Vec::new());
    for class in entries(root)?.into_iter().filter(|e| e.path.is_dir()) {
        let label = match known {
            None => classes.len(),
            Some(known) => known.iter().position(|c| *c == class.name).ok_or_else(|| {
                let detail = format!(
                    "is a class that the training folder lacks; it has {} classes ({}{}). Each part needs one folder \
                     per class, named alike",
                    known.len(),
                    known[..known.len().min(5)].join(", "),
                    if known.len() > 5 { ", ..." } else { "" }
                );
                Error::data(&class.path, detail)
            })?,
        };
        let before = files.len();
        collect(&class.path, PICTURE_DEPTH, label as u32, &mut files)?;
        if files.len() == before {
            return Err(Error::data(
                &class.path,
                "holds no .png, .jpg or .jpeg file; add pictures or remove the folder",
            ));
        }
        classes.push(class.name);
    }
    if files.is_empty() {
        return Err(Error::data(
            root,
            "holds no folder of pictures; make one folder per class, with PNG or JPEG files in it",
        ));
    }
    Ok((classes, files))
}

fn collect(folder: &Path, depth: usize, label: u32, files: &mut Vec<Labelled>) -> Result<()> {
    for entry in entries(folder)? {
        if entry.path.is_dir() {
            if depth > 1 {
                collect(&entry.path, depth - 1, label, files)?;
            }
        } else if is_picture_name(&entry.name) {
            files.push((entry.path, label));
        }
    }
    Ok(())
}

/// What the image library says of a file, as an error.
fn undecodable(path: &Path, e: &image::ImageError) -> Error {
    match e {
        image::ImageError::IoError(io) if io.kind() != std::io::ErrorKind::UnexpectedEof => Error::io(path, io),
        _ => Error::data(path, format!("does not decode as a PNG or JPEG picture ({e}); replace or remove the file")),
    }
}

fn reader(path: &Path) -> Result<ImageReader<std::io::BufReader<std::fs::File>>> {
    // The contents decide, not the name: pictures are often saved under the other format's ending.
    ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|e| Error::io(path, &e))
}

fn decode(path: &Path) -> Result<DynamicImage> {
    reader(path)?.decode().map_err(|e| undecodable(path, &e))
}

fn size_of(image: &DynamicImage) -> [usize; 2] {
    [image.height() as usize, image.width() as usize]
}

/// 1 when every picture is grey, else 3; only headers are read.
fn common_channels<'a>(files: impl Iterator<Item = &'a Labelled>) -> Result<usize> {
    for (path, _) in files {
        let decoder = reader(path)?.into_decoder().map_err(|e| undecodable(path, &e))?;
        if !matches!(decoder.color_type(), ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16) {
            return Ok(3);
        }
    }
    Ok(1)
}

/// What every picture is brought to.
struct Target<'a> {
    /// Height, width, channels.
    size: [usize; 3],
    resize: bool,
    /// The picture whose size was taken.
    first: &'a Path,
}

impl Target<'_> {
    /// The pictures' bytes, NHWC.
    fn load(&self, root: &Path, files: &[Labelled]) -> Result<Vec<u8>> {
        let [h, w, c] = self.size;
        let bytes = h.checked_mul(w).and_then(|v| v.checked_mul(c)?.checked_mul(files.len()));
        let mut out = Vec::new();
        if bytes.is_none_or(|n| out.try_reserve_exact(n).is_err()) {
            let detail =
                format!("{} pictures of {h}x{w}x{c} do not fit in memory; use a smaller `resize`", files.len());
            return Err(Error::data(root, detail));
        }
        out.resize(files.len() * h * w * c, 0);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = files.len().div_ceil(cores).max(1);
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let workers: Vec<_> = files
                .chunks(share)
                .zip(out.chunks_mut(share * h * w * c))
                .map(|(files, out)| {
                    scope.spawn(move || {
                        files
                            .iter()
                            .zip(out.chunks_exact_mut(h * w * c))
                            .try_for_each(|((path, _), out)| self.put(path, out))
                    })
                })
                .collect();
            workers.into_iter().map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        // Shares are in order and each stops at its first error, so the same picture is named every time.
        results.into_iter().collect::<Result<()>>()?;
        Ok(out)
    }

    fn put(&self, path: &Path, out: &mut [u8]) -> Result<()> {
        let [h, w, c] = self.size;
        let mut image = decode(path)?;
        if size_of(&image) != [h, w] {
            if !self.resize {
                let [ih, iw] = size_of(&image);
                let detail = format!(
                    "is {ih}x{iw} (height x width), but {} is {h}x{w}; pictures must have one size, or set `resize` \
                     to scale them all",
                    self.first.display()
                );
                return Err(Error::data(path, detail));
            }
            image = image.resize_exact(w as u32, h as u32, FilterType::Triangle);
        }
        if c == 1 {
            out.copy_from_slice(image.to_luma8().as_raw());
        } else {
            out.copy_from_slice(image.to_rgb8().as_raw());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, RgbImage};
    use std::fs;

    fn colour(root: &Path, name: &str, [h, w]: [u32; 2], rgb: [u8; 3]) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_pixel(w, h, image::Rgb(rgb)).save(path).unwrap();
    }

    fn grey(root: &Path, name: &str, value: u8) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(3, 2, image::Luma([value])).save(path).unwrap();
    }

    fn split() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, rgb) in [
            ("train/dog/b.png", [4, 5, 6]),
            ("train/dog/a.png", [1, 2, 3]),
            ("train/cat/sub/z.png", [7, 8, 9]),
            ("test/dog/1.png", [10, 11, 12]),
        ] {
            colour(dir.path(), name, [2, 3], rgb);
        }
        fs::write(dir.path().join("train/dog/readme.txt"), "not a picture").unwrap();
        dir
    }

    fn error(r: Result<impl std::fmt::Debug>, parts: &[&str]) {
        let text = r.unwrap_err().to_string();
        for p in parts {
            assert!(text.contains(p), "{text:?} lacks {p:?}");
        }
    }

    #[test]
    fn a_split_folder_is_read_in_order() {
        let dir = split();
        let d = super::super::open(dir.path(), &OpenOptions::default()).unwrap();
        assert_eq!(d.train.classes, ["cat", "dog"]);
        assert_eq!((&d.train.labels[..], &d.test.labels[..]), (&[0, 1, 1][..], &[1][..]));
        assert_eq!([d.train.height, d.train.width, d.train.channels], [2, 3, 3]);
        let firsts: Vec<&[u8]> = (0..3).map(|i| &d.train.get(i).unwrap().0[..3]).collect();
        assert_eq!(firsts, [[7, 8, 9], [1, 2, 3], [4, 5, 6]]);
    }

    #[test]
    fn an_unsplit_folder_is_split_by_seed() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..10u8 {
            grey(dir.path(), &format!("a/{i}.png"), i);
            grey(dir.path(), &format!("b/{i}.png"), 100 + i);
        }
        let options = OpenOptions { test_fraction: 0.3, seed: 5, ..Default::default() };
        let d = open_folder(dir.path(), &options).unwrap();
        assert_eq!((d.train.class_counts(), d.test.class_counts()), (vec![7, 7], vec![3, 3]));
        assert_eq!(d.train.channels, 1, "every picture is grey");
        assert_eq!(open_folder(dir.path(), &options).unwrap(), d);
        let other = OpenOptions { seed: 6, ..options.clone() };
        assert_ne!(open_folder(dir.path(), &other).unwrap().test.images, d.test.images);
        let rgb = OpenOptions { channels: Some(3), ..options.clone() };
        assert_eq!(open_folder(dir.path(), &rgb).unwrap().train.channels, 3);
        error(open_folder(dir.path(), &OpenOptions { test_fraction: 1.5, ..options.clone() }), &["fraction of 1.5"]);
        error(open_folder(dir.path(), &OpenOptions { channels: Some(2), ..options.clone() }), &["channels Some(2)"]);
        error(open_folder(dir.path(), &OpenOptions { resize: Some((0, 4)), ..options.clone() }), &["resize"]);
        // `train` without a test folder is split too.
        let inner = tempfile::tempdir().unwrap();
        fs::rename(dir.keep(), inner.path().join("train")).unwrap();
        assert_eq!(open_folder(inner.path(), &options).unwrap().test.images, d.test.images);
    }

    #[test]
    fn sizes_must_agree_or_be_made_to() {
        let dir = split();
        colour(dir.path(), "train/dog/c.jpg", [5, 4], [40, 50, 60]);
        error(open_folder(dir.path(), &OpenOptions::default()), &["c.jpg", "5x4", "z.png", "2x3", "`resize`"]);
        let options = OpenOptions { resize: Some((4, 6)), ..Default::default() };
        let d = open_folder(dir.path(), &options).unwrap();
        assert_eq!([d.train.height, d.train.width, d.train.len()], [4, 6, 4]);
        let (image, _) = d.train.get(3).unwrap();
        assert!(image.chunks(3).all(|p| p.iter().zip([40u8, 50, 60]).all(|(a, b)| a.abs_diff(b) <= 3)), "{image:?}");
        let huge = OpenOptions { resize: Some((usize::MAX / 2, 5)), ..Default::default() };
        error(open_folder(dir.path(), &huge), &["1..=65535"]);
    }

    #[test]
    fn damaged_pictures_are_named() {
        let dir = split();
        let path = dir.path().join("train/dog/b.png");
        let whole = fs::read(&path).unwrap();
        for bytes in [&whole[..whole.len() / 2], b"not a picture", b""] {
            fs::write(&path, bytes).unwrap();
            error(open_folder(dir.path(), &OpenOptions::default()), &["b.png", "does not decode", "replace or remove"]);
        }
        // A JPEG under a PNG's name is fine.
        colour(dir.path(), "x.jpg", [2, 3], [4, 5, 6]);
        fs::rename(dir.path().join("x.jpg"), &path).unwrap();
        assert!(open_folder(dir.path(), &OpenOptions::default()).is_ok());
    }

    #[test]
    fn classes_must_be_there() {
        let dir = split();
        fs::create_dir(dir.path().join("train/empty")).unwrap();
        error(open_folder(dir.path(), &OpenOptions::default()), &["empty", "no .png, .jpg or .jpeg"]);
        fs::remove_dir(dir.path().join("train/empty")).unwrap();
        colour(dir.path(), "test/fish/1.png", [2, 3], [0; 3]);
        error(open_folder(dir.path(), &OpenOptions::default()), &["fish", "training folder lacks", "cat, dog"]);
        let bare = tempfile::tempdir().unwrap();
        error(open_folder(bare.path(), &OpenOptions::default()), &["holds no folder of pictures"]);
        fs::create_dir_all(bare.path().join("train")).unwrap();
        error(open_folder(bare.path(), &OpenOptions::default()), &["train", "holds no folder"]);
    }
}
