//! Rows of the pool family.

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
