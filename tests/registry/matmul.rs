//! Rows of the matmul family.

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
