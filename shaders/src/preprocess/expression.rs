//! The expressions of directives and of `${..}`.

use std::fmt;

use super::{Defines, Value, is_word};

/// Evaluates an expression: integers, `+ - * / % << >> & | ^ ~ ! && || == != < <= > >= ?:`, `min(a, b)`, `max(a, b)`,
/// `defined(NAME)`, definitions, and symbols (undefined names), which can only be compared with `==` and `!=`.
///
/// ```
/// use shadegrad_shaders::preprocess::{Defines, Value, eval};
/// let defines = Defines::from([("N".into(), Value::Int(12))]);
/// assert_eq!(eval("N % 8 == 4 ? N / 4 : 1", &defines), Ok(Value::Int(3)));
/// assert_eq!(eval("defined(M) || max(N, 3) == 12", &defines), Ok(Value::Int(1)));
/// assert!(eval("M + 1", &defines).is_err()); // M is a symbol
/// ```
///
/// # Errors
/// A syntax error, arithmetic on a symbol, a division by zero, or an overflow.
pub fn eval(text: &str, defines: &Defines) -> Result<Value, String> {
    let mut p = Parser { text, at: 0, defines, live: true };
    let v = p.ternary()?;
    p.space();
    if p.at < text.len() { Err(format!("`{text}`: `{}` was not expected", &text[p.at..])) } else { Ok(v) }
}

pub(super) fn truth(text: &str, defines: &Defines) -> Result<bool, String> {
    match eval(text, defines)? {
        Value::Int(v) => Ok(v != 0),
        Value::Sym(s) => Err(format!("`{text}`: {s} is not a number; compare it, or use defined({s})")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    defines: &'a Defines,
    /// False in an operand that a short circuit skips: there nothing is an error but the syntax.
    live: bool,
}

/// Binary operators by rising precedence; within a level the longer ones first.
const LEVELS: [&[&str]; 10] = [
    &["||"],
    &["&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<=", ">=", "<", ">"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
];

impl<'a> Parser<'a> {
    fn space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        self.space();
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn error<T>(&self, message: impl fmt::Display) -> Result<T, String> {
        Err(format!("`{}`: {message}", self.text))
    }

    fn ternary(&mut self) -> Result<Value, String> {
        let cond = self.binary(0)?;
        if !self.take("?") {
            return Ok(cond);
        }
        let live = self.live;
        let yes = self.int(&cond)? != 0;
        self.live = live && yes;
        let a = self.ternary()?;
        if !self.take(":") {
            return self.error("`?` without `:`");
        }
        self.live = live && !yes;
        let b = self.ternary()?;
        self.live = live;
        Ok(if yes { a } else { b })
    }

    fn operator(&mut self, level: usize) -> Option<&'static str> {
        self.space();
        let rest = &self.text[self.at..];
        let op = LEVELS[level].iter().copied().find(|op| rest.starts_with(op))?;
        // A single character that is the beginning of a longer operator belongs to another level.
        let longer = op.len() == 1 && ["||", "&&", "<<", ">>"].iter().any(|l| l.starts_with(op) && rest.starts_with(l));
        if longer {
            return None;
        }
        self.at += op.len();
        Some(op)
    }

    fn binary(&mut self, level: usize) -> Result<Value, String> {
        if level == LEVELS.len() {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        while let Some(op) = self.operator(level) {
            let live = self.live;
            if op == "&&" || op == "||" {
                let l = self.int(&left)? != 0;
                self.live = live && (l == (op == "&&"));
                let right = self.binary(level + 1)?;
                let r = self.int(&right)? != 0;
                self.live = live;
                left = Value::Int(i64::from(if op == "&&" { l && r } else { l || r }));
                continue;
            }
            let right = self.binary(level + 1)?;
            if op == "==" || op == "!=" {
                left = Value::Int(i64::from((left == right) == (op == "==")));
                continue;
            }
            let (a, b) = (self.int(&left)?, self.int(&right)?);
            let value = match op {
                "|" => Some(a | b),
                "^" => Some(a ^ b),
                "&" => Some(a & b),
                "<=" => Some(i64::from(a <= b)),
                ">=" => Some(i64::from(a >= b)),
                "<" => Some(i64::from(a < b)),
                ">" => Some(i64::from(a > b)),
                "<<" => u32::try_from(b).ok().and_then(|b| a.checked_shl(b)),
                ">>" => u32::try_from(b).ok().and_then(|b| a.checked_shr(b)),
                "+" => a.checked_add(b),
                "-" => a.checked_sub(b),
                "*" => a.checked_mul(b),
                "/" => a.checked_div(b),
                _ => a.checked_rem(b),
            };
            left = match value {
                Some(v) => Value::Int(v),
                None if !self.live => Value::Int(0),
                None => return self.error(format!("{a} {op} {b} has no value")),
            };
        }
        Ok(left)
    }

    fn int(&self, v: &Value) -> Result<i64, String> {
        match v {
            Value::Int(v) => Ok(*v),
            Value::Sym(_) if !self.live => Ok(0),
            Value::Sym(s) => self.error(format!("{s} is not a number; is it defined?")),
        }
    }

    fn unary(&mut self) -> Result<Value, String> {
        self.space();
        let rest = &self.text[self.at..];
        if rest.starts_with('!') && !rest.starts_with("!=") {
            self.at += 1;
            let v = self.unary()?;
            return Ok(Value::Int(i64::from(self.int(&v)? == 0)));
        }
        if self.take("-") {
            let v = self.unary()?;
            return Ok(Value::Int(self.int(&v)?.wrapping_neg()));
        }
        if self.take("~") {
            let v = self.unary()?;
            return Ok(Value::Int(!self.int(&v)?));
        }
        self.atom()
    }

    fn atom(&mut self) -> Result<Value, String> {
        if self.take("(") {
            let v = self.ternary()?;
            return if self.take(")") { Ok(v) } else { self.error("a `(` is not closed") };
        }
        self.space();
        let rest: &'a str = &self.text[self.at..];
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        self.at += word.len();
        if word.is_empty() {
            return self.error("a value is missing");
        }
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            let digits = word.strip_suffix('u').unwrap_or(word);
            let v = match digits.strip_prefix("0x") {
                Some(hex) => i64::from_str_radix(hex, 16),
                None => digits.parse(),
            };
            return v.map(Value::Int).or_else(|_| self.error(format!("`{word}` is not an integer")));
        }
        if ["defined", "min", "max"].contains(&word) && self.take("(") {
            let v = if word == "defined" {
                self.space();
                let rest: &'a str = &self.text[self.at..];
                let name = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
                self.at += name.len();
                i64::from(self.defines.contains_key(name))
            } else {
                let a = self.ternary()?;
                if !self.take(",") {
                    return self.error(format!("{word} takes two values"));
                }
                let b = self.ternary()?;
                let (a, b) = (self.int(&a)?, self.int(&b)?);
                if word == "min" { a.min(b) } else { a.max(b) }
            };
            return if self.take(")") { Ok(Value::Int(v)) } else { self.error("a `(` is not closed") };
        }
        Ok(self.defines.get(word).cloned().unwrap_or_else(|| Value::Sym(word.into())))
    }
}
