//! The part of Python's pickle format that state dictionaries are written in. Nothing is executed: a file may name the
//! few functions that put tensors together, whose results are made here, and any other name is refused.
//!
//! Values refer to each other by number and not by pointer, so that neither deep nor circular data can exhaust the stack,
//! and every instruction makes at most as much as it takes from the file.

use std::collections::HashMap;

/// Number of a value.
pub(super) type Id = usize;

/// A tensor as the file describes it; nothing of it is checked yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RawTensor {
    /// Python's name of the storage's class, such as `FloatStorage`.
    pub class: String,
    pub key: String,
    pub offset: i64,
    pub shape: Vec<i64>,
    pub strides: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    None,
    Bool,
    Int(i64),
    Float,
    Text(String),
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A name of a module.
    Global(&'static str),
    /// A storage's class and key.
    Storage(String, String),
    Tensor(RawTensor),
    Mark,
}

/// What a file may name: Python's name and what it is here.
const GLOBALS: &[(&str, &str)] = &[
    ("collections.OrderedDict", "dict"),
    ("torch._utils._rebuild_tensor_v2", "tensor"),
    ("torch._utils._rebuild_parameter", "parameter"),
    ("torch._utils._rebuild_parameter_with_state", "parameter"),
    ("torch.Size", "tuple"),
    ("torch.DoubleStorage", "DoubleStorage"),
    ("torch.FloatStorage", "FloatStorage"),
    ("torch.HalfStorage", "HalfStorage"),
    ("torch.BFloat16Storage", "BFloat16Storage"),
    ("torch.LongStorage", "LongStorage"),
    ("torch.IntStorage", "IntStorage"),
    ("torch.ShortStorage", "ShortStorage"),
    ("torch.CharStorage", "CharStorage"),
    ("torch.ByteStorage", "ByteStorage"),
    ("torch.BoolStorage", "BoolStorage"),
];

/// All values of a pickle, and the number of the one it stands for.
pub(super) fn read(bytes: &[u8]) -> Result<(Vec<Item>, Id), String> {
    let (items, stack, memo) = (Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { bytes, at: 0, items, stack, memo, copies: bytes.len() };
    let root = machine.run()?;
    Ok((machine.items, root))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    items: Vec<Item>,
    stack: Vec<Id>,
    memo: HashMap<u64, Id>,
    /// How much may still be copied from values that the file can name again and again.
    copies: usize,
}

/// Most arguments of a call, and most dimensions of a tensor.
const FEW: usize = 64;

impl<'a> Machine<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|&e| e <= self.bytes.len());
        let part = &self.bytes[self.at..end.ok_or("ends in the middle of an instruction")?];
        self.at += n;
        Ok(part)
    }

    /// A number of `n` bytes, little-endian.
    fn number(&mut self, n: usize) -> Result<u64, String> {
        Ok(self.take(n)?.iter().rev().fold(0, |v, &b| v << 8 | u64::from(b)))
    }

    fn sized(&mut self, n: usize) -> Result<&'a [u8], String> {
        let len = usize::try_from(self.number(n)?).map_err(|_| "a text without end")?;
        self.take(len)
    }

    fn text(&mut self, n: usize) -> Result<(), String> {
        let text = self.sized(n)?;
        self.push(Item::Text(String::from_utf8_lossy(text).into_owned()));
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|&b| b == b'\n').ok_or("a line without end")?;
        let line = std::str::from_utf8(self.take(len + 1)?).map_err(|_| "a line that is no text")?;
        Ok(line.trim_end())
    }

    fn push(&mut self, item: Item) {
        self.stack.push(self.items.len());
        self.items.push(item);
    }

    fn pop(&mut self) -> Result<Id, String> {
        let id = self.stack.pop().ok_or("takes more values than it gave")?;
        if self.items[id] == Item::Mark { Err("takes a mark for a value".into()) } else { Ok(id) }
    }

    fn top(&self) -> Result<Id, String> {
        self.stack.last().copied().ok_or_else(|| "takes more values than it gave".into())
    }

    /// The values above the last mark.
    fn since_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.stack.iter().rposition(|&i| self.items[i] == Item::Mark).ok_or("has no mark")?;
        let values = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(values)
    }

    fn tuple(&mut self, n: usize) -> Result<(), String> {
        let from = self.stack.len().checked_sub(n).ok_or("takes more values than it gave")?;
        let values = self.stack.split_off(from);
        self.push(Item::Tuple(values));
        Ok(())
    }

    fn append(&mut self, values: Vec<Id>) -> Result<(), String> {
        let to = self.top()?;
        match &mut self.items[to] {
            Item::List(list) => list.extend(values),
            other => return Err(format!("appends to {other:?}")),
        }
        Ok(())
    }

    fn set(&mut self, values: &[Id]) -> Result<(), String> {
        let to = self.top()?;
        let (pairs, odd) = values.as_chunks::<2>();
        match &mut self.items[to] {
            Item::Dict(dict) if odd.is_empty() => dict.extend(pairs.iter().map(|&[k, v]| (k, v))),
            _ => return Err("sets keys of what is no dictionary".into()),
        }
        Ok(())
    }

    fn get(&mut self, key: u64) -> Result<(), String> {
        let id = *self.memo.get(&key).ok_or("takes what it did not keep")?;
        self.stack.push(id);
        Ok(())
    }

    fn keep(&mut self, key: u64) -> Result<(), String> {
        let id = self.top()?;
        self.memo.insert(key, id);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let full = format!("{module}.{name}");
        let Some((_, known)) = GLOBALS.iter().find(|g| g.0 == full) else {
            let full: String = full.chars().take(80).collect();
            return Err(format!(
                "wants Python's `{full}`; only tensors in dictionaries are read and nothing is executed: save \
                 `model.state_dict()` alone"
            ));
        };
        self.push(Item::Global(known));
        Ok(())
    }

    fn texts(&self, id: Id) -> Option<&str> {
        if let Item::Text(t) = &self.items[id] { Some(t) } else { None }
    }

    fn numbers(&self, id: Id) -> Option<Vec<i64>> {
        let (Item::Tuple(ids) | Item::List(ids)) = &self.items[id] else { return None };
        let ids = Some(ids).filter(|i| i.len() <= FEW)?;
        ids.iter().map(|&i| if let Item::Int(n) = self.items[i] { Some(n) } else { None }).collect()
    }

    /// `f(arguments)`, for the few `f` there are.
    fn call(&mut self) -> Result<(), String> {
        let (args, f) = (self.pop()?, self.pop()?);
        let args = match &self.items[args] {
            Item::Tuple(args) if args.len() <= FEW => args.clone(),
            _ => return Err("calls without arguments".into()),
        };
        let item = match (&self.items[f], &args[..]) {
            (Item::Global("dict"), []) => Some(Item::Dict(Vec::new())),
            (Item::Global("dict"), &[list]) => self.dict_of(list),
            (Item::Global("tuple"), &[of]) => match &self.items[of] {
                Item::Tuple(ids) | Item::List(ids) => Some(Item::Tuple(ids.clone())),
                _ => None,
            },
            (Item::Global("parameter"), &[tensor, ..]) => match &self.items[tensor] {
                Item::Tensor(t) => Some(Item::Tensor(t.clone())),
                _ => None,
            },
            (Item::Global("tensor"), &[storage, offset, shape, strides, ..]) => {
                self.tensor(storage, offset, shape, strides)
            }
            _ => None,
        };
        self.spend(item.as_ref())?;
        self.push(item.ok_or("calls a function with arguments that it does not have")?);
        Ok(())
    }

    /// Counts what a call copied: a few bytes may not make gigabytes by naming one large value many times.
    fn spend(&mut self, made: Option<&Item>) -> Result<(), String> {
        let cost = match made {
            Some(Item::Dict(pairs)) => pairs.len(),
            Some(Item::Tuple(ids)) => ids.len(),
            Some(Item::Tensor(RawTensor { key, .. }) | Item::Storage(_, key)) => key.len(),
            _ => 0,
        };
        self.copies = self.copies.checked_sub(cost).ok_or("copies the same values too often")?;
        Ok(())
    }

    fn dict_of(&self, list: Id) -> Option<Item> {
        let (Item::List(pairs) | Item::Tuple(pairs)) = &self.items[list] else { return None };
        let pair = |&id: &Id| match &self.items[id] {
            Item::Tuple(kv) | Item::List(kv) if kv.len() == 2 => Some((kv[0], kv[1])),
            _ => None,
        };
        Some(Item::Dict(pairs.iter().map(pair).collect::<Option<_>>()?))
    }

    fn tensor(&self, storage: Id, offset: Id, shape: Id, strides: Id) -> Option<Item> {
        let (Item::Storage(class, key), &Item::Int(offset)) = (&self.items[storage], &self.items[offset]) else {
            return None;
        };
        let (class, key) = (class.clone(), key.clone());
        Some(Item::Tensor(RawTensor {
            class,
            key,
            offset,
            shape: self.numbers(shape)?,
            strides: self.numbers(strides)?,
        }))
    }

    /// `('storage', class, key, place, elements)`: what PyTorch keeps outside the pickle.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let found = match &self.items[id] {
            Item::Tuple(v) if v.len() == 5 && self.texts(v[0]) == Some("storage") => match self.items[v[1]] {
                Item::Global(class) if class.ends_with("Storage") => {
                    self.texts(v[2]).map(|key| Item::Storage(class.to_string(), key.to_string()))
                }
                _ => None,
            },
            _ => None,
        };
        self.spend(found.as_ref())?;
        self.push(found.ok_or("refers to something that is no storage of a tensor")?);
        Ok(())
    }

    fn run(&mut self) -> Result<Id, String> {
        loop {
            let code = self.take(1)?[0];
            match code {
                0x80 => {
                    self.take(1)?;
                }
                0x95 => {
                    self.take(8)?;
                }
                b'.' => return self.pop(),
                b'(' => self.push(Item::Mark),
                b'0' => {
                    self.stack.pop().ok_or("takes more values than it gave")?;
                }
                b'1' => {
                    self.since_mark()?;
                }
                b'2' => {
                    let id = self.top()?;
                    self.stack.push(id);
                }
                b'N' => self.push(Item::None),
                0x88 | 0x89 => self.push(Item::Bool),
                b'J' => {
                    let n = self.number(4)? as u32;
                    self.push(Item::Int(i64::from(n as i32)));
                }
                b'K' => {
                    let n = self.number(1)?;
                    self.push(Item::Int(n as i64));
                }
                b'M' => {
                    let n = self.number(2)?;
                    self.push(Item::Int(n as i64));
                }
                0x8a => {
                    let bytes = self.sized(1)?;
                    if bytes.len() > 8 {
                        return Err("holds a number of more than 64 bits".into());
                    }
                    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
                    let fill = if negative { -1i64 } else { 0 };
                    self.push(Item::Int(bytes.iter().rev().fold(fill, |v, &b| v << 8 | i64::from(b))));
                }
                b'G' => {
                    self.take(8)?;
                    self.push(Item::Float);
                }
                b'X' => self.text(4)?,
                0x8c => self.text(1)?,
                0x8d => self.text(8)?,
                b'U' => self.text(1)?,
                b'T' => self.text(4)?,
                b'B' => {
                    self.sized(4)?;
                    self.push(Item::Bytes);
                }
                b'C' => {
                    self.sized(1)?;
                    self.push(Item::Bytes);
                }
                b')' => self.push(Item::Tuple(Vec::new())),
                b']' => self.push(Item::List(Vec::new())),
                b'}' => self.push(Item::Dict(Vec::new())),
                b't' => {
                    let values = self.since_mark()?;
                    self.push(Item::Tuple(values));
                }
                0x85..=0x87 => self.tuple(usize::from(code - 0x84))?,
                b'l' => {
                    let values = self.since_mark()?;
                    self.push(Item::List(values));
                }
                b'a' => {
                    let value = self.pop()?;
                    self.append(vec![value])?;
                }
                b'e' => {
                    let values = self.since_mark()?;
                    self.append(values)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let values = self.since_mark()?;
                    self.set(&values)?;
                }
                b'q' => {
                    let key = self.number(1)?;
                    self.keep(key)?;
                }
                b'r' => {
                    let key = self.number(4)?;
                    self.keep(key)?;
                }
                0x94 => self.keep(self.memo.len() as u64)?,
                b'h' => {
                    let key = self.number(1)?;
                    self.get(key)?;
                }
                b'j' => {
                    let key = self.number(4)?;
                    self.get(key)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(module, name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Some(module), Some(name)) = (self.texts(module), self.texts(name)) else {
                        return Err("names something without a name".into());
                    };
                    let (module, name) = (module.to_string(), name.to_string());
                    self.global(&module, &name)?;
                }
                b'Q' => self.persistent()?,
                b'R' => self.call()?,
                // Attributes of a dictionary or a parameter: `_metadata` of a state dictionary, which nothing here needs.
                b'b' => {
                    self.pop()?;
                    self.top()?;
                }
                _ => return Err(format!("has the instruction {code:#04x}, which state dictionaries do not use")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_are_read() {
        // {"a": (1, -2), "b": [None]}
        let (items, root) = read(b"\x80\x02}(X\x01\0\0\0aK\x01J\xfe\xff\xff\xff\x86X\x01\0\0\0b]Nau.").unwrap();
        let Item::Dict(pairs) = &items[root] else { panic!("{items:?}") };
        let Item::Tuple(t) = &items[pairs[0].1] else { panic!("{items:?}") };
        assert_eq!((pairs.len(), &items[t[0]], &items[t[1]]), (2, &Item::Int(1), &Item::Int(-2)));
        let (items, root) = read(b"\x80\x02\x8a\x02\x00\x80.").unwrap();
        assert_eq!(items[root], Item::Int(-32768));
    }

    #[test]
    fn nothing_is_executed() {
        for (bytes, word) in [
            (&b"cos\nsystem\n(X\x02\0\0\0lstR."[..], "os.system"),
            (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "builtins.eval"),
            (b"ccollections\nOrderedDict\n(K\x01tR.", "arguments"),
            (b"(K\x01i__main__\nX\n.", "0x69"),
            (b"K\x01K\x01R.", "without arguments"),
            (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "arguments"),
        ] {
            let err = read(bytes).unwrap_err();
            assert!(err.contains(word), "{word}: {err}");
        }
    }

    #[test]
    fn broken_and_hostile_pickles_are_errors() {
        for bytes in [
            &b""[..],
            b".",
            b"(.",
            b"X\xff\xff\xff\xffa.",
            b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.",
            b"t.",
            b"e.",
            b"K\x01a.",
            b"}K\x01s.",
            b"(s.",
            b"h\x01.",
            b"q\x01.",
            b"\x86.",
            b"\x93.",
            b"Q.",
            b"K\x01Q.",
            b"cx",
            b"\x8a\x09.........",
            b"b.",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
        // A list in a list in a list, a million deep, and one that holds itself.
        let deep = [vec![b']'; 1_000_000], vec![b'a'; 999_999], vec![b'.']].concat();
        assert_eq!(read(&deep).unwrap().1, 0);
        assert_eq!(read(b"]q\x00h\x00a.").unwrap().0, [Item::List(vec![0])]);
        // A thousand copies of a list of a thousand.
        let list = [&b"ctorch\nSize\nq\x00(("[..], &[b'N'; 1000], b"l\x85q\x01"].concat();
        let copies = [list, b"h\x00h\x01R".repeat(1000), b".".to_vec()].concat();
        assert!(read(&copies).unwrap_err().contains("too often"));
    }

    /// Every byte of a valid pickle replaced by every other: an error or a value, never a panic.
    #[test]
    fn changed_bytes_do_not_panic() {
        let good = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n(\
            (X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQK\x00K\x02\x85K\x01\x85\x89h\x00)\
            Rtq\x02Rs.";
        let (items, root) = read(good).unwrap();
        let Item::Dict(pairs) = &items[root] else { panic!("{items:?}") };
        assert!(matches!(&items[pairs[0].1], Item::Tensor(t) if t.class == "FloatStorage" && t.shape == [2]));
        for i in 0..good.len() {
            for b in 0..=255 {
                let mut bytes = good.to_vec();
                bytes[i] = b;
                let _ = read(&bytes);
            }
        }
    }
}
