//! CIFAR-10 and CIFAR-100 in their binary version.
//!
//! Layout (Krizhevsky, "Learning multiple layers of features from tiny images", 2009, and the set's own page): records
//! without a header, in CIFAR-10 a label byte and 3072 bytes of pixels, in CIFAR-100 a coarse and a fine label byte and
//! the pixels; a picture is its red, green and blue planes of 32 rows of 32.

use std::fs;
use std::path::{Path, PathBuf};

use super::open::{OpenOptions, entries};
use super::{DataPair, Dataset};
use crate::error::{Error, Result};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const PIXELS: usize = 3 * PLANE;

/// Which of the two labels of a CIFAR-100 picture is the class.
///
/// ```
/// # use shadegrad::{data::*, *};
/// # use std::fs;
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let picture = vec![0; 3072];
/// # fs::write(folder.path().join("train.bin"), [vec![4, 57], picture.clone()].concat()).expect("a file");
/// # fs::write(folder.path().join("test.bin"), [vec![4, 57], picture].concat()).expect("a file");
/// let superclasses = OpenOptions { cifar_labels: CifarLabels::Coarse, ..OpenOptions::default() };
/// let set = open(folder.path(), &superclasses)?.test; // its one picture is of a pear
/// assert_eq!((set.classes.len(), set.classes[set.labels[0] as usize].as_str()), (20, "fruit_and_vegetables"));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CifarLabels {
    /// The 100 classes.
    #[default]
    Fine,
    /// The 20 superclasses.
    Coarse,
}

/// Label bytes before the pixels, and how many values each may have.
#[derive(Clone, Copy)]
struct Layout {
    name: &'static str,
    /// Classes of each label byte, with what the byte is called.
    labels: &'static [(usize, &'static str)],
    /// Which of them is the class.
    class: usize,
}

const CIFAR10: Layout = Layout { name: "CIFAR-10", labels: &[(10, "label")], class: 0 };
const CIFAR100: Layout = Layout { name: "CIFAR-100", labels: &[(20, "coarse label"), (100, "fine label")], class: 1 };

/// The number of a file `data_batch_<n>.bin`.
fn batch_number(name: &str) -> Option<u32> {
    name.strip_prefix("data_batch_")?.strip_suffix(".bin")?.parse().ok()
}

/// Whether a file's name is one of CIFAR-10's.
pub(super) fn is_cifar10_name(name: &str) -> bool {
    batch_number(name).is_some() || name == "test_batch.bin"
}

/// Whether a file's name is one of CIFAR-100's.
pub(super) fn is_cifar100_name(name: &str) -> bool {
    name == "train.bin" || name == "test.bin"
}

/// Opens a folder with `data_batch_1.bin` and further batches and `test_batch.bin`.
///
/// Class names come from `batches.meta.txt` where it is there. Fewer than the five batches of the original are
/// accepted, with a line in the log, as long as none is missing between.
///
/// ```
/// # use shadegrad::{data::*, *};
/// # use std::fs;
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let record = |label: u8| [vec![label], vec![0; 3072]].concat(); // a label, and planes of red, green and blue
/// # fs::write(folder.path().join("data_batch_1.bin"), [record(3), record(5)].concat()).expect("a file");
/// # fs::write(folder.path().join("test_batch.bin"), record(9)).expect("a file");
/// let pair = cifar::open_cifar10(folder.path())?; // data_batch_1.bin, .., test_batch.bin
/// assert_eq!([pair.train.height, pair.train.width, pair.train.channels], [32, 32, 3]);
/// assert_eq!(pair.train.labels, [3, 5]);
/// assert_eq!(pair.test.classes[9], "truck");
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] when a file cannot be read; [`Error::Data`] when a file is missing, is not a whole number of records
/// or holds a label out of range (with the record's number).
pub fn open_cifar10(folder: &Path) -> Result<DataPair> {
    let mut batches: Vec<(u32, PathBuf)> =
        entries(folder)?.into_iter().filter_map(|e| Some((batch_number(&e.name)?, e.path))).collect();
    batches.sort();
    if let Some(i) = (0..batches.len()).find(|&i| batches[i].0 as usize != i + 1) {
        let detail =
            format!("has data_batch_{}.bin but not data_batch_{}.bin; unpack the archive again", batches[i].0, i + 1);
        return Err(Error::data(folder, detail));
    }
    match batches.len() {
        0 => {
            return Err(Error::data(
                folder,
                "no data_batch_1.bin; give the folder cifar-10-batches-bin of the binary version",
            ));
        }
        5 => {}
        n => log::warn!("{}: {n} training batches, the original has 5", folder.display()),
    }
    let train: Vec<PathBuf> = batches.into_iter().map(|(_, path)| path).collect();
    let classes = names(&folder.join("batches.meta.txt"), &CIFAR10_NAMES)?;
    pair(&CIFAR10, &train, &folder.join("test_batch.bin"), classes)
}

/// Opens a folder with `train.bin` and `test.bin`; the class is the fine or the coarse label, as `options.cifar_labels`
/// says.
///
/// Class names come from `fine_label_names.txt` or `coarse_label_names.txt` where they are there.
///
/// ```
/// # use shadegrad::{data::*, *};
/// # use std::fs;
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let record = [vec![4, 57], vec![0; 3072]].concat(); // coarse and fine label, and planes of red, green and blue
/// # fs::write(folder.path().join("train.bin"), &record).expect("a file");
/// # fs::write(folder.path().join("test.bin"), &record).expect("a file");
/// let pair = cifar::open_cifar100(folder.path(), &OpenOptions::default())?; // train.bin, test.bin
/// assert_eq!((pair.train.labels[0], pair.train.classes.len()), (57, 100));
/// assert_eq!(pair.train.classes[57], "pear");
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`open_cifar10`].
pub fn open_cifar100(folder: &Path, options: &OpenOptions) -> Result<DataPair> {
    let (class, file, known): (usize, &str, &[&str]) = match options.cifar_labels {
        CifarLabels::Fine => (1, "fine_label_names.txt", &CIFAR100_FINE),
        CifarLabels::Coarse => (0, "coarse_label_names.txt", &CIFAR100_COARSE),
    };
    let classes = names(&folder.join(file), known)?;
    pair(&Layout { class, ..CIFAR100 }, &[folder.join("train.bin")], &folder.join("test.bin"), classes)
}

/// The names in a text file, one a line, or the known ones where there is no such file.
fn names(path: &Path, known: &[&str]) -> Result<Vec<String>> {
    if !path.exists() {
        return Ok(known.iter().map(ToString::to_string).collect());
    }
    let text = fs::read_to_string(path).map_err(|e| Error::io(path, &e))?;
    let found: Vec<String> = text.lines().map(str::trim).filter(|l| !l.is_empty()).map(String::from).collect();
    if found.len() != known.len() {
        let detail = format!(
            "names {} classes, expected {}, one a line; restore the file, or remove it to use the usual names",
            found.len(),
            known.len()
        );
        return Err(Error::data(path, detail));
    }
    Ok(found)
}

fn pair(layout: &Layout, train: &[PathBuf], test: &Path, classes: Vec<String>) -> Result<DataPair> {
    let part = |files: &[PathBuf], which: &str| -> Result<Dataset> {
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for file in files {
            read_records(layout, file, &mut images, &mut labels)?;
        }
        Dataset::new(format!("{} {which}", layout.name), images, labels, [SIDE, SIDE, 3], classes.clone())
    };
    DataPair::new(part(train, "train")?, part(&[test.to_path_buf()], "test")?)
}

/// Appends a file's pictures, as NHWC, and labels.
fn read_records(layout: &Layout, path: &Path, images: &mut Vec<u8>, labels: &mut Vec<u32>) -> Result<()> {
    if !path.exists() {
        return Err(Error::data(path, format!("is missing, {} needs it; unpack the archive again", layout.name)));
    }
    let bytes = fs::read(path).map_err(|e| Error::io(path, &e))?;
    let head = layout.labels.len();
    let record = head + PIXELS;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        let (whole, over) = (bytes.len() / record, bytes.len() % record);
        // The two sets' records differ by one byte: a file of the other one is a likely mistake, and worth naming.
        let other = 2 * PIXELS + 3 - record;
        let remedy = if !bytes.is_empty() && bytes.len().is_multiple_of(other) {
            format!(
                "it is a whole number of {other}-byte records, so it is from the other of CIFAR-10 and CIFAR-100; \
                 check the folder"
            )
        } else {
            "it was cut short; unpack or download it again".into()
        };
        let detail = format!(
            "has {} bytes, {whole} records of {record} and {over} bytes more, expected a whole number of records; \
             {remedy}",
            bytes.len()
        );
        return Err(Error::data(path, detail));
    }
    images.reserve(bytes.len() / record * PIXELS);
    for (i, rec) in bytes.chunks_exact(record).enumerate() {
        for (&value, &(most, what)) in rec.iter().zip(layout.labels) {
            if usize::from(value) >= most {
                let detail = format!(
                    "{what} {value} in record {i}, expected 0..={}; the file is damaged or not {}, unpack it again",
                    most - 1,
                    layout.name
                );
                return Err(Error::data(path, detail));
            }
        }
        labels.push(u32::from(rec[layout.class]));
        let (red, rest) = rec[head..].split_at(PLANE);
        let (green, blue) = rest.split_at(PLANE);
        images.extend(red.iter().zip(green).zip(blue).flat_map(|((&r, &g), &b)| [r, g, b]));
    }
    Ok(())
}

const CIFAR10_NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

const CIFAR100_COARSE: [&str; 20] = [
    "aquatic_mammals",
    "fish",
    "flowers",
    "food_containers",
    "fruit_and_vegetables",
    "household_electrical_devices",
    "household_furniture",
    "insects",
    "large_carnivores",
    "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores",
    "medium_mammals",
    "non-insect_invertebrates",
    "people",
    "reptiles",
    "small_mammals",
    "trees",
    "vehicles_1",
    "vehicles_2",
];

const CIFAR100_FINE: [&str; 100] = [
    "apple",
    "aquarium_fish",
    "baby",
    "bear",
    "beaver",
    "bed",
    "bee",
    "beetle",
    "bicycle",
    "bottle",
    "bowl",
    "boy",
    "bridge",
    "bus",
    "butterfly",
    "camel",
    "can",
    "castle",
    "caterpillar",
    "cattle",
    "chair",
    "chimpanzee",
    "clock",
    "cloud",
    "cockroach",
    "couch",
    "crab",
    "crocodile",
    "cup",
    "dinosaur",
    "dolphin",
    "elephant",
    "flatfish",
    "forest",
    "fox",
    "girl",
    "hamster",
    "house",
    "kangaroo",
    "keyboard",
    "lamp",
    "lawn_mower",
    "leopard",
    "lion",
    "lizard",
    "lobster",
    "man",
    "maple_tree",
    "motorcycle",
    "mountain",
    "mouse",
    "mushroom",
    "oak_tree",
    "orange",
    "orchid",
    "otter",
    "palm_tree",
    "pear",
    "pickup_truck",
    "pine_tree",
    "plain",
    "plate",
    "poppy",
    "porcupine",
    "possum",
    "rabbit",
    "raccoon",
    "ray",
    "road",
    "rocket",
    "rose",
    "sea",
    "seal",
    "shark",
    "shrew",
    "skunk",
    "skyscraper",
    "snail",
    "snake",
    "spider",
    "squirrel",
    "streetcar",
    "sunflower",
    "sweet_pepper",
    "table",
    "tank",
    "telephone",
    "television",
    "tiger",
    "tractor",
    "train",
    "trout",
    "tulip",
    "turtle",
    "wardrobe",
    "whale",
    "willow_tree",
    "wolf",
    "woman",
    "worm",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A record whose red, green and blue planes count from 0, 1 and 2.
    fn record(labels: &[u8]) -> Vec<u8> {
        let plane = |c: usize| (0..PLANE).map(move |i| (i * 3 + c) as u8);
        [labels.to_vec(), plane(0).collect(), plane(1).collect(), plane(2).collect()].concat()
    }

    fn cifar10() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for n in 1..=5u8 {
            fs::write(dir.path().join(format!("data_batch_{n}.bin")), [record(&[n]), record(&[0])].concat()).unwrap();
        }
        fs::write(dir.path().join("test_batch.bin"), record(&[9])).unwrap();
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
    fn ten_is_read_in_order_and_as_nhwc() {
        let dir = cifar10();
        let d = open_cifar10(dir.path()).unwrap();
        assert_eq!(d.train.labels, [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
        assert_eq!((d.test.labels[0], d.test.classes[9].as_str()), (9, "truck"));
        let want: Vec<u8> = (0..PIXELS).map(|i| i as u8).collect();
        assert_eq!(d.train.get(7).unwrap().0, want);
        assert_eq!([d.train.height, d.train.width, d.train.channels], [32, 32, 3]);
    }

    #[test]
    fn hundred_is_read_with_either_label() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("train.bin"), [record(&[19, 99]), record(&[3, 42])].concat()).unwrap();
        fs::write(dir.path().join("test.bin"), record(&[0, 0])).unwrap();
        let fine = open_cifar100(dir.path(), &OpenOptions::default()).unwrap();
        assert_eq!((&fine.train.labels[..], fine.train.classes.len()), (&[99, 42][..], 100));
        assert_eq!((fine.train.classes[99].as_str(), fine.train.classes[42].as_str()), ("worm", "leopard"));
        let coarse = OpenOptions { cifar_labels: CifarLabels::Coarse, ..Default::default() };
        let coarse = open_cifar100(dir.path(), &coarse).unwrap();
        assert_eq!((&coarse.train.labels[..], coarse.train.classes.len()), (&[19, 3][..], 20));
        fs::write(dir.path().join("test.bin"), record(&[20, 0])).unwrap();
        error(
            open_cifar100(dir.path(), &OpenOptions::default()),
            &["test.bin", "coarse label 20 in record 0", "0..=19"],
        );
        fs::write(dir.path().join("test.bin"), record(&[0, 100])).unwrap();
        error(open_cifar100(dir.path(), &OpenOptions::default()), &["fine label 100 in record 0", "0..=99"]);
        fs::write(dir.path().join("test.bin"), record(&[0])).unwrap();
        error(open_cifar100(dir.path(), &OpenOptions::default()), &["3073-byte records", "other of CIFAR-10"]);
    }

    #[test]
    fn damage_is_named() {
        let dir = cifar10();
        let file = |n: &str| dir.path().join(n);
        fs::write(file("data_batch_3.bin"), &[record(&[1]), record(&[1])].concat()[..4000]).unwrap();
        error(open_cifar10(dir.path()), &["data_batch_3.bin", "4000 bytes", "1 records of 3073 and 927", "cut short"]);
        fs::write(file("data_batch_3.bin"), []).unwrap();
        error(open_cifar10(dir.path()), &["0 bytes", "cut short"]);
        fs::write(file("data_batch_3.bin"), [record(&[1]), record(&[10])].concat()).unwrap();
        error(open_cifar10(dir.path()), &["data_batch_3.bin", "label 10 in record 1", "0..=9"]);
        fs::write(file("data_batch_3.bin"), record(&[1, 1])).unwrap();
        error(open_cifar10(dir.path()), &["3074-byte records", "check the folder"]);
        fs::remove_file(file("data_batch_3.bin")).unwrap();
        error(open_cifar10(dir.path()), &["data_batch_4.bin but not data_batch_3.bin"]);
    }

    #[test]
    fn missing_files_are_named() {
        let dir = cifar10();
        fs::remove_file(dir.path().join("test_batch.bin")).unwrap();
        error(open_cifar10(dir.path()), &["test_batch.bin", "is missing"]);
        error(open_cifar10(tempfile::tempdir().unwrap().path()), &["no data_batch_1.bin", "cifar-10-batches-bin"]);
        error(open_cifar100(dir.path(), &OpenOptions::default()), &["train.bin", "is missing"]);
    }

    #[test]
    fn names_are_read_where_given() {
        let dir = cifar10();
        let path = dir.path().join("batches.meta.txt");
        fs::write(&path, "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n\n").unwrap();
        assert_eq!(open_cifar10(dir.path()).unwrap().test.classes[9], "j");
        fs::write(&path, "a\nb\n").unwrap();
        error(open_cifar10(dir.path()), &["batches.meta.txt", "names 2 classes, expected 10", "remove it"]);
    }

    #[test]
    fn built_in_names_are_sorted_and_distinct() {
        for names in [&CIFAR100_FINE[..], &CIFAR100_COARSE[..], &CIFAR10_NAMES[..]] {
            assert!(names.is_sorted_by(|a, b| a < b) && names.iter().all(|n| !n.is_empty()));
        }
    }
}
