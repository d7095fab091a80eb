//! Rows of the scan family.

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
