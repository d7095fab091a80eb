//! What goes into the folders of runs, of training and of papers alike: whole files, pictures, the environment.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use shadegrad::{Error, Gpu, Result};

use crate::view::{self, Drawing, Picture, Table};
use crate::{date, devices};

/// Writes a file under another name and renames it, so that a reader finds the old one or the new one and no half.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let written = fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| {
        // What is left of it does not help anybody.
        let _ = fs::remove_file(&temporary);
        Error::Io { path: path.into(), detail: format!("{e}; make room, or choose another folder with --out") }
    })
}

/// Writes a drawing into a folder, as SVG and as PNG.
///
/// # Errors
/// If the folder cannot be written.
pub fn save_drawing(folder: &Path, name: &str, drawing: &Drawing) -> Result<()> {
    write(&folder.join(format!("{name}.svg")), drawing.svg_file().as_bytes())?;
    save_picture(folder, name, &view::picture(drawing))
}

/// Writes a picture into a folder, as PNG.
///
/// # Errors
/// If it is none, or the folder cannot be written.
pub fn save_picture(folder: &Path, name: &str, picture: &Picture) -> Result<()> {
    let png = view::png(picture).map_err(|e| Error::value("picture", format!("{e:#}")))?;
    write(&folder.join(format!("{name}.png")), &png)
}

/// A title as a file's name, its first words if it is long.
pub fn file_name(title: &str) -> String {
    let lower = title.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let mut name = String::new();
    for word in words {
        if !name.is_empty() && name.len() + word.len() > 48 {
            break;
        }
        name += if name.is_empty() { "" } else { "-" };
        name += word;
    }
    if name.is_empty() { "picture".into() } else { name }
}

/// What a run that begins now runs on, as JSON.
pub fn environment(gpu: &Gpu) -> Value {
    let caps = gpu.caps();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("SHADEGRAD_COMMIT"),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "system": std::env::consts::OS,
        "processor": std::env::consts::ARCH,
        "started": date::now(),
        "adapter": devices::json(gpu.description()),
        "features": {
            "subgroup_size": caps.subgroup,
            "f16": caps.f16,
            "timestamps": caps.timestamps,
            "immediates": caps.immediates,
            "checked": caps.checked,
        },
    })
}

/// Nested values as rows of a table.
pub fn rows(value: &Value) -> Table {
    fn walk(name: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
        match value {
            Value::Object(map) => {
                for (key, v) in map {
                    walk(&if name.is_empty() { key.clone() } else { format!("{name}.{key}") }, v, rows);
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                for (i, v) in items.iter().enumerate() {
                    walk(&format!("{name}.{i}"), v, rows);
                }
            }
            Value::String(text) => rows.push(vec![name.into(), text.clone()]),
            Value::Null => rows.push(vec![name.into(), "not known".into()]),
            other => rows.push(vec![name.into(), other.to_string()]),
        }
    }
    let mut rows = Vec::new();
    walk("", value, &mut rows);
    Table { rows, ..Table::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_rows() {
        let all = rows(&json!({ "a": { "b": 1, "c": null }, "d": [2, 3], "e": [{ "f": "x" }] }));
        let rows: Vec<[&str; 2]> = all.rows.iter().map(|r| [r[0].as_str(), r[1].as_str()]).collect();
        assert_eq!(rows, [["a.b", "1"], ["a.c", "not known"], ["d", "[2,3]"], ["e.0.f", "x"]]);
    }

    #[test]
    fn titles_become_names_of_files() {
        assert_eq!(file_name("Accuracy (%), test/all"), "accuracy-test-all");
        assert_eq!(file_name("µ"), "picture");
        assert!(file_name(&"word ".repeat(40)).len() < 60);
    }
}
