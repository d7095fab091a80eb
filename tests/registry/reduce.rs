//! Rows of the reduce family.

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
