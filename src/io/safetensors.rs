//! Files in the safetensors format: eight bytes with the length of a JSON header, the header, the elements.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::error::Result;
use crate::io::{FileType, Saved, write_atomic};

/// Names and values of a file's own notes.
///
/// ```
/// # use shadegrad::{io::*, *};
/// let notes = Meta::from([("author".to_string(), "me".to_string())]);
/// let weights = Weights::new(vec![], notes);
/// assert_eq!(weights.meta()["author"], "me");
/// ```
pub type Meta = BTreeMap<String, String>;

/// A header of this size names more tensors than any model has.
const MOST_HEADER: usize = 32 << 20;

/// Tensors and notes of a file's bytes; what is wrong otherwise.
pub(crate) fn parse(bytes: Vec<u8>) -> Result<(Vec<Saved>, Meta), String> {
    let total = bytes.len();
    let short = || format!("ends after {total} bytes, in its header: it was cut off, or is no safetensors file");
    let length = bytes.first_chunk().map(|b| u64::from_le_bytes(*b)).ok_or_else(short)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if bytes.get(8).is_some_and(|&b| b != b'{') || (length > MOST_HEADER && length > total) {
        return Err("is not a safetensors file: its header is none".into());
    }
    if length > MOST_HEADER {
        return Err(format!("has a header of {length} bytes; at most {MOST_HEADER} are read"));
    }
    let data = 8 + length;
    let header = bytes.get(8..data).ok_or_else(short)?;
    let header: Value = serde_json::from_slice(header).map_err(|e| format!("has a damaged header: {e}"))?;
    let Value::Object(header) = header else { return Err("has a header that is no object".into()) };
    let shared = Arc::new(bytes);
    let (mut tensors, mut meta) = (Vec::new(), Meta::new());
    for (name, entry) in header {
        if name == "__metadata__" {
            for (key, value) in entry.as_object().into_iter().flatten() {
                meta.insert(key.clone(), value.as_str().ok_or("has notes that are no text")?.to_string());
            }
            continue;
        }
        let (start, tensor) = tensor(&name, &entry, &shared, data).map_err(|e| format!("tensor `{name}` {e}"))?;
        tensors.push((start, tensor));
    }
    // The format leaves no holes and no overlaps: where there are, the header is damaged.
    tensors.sort_by_key(|t| (t.0, t.1.numel()));
    let mut at = data;
    for (start, tensor) in &tensors {
        if *start != at {
            return Err(format!(
                "tensor `{}` begins at byte {start} in place of {at}: the header is damaged",
                tensor.name()
            ));
        }
        at += tensor.numel() * tensor.dtype().size();
    }
    if at != total {
        let what = if at > total { "was cut off" } else { "has more at its end" };
        return Err(format!("has {total} bytes, its header speaks of {at}: it {what}"));
    }
    Ok((tensors.into_iter().map(|t| t.1).collect(), meta))
}

/// One entry of the header: where it begins in the file, and the tensor.
fn tensor(name: &str, entry: &Value, bytes: &Arc<Vec<u8>>, data: usize) -> Result<(usize, Saved), String> {
    let numbers = |key: &str| -> Result<Vec<usize>, String> {
        let list = entry.get(key).and_then(Value::as_array).ok_or_else(|| format!("has no `{key}`"))?;
        let number = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
        list.iter().map(|v| number(v).ok_or_else(|| format!("has a strange `{key}`"))).collect()
    };
    let dtype = entry.get("dtype").and_then(Value::as_str).ok_or("has no `dtype`")?;
    let dtype = FileType::named(dtype).ok_or_else(|| {
        let shown: String = dtype.chars().take(20).collect();
        format!("is of type {shown}, which is not read; save it as F32")
    })?;
    let (shape, span) = (numbers("shape")?, numbers("data_offsets")?);
    let &[from, to] = &span[..] else { return Err("has strange `data_offsets`".into()) };
    let need = shape.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d));
    if from > to || need != Some(to - from) {
        return Err(format!("of shape {shape:?} and type {} has bytes {from} to {to}", dtype.name()));
    }
    let start = data.checked_add(from).ok_or("begins beyond the file")?;
    if to > bytes.len() - data {
        return Err(format!("needs bytes up to {to}, the file has {}: it was cut off", bytes.len() - data));
    }
    Ok((start, Saved::over(name.to_string(), dtype, shape, bytes.clone(), start, None)?))
}

/// Writes a safetensors file, whole or not at all. The same tensors and notes give the same bytes: the largest elements
/// come first, which keeps all of them aligned, then names in order.
///
/// ```
/// # use shadegrad::{io::*, *};
/// # let folder = tempfile::tempdir().expect("a folder");
/// let path = folder.path().join("bias.safetensors");
/// let notes = Meta::from([("step".to_string(), "10".to_string())]);
/// write_safetensors(&path, &[Saved::f32("fc.bias", &[2], &[0.5, -0.5])?], &notes)?;
/// let file = Weights::open(&path)?;
/// assert_eq!((file.tensors()[0].to_f32(), file.meta()["step"].as_str()), (vec![0.5, -0.5], "10"));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// If a name occurs twice, or the file cannot be written.
pub fn write_safetensors(path: &Path, tensors: &[Saved], meta: &Meta) -> Result<()> {
    let mut order: Vec<&Saved> = tensors.iter().collect();
    order.sort_by(|a, b| b.dtype().size().cmp(&a.dtype().size()).then_with(|| a.name().cmp(b.name())));
    let mut header = serde_json::Map::new();
    if !meta.is_empty() {
        let notes: serde_json::Map<String, Value> = meta.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
        header.insert("__metadata__".into(), Value::Object(notes));
    }
    let mut at = 0;
    for t in &order {
        let end = at + t.numel() * t.dtype().size();
        let entry = serde_json::json!({ "dtype": t.dtype().name(), "shape": t.shape(), "data_offsets": [at, end] });
        if header.insert(t.name().to_string(), entry).is_some() {
            return Err(crate::Error::Params(format!("`{}` is to be written twice; rename one", t.name())));
        }
        at = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    write_atomic(path, |file| {
        file.write_all(&(text.len() as u64).to_le_bytes())?;
        file.write_all(&text)?;
        order.iter().try_for_each(|t| file.write_all(&t.to_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let meta = Meta::from([("a \"b\"\n".to_string(), "ä".to_string())]);
        let tensors = [
            Saved::f32("b", &[2, 1], &[1.0, -0.0]).unwrap(),
            Saved::f32("empty", &[0, 3], &[]).unwrap(),
            Saved::f64("z", &[0.1]),
            Saved::f32("scalar", &[], &[f32::NAN]).unwrap(),
        ];
        write_safetensors(&path, &tensors, &meta).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let (read, notes) = parse(bytes.clone()).unwrap();
        assert_eq!(notes, meta);
        for t in &tensors {
            let found = read.iter().find(|r| r.name() == t.name()).unwrap();
            assert_eq!((found.shape(), found.dtype(), found.to_bytes()), (t.shape(), t.dtype(), t.to_bytes()));
        }
        // Cut off anywhere, it is refused.
        for n in 0..bytes.len() {
            assert!(parse(bytes[..n].to_vec()).is_err(), "{n} bytes");
        }
        assert!(parse([&bytes[..], b"x"].concat()).unwrap_err().contains("more at its end"));
        let twice = [tensors[0].clone(), tensors[0].clone()];
        assert!(write_safetensors(&path, &twice, &meta).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn hostile_headers_are_refused() {
        let entry = |dtype: &str, shape: &str, span: &str| {
            file(&format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{span}}}}}"#), &[0; 8])
        };
        for (bytes, word) in [
            (vec![], "cut off"),
            (u64::MAX.to_le_bytes().to_vec(), "header is none"),
            (file("[1]", &[]), "header is none"),
            (file("{", &[]), "damaged header"),
            (file(&"{\"a\":".repeat(200), &[]), "damaged header"),
            (entry("F32", "[2]", "[0,8]")[..40].to_vec(), "cut off"),
            (entry("F8_E4M3", "[8]", "[0,8]"), "is not read"),
            (entry("F32", "[3]", "[0,8]"), "has bytes"),
            (entry("F32", "[4]", "[0,16]"), "cut off"),
            (entry("F32", "[1]", "[4,8]"), "in place of"),
            (entry("F32", "[1]", "[0,4]"), "more at its end"),
            (entry("F32", "[1]", "[8,4]"), "has bytes"),
            (entry("F32", "[18446744073709551615,4]", "[0,8]"), "has bytes"),
            (entry("F32", "[-1]", "[0,8]"), "strange `shape`"),
            (entry("F32", "[1]", "[18446744073709551612,18446744073709551615]"), "has bytes"),
            (entry("U8", "[0]", "[18446744073709551615,18446744073709551615]"), "beyond"),
            (file(r#"{"a":3}"#, &[]), "no `dtype`"),
        ] {
            let err = parse(bytes).unwrap_err();
            assert!(err.contains(word), "{word}: {err}");
        }
    }
}
