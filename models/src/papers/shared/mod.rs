//! What more than one paper is made of.

pub mod joint;
pub mod mask;
pub mod mlp;
pub mod prune;
