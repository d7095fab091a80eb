//! In place of the dashboard in a command that was built without it.

use std::convert::Infallible;

use anyhow::Result;
use shadegrad::kernels::Profile;
use shadegrad::train::{EpochEnd, Progress};

use crate::failure::usage;
use crate::runs::Log;

/// There is none.
pub struct Dashboard(Infallible);

fn missing() -> anyhow::Error {
    usage(
        "--tui: this command was built without its feature `tui`; install it with `cargo install --path cli --features \
         tui`, or leave --tui out",
    )
}

/// Says how to get it.
pub fn check() -> Result<()> {
    Err(missing())
}

impl Dashboard {
    pub fn open(_: String, _: u64, _: &Log) -> Result<Self> {
        Err(missing())
    }

    pub fn attached(&self) -> bool {
        match self.0 {}
    }

    pub fn line(&self, _: &str) {}

    pub fn progress(&self, _: &Progress, _: u64) {}

    pub fn epoch(&self, _: &EpochEnd) {}

    pub fn kernels(&self, _: u64, _: Option<&Profile>) {}

    pub fn close(&mut self) {}
}
