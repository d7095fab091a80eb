//! Rows of the resize family.

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
