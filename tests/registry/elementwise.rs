//! Rows of the elementwise family.

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
