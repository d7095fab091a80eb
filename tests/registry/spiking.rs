//! Rows of the spiking family.

use crate::case::Case;

pub fn cases() -> Vec<Case> {
    vec![]
}
