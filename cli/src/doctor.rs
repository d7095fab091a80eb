//! `shadegrad doctor`: what was found, what is missing, and what to do about it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use shadegrad::rng::Stream;
use shadegrad::{Class, Gpu, Options, Tensor};

use crate::report::{bytes, say};

#[derive(clap::Args)]
pub struct Args {
    /// Device by index or part of its name [default: the best]
    #[arg(long, value_name = "DEVICE")]
    adapter: Option<String>,
}

/// Counts what is wrong while saying everything.
#[derive(Default)]
struct Findings {
    problems: usize,
}

impl Findings {
    fn good(&self, what: &str, text: impl std::fmt::Display) {
        say(format!("ok       {what}: {text}"));
    }

    fn note(&self, what: &str, text: impl std::fmt::Display) {
        say(format!("note     {what}: {text}"));
    }

    fn bad(&mut self, what: &str, text: impl std::fmt::Display) {
        self.problems += 1;
        say(format!("PROBLEM  {what}: {text}"));
    }
}

pub fn run(args: &Args) -> Result<()> {
    let mut found = Findings::default();
    found.good(
        "program",
        format!(
            "shadegrad {} for {} {}{}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH,
            if cfg!(debug_assertions) { ", a debug build: several times slower than --release" } else { "" }
        ),
    );
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = memory_kib().map_or_else(String::new, |kib| format!(", {} of memory", bytes(kib << 10)));
    found.good("machine", format!("{cores} processor cores{memory}"));
    if cfg!(target_os = "linux") {
        drivers(&mut found);
    }
    match devices(args, &mut found) {
        Some(gpu) => compute(&gpu, &mut found),
        None => found.note("computing", "not tried without a device"),
    }
    folder(&mut found);
    anyhow::ensure!(
        found.problems == 0,
        "{} found; what to do stands in its line above",
        match found.problems {
            1 => "a problem was".to_string(),
            n => format!("{n} problems were"),
        }
    );
    say("everything that training needs is there");
    Ok(())
}

fn memory_kib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()
}

/// The Vulkan loader's view: its library and the descriptions of drivers.
fn drivers(found: &mut Findings) {
    let set = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()).map(|v| (name, v)));
    if let Some((name, value)) = set {
        let missing: Vec<&str> = value.split(':').filter(|p| !Path::new(p).exists()).collect();
        if missing.is_empty() {
            found.note("vulkan drivers", format!("{name} limits them to {value}"));
        } else {
            found.bad(
                "vulkan drivers",
                format!(
                    "{name} names {}, which does not exist, and nothing else is looked at; `unset {name}`, or correct it",
                    missing.join(", ")
                ),
            );
        }
        return;
    }
    let mut names = Vec::new();
    for folder in icd_folders() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|e| e == "json") {
                names.push(entry.path().display().to_string());
            }
        }
    }
    names.sort();
    if names.is_empty() {
        found.bad("vulkan drivers", format!("none is installed. {}", Gpu::driver_remedy()));
    } else {
        found.good("vulkan drivers", names.join(", "));
    }
}

fn icd_folders() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> =
        ["/etc", "/usr/share", "/usr/local/etc", "/usr/local/share", "/run/opengl-driver/share"]
            .iter()
            .map(PathBuf::from)
            .collect();
    if let Some(home) = std::env::var_os("XDG_DATA_HOME") {
        all.push(home.into());
    } else if let Some(home) = std::env::var_os("HOME") {
        all.push(Path::new(&home).join(".local/share"));
    }
    all.iter().map(|p| p.join("vulkan/icd.d")).collect()
}

fn devices(args: &Args, found: &mut Findings) -> Option<Gpu> {
    let mut options = match Options::from_env() {
        Ok(options) => options,
        Err(err) => {
            found.bad("environment", format!("{err}; correct it, or unset the variable"));
            return None;
        }
    };
    let all = Gpu::list(options.gl);
    if all.is_empty() {
        found.bad("devices", format!("none answers. {}", Gpu::driver_remedy()));
        return None;
    }
    for adapter in &all {
        found.good("device", format!("{}: {adapter}", adapter.index));
    }
    if args.adapter.is_some() {
        options.adapter.clone_from(&args.adapter);
    }
    match Gpu::new(options) {
        Err(err) => {
            found.bad("opening", err);
            None
        }
        Ok(gpu) => {
            let caps = gpu.caps();
            let yes = |on| if on { "yes" } else { "no" };
            found.good(
                "opened",
                format!(
                    "{}; subgroups {}, f16 {}, int64 {}, timestamps {}, immediates {}",
                    gpu.description().name,
                    caps.subgroup.map_or("no".to_string(), |n| n.to_string()),
                    yes(caps.f16),
                    yes(caps.int64),
                    yes(caps.timestamps),
                    yes(caps.immediates)
                ),
            );
            if gpu.description().class == Class::Software {
                found.note(
                    "speed",
                    "a software driver computes on the processor: everything works, slowly. If this machine has a GPU, \
                     install its driver",
                );
            }
            Some(gpu)
        }
    }
}

/// Runs kernels of three kinds and compares them with the processor's arithmetic.
fn compute(gpu: &Gpu, found: &mut Findings) {
    match difference(gpu) {
        Ok(worst) if worst < 1e-4 => {
            found.good("computing", format!("three kernels agree with the processor to {worst:.1e}"));
        }
        Ok(worst) => found.bad(
            "computing",
            format!("results are wrong by {worst:.1e}; update the driver, or choose another device with --adapter"),
        ),
        Err(err) => {
            found.bad("computing", format!("{err}; update the driver, or choose another device with --adapter"))
        }
    }
}

/// The largest deviation of `relu(a b)` and of its sum, for random matrices, from the same in double precision.
fn difference(gpu: &Gpu) -> shadegrad::Result<f64> {
    const N: usize = 37;
    let a = Tensor::uniform(gpu, &[N, N], Stream::new(1, 0), -1.0, 1.0)?;
    let b = Tensor::uniform(gpu, &[N, N], Stream::new(1, 1), -1.0, 1.0)?;
    let c = a.matmul(&b)?.relu()?;
    let sum = f64::from(c.sum_to(&[])?.item()?);
    let (a, b, c) = (a.to_vec()?, b.to_vec()?, c.to_vec()?);
    let (mut worst, mut total) = (0.0f64, 0.0);
    for i in 0..N {
        for j in 0..N {
            let dot: f64 = (0..N).map(|k| f64::from(a[i * N + k]) * f64::from(b[k * N + j])).sum();
            worst = worst.max((f64::from(c[i * N + j]) - dot.max(0.0)).abs());
            total += dot.max(0.0);
        }
    }
    let worst = worst.max((sum - total).abs() / total);
    // A NaN would be lost in `max`.
    Ok(if sum.is_finite() { worst } else { f64::INFINITY })
}

fn folder(found: &mut Findings) {
    let name = format!(".shadegrad-doctor-{}.tmp", std::process::id());
    let here = std::env::current_dir().map_or_else(|_| ".".to_string(), |p| p.display().to_string());
    match std::fs::write(&name, "x").and_then(|()| std::fs::remove_file(&name)) {
        Ok(()) => found.good("folder", format!("{here} can be written; runs go to runs/")),
        Err(e) => found.note("folder", format!("{here} cannot be written ({e}); give `train` a folder with --out")),
    }
}
