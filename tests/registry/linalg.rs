//! Rows of the linalg family.

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
