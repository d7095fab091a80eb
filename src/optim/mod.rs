//! Optimisers, schedules and averages over a model's [`crate::nn::Arena`].
