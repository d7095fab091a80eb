//! Finds places in backward rules where a mistake can be made, and writes the text in which all can.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Fallible;

/// A place where mistakes can be made.
pub struct Site {
    /// The number of its first mistake.
    pub id: usize,
    /// What each of its mistakes does, for people.
    pub changes: Vec<String>,
    /// The lines that it is on, the first being 1.
    pub lines: BTreeSet<usize>,
    /// The first of these, and where in it.
    pub text: String,
    pub column: usize,
    /// What becomes of which bytes.
    edits: Vec<(Range<usize>, String)>,
}

/// The methods of tensors that the copy has wrong forms of, with what these do instead.
const METHODS: [(&str, &[&str]); 37] = [
    ("add", &["sub", "left out"]),
    ("sub", &["add", "swapped", "left out"]),
    ("mul", &["add", "left out"]),
    ("div", &["mul", "swapped"]),
    ("mul_scalar", &["left out", "negated"]),
    ("add_scalar", &["left out", "negated"]),
    ("neg", &["left out"]),
    ("square", &["left out"]),
    ("recip", &["left out"]),
    ("exp", &["left out"]),
    ("log", &["left out"]),
    ("sqrt", &["rsqrt"]),
    ("rsqrt", &["sqrt"]),
    ("sin", &["cos"]),
    ("cos", &["sin"]),
    ("tanh", &["sigmoid"]),
    ("sigmoid", &["tanh"]),
    ("softplus", &["relu"]),
    ("erf", &["tanh"]),
    ("tril", &["triu"]),
    ("triu", &["tril"]),
    ("gt_scalar", &["ge_scalar", "lt_scalar"]),
    ("ge_scalar", &["gt_scalar", "lt_scalar"]),
    ("le_scalar", &["lt_scalar", "gt_scalar"]),
    ("ne_scalar", &["eq_scalar"]),
    ("ge", &["gt", "lt"]),
    ("le", &["lt", "gt"]),
    ("select", &["swapped"]),
    ("matmul_t", &["the left transposed", "the right transposed", "swapped"]),
    ("sum_to", &["left out"]),
    ("complex_mul", &["conjugated", "swapped"]),
    ("complex_mul_conj", &["not conjugated", "swapped"]),
    ("clamp", &["left out"]),
    ("sum", &["mean"]),
    ("solve_triangular", &["the other triangle", "transposed"]),
    ("roll", &["backwards"]),
    ("permute", &["reversed"]),
];
/// Those whose name is that of a method of `Option` too, which takes nothing.
const METHODS_WITH_ARGUMENTS: [(&str, &[&str]); 2] = [("transpose", &["left out"]), ("log_softmax", &["softmax"])];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Word,
    Number,
    Sign,
    Other,
}

struct Token<'a> {
    kind: Kind,
    text: &'a str,
    from: usize,
}

impl Token<'_> {
    fn to(&self) -> usize {
        self.from + self.text.len()
    }
}

/// The tokens of a text, without comments. Signs are one character each.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let mut all = Vec::new();
    let mut i = 0;
    let until =
        |from: usize, stop: &dyn Fn(usize) -> bool| (from..bytes.len()).find(|&j| stop(j)).unwrap_or(bytes.len());
    while i < bytes.len() {
        let word = |j: usize| bytes[j].is_ascii_alphanumeric() || bytes[j] == b'_';
        let (kind, end) = match bytes[i] {
            b if b.is_ascii_whitespace() => {
                i += 1;
                continue;
            }
            b'/' if bytes[i..].starts_with(b"//") => {
                i = until(i, &|j| bytes[j] == b'\n');
                continue;
            }
            b'"' => (Kind::Other, until(i + 1, &|j| bytes[j] == b'"' && bytes[j - 1] != b'\\') + 1),
            b'\'' if bytes.get(i + 2) == Some(&b'\'') => (Kind::Other, i + 3),
            b'\'' => (Kind::Other, until(i + 1, &|j| !word(j))),
            b if b.is_ascii_digit() => {
                let whole = until(i, &|j| !word(j));
                let fraction = bytes.get(whole) == Some(&b'.') && bytes.get(whole + 1).is_some_and(u8::is_ascii_digit);
                (Kind::Number, if fraction { until(whole + 1, &|j| !word(j)) } else { whole })
            }
            _ if word(i) => (Kind::Word, until(i, &|j| !word(j))),
            _ => (Kind::Sign, i + text[i..].chars().next().map_or(1, char::len_utf8)),
        };
        all.push(Token { kind, text: &text[i..end], from: i });
        i = end;
    }
    all
}

/// For each opening bracket the number of the token that closes it, and for each token that of the bracket around it.
fn brackets(tokens: &[Token]) -> (Vec<usize>, Vec<usize>) {
    let (mut close, mut around) = (vec![usize::MAX; tokens.len()], vec![usize::MAX; tokens.len()]);
    let mut open = Vec::new();
    for (i, t) in tokens.iter().enumerate() {
        if t.kind == Kind::Sign && [")", "]", "}"].contains(&t.text) {
            close[open.pop().unwrap_or(0)] = i;
        }
        around[i] = open.last().copied().unwrap_or(usize::MAX);
        if t.kind == Kind::Sign && ["(", "[", "{"].contains(&t.text) {
            open.push(i);
        }
    }
    (close, around)
}

/// Collects the places of one file.
struct Finder<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    close: Vec<usize>,
    around: Vec<usize>,
    found: Vec<Site>,
    next: &'a mut usize,
}

impl Finder<'_> {
    fn is(&self, i: usize, text: &str) -> bool {
        self.tokens.get(i).is_some_and(|t| t.text == text)
    }

    fn one_of(&self, i: usize, texts: &[&str]) -> bool {
        self.tokens.get(i).is_some_and(|t| texts.contains(&t.text))
    }

    fn kind(&self, i: usize) -> Kind {
        self.tokens.get(i).map_or(Kind::Other, |t| t.kind)
    }

    /// The end of an expression that starts at `i`: the token behind it.
    fn end(&self, mut i: usize) -> usize {
        while i < self.tokens.len() && !self.one_of(i, &[",", ";", ")", "]", "}"]) {
            i = if self.close[i] == usize::MAX { i + 1 } else { self.close[i] + 1 };
        }
        i
    }

    /// The tokens of backward rules: closures of two arguments the first of which is the context, slopes, and helpers.
    fn regions(&self, helpers: &[&str]) -> Vec<Range<usize>> {
        let mut regions: Vec<Range<usize>> = Vec::new();
        for i in 0..self.tokens.len() {
            if self.is(i, "|") && self.one_of(i + 1, &["ctx", "_"]) && self.one_of(i + 2, &[",", ":"]) {
                let Some(end) = (i + 2..i + 14).find(|&j| self.is(j, "|")) else { continue };
                regions.push(end + 1..self.end(end + 1));
            } else if self.one_of(i, &["fused", "by_input", "by_output", "parametric"])
                && self.is(i.wrapping_sub(1), ".")
            {
                let Some(bar) = (i..self.close[i + 1]).find(|&j| self.is(j, "|")) else { continue };
                let Some(end) = (bar + 1..bar + 6).find(|&j| self.is(j, "|")) else { continue };
                regions.push(end + 1..self.end(end + 1));
            } else if self.is(i, "fn") && helpers.contains(&self.tokens[i + 1].text) {
                let Some(body) = (i..self.tokens.len()).find(|&j| self.is(j, "{")) else { continue };
                regions.push(body + 1..self.close[body]);
            }
        }
        regions
    }

    fn add(&mut self, at: usize, changes: Vec<String>, edits: Vec<(Range<usize>, String)>) {
        let line = |at: usize| self.text[..at].matches('\n').count() + 1;
        let from = self.tokens[at].from;
        let start = self.text[..from].rfind('\n').map_or(0, |i| i + 1);
        let whole = self.text[start..].lines().next().unwrap_or_default();
        let indent = whole.len() - whole.trim_start().len();
        let id = *self.next;
        *self.next += changes.len();
        self.found.push(Site {
            id,
            changes,
            lines: edits.iter().map(|(r, _)| line(r.start)).collect(),
            text: whole.trim().into(),
            column: from - start - indent + 1,
            edits,
        });
    }

    /// Puts `before` and `after` around the tokens.
    fn wrap(&mut self, at: Range<usize>, change: &str, before: &str, after: &str) {
        let (from, to) = (self.tokens[at.start].from, self.tokens[at.end - 1].to());
        let before = before.replace('#', &self.next.to_string());
        self.add(at.start, vec![change.into()], vec![(from..from, before), (to..to, after.into())]);
    }

    /// Puts `with` in the place of the tokens.
    fn replace(&mut self, at: Range<usize>, changes: Vec<String>, with: &str) {
        let bytes = self.tokens[at.start].from..self.tokens[at.end - 1].to();
        let with = with.replace('#', &self.next.to_string());
        self.add(at.start, changes, vec![(bytes, with)]);
    }

    fn find(&mut self, region: Range<usize>) {
        // Tokens that are part of another place already.
        let mut taken: BTreeSet<usize> = BTreeSet::new();
        for i in region.clone() {
            self.arithmetic(i, &mut taken);
        }
        for i in region.clone() {
            self.method(i);
            self.condition(i);
            self.gradient(i);
            if !taken.contains(&i) {
                self.literal(i);
            }
        }
        self.wrong_tensor(region);
    }

    /// Sums, differences and products of two words or numbers, and negative ones.
    fn arithmetic(&mut self, i: usize, taken: &mut BTreeSet<usize>) {
        let simple = |k: Kind| k == Kind::Word || k == Kind::Number;
        let opens = |f: &Self, i: usize| f.one_of(i, &["(", ",", "=", "{", "["]);
        let closes = |f: &Self, i: usize| f.one_of(i, &[")", ",", ";", "}", "]"]);
        let text = |f: &Self, i: usize| f.tokens[i].text.to_string();
        let swaps = [("+", "-"), ("-", "+"), ("*", "/"), ("/", "*")];
        if opens(self, i - 1) && simple(self.kind(i)) && simple(self.kind(i + 2)) && closes(self, i + 3) {
            let Some((was, is)) = swaps.iter().find(|(was, _)| self.is(i + 1, was)) else { return };
            let (left, right) = (text(self, i), text(self, i + 2));
            let with = format!("crate::wrong::pick(#, {left} {was} {right}, {left} {is} {right})");
            self.replace(i..i + 3, vec![format!("{was} -> {is}")], &with);
            taken.extend(i..i + 3);
        } else if opens(self, i - 1) && self.is(i, "-") && simple(self.kind(i + 1)) && closes(self, i + 2) {
            let x = text(self, i + 1);
            self.replace(i..i + 2, vec![format!("-{x} -> {x}")], &format!("crate::wrong::pick(#, -{x}, {x})"));
            taken.extend(i..i + 2);
        }
    }

    fn literal(&mut self, i: usize) {
        let (kind, text) = (self.kind(i), self.tokens[i].text.to_string());
        if kind == Kind::Number && !self.is(i - 1, ".") {
            let wrong = match text.replace('_', "").parse::<u64>() {
                Ok(n) => (n + 1).to_string(),
                Err(_) => match text.replace('_', "").parse::<f64>() {
                    Ok(x) => format!("{:?}", 1.25 * x + 0.25),
                    Err(_) => return,
                },
            };
            let with = format!("crate::wrong::pick(#, {text}, {wrong})");
            self.replace(i..i + 1, vec![format!("{text} -> {wrong}")], &with);
        } else if (text == "true" || text == "false") && !(self.is(i + 1, "=") && self.is(i + 2, ">")) {
            self.replace(i..i + 1, vec![format!("not {text}")], &format!("(crate::wrong::on(#) ^ {text})"));
        } else if text == "!" && self.kind(i + 1) == Kind::Word && self.kind(i - 1) != Kind::Word {
            self.replace(i..i + 1, vec!["! left out".into()], "crate::wrong::on(#) ^ !");
        }
    }

    fn method(&mut self, i: usize) {
        if !self.is(i.wrapping_sub(1), ".") || !self.is(i + 1, "(") {
            return;
        }
        let name = self.tokens[i].text.to_string();
        if name == "output" && self.is(i - 2, "ctx") {
            let with = "crate::wrong::output(#, ctx, ";
            return self.replace(i - 2..i + 2, vec!["without its graph".into()], with);
        }
        let with_arguments = METHODS_WITH_ARGUMENTS.iter().filter(|_| !self.is(i + 2, ")"));
        if let Some((_, changes)) = METHODS.iter().chain(with_arguments).find(|(m, _)| *m == name) {
            let changes = changes.iter().map(|c| format!("{name}: {c}")).collect();
            self.replace(i..i + 2, changes, &format!("wrong_{name}(#, "));
        }
    }

    fn condition(&mut self, i: usize) {
        let is_match = self.is(i, "match");
        if !is_match && !self.is(i, "if") {
            return;
        }
        let mut end = i + 1;
        while end < self.tokens.len() && !self.is(end, "{") {
            end = if self.close[end] == usize::MAX { end + 1 } else { self.close[end] + 1 };
        }
        let has_let = (i..end).any(|j| self.is(j, "let"));
        if has_let || (is_match && !self.one_of(end + 1, &["true", "false"])) || self.is(end, "=") {
            return;
        }
        self.wrap(i + 1..end, "the other branch", "crate::wrong::on(#) ^ (", ")");
    }

    /// Whole gradients, as they are returned.
    fn gradient(&mut self, i: usize) {
        if self.is(i, "Some") && self.is(i + 1, "(") {
            let end = self.close[i + 1];
            let list = self.around[i];
            if end > i + 2 && list != usize::MAX && list >= 2 && self.is(list - 2, "vec") {
                self.wrap(i + 2..end, "negative gradient", "crate::wrong::flipped(#, ", ")?");
            }
        } else if self.is(i, "then") && self.is(i - 1, ".") && self.is(i + 1, "(") {
            let end = self.close[i + 1];
            if self.is(i + 2, "|") && self.is(i + 3, "|") {
                self.wrap(i + 4..end, "negative gradient", "crate::wrong::flip(#, ", ")");
            } else if end == i + 3 {
                self.wrap(i + 2..end, "negative gradient", "|| crate::wrong::flip(#, ", "())");
            }
        }
    }

    /// Another tensor of the same list of arguments, or another one that was saved.
    fn wrong_tensor(&mut self, region: Range<usize>) {
        let plain = |f: &Self, i: usize| f.kind(i) == Kind::Word && !f.is(i.wrapping_sub(1), ".") && f.is(i + 1, ".");
        let storages: Vec<usize> =
            region.clone().filter(|&i| plain(self, i) && self.is(i + 2, "storage") && self.is(i + 4, ")")).collect();
        for &i in &storages {
            let same: Vec<usize> = storages.iter().copied().filter(|&j| self.around[j] == self.around[i]).collect();
            let at = same.iter().position(|&j| j == i).unwrap_or(0);
            let (x, y) = (self.tokens[i].text.to_string(), self.tokens[same[(at + 1) % same.len()]].text.to_string());
            if x != y {
                let with = format!("crate::wrong::pick(#, {x}.storage(), {y}.storage())");
                self.replace(i..i + 5, vec![format!("{x} -> {y}")], &with);
            }
        }
        let saved: Vec<usize> = region
            .filter(|&i| plain(self, i) && self.one_of(i + 2, &["get", "floats"]) && self.is(i + 4, "ctx"))
            .collect();
        for &i in &saved {
            let x = self.tokens[i].text.to_string();
            let Some(y) = saved.iter().map(|&j| self.tokens[j].text.to_string()).find(|y| *y != x) else { continue };
            self.replace(i..i + 1, vec![format!("{x} -> {y}")], &format!("(*crate::wrong::pick(#, &{x}, &{y}))"));
        }
    }
}

/// The places in the text of a file, numbered from `next` on.
pub fn sites(text: &str, helpers: &[&str], next: &mut usize) -> Fallible<Vec<Site>> {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let tokens = tokens(code);
    let (close, around) = brackets(&tokens);
    let mut finder = Finder { text: code, tokens, close, around, found: Vec::new(), next };
    let mut regions = finder.regions(helpers);
    regions.sort_by_key(|r| (r.start, std::cmp::Reverse(r.end)));
    let mut end = 0;
    for region in regions {
        // A closure in a helper is part of it.
        if region.start >= end {
            end = region.end;
            finder.find(region);
        }
    }
    if finder.found.is_empty() {
        return Err("no backward rule in a file that should have one".into());
    }
    Ok(finder.found)
}

/// The text with these places changed.
pub fn written<'a>(text: &str, sites: impl Iterator<Item = &'a Site>) -> String {
    // What begins at the same byte: openings before replacements, those of outer places, which were found earlier, first.
    let mut edits: Vec<&(Range<usize>, String)> = sites.flat_map(|s| &s.edits).collect();
    edits.sort_by_key(|(r, _)| (r.start, r.end));
    let mut out = String::new();
    let mut at = 0;
    for (range, with) in edits {
        if range.start >= at {
            out += &text[at..range.start];
            out += with;
            at = range.end;
        }
    }
    out += &text[at..];
    // The trait of the wrong methods, on a line of its own before the first import.
    let first = out.find("\nuse ").map_or(0, |i| i + 1);
    out.insert_str(first, "use crate::wrong::Wrong as _;\n");
    out
}
