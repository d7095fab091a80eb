//! Every reader of a user's file against damaged and malicious ones: no panic, no memory beyond what the file's size allows,
//! nothing written outside of the given folder. What a reader makes of such a file is its own affair; that it answers is not.
//!
//! Each case is a valid file with a few random changes (bits, lengths, cuts, repeats, large numbers), and follows from its
//! number alone. `SHADEGRAD_FUZZ=100000 cargo test --release --test hostile` tries more of them.

use std::alloc::System;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Once;

use cap::Cap;
use shadegrad::data::{self, OpenOptions, Position};
use shadegrad::io::{Checkpoint, Saved, Weights, write_safetensors};
use shadegrad::nn::{Arena, Builder, Linear};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::rng::Philox;
use shadegrad::train::{MeterState, TrainState};
use shadegrad::{Gpu, Options};

/// Counts what is allocated, so that a reader can be held to a limit: beyond it the process ends.
#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// What all tests together may allocate, for files of a few kilobytes. Compressed data may hold a thousand times their size.
const ROOM: usize = 1 << 30;
static LIMIT: Once = Once::new();

fn cases() -> u64 {
    let asked = std::env::var("SHADEGRAD_FUZZ").ok().map(|v| v.parse().expect("SHADEGRAD_FUZZ is a number"));
    asked.unwrap_or(1500)
}

/// A damaged copy.
fn damaged(valid: &[u8], rng: &mut Philox) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    let below = |rng: &mut Philox, n: usize| rng.next_u32() as usize % n.max(1);
    for _ in 0..1 + below(rng, 4) {
        // Half of the changes are near the start, where headers are.
        let at = if below(rng, 2) == 0 { below(rng, bytes.len().min(64)) } else { below(rng, bytes.len()) };
        match below(rng, 9) {
            _ if bytes.is_empty() => bytes.push(rng.next_u32() as u8),
            0 => bytes[at] ^= 1 << below(rng, 8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][below(rng, 5)],
            2 => bytes.truncate(at),
            3 => {
                // A length or an offset, of either byte order.
                let number = [u64::MAX, u64::MAX / 2, 1 << 32, 0x7fff_ffff, 0xffff_ffff, 1 << 40][below(rng, 6)];
                let word = if below(rng, 2) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                let width = [2, 4, 8][below(rng, 3)].min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&word[..width]);
            }
            4 => {
                let end = (at + 1 + below(rng, 40)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => {
                let end = (at + 1 + below(rng, 40)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let repeats = 1 + below(rng, 20);
                bytes.splice(at..at, copy.repeat(repeats));
            }
            6 => {
                let new: Vec<u8> = (0..1 + below(rng, 30)).map(|_| rng.next_u32() as u8).collect();
                bytes.splice(at..at, new);
            }
            7 => {
                // A number written in text, made enormous or negative.
                let Some(start) = (at..bytes.len()).find(|&i| bytes[i].is_ascii_digit()) else { continue };
                let end = (start..bytes.len()).find(|&i| !bytes[i].is_ascii_digit()).unwrap_or(bytes.len());
                let text =
                    ["18446744073709551616", "4294967296", "-1", "1e999", "0", "9007199254740993"][below(rng, 6)];
                bytes.splice(start..end, text.bytes());
            }
            _ => {
                // Brackets that do not end: readers that call themselves must have a limit.
                let opening = [&b"["[..], b"{\"a\":", b"(", b"\x80\x02]"][below(rng, 4)];
                bytes.splice(at..at, opening.repeat(1 + below(rng, 5000)));
            }
        }
    }
    bytes
}

/// A folder with a file that is changed again and again.
struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
        std::fs::write(&path, content).expect("write a file");
        path
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> =
            std::fs::read_dir(self.dir.path()).expect("a folder").map(|e| e.expect("an entry").path()).collect();
        all.sort();
        all
    }
}

/// Gives `read` damaged copies of `valid`, which it must have accepted unchanged.
fn attack(seed: u64, name: &str, valid: &[u8], read: impl Fn(&Path) -> shadegrad::Result<()>) {
    LIMIT.call_once(|| MEMORY.set_limit(ROOM).expect("a limit above what is allocated"));
    let folder = Folder::new();
    let path = folder.write(name, valid);
    read(&path).unwrap_or_else(|e| panic!("{name}: the valid file: {e}"));
    let before = folder.files();
    let mut refused = 0;
    for case in 0..cases() {
        let bytes = damaged(valid, &mut Philox::new(seed, case));
        std::fs::write(&path, &bytes).expect("write a file");
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&path)));
        match result {
            Err(_) => {
                panic!("{name}: case {case} (of seed {seed}) made the reader panic; its file had {} bytes", bytes.len())
            }
            Ok(Err(err)) => {
                refused += 1;
                let text = err.to_string();
                assert!(
                    text.contains(name) && text.len() < 4000,
                    "{name}, case {case}: an error that does not help: {text}"
                );
            }
            Ok(Ok(())) => (),
        }
    }
    assert_eq!(folder.files(), before, "{name}: files were made or removed");
    assert!(refused > cases() / 4, "{name}: {refused} of {} refused: the changes do not reach the reader", cases());
}

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tests/fixtures/exchange").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn weights(path: &Path) -> shadegrad::Result<()> {
    let weights = Weights::open(path)?;
    // Reading is lazy nowhere: the values are there, and can be used.
    weights.tensors().iter().for_each(|t| drop(t.to_f32()));
    Ok(())
}

#[test]
fn safetensors() {
    let folder = Folder::new();
    let path = folder.dir.path().join("w.safetensors");
    let tensors =
        [("conv.weight", vec![4, 3, 3, 3]), ("conv.bias", vec![4]), ("empty", vec![0, 5]), ("scalar", vec![])];
    let saved: Vec<_> = tensors
        .iter()
        .map(|(name, shape)| {
            let data = vec![0.5; shape.iter().product()];
            Saved::f32(*name, shape, &data).expect("a tensor")
        })
        .collect();
    let meta = [("format".to_string(), "pt".to_string())].into_iter().collect();
    write_safetensors(&path, &saved, &meta).expect("written");
    attack(1, "w.safetensors", &std::fs::read(&path).expect("read"), weights);
}

#[test]
fn checkpoints() {
    let gpu = Gpu::new(Options::from_env().expect("environment")).expect("a GPU driver");
    let mut names = Builder::new();
    let _layer = Linear::new(&mut names.root().sub("fc"), 3, 4, true);
    let arena = Arena::new(&gpu, &names, 0).expect("parameters");
    let optimizer = Optimizer::new(&arena, Rule::adamw(0.01)).expect("an optimiser");
    let state = TrainState {
        position: Position { epoch: 2, step: 3 },
        step: 23,
        best: Some((2, 0.5)),
        meter: MeterState::default(),
        seconds: 1.5,
        seed: 0,
        batch: 8,
        samples: 80,
    };
    let folder = Folder::new();
    let path = folder.dir.path().join("last.safetensors");
    Checkpoint::take(&arena, &optimizer, state).and_then(|c| c.save(&path)).expect("saved");
    attack(5, "last.safetensors", &std::fs::read(&path).expect("read"), |p| Checkpoint::open(p).map(|_| ()));
}

#[test]
fn pytorch_files() {
    attack(10, "types.pth", &fixture("types.pth"), weights);
}

#[test]
fn idx_files() {
    let mut plain = vec![0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 4, 0, 0, 0, 3];
    plain.extend((0..60).map(|i| i as u8));
    attack(20, "images-idx3-ubyte", &plain, |p| data::idx::read_idx(p, 3).map(|_| ()));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(&plain).expect("packed");
    attack(21, "images-idx3-ubyte.gz", &packed.finish().expect("packed"), |p| data::idx::read_idx(p, 3).map(|_| ()));
}

#[test]
fn cifar_files() {
    let record = |label: u8| std::iter::once(label).chain((0..3072).map(|i| (i % 251) as u8)).collect::<Vec<u8>>();
    let folder = Folder::new();
    for part in 1..=5 {
        folder.write(&format!("data_batch_{part}.bin"), &record(part));
    }
    folder.write("test_batch.bin", &record(0));
    let others = folder.dir.path().to_path_buf();
    attack(30, "data_batch_3.bin", &record(3), move |p| {
        std::fs::copy(p, others.join("data_batch_3.bin")).expect("copied");
        data::open(&others, &OpenOptions::default()).map(|_| ())
    });
}

#[test]
fn pictures() {
    let picture = image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8 * 20, y as u8 * 30, 7]));
    for (seed, name, format) in [(40, "a.png", image::ImageFormat::Png), (41, "a.jpg", image::ImageFormat::Jpeg)] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).expect("encoded");
        let bytes = bytes.into_inner();
        let folder = Folder::new();
        for class in ["cat", "dog"] {
            for part in ["train", "test"] {
                folder.write(&format!("{part}/{class}/{name}"), &bytes);
            }
        }
        let root = folder.dir.path().to_path_buf();
        attack(seed, name, &bytes, move |p| {
            std::fs::copy(p, root.join("train/cat").join(p.file_name().expect("a name"))).expect("copied");
            data::open(&root, &OpenOptions::default()).map(|_| ())
        });
    }
}
