//! Compiled pipelines on disk, for drivers that give out what they compiled.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use shadegrad_shaders::fnv1a;

use crate::fault::attempt;
use crate::pipeline::pipeline_cache;

/// First bytes of a file. Another layout gets another number.
const MAGIC: &[u8; 24] = b"shadegrad pipelines v1\r\n";
/// Longest file that is read.
const LONGEST: u64 = 256 << 20;

/// The driver's own store of compiled pipelines, and the file that it comes from and goes to.
pub(crate) struct Shelf {
    pub(crate) raw: wgpu::PipelineCache,
    path: PathBuf,
    key: String,
    /// Bytes that the driver's store had when it was opened: a driver that keeps nothing never has more.
    at_first: usize,
}

impl Shelf {
    /// Opens the store of this device with what `folder` has for it. `None` where the driver has none.
    pub(crate) fn open(device: &wgpu::Device, folder: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let info = device.adapter_info();
        let name = wgpu::util::pipeline_cache_key(&info)?;
        // Whatever may change what a driver compiles: the device, the driver, the interface, and this crate.
        let key = format!(
            "{:?} {:x}:{:x} {} / {} {} / {}",
            info.backend,
            info.vendor,
            info.device,
            info.name,
            info.driver,
            info.driver_info,
            env!("CARGO_PKG_VERSION")
        );
        let path = folder.join(format!("{name}_{:016x}.bin", fnv1a(key.as_bytes())));
        let file = read(&path);
        let data = file.as_deref().and_then(|bytes| unwrap(&key, bytes));
        if file.is_some() && data.is_none() {
            log::warn!("{} is damaged or not of this device: it is left aside", path.display());
        }
        let (raw, fault) = attempt(device, || pipeline_cache(device, data));
        if fault.is_some() {
            return None;
        }
        let at_first = raw.get_data()?.len();
        Some(Self { raw, path, key, at_first })
    }

    /// Writes the store to its file if the driver put something into it. A file that cannot be written costs time at the
    /// next start, and nothing else.
    pub(crate) fn save(&mut self) {
        let Some(data) = self.raw.get_data().filter(|d| d.len() > self.at_first) else { return };
        self.at_first = data.len();
        if let Err(e) = write(&self.path, &wrap(&self.key, &data)) {
            log::warn!("compiled pipelines were not kept: {}: {e}", self.path.display());
        }
    }
}

/// What a file holds: the mark, the key and the data, each with its length, and a sum over all of it.
fn wrap(key: &str, data: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for part in [key.as_bytes(), data] {
        out.extend((part.len() as u64).to_le_bytes());
        out.extend(part);
    }
    let sum = fnv1a(&out);
    out.extend(sum.to_le_bytes());
    out
}

/// The data of [`wrap`], if the file is whole and was written under this key.
fn unwrap<'a>(key: &str, file: &'a [u8]) -> Option<&'a [u8]> {
    let (body, sum) = file.split_last_chunk::<8>()?;
    if fnv1a(body) != u64::from_le_bytes(*sum) {
        return None;
    }
    let rest = body.strip_prefix(MAGIC.as_slice())?;
    let part = |from: &'a [u8]| {
        let (len, rest) = from.split_first_chunk::<8>()?;
        rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)
    };
    let (written_by, rest) = part(rest)?;
    let (data, rest) = part(rest)?;
    (written_by == key.as_bytes() && rest.is_empty()).then_some(data)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let found = fs::metadata(path).ok()?;
    if !found.is_file() || found.len() > LONGEST {
        return None;
    }
    fs::read(path).ok()
}

/// Puts the file in place as a whole: a reader sees the old one or the new one.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let unfinished = path.with_extension(format!("{}.unfinished", std::process::id()));
    let made = fs::File::create(&unfinished)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&unfinished, path));
    if made.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    made
}

/// Where compiled pipelines lie unless told otherwise: the platform's folder for what may be deleted at any time.
pub(crate) fn usual_folder(get: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let folder = |name: &str| get(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = if cfg!(windows) {
        folder("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        folder("HOME").map(|home| home.join("Library/Caches"))
    } else {
        folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")))
    };
    base.map(|b| b.join("shadegrad"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_and_under_its_own_key_or_not_at_all() {
        let file = wrap("this device", b"compiled");
        assert_eq!(unwrap("this device", &file), Some(&b"compiled"[..]));
        assert_eq!(unwrap("another device", &file), None);
        assert_eq!(unwrap("this device", &wrap("this device", b"")), Some(&b""[..]));
        for cut in 0..file.len() {
            assert_eq!(unwrap("this device", &file[..cut]), None, "cut at {cut}");
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            assert_eq!(unwrap("this device", &damaged), None, "damaged at {at}");
        }
        // A length that reaches past the end, with a sum that fits it.
        let mut body = MAGIC.to_vec();
        body.extend(u64::MAX.to_le_bytes());
        body.extend(fnv1a(&body).to_le_bytes());
        assert_eq!(unwrap("", &body), None);
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = std::env::temp_dir().join(format!("shadegrad-shelf-{}", std::process::id()));
        let path = folder.join("x.bin");
        assert_eq!(read(&path), None);
        for text in [&b"first"[..], b"second"] {
            write(&path, text).unwrap();
            assert_eq!(read(&path).as_deref(), Some(text));
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        assert_eq!(read(&folder), None, "a folder is no file");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_usual_folder_follows_the_platform() {
        let of = |pairs: &[(&str, &str)]| usual_folder(|n| pairs.iter().find(|p| p.0 == n).map(|p| p.1.to_string()));
        assert_eq!(of(&[]), None);
        if cfg!(target_os = "linux") {
            assert_eq!(of(&[("HOME", "/home/a")]), Some("/home/a/.cache/shadegrad".into()));
            assert_eq!(of(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")]), Some("/c/shadegrad".into()));
            // The convention says that a relative path is to be ignored.
            assert_eq!(of(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "c")]), Some("/home/a/.cache/shadegrad".into()));
        }
    }
}
