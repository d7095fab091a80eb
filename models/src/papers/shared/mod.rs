//! What more than one paper is made of.

pub(crate) mod joint;
pub mod mask;
pub(crate) mod mlp;
pub mod prune;
