//! Rows of the norm family.

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
