//! Rows of the index family.

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
