//! The known name nearest to a mistyped one, for error texts.

/// The name in `known` that `word` was probably meant to be, as the end of a sentence: `; did you mean ..?` or nothing.
///
/// ```
/// # use shadegrad::*;
/// let known = ["adamw", "sgd", "lion"];
/// assert_eq!(format!("no rule `adam`{}", did_you_mean("adam", &known)), "no rule `adam`; did you mean `adamw`?");
/// assert_eq!(did_you_mean("transformer", &known), "");
/// ```
pub fn did_you_mean(word: &str, known: &[&str]) -> String {
    nearest(word, known).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let best = known.iter().map(|k| (distance(&word, &k.to_lowercase()), *k)).min()?;
    // Further apart, two words have little in common.
    (best.0 <= 1 + best.1.len().max(word.len()) / 3).then_some(best.1)
}

/// Insertions, deletions, replacements and swaps of neighbours that lead from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, d) in [("", "abc", 3), ("kitten", "sitting", 3), ("teh", "the", 1), ("same", "same", 0)] {
            assert_eq!(distance(a, b), d, "{a} {b}");
        }
    }

    #[test]
    fn only_near_names_are_offered() {
        let known = ["resnet20", "resnet32", "vit", "weight-decay"];
        assert_eq!(nearest("resnt20", &known), Some("resnet20"));
        assert_eq!(nearest("WEIGHT_DECAY", &known), Some("weight-decay"));
        assert_eq!(nearest("transformer", &known), None);
        assert_eq!(did_you_mean("vti", &known), "; did you mean `vit`?");
        assert_eq!(did_you_mean("x", &[]), "");
    }
}
