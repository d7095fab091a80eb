//! The WGSL preprocessor: imports, definitions, conditions, loops, and kernels declared as products of choices.
//!
//! It uses the standard library alone, because the build script compiles this file too.
//!
//! | directive | meaning |
//! | --- | --- |
//! | `#import topic` | the text of `wgsl/shared/topic.wgsl`, once per kernel; its unused functions and constants are dropped |
//! | `#define NAME value` | an integer expression, a symbol, or any other text |
//! | `#if e`, `#elif e`, `#else`, `#endif` | conditions; names that are not defined are symbols, to be compared with `==` |
//! | `#for i in a..b`, `#endfor` | the body once for every `i` from `a` up to but not including `b` |
//! | `#error text` | stops the expansion |
//! | `#kernel NAME_$A : A in x y, B=3 if e` | declares kernels; see [`kernels`] |
//!
//! In ordinary lines `$NAME` and `${expression}` are replaced. Comments, blank lines and indentation are dropped.

// By path: the build script compiles this file too, and would look elsewhere.
#[path = "preprocess/expression.rs"]
mod expression;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use expression::eval;
use expression::truth;

/// What is wrong with a shader, and where.
///
/// ```
/// # use shadegrad_shaders::*;
/// let err = preprocess("mine", "\n#if 1\n", &[]).unwrap_err();
/// assert_eq!((&err.file[..], err.line), ("mine", Some(2)));
/// assert_eq!(err.to_string(), "mine: line 2: #if without #endif");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShaderError {
    /// The file, or empty where only the kernel's name is known.
    pub file: String,
    /// The kernel being expanded or reflected, or empty outside one.
    pub kernel: String,
    /// The line, counted from 1; of the file where one is named, otherwise of the kernel's expanded text.
    pub line: Option<u32>,
    /// What happened and what to do.
    pub message: String,
}

impl ShaderError {
    /// An error in `file` at `line`.
    pub(crate) fn at(file: &str, line: u32, message: impl Into<String>) -> Self {
        Self { file: file.into(), kernel: String::new(), line: Some(line), message: message.into() }
    }
}

impl fmt::Display for ShaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.file.is_empty(), self.kernel.is_empty()) {
            (false, false) => write!(f, "{}, kernel {}: ", self.file, self.kernel)?,
            (false, true) => write!(f, "{}: ", self.file)?,
            (true, false) => write!(f, "kernel {}: ", self.kernel)?,
            (true, true) => {}
        }
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ShaderError {}

/// A preprocessor value.
///
/// ```
/// use shadegrad_shaders::preprocess::{Defines, Value, eval};
/// assert_eq!(eval("2 * 32", &Defines::new()), Ok(Value::Int(64)));
/// assert_eq!(eval("fast", &Defines::new()), Ok(Value::Sym("fast".into())));
/// assert_eq!(Value::Int(64).to_string(), "64"); // as it is put into a text
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An integer.
    Int(i64),
    /// A name or other text, compared by spelling.
    Sym(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(v) => write!(f, "{v}"),
            Self::Sym(s) => f.write_str(s),
        }
    }
}

/// The definitions in force.
///
/// ```
/// use shadegrad_shaders::preprocess::{Defines, Value, eval};
/// let defines = Defines::from([("N".into(), Value::Int(4)), ("MODE".into(), Value::Sym("fast".into()))]);
/// assert_eq!(eval("N > 2 && MODE == fast", &defines), Ok(Value::Int(1)));
/// ```
pub type Defines = BTreeMap<String, Value>;

/// Finds the text of a shared topic; the result names the file for messages.
pub(crate) type Import<'a> = &'a dyn Fn(&str) -> Option<(String, String)>;

/// One line of an expansion and the place it came from.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The text, without indentation and comments.
    pub(crate) text: String,
    /// Index into [`Expanded::files`].
    pub(crate) file: usize,
    /// Line of that file, from 1.
    pub(crate) line: u32,
}

/// An expanded text that remembers where its lines came from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expanded {
    /// The lines in order.
    pub(crate) lines: Vec<Line>,
    /// The main file, then the imported ones.
    pub(crate) files: Vec<String>,
    /// The definitions at the end of the text.
    pub(crate) defines: Defines,
}

impl Expanded {
    /// The whole text, ending with a newline.
    pub(crate) fn text(&self) -> String {
        let mut out = String::with_capacity(self.lines.iter().map(|l| l.text.len() + 1).sum());
        for l in &self.lines {
            out.push_str(&l.text);
            out.push('\n');
        }
        out
    }
    /// Turns an error about a line of the expanded text into one about the file that line came from.
    pub(crate) fn locate(&self, mut err: ShaderError) -> ShaderError {
        if let Some(name) = self.defines.keys().find(|name| err.message.contains(&format!("identifier: `{name}`"))) {
            err.message = format!("{}\n    (a definition is written ${name} in a line of WGSL)", err.message);
        }
        match err.line.and_then(|n| self.lines.get((n as usize).saturating_sub(1))) {
            Some(l) => {
                err.file.clone_from(&self.files[l.file]);
                err.line = Some(l.line);
            }
            None => err.file = self.files.first().cloned().unwrap_or_default(),
        }
        err
    }
}

/// One kernel declared by a `#kernel` line.
///
/// ```
/// # use shadegrad_shaders::*;
/// use shadegrad_shaders::preprocess::{Value, kernels};
/// let declared = &kernels("mine", "\n#kernel twice_$N : N in 1 4")?[1];
/// assert_eq!((&declared.name[..], declared.line), ("twice_4", 2));
/// assert_eq!(declared.defines["N"], Value::Int(4));
/// assert_eq!(declared.defines["KERNEL"], Value::Sym("twice".into()));
/// # Ok::<(), ShaderError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Declared {
    /// The kernel's name: the pattern with its choices filled in.
    pub name: String,
    /// The choices, the fixed values and `KERNEL`.
    pub defines: Defines,
    /// The line of the declaration.
    pub line: u32,
}

/// Expands `text`.
///
/// # Errors
/// Any malformed directive or expression, an unknown `$name`, or an import that `import` does not find.
pub(crate) fn expand(file: &str, text: &str, defines: &Defines, import: Import<'_>) -> Result<Expanded, ShaderError> {
    let mut state = State {
        import,
        defines: defines.clone(),
        imported: BTreeSet::new(),
        out: Expanded { files: vec![file.into()], ..Expanded::default() },
    };
    let lines: Vec<&str> = text.lines().collect();
    state.block(&lines, 0..lines.len(), 0)?;
    let mut out = Expanded { defines: state.defines, ..state.out };
    prune_imports(&mut out);
    Ok(out)
}

/// A definition's value: an integer if the text evaluates to one, otherwise the text itself.
pub(crate) fn value_of(text: &str, defines: &Defines) -> Value {
    let text = text.trim();
    eval(text, defines).unwrap_or_else(|_| Value::Sym(text.into()))
}

/// All kernels that the `#kernel` lines of a file declare, in the file's order.
///
/// `#kernel unary_$OP_$N : OP in exp log, N in 1 4, WG=256 if N == 1 || OP == exp` declares `unary_exp_1`, `unary_exp_4` and
/// `unary_log_1`. Each has its choices, its fixed values and `KERNEL` (the pattern up to the first `_$`) as definitions.
/// A choice `0..4` stands for 0 1 2 3.
///
/// ```
/// # use shadegrad_shaders::*;
/// use shadegrad_shaders::preprocess::kernels;
/// let text = "#kernel unary_$OP_$N : OP in exp log, N in 1 4 if N == 1 || OP == exp";
/// let names: Vec<String> = kernels("mine", text)?.into_iter().map(|k| k.name).collect();
/// assert_eq!(names, ["unary_exp_1", "unary_exp_4", "unary_log_1"]);
/// # Ok::<(), ShaderError>(())
/// ```
///
/// # Errors
/// A malformed line, a name that is no identifier, or a file that declares nothing.
pub fn kernels(file: &str, text: &str) -> Result<Vec<Declared>, ShaderError> {
    let mut out: Vec<Declared> = Vec::new();
    for (at, raw) in text.lines().enumerate() {
        let line = at as u32 + 1;
        let code = strip_comment(raw).trim();
        let Some(rest) = directive(code, "#kernel") else { continue };
        let fail = |m: String| ShaderError::at(file, line, m);
        let (rest, cond) = match rest.rfind(" if ") {
            Some(i) => (&rest[..i], Some(rest[i + 4..].trim())),
            None => (rest, None),
        };
        let (pattern, clauses) = rest.split_once(':').unwrap_or((rest, ""));
        let pattern = pattern.trim();
        let base = pattern.split("_$").next().unwrap_or(pattern);
        if base.is_empty() || base.contains('$') {
            return Err(fail(format!(
                "#kernel {pattern}: begin with a literal part and `_$`, as in `#kernel unary_$OP`"
            )));
        }
        let mut sets: Vec<Defines> = vec![Defines::new()];
        for clause in clauses.split(',').map(str::trim).filter(|c| !c.is_empty()) {
            let (name, values) = if let Some((name, values)) = clause.split_once(" in ") {
                let mut list = Vec::new();
                for word in values.split_whitespace() {
                    match word.split_once("..").map(|(a, b)| (a.parse::<i64>(), b.parse::<i64>())) {
                        Some((Ok(a), Ok(b))) => list.extend((a..b).map(Value::Int)),
                        _ => list.push(value_of(word, &Defines::new())),
                    }
                }
                (name.trim(), list)
            } else if let Some((name, value)) = clause.split_once('=') {
                (name.trim(), vec![value_of(value, &Defines::new())])
            } else {
                return Err(fail(format!("#kernel {pattern}: `{clause}` is neither `NAME in a b c` nor `NAME=value`")));
            };
            if !is_ident(name) || values.is_empty() {
                return Err(fail(format!("#kernel {pattern}: `{clause}` needs a name and at least one value")));
            }
            sets = sets
                .iter()
                .flat_map(|set| {
                    values.iter().map(move |v| {
                        let mut set = set.clone();
                        set.insert(name.into(), v.clone());
                        set
                    })
                })
                .collect();
        }
        for mut set in sets {
            set.insert("KERNEL".into(), Value::Sym(base.into()));
            if let Some(cond) = cond
                && !truth(cond, &set).map_err(&fail)?
            {
                continue;
            }
            let name = substitute(pattern, &set).map_err(&fail)?;
            if !is_ident(&name) || name.chars().any(|c| c.is_ascii_uppercase()) {
                return Err(fail(format!(
                    "#kernel {pattern} gives the name `{name}`: use lower-case letters, digits and _"
                )));
            }
            if let Some(twin) = out.iter().find(|k| k.name == name) {
                return Err(fail(format!("kernel {name} is declared twice, first on line {}", twin.line)));
            }
            out.push(Declared { name, defines: set, line });
        }
    }
    if out.is_empty() {
        return Err(ShaderError::at(file, 1, "declares no kernel: add a line `#kernel name`"));
    }
    Ok(out)
}

/// The line without its `//` comment.
fn strip_comment(line: &str) -> &str {
    line.find("//").map_or(line, |i| &line[..i])
}

/// `rest` of `name rest`, if the line is that directive.
fn directive<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(name)?;
    (rest.is_empty() || rest.starts_with(char::is_whitespace)).then(|| rest.trim())
}

fn is_ident(s: &str) -> bool {
    s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && s.chars().all(is_word)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

struct State<'a> {
    import: Import<'a>,
    defines: Defines,
    imported: BTreeSet<String>,
    out: Expanded,
}

impl State<'_> {
    /// Expands the lines of `range`, which holds whole `#if` and `#for` blocks only.
    fn block(&mut self, lines: &[&str], range: std::ops::Range<usize>, file: usize) -> Result<(), ShaderError> {
        let mut i = range.start;
        while i < range.end {
            let code = strip_comment(lines[i]).trim();
            let line = i as u32 + 1;
            if let Some(name) = code.strip_prefix('#') {
                let word = name.split(|c: char| !is_word(c)).next().unwrap_or("");
                let rest = name[word.len()..].trim();
                match word {
                    "if" => i = self.conditional(lines, i, range.end, file)?,
                    "for" => {
                        let end = self.end_of(lines, i, range.end, file, "#for", "#endfor")?;
                        self.repeat(lines, i, end, file, rest)?;
                        i = end;
                    }
                    "import" => {
                        let topic = self.subst(rest, file, line)?;
                        self.import(&topic, file, line)?;
                    }
                    "define" => {
                        let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, "1"));
                        if !is_ident(name) {
                            return Err(self.fail(file, line, format!("#define {name}: not a name")));
                        }
                        let value = self.subst(value, file, line)?;
                        let value = value_of(&value, &self.defines);
                        self.defines.insert(name.into(), value);
                    }
                    "error" => return Err(self.fail(file, line, self.subst(rest, file, line)?)),
                    "kernel" => {}
                    "elif" | "else" | "endif" => {
                        return Err(self.fail(file, line, format!("#{word} without #if")));
                    }
                    "endfor" => return Err(self.fail(file, line, "#endfor without #for")),
                    _ => return Err(self.fail(file, line, format!("unknown directive #{word}"))),
                }
            } else if !code.is_empty() {
                let text = self.subst(code, file, line)?;
                self.out.lines.push(Line { text, file, line });
            }
            i += 1;
        }
        Ok(())
    }

    fn fail(&self, file: usize, line: u32, message: impl Into<String>) -> ShaderError {
        ShaderError::at(&self.out.files[file], line, message)
    }

    fn subst(&self, text: &str, file: usize, line: u32) -> Result<String, ShaderError> {
        substitute(text, &self.defines).map_err(|m| self.fail(file, line, m))
    }

    fn truth(&self, text: &str, file: usize, line: u32) -> Result<bool, ShaderError> {
        let text = self.subst(text, file, line)?;
        truth(&text, &self.defines).map_err(|m| self.fail(file, line, m))
    }

    /// The line that closes the block opened at `from`.
    fn end_of(
        &self,
        lines: &[&str],
        from: usize,
        limit: usize,
        file: usize,
        open: &str,
        close: &str,
    ) -> Result<usize, ShaderError> {
        let mut depth = 0;
        for (i, raw) in lines.iter().enumerate().take(limit).skip(from) {
            let code = strip_comment(raw).trim();
            if directive(code, open).is_some() {
                depth += 1;
            } else if directive(code, close).is_some() {
                depth -= 1;
                if depth == 0 {
                    return Ok(i);
                }
            }
        }
        Err(self.fail(file, from as u32 + 1, format!("{open} without {close}")))
    }

    /// Expands the branch of the `#if` at `from` that is taken; returns the line of its `#endif`.
    fn conditional(&mut self, lines: &[&str], from: usize, limit: usize, file: usize) -> Result<usize, ShaderError> {
        let end = self.end_of(lines, from, limit, file, "#if", "#endif")?;
        let mut depth = 0;
        let mut taken: Option<std::ops::Range<usize>> = None;
        let mut open: Option<usize> = None; // first line of the branch being collected, if it is the one taken
        let mut seen_else = false;
        for (i, raw) in lines.iter().enumerate().take(end + 1).skip(from) {
            let code = strip_comment(raw).trim();
            let line = i as u32 + 1;
            let head = if directive(code, "#if").is_some() {
                depth += 1;
                if depth > 1 {
                    continue;
                }
                directive(code, "#if")
            } else if directive(code, "#endif").is_some() {
                depth -= 1;
                if depth == 0 {
                    if let Some(start) = open.take() {
                        taken = Some(start..i);
                    }
                    break;
                }
                continue;
            } else if depth == 1 && (directive(code, "#elif").is_some() || directive(code, "#else").is_some()) {
                if seen_else {
                    return Err(self.fail(file, line, "a branch after #else"));
                }
                if let Some(start) = open.take() {
                    taken = Some(start..i);
                }
                seen_else = directive(code, "#else").is_some();
                if seen_else { Some("1") } else { directive(code, "#elif") }
            } else {
                continue;
            };
            if taken.is_none() && self.truth(head.unwrap_or(""), file, line)? {
                open = Some(i + 1);
            }
        }
        if let Some(range) = taken {
            self.block(lines, range, file)?;
        }
        Ok(end)
    }

    fn repeat(&mut self, lines: &[&str], from: usize, end: usize, file: usize, rest: &str) -> Result<(), ShaderError> {
        let line = from as u32 + 1;
        let usage = || self.fail(file, line, "write `#for i in a..b`");
        let (name, bounds) = rest.split_once(" in ").ok_or_else(usage)?;
        let (a, b) = bounds.split_once("..").ok_or_else(usage)?;
        let name = name.trim();
        if !is_ident(name) {
            return Err(usage());
        }
        let bound = |text: &str| -> Result<i64, ShaderError> {
            let text = self.subst(text, file, line)?;
            match eval(&text, &self.defines).map_err(|m| self.fail(file, line, m))? {
                Value::Int(v) => Ok(v),
                Value::Sym(s) => Err(self.fail(file, line, format!("#for: the bound `{s}` is not defined"))),
            }
        };
        let (a, b) = (bound(a)?, bound(b)?);
        if b - a > 4096 {
            return Err(self.fail(file, line, format!("#for: {} repetitions; at most 4096", b - a)));
        }
        let outer = self.defines.get(name).cloned();
        for v in a..b {
            self.defines.insert(name.into(), Value::Int(v));
            self.block(lines, from + 1..end, file)?;
        }
        match outer {
            Some(v) => self.defines.insert(name.into(), v),
            None => self.defines.remove(name),
        };
        Ok(())
    }

    fn import(&mut self, topic: &str, file: usize, line: u32) -> Result<(), ShaderError> {
        if !self.imported.insert(topic.into()) {
            return Ok(());
        }
        let Some((path, text)) = (self.import)(topic) else {
            return Err(self.fail(file, line, format!("#import {topic}: there is no shared/{topic}.wgsl")));
        };
        self.out.files.push(path);
        let index = self.out.files.len() - 1;
        let lines: Vec<&str> = text.lines().collect();
        self.block(&lines, 0..lines.len(), index)
    }
}

/// Replaces `$NAME` and `${expression}`.
///
/// `$NAME` takes the longest defined name that ends where the word ends or before one of its underscores, so that
/// `x_$A_$B` means `x_${A}_${B}` when `A_` is not defined.
///
/// # Errors
/// A name that is not defined, or a malformed expression.
fn substitute(text: &str, defines: &Defines) -> Result<String, String> {
    if !text.contains('$') {
        return Ok(text.into());
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(inner) = rest.strip_prefix('{') {
            let close = inner.find('}').ok_or_else(|| format!("`${{{inner}`: the brace is not closed"))?;
            let expr = &inner[..close];
            let value = eval(expr, defines)?;
            if let Value::Sym(s) = &value
                && !defines.contains_key(expr.trim())
                && s == expr.trim()
            {
                return Err(format!("`${{{expr}}}`: {s} is not defined"));
            }
            out.push_str(&value.to_string());
            rest = &inner[close + 1..];
        } else {
            let len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let word = &rest[..len];
            let cuts = std::iter::once(len)
                .chain(word.char_indices().rev().filter(|&(_, c)| c == '_').flat_map(|(i, _)| [i + 1, i]));
            let (cut, value) =
                cuts.filter_map(|cut| defines.get(&word[..cut]).map(|v| (cut, v))).next().ok_or_else(|| {
                    format!("`${word}`: not defined; write `${{NAME}}rest` where a word follows the name")
                })?;
            out.push_str(&value.to_string());
            rest = &rest[cut..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Drops the imported functions and constants that nothing names: every kernel would otherwise carry, and every driver
/// compile, the whole of what it imports.
fn prune_imports(out: &mut Expanded) {
    struct Item {
        name: String,
        range: std::ops::Range<usize>,
    }
    let mut items: Vec<Item> = Vec::new();
    let mut i = 0;
    while i < out.lines.len() {
        let l = &out.lines[i];
        let name = (l.file != 0)
            .then(|| directive(&l.text, "fn").or_else(|| directive(&l.text, "const")))
            .flatten()
            .map(|rest| rest.split(|c| !is_word(c)).next().unwrap_or("").to_string());
        let Some(name) = name else {
            i += 1;
            continue;
        };
        let is_fn = l.text.starts_with("fn");
        let (start, mut depth, mut opened) = (i, 0i32, false);
        while i < out.lines.len() {
            let text = &out.lines[i].text;
            depth += text.matches('{').count() as i32 - text.matches('}').count() as i32;
            opened |= text.contains('{');
            i += 1;
            if depth == 0 && (if is_fn { opened } else { text.ends_with(';') }) {
                break;
            }
        }
        items.push(Item { name, range: start..i });
    }
    if items.is_empty() {
        return;
    }
    let words = |range: std::ops::Range<usize>| -> BTreeSet<String> {
        out.lines[range]
            .iter()
            .flat_map(|l| l.text.split(|c| !is_word(c)).filter(|w| is_ident(w)).map(String::from))
            .collect()
    };
    let mut live: Vec<bool> = vec![false; items.len()];
    let mut pending: Vec<String> = Vec::new();
    let mut next = 0;
    for item in &items {
        pending.extend(words(next..item.range.start));
        next = item.range.end;
    }
    pending.extend(words(next..out.lines.len()));
    while let Some(word) = pending.pop() {
        for (item, live) in items.iter().zip(&mut live) {
            if !*live && item.name == word {
                *live = true;
                pending.extend(words(item.range.clone()));
            }
        }
    }
    let dead: Vec<bool> = {
        let mut dead = vec![false; out.lines.len()];
        for (item, live) in items.iter().zip(&live) {
            if !live {
                dead[item.range.clone()].fill(true);
            }
        }
        dead
    };
    let mut at = 0;
    out.lines.retain(|_| {
        at += 1;
        !dead[at - 1]
    });
}
