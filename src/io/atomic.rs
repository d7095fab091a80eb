//! Files that are either there as a whole or not at all.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// End of the names of files that are being written.
const UNFINISHED: &str = ".unfinished";

/// Writes a file so that a reader sees the old content or the new one, never a part of it, also when the process is
/// killed or the machine loses power: `write` fills a file of another name in the same folder, which is synced, renamed,
/// and the folder synced.
///
/// ```
/// # let folder = tempfile::tempdir().expect("a folder");
/// let path = folder.path().join("result.txt");
/// shadegrad::io::write_atomic(&path, |file| file.write_all(b"42"))?;
/// assert_eq!(std::fs::read(&path).expect("the file"), b"42");
/// # Ok::<(), shadegrad::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] if the file cannot be written, or `write` fails; what was there before is then still there.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(Error::Io { path: path.into(), detail: "is not the name of a file; give one".into() });
    };
    let folder = folder_of(path);
    let temporary = folder.join(format!(".{}.{}{UNFINISHED}", name.to_string_lossy(), std::process::id()));
    let made = || -> std::io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&temporary)?);
        write(&mut file)?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(&folder)
    };
    made().map_err(|e| {
        // What is left over does no harm, but takes room on a disk that may be full.
        let _ = fs::remove_file(&temporary);
        cannot_write(path, &e)
    })
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Makes a rename outlive a loss of power. Windows does that by itself and has no such call.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// The error of a file that could not be written, with the remedy.
pub(crate) fn cannot_write(path: &Path, e: &std::io::Error) -> Error {
    let remedy = match e.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => "make room, or write elsewhere",
        ErrorKind::NotFound => "make its folder first",
        _ => "write elsewhere, or change the permissions",
    };
    Error::Io { path: path.into(), detail: format!("cannot be written ({e}); {remedy}") }
}

/// Removes what killed processes left half written in `folder`.
pub(crate) fn remove_unfinished(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(UNFINISHED) {
            // Another process may have been quicker; nothing depends on it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The content of a regular file. (A device or a pipe may have no end.)
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let found = fs::metadata(path).map_err(|e| Error::io(path, &e))?;
    if !found.is_file() {
        return Err(Error::data(path, "is not a regular file; give the path of one"));
    }
    fs::read(path).map_err(|e| Error::io(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_content_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        write_atomic(&path, |f| f.write_all(b"old")).unwrap();
        let err = write_atomic(&path, |f| {
            f.write_all(b"new")?;
            Err(std::io::Error::from(ErrorKind::StorageFull))
        });
        assert!(err.unwrap_err().to_string().contains("make room"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let err = write_atomic(&folder.path().join("none/x"), |_| Ok(())).unwrap_err().to_string();
        assert!(err.contains("make its folder first"), "{err}");
        assert!(write_atomic(Path::new("/"), |_| Ok(())).is_err());
    }

    #[test]
    fn leftovers_of_killed_processes_go() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(format!(".a.1{UNFINISHED}")), "half").unwrap();
        fs::write(folder.path().join("a"), "whole").unwrap();
        remove_unfinished(folder.path());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(read_file(folder.path()).unwrap_err().to_string().contains("regular file"));
    }
}
