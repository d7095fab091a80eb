//! Rows of the conv family.

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
