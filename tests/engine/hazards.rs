//! Rows follow.
