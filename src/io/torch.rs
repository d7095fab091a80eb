//! State dictionaries as `torch.save` writes them: a zip archive of one pickle and one file for each storage.

use std::collections::HashMap;
use std::sync::Arc;

use crate::io::pickle::{self, Id, Item, RawTensor};
use crate::io::zip::Zip;
use crate::io::{FileType, Saved};

/// Where a checkpoint of a training script keeps the model's tensors.
const INNER: [&str; 7] = ["state_dict", "model_state_dict", "model", "module", "net", "network", "weights"];

fn type_of(class: &str) -> Option<FileType> {
    Some(match class {
        "DoubleStorage" => FileType::F64,
        "FloatStorage" => FileType::F32,
        "HalfStorage" => FileType::F16,
        "BFloat16Storage" => FileType::BF16,
        "LongStorage" => FileType::I64,
        "IntStorage" => FileType::I32,
        "ShortStorage" => FileType::I16,
        "CharStorage" => FileType::I8,
        "ByteStorage" => FileType::U8,
        "BoolStorage" => FileType::Bool,
        _ => return None,
    })
}

/// The tensors of a file's bytes; what is wrong otherwise.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Saved>, String> {
    let zip = Zip::open(bytes)?;
    if zip.find("constants.pkl").is_some() {
        return Err("is a TorchScript program, not weights; save `model.state_dict()` with torch.save".into());
    }
    let entry = zip.find("data.pkl").ok_or("is a zip archive, but not one of torch.save: it has no data.pkl")?;
    if let Some(order) = zip.find("byteorder")
        && zip.content(order)? != b"little"
    {
        return Err("was written on a big-endian machine; save it again on a little-endian one".into());
    }
    let (items, root) = pickle::read(zip.content(entry)?).map_err(|e| format!("data.pkl {e}"))?;
    let pairs = tensors(&items, root)?;
    let mut storages: HashMap<String, Arc<Vec<u8>>> = HashMap::new();
    let mut out: Vec<Saved> = Vec::new();
    // Entries that overlap could make a small file fill the memory.
    let mut room = bytes.len();
    for (name, raw) in pairs {
        let storage = match storages.get(&raw.key) {
            Some(storage) => storage.clone(),
            None => {
                let file = zip.find(&format!("data/{}", raw.key));
                let file = file.ok_or_else(|| format!("tensor `{name}` refers to data that is not in the file"))?;
                room = room.checked_sub(file.size).ok_or("has parts that overlap: it is damaged")?;
                let content = Arc::new(zip.content(file)?.to_vec());
                storages.insert(raw.key.clone(), content.clone());
                content
            }
        };
        out.push(tensor(name, raw, storage).map_err(|e| format!("tensor `{name}` {e}"))?);
    }
    Ok(out)
}

fn tensor(name: &str, raw: &RawTensor, storage: Arc<Vec<u8>>) -> Result<Saved, String> {
    let dtype = type_of(&raw.class).ok_or_else(|| format!("is of {}, which is not read", raw.class))?;
    let sizes = |v: &[i64], what: &str| -> Result<Vec<usize>, String> {
        v.iter().map(|&n| usize::try_from(n).map_err(|_| format!("has a negative {what}"))).collect()
    };
    let (shape, strides) = (sizes(&raw.shape, "size")?, sizes(&raw.strides, "stride")?);
    let start = usize::try_from(raw.offset).ok().and_then(|o| o.checked_mul(dtype.size()));
    let start = start.ok_or("begins outside its data")?;
    Saved::over(name.to_string(), dtype, shape, storage, start, Some(strides))
}

/// Names and tensors of the state dictionary: the dictionary itself, or the one under a usual name in it.
fn tensors(items: &[Item], root: Id) -> Result<Vec<(&str, &RawTensor)>, String> {
    let Item::Dict(pairs) = &items[root] else {
        return Err("holds no dictionary; save `model.state_dict()`".into());
    };
    let named = |pairs: &[(Id, Id)]| {
        let mut found: Vec<(&str, &RawTensor)> = Vec::new();
        let mut rows = HashMap::new();
        for &(key, value) in pairs {
            if let (Item::Text(name), Item::Tensor(raw)) = (&items[key], &items[value]) {
                // As in Python, a key given again replaces what it had.
                match rows.insert(name.as_str(), found.len()) {
                    Some(row) => {
                        rows.insert(name.as_str(), row);
                        found[row].1 = raw;
                    }
                    None => found.push((name.as_str(), raw)),
                }
            }
        }
        found
    };
    let outer = named(pairs);
    if !outer.is_empty() || pairs.is_empty() {
        return Ok(outer);
    }
    let text = |id: Id| if let Item::Text(t) = &items[id] { t.as_str() } else { "" };
    for inner in INNER {
        for &(key, value) in pairs {
            if let (true, Item::Dict(pairs)) = (text(key) == inner, &items[value]) {
                let found = named(pairs);
                if !found.is_empty() {
                    return Ok(found);
                }
            }
        }
    }
    let keys: Vec<&str> = pairs.iter().take(8).map(|&(k, _)| text(k)).collect();
    Err(format!("holds no tensors under its keys ({}); save `model.state_dict()`", keys.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32s(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// Head of an entry: what both of its records share, with no extra fields.
    fn head(name: &str, content: &[u8], crc: u32) -> Vec<u8> {
        let size = content.len() as u32;
        [u32s(&[0, 0, crc, size, size]), u32s(&[name.len() as u32])].concat()
    }

    /// An archive in which `data/0` and the like share one content.
    fn archive(pickle: &[u8], storages: usize, content: &[u8], crcs: [u32; 2]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let local = |bytes: &mut Vec<u8>, name: &str, content: &[u8], crc| {
            let at = bytes.len() as u32;
            bytes.extend([b"PK\x03\x04\x14\0", &head(name, content, crc)[..], name.as_bytes(), content].concat());
            at
        };
        let first = local(&mut bytes, "a/data.pkl", pickle, crcs[0]);
        let second = local(&mut bytes, "a/data/0", content, crcs[1]);
        let start = bytes.len() as u32;
        let mut central = |name: &str, content: &[u8], crc, at: u32| {
            let record =
                [&b"PK\x01\x02\x14\0\x14\0"[..], &head(name, content, crc), &[0; 10], &u32s(&[at]), name.as_bytes()];
            bytes.extend(record.concat());
        };
        central("a/data.pkl", pickle, crcs[0], first);
        (0..storages).for_each(|i| central(&format!("a/data/{i}"), content, crcs[1], second));
        let count = (storages as u16 + 1).to_le_bytes();
        let size = bytes.len() as u32 - start;
        bytes.extend([&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &u32s(&[size, start]), &[0; 2]].concat());
        bytes
    }

    fn dictionary(storages: usize) -> Vec<u8> {
        let one = |i: usize| {
            let key = i.to_string();
            let tensor = [
                &b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nByteStorage\nX"[..],
                &u32s(&[key.len() as u32]),
                key.as_bytes(),
                b"X\x03\0\0\0cpuK\x02tQK\x00K\x08\x85K\x01\x85\x89}tR",
            ];
            [&b"X"[..], &u32s(&[key.len() as u32]), key.as_bytes(), &tensor.concat()].concat()
        };
        [b"}(".to_vec(), (0..storages).flat_map(one).collect(), b"u.".to_vec()].concat()
    }

    #[test]
    fn entries_that_share_their_bytes_do_not_fill_the_memory() {
        let content = vec![7u8; 1 << 16];
        let open = |n: usize| {
            let pickle = dictionary(n);
            let crcs = [crate::io::zip::crc32(&pickle), crate::io::zip::crc32(&content)];
            parse(&archive(&pickle, n, &content, crcs))
        };
        let one = open(1).unwrap();
        assert_eq!((one.len(), one[0].to_bytes()), (1, vec![7; 8]));
        assert!(open(100).unwrap_err().contains("overlap"));
        let pickle = dictionary(1);
        assert!(parse(&archive(&pickle, 1, &content, [0, 0])).unwrap_err().contains("check sum"));
        assert!(
            parse(&archive(b"K\x01.", 0, &content, [crate::io::zip::crc32(b"K\x01."), 0]))
                .unwrap_err()
                .contains("no dictionary")
        );
    }
}
