//! As much of the zip format as PyTorch's files use: entries that are stored, not compressed.

/// Bytes of the records without their names.
const END: usize = 22;
const CENTRAL: usize = 46;
const LOCAL: usize = 30;

/// One file in the archive.
pub(super) struct Entry {
    pub name: String,
    start: usize,
    pub size: usize,
    crc: u32,
    /// Neither compressed nor encrypted.
    plain: bool,
}

/// The entries of an archive.
pub(super) struct Zip<'a> {
    bytes: &'a [u8],
    pub entries: Vec<Entry>,
}

fn u16_at(b: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(*b.get(at..)?.first_chunk()?)))
}

fn u32_at(b: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*b.get(at..)?.first_chunk()?)).ok()
}

fn u64_at(b: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*b.get(at..)?.first_chunk()?)).ok()
}

const CUT: &str = "is a zip archive without its end: it was cut off";
const DAMAGED: &str = "is a damaged zip archive";

impl<'a> Zip<'a> {
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        // The end record, behind which only a comment of at most 64 KiB may lie.
        let first = bytes.len().saturating_sub(END + 0xffff);
        let end = bytes.len().checked_sub(END).ok_or(CUT)?;
        let end = (first..=end).rev().find(|&i| bytes[i..].starts_with(b"PK\x05\x06")).ok_or(CUT)?;
        let mut count = u16_at(bytes, end + 10).ok_or(CUT)?;
        let mut at = u32_at(bytes, end + 16).ok_or(CUT)?;
        // Archives over 4 GiB say so in a record in front of it.
        if let Some(locator) = end.checked_sub(20)
            && bytes[locator..].starts_with(b"PK\x06\x07")
        {
            let record = u64_at(bytes, locator + 8).ok_or(DAMAGED)?;
            let record = bytes.get(record..).filter(|r| r.starts_with(b"PK\x06\x06")).ok_or(DAMAGED)?;
            count = u64_at(record, 32).ok_or(DAMAGED)?;
            at = u64_at(record, 48).ok_or(DAMAGED)?;
        }
        let mut entries = Vec::new();
        for _ in 0..count {
            let (entry, next) = Self::entry(bytes, at)?;
            entries.push(entry);
            at = next;
        }
        Ok(Self { bytes, entries })
    }

    /// The entry of the central directory at `at`, and where the next one is.
    fn entry(bytes: &[u8], at: usize) -> Result<(Entry, usize), String> {
        let head = bytes.get(at..).filter(|h| h.len() >= CENTRAL && h.starts_with(b"PK\x01\x02")).ok_or(DAMAGED)?;
        let field16 = |i| u16_at(head, i).ok_or(DAMAGED);
        let field32 = |i| u32_at(head, i).ok_or(DAMAGED);
        let (flags, method) = (field16(8)?, field16(10)?);
        let (mut packed, mut size, mut local) = (field32(20)?, field32(24)?, field32(42)?);
        let (name_len, extra_len, comment_len) = (field16(28)?, field16(30)?, field16(32)?);
        let name = head.get(CENTRAL..CENTRAL + name_len).ok_or(DAMAGED)?;
        let name = String::from_utf8_lossy(name).into_owned();
        let extra = head.get(CENTRAL + name_len..CENTRAL + name_len + extra_len).ok_or(DAMAGED)?;
        large_sizes(extra, [&mut size, &mut packed, &mut local])?;
        let plain = flags & 1 == 0 && method == 0 && packed == size;
        let header = bytes.get(local..).filter(|h| h.starts_with(b"PK\x03\x04")).ok_or(DAMAGED)?;
        let skip = LOCAL + u16_at(header, 26).ok_or(DAMAGED)? + u16_at(header, 28).ok_or(DAMAGED)?;
        let start = local.checked_add(skip).ok_or(DAMAGED)?;
        if start.checked_add(packed).is_none_or(|end| end > bytes.len()) {
            return Err(format!("`{name}` reaches beyond the end of the file: it was cut off"));
        }
        let crc = field32(16)? as u32;
        Ok((Entry { name, start, size, crc, plain }, at + CENTRAL + name_len + extra_len + comment_len))
    }

    /// The entry whose name ends in `/name`: the folder's name is free.
    pub(super) fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name.split_once('/').is_some_and(|(_, rest)| rest == name))
    }

    /// Its content, checked against its sum.
    pub(super) fn content(&self, entry: &Entry) -> Result<&'a [u8], String> {
        if !entry.plain {
            return Err(format!(
                "holds `{}` compressed or encrypted, as PyTorch does not write it; save it again with torch.save",
                entry.name
            ));
        }
        let content = &self.bytes[entry.start..][..entry.size];
        if crc32(content) != entry.crc {
            return Err(format!("`{}` does not fit its check sum: the file is damaged", entry.name));
        }
        Ok(content)
    }
}

/// Sizes over 4 GiB are in the extra field with the number 1, in the order given, where the usual field is all ones.
fn large_sizes(mut extra: &[u8], fields: [&mut usize; 3]) -> Result<(), String> {
    while let (Some(id), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let body = extra.get(4..4 + len).ok_or(DAMAGED)?;
        if id == 1 {
            let mut at = 0;
            for field in fields {
                if *field == 0xffff_ffff {
                    *field = u64_at(body, at).ok_or(DAMAGED)?;
                    at += 8;
                }
            }
            return Ok(());
        }
        extra = &extra[4 + len..];
    }
    Ok(())
}

/// The check sum of zip (ISO 3309), with tables for four bytes at a time.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    const TABLES: [[u32; 256]; 4] = {
        let mut t = [[0u32; 256]; 4];
        let mut i = 0;
        while i < 256 {
            let (mut c, mut k) = (i as u32, 0);
            while k < 8 {
                c = if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 };
                k += 1;
            }
            t[0][i] = c;
            i += 1;
        }
        let mut k = 1;
        while k < 4 {
            let mut i = 0;
            while i < 256 {
                t[k][i] = (t[k - 1][i] >> 8) ^ t[0][(t[k - 1][i] & 255) as usize];
                i += 1;
            }
            k += 1;
        }
        t
    };
    let (words, rest) = bytes.as_chunks::<4>();
    let mut c = !0u32;
    for w in words {
        c ^= u32::from_le_bytes(*w);
        c = TABLES[3][(c & 255) as usize]
            ^ TABLES[2][(c >> 8 & 255) as usize]
            ^ TABLES[1][(c >> 16 & 255) as usize]
            ^ TABLES[0][(c >> 24) as usize];
    }
    !rest.iter().fold(c, |c, &b| (c >> 8) ^ TABLES[0][((c ^ u32::from(b)) & 255) as usize])
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn the_check_sum_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }
}
