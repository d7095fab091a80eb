//! The `shadegrad` command.
#![deny(unsafe_code)]
// Bad input is an error, never a panic: what could panic is refused by the compiler. Tests may.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo)
)]

mod attention;
mod bench;
mod compare;
mod config;
#[cfg(feature = "tui")]
mod dashboard;
#[cfg(not(feature = "tui"))]
#[path = "dashboard/absent.rs"]
mod dashboard;
mod data;
mod date;
mod devices;
mod doctor;
mod failure;
mod folder;
mod interrupt;
mod journal;
mod models;
mod papers;
mod profile;
mod report;
mod resume;
mod runs;
mod screen;
mod train;
mod verify;
mod view;
mod weights;

use clap::{Parser, Subcommand};

/// Train image classifiers on any GPU that speaks Vulkan, Metal or DX12, or on the processor through a software driver.
#[derive(Parser)]
#[command(name = "shadegrad", version, propagate_version = true, after_help = ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const ENVIRONMENT: &str = "Environment:
  SHADEGRAD_ADAPTER       device by index or part of its name, as --adapter
  SHADEGRAD_DISABLE       features to leave unused: subgroups,f16,int64,timestamps,immediates
  SHADEGRAD_LIMITS        `default`: WebGPU's default limits
  SHADEGRAD_CLASS         kernels for: discrete, integrated, software
  SHADEGRAD_CHECKED       1 or 0: run-time checks in shaders
  SHADEGRAD_MEMORY_LIMIT  bytes
  SHADEGRAD_CACHE         folder for compiled pipelines, or `off`

Exit status: 0 success, 1 failure, 2 wrong usage, 3 a loss that is not a number,
  130 interrupted.";

#[derive(Subcommand)]
enum Command {
    /// Train a model; without arguments a small network on the embedded handwritten digits.
    #[command(allow_negative_numbers = true)]
    Train(Box<config::Args>),
    /// Draw runs over each other; those that differ only by their seed as one, with its spread.
    Compare(compare::Args),
    /// List the devices that can be used, best first.
    Devices(devices::Args),
    /// Check that everything needed is there and computes correctly; say what to do where not.
    Doctor(doctor::Args),
    /// Check every operation against references in double precision on this device, and its memory, repeatability and training.
    Verify(verify::Args),
    /// Measure the main kernels.
    Bench(bench::Args),
    /// What data sets are read, how their folders must look, and what a folder holds.
    Data(data::Args),
    /// List the models and their numbers of parameters.
    Models(models::Args),
    /// List the papers, their claims and what was measured.
    Papers(papers::Args),
    /// Run the experiment of a paper, or of all.
    Run(papers::RunArgs),
    /// Time of every kernel in the training steps of a model.
    Profile(profile::Args),
    /// Weights of runs and of PyTorch: into a file, and what a file holds.
    #[command(subcommand)]
    Weights(weights::Command),
}

/// Warnings of the engine on standard error. Those of the driver's interface are too many to be of use.
struct Warnings;

impl log::Log for Warnings {
    fn enabled(&self, meta: &log::Metadata) -> bool {
        meta.level() <= log::Level::Warn && meta.target().starts_with("shadegrad")
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            let text = format!("warning: {}", record.args());
            if !screen::line(&text) {
                eprintln!("{text}");
            }
        }
    }

    fn flush(&self) {}
}

fn main() -> std::process::ExitCode {
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    let result = match Cli::parse().command {
        Command::Train(args) => train::run(*args),
        Command::Compare(args) => compare::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Data(args) => data::run(&args),
        Command::Models(args) => models::run(&args),
        Command::Papers(args) => papers::run(&args),
        Command::Run(args) => papers::run_recipe(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Weights(command) => weights::run(&command),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(err) => failure::report(&err),
    }
}
