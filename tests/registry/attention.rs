//! Rows of the attention family.

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
