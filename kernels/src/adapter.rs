//! Finding an adapter, ranking and choosing it, and opening a device with what it offers.

use std::path::PathBuf;

use crate::Result;
use crate::disk::usual_folder;
use crate::error::GpuError;

/// Which set of kernel variants a device gets by default (`docs/architecture.md`, "Device classes").
///
/// ```
/// # use shadegrad_kernels::*;
/// // The kernels for graphics cards, whatever runs them.
/// let gpu = Gpu::new(Options { class: Some(Class::Discrete), ..Options::from_env()? })?;
/// assert_eq!(gpu.caps().class, Class::Discrete);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A graphics card with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A driver that runs on the processor (lavapipe, SwiftShader, WARP).
    Software,
}

/// Optional device features to leave unused although the adapter has them.
///
/// ```
/// # use shadegrad_kernels::*;
/// let disable = Disabled { subgroups: true, immediates: true, ..Disabled::default() };
/// let gpu = Gpu::new(Options { disable, ..Options::from_env()? })?;
/// assert!(gpu.caps().subgroup.is_none() && !gpu.caps().immediates);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disabled {
    /// No subgroup operations.
    pub subgroups: bool,
    /// No 16-bit floats in shaders.
    pub f16: bool,
    /// No 64-bit integers in shaders, by which kernels for software drivers load two floats at once.
    pub int64: bool,
    /// No timestamp queries.
    pub timestamps: bool,
    /// No immediates: parameters go through a uniform ring.
    pub immediates: bool,
}

/// How to open a device. `Options::default()` takes the best adapter with all it has.
///
/// ```
/// # use shadegrad_kernels::*;
/// let options = Options { memory_limit: Some(1 << 20), ..Options::from_env()? };
/// let gpu = Gpu::new(options)?;
/// let err = gpu.alloc(1 << 30, "too much").err().expect("an error");
/// assert!(matches!(err, GpuError::OutOfMemory { .. } | GpuError::TooLarge { .. }));
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Adapter by index in [`Gpu::list`](crate::Gpu::list) or by part of its name, in any case.
    pub adapter: Option<String>,
    /// Search OpenGL adapters too. Off by default: they lack much, and probing them is slow.
    pub gl: bool,
    /// Features to leave unused.
    pub disable: Disabled,
    /// Ask only for WebGPU's default limits, as a browser would give.
    pub default_limits: bool,
    /// Keep all run-time checks in shaders. `None`: on in debug builds, off in release.
    pub checked: Option<bool>,
    /// Use the kernels of another device class than the adapter's own.
    pub class: Option<Class>,
    /// Refuse allocations beyond this many live bytes.
    pub memory_limit: Option<u64>,
    /// For tests: fill fresh memory with NaN and put a guard zone behind every buffer, bound with it, which
    /// [`Gpu::check_sentinels`](crate::Gpu::check_sentinels) finds untouched unless a kernel wrote out of bounds.
    pub sentinels: bool,
    /// Largest number of workgroups in one grid dimension, below the device's own limit. For tests of grid folding.
    pub max_grid: Option<u32>,
    /// A folder for compiled pipelines, for the next start to find: where the driver gives them out (Vulkan on graphics
    /// cards; software drivers do not). Not kept if `None`.
    pub cache: Option<PathBuf>,
}

impl Options {
    /// The options set by environment variables, over the defaults.
    ///
    /// | variable | meaning |
    /// |---|---|
    /// | `SHADEGRAD_ADAPTER` | index or part of the name |
    /// | `SHADEGRAD_GL` | `1`: search OpenGL adapters too |
    /// | `SHADEGRAD_DISABLE` | comma-separated: `subgroups`, `f16`, `int64`, `timestamps`, `immediates` |
    /// | `SHADEGRAD_LIMITS` | `default`: WebGPU's default limits |
    /// | `SHADEGRAD_CHECKED` | `1` or `0`: run-time checks in shaders |
    /// | `SHADEGRAD_CLASS` | `discrete`, `integrated`, `software` |
    /// | `SHADEGRAD_MEMORY_LIMIT` | bytes |
    /// | `SHADEGRAD_MAX_GRID` | workgroups per grid dimension |
    /// | `SHADEGRAD_CACHE` | folder for compiled pipelines, or `off` (by default `shadegrad` in the platform's cache folder) |
    ///
    /// ```
    /// # use shadegrad_kernels::*;
    /// // With SHADEGRAD_ADAPTER=llvm in the environment, `adapter` is "llvm".
    /// let options = Options::from_env()?;
    /// assert_eq!(options.adapter, std::env::var("SHADEGRAD_ADAPTER").ok().filter(|name| !name.is_empty()));
    /// # Ok::<(), GpuError>(())
    /// ```
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    pub(crate) fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| get(name).filter(|v| !v.is_empty());
        let mut opt = Self { adapter: get("SHADEGRAD_ADAPTER"), ..Self::default() };
        let flag = |name: &str| match get(name).as_deref() {
            None => Ok(None),
            Some("1" | "true" | "on") => Ok(Some(true)),
            Some("0" | "false" | "off") => Ok(Some(false)),
            Some(v) => Err(GpuError::Option(format!("{name}={v} is neither 1 nor 0"))),
        };
        opt.gl = flag("SHADEGRAD_GL")?.unwrap_or(false);
        opt.checked = flag("SHADEGRAD_CHECKED")?;
        for name in get("SHADEGRAD_DISABLE").unwrap_or_default().split(',').filter(|s| !s.is_empty()) {
            match name.trim() {
                "subgroups" => opt.disable.subgroups = true,
                "f16" => opt.disable.f16 = true,
                "int64" => opt.disable.int64 = true,
                "timestamps" => opt.disable.timestamps = true,
                "immediates" => opt.disable.immediates = true,
                other => {
                    return Err(GpuError::Option(format!(
                        "SHADEGRAD_DISABLE={other}: known are subgroups, f16, int64, timestamps, immediates"
                    )));
                }
            }
        }
        opt.default_limits = match get("SHADEGRAD_LIMITS").as_deref() {
            None | Some("adapter") => false,
            Some("default") => true,
            Some(v) => return Err(GpuError::Option(format!("SHADEGRAD_LIMITS={v}: known are adapter, default"))),
        };
        opt.class = match get("SHADEGRAD_CLASS").as_deref() {
            None => None,
            Some("discrete") => Some(Class::Discrete),
            Some("integrated") => Some(Class::Integrated),
            Some("software") => Some(Class::Software),
            Some(v) => {
                return Err(GpuError::Option(format!("SHADEGRAD_CLASS={v}: known are discrete, integrated, software")));
            }
        };
        let number = |name: &str| match get(name) {
            None => Ok(None),
            Some(v) => v.parse().map(Some).map_err(|_| GpuError::Option(format!("{name}={v} is not a whole number"))),
        };
        opt.memory_limit = number("SHADEGRAD_MEMORY_LIMIT")?;
        opt.max_grid = number("SHADEGRAD_MAX_GRID")?.map(|n: u64| n.clamp(1, u32::MAX.into()) as u32);
        opt.cache = match get("SHADEGRAD_CACHE").as_deref() {
            None => usual_folder(get),
            Some("off" | "0") => None,
            Some(folder) => Some(folder.into()),
        };
        Ok(opt)
    }
}

/// What is known of an adapter without opening it.
///
/// ```
/// # use shadegrad_kernels::*;
/// if let Some(best) = Gpu::list(false).first() {
///     println!("{} via {}: {:?}", best.name, best.backend, best.class);
///     assert_eq!(best.index, 0);
/// }
/// ```
#[derive(Clone, Debug)]
pub struct AdapterDescription {
    /// Position in [`Gpu::list`](crate::Gpu::list): best first.
    pub index: usize,
    /// The driver's name for it.
    pub name: String,
    /// Vulkan, Metal, Dx12 or Gl.
    pub backend: String,
    /// Driver and version.
    pub driver: String,
    /// Its class.
    pub class: Class,
    /// Subgroup operations and their size range.
    pub subgroups: Option<(u32, u32)>,
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// Timestamp queries.
    pub timestamps: bool,
    /// Largest buffer that can be bound, in bytes.
    pub max_binding: u64,
}

impl std::fmt::Display for AdapterDescription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let subgroups = match self.subgroups {
            None => "no".to_string(),
            Some((a, b)) if a == b => a.to_string(),
            Some((a, b)) => format!("{a}..{b}"),
        };
        let yes = |b| if b { "yes" } else { "no" };
        write!(
            f,
            "{} via {} ({}), {}, subgroups {subgroups}, f16 {}, timestamps {}, bindings up to {} MiB",
            self.name,
            self.backend,
            self.driver,
            match self.class {
                Class::Discrete => "discrete",
                Class::Integrated => "integrated",
                Class::Software => "software",
            },
            yes(self.f16),
            yes(self.timestamps),
            self.max_binding >> 20
        )
    }
}

/// What the opened device can do, as the kernels need to know it.
///
/// ```
/// # use shadegrad_kernels::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// let Caps { subgroup, max_binding, .. } = gpu.caps();
/// let batch = max_binding / (4 * 224 * 224 * 3); // images of floats that fit one buffer
/// println!("subgroups of {subgroup:?}, {batch} images");
/// assert!(batch > 200);
/// # Ok::<(), GpuError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Caps {
    /// Which kernel variants to prefer.
    pub class: Class,
    /// Subgroup size, when subgroups are on and the size is the same for every pipeline.
    pub subgroup: Option<u32>,
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// 64-bit integers in shaders.
    pub int64: bool,
    /// Timestamp queries.
    pub timestamps: bool,
    /// Parameters by immediates; otherwise through a uniform ring.
    pub immediates: bool,
    /// Largest binding in bytes.
    pub max_binding: u64,
    /// Workgroup memory in bytes.
    pub workgroup_bytes: u32,
    /// Invocations in one workgroup.
    pub workgroup_invocations: u32,
    /// Workgroups in one grid dimension.
    pub max_grid: u32,
    /// Storage buffers in one kernel.
    pub storage_bindings: u32,
    /// Alignment of a binding's offset in bytes.
    pub offset_align: u64,
    /// Run-time checks are kept in shaders.
    pub checked: bool,
}

fn class_of(info: &wgpu::AdapterInfo) -> Class {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => Class::Discrete,
        wgpu::DeviceType::Cpu => Class::Software,
        _ => Class::Integrated,
    }
}

/// Sort key: discrete, integrated, virtual, other, processor; the native interfaces before OpenGL.
fn rank(info: &wgpu::AdapterInfo) -> (u8, u8) {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    (kind, u8::from(info.backend == wgpu::Backend::Gl))
}

pub(crate) fn instance(gl: bool) -> wgpu::Instance {
    let mut backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    if gl {
        backends |= wgpu::Backends::GL;
    }
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        // The default flags keep validation of indirect dispatches, which costs a kernel per call.
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

pub(crate) fn adapters(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let mut all = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    all.retain(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    all.sort_by_key(|a| rank(&a.get_info()));
    all
}

pub(crate) fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterDescription {
    let info = adapter.get_info();
    let features = adapter.features();
    AdapterDescription {
        index,
        backend: format!("{:?}", info.backend),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        class: class_of(&info),
        subgroups: features
            .contains(wgpu::Features::SUBGROUP)
            .then_some((info.subgroup_min_size, info.subgroup_max_size)),
        f16: features.contains(wgpu::Features::SHADER_F16),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        max_binding: adapter.limits().max_storage_buffer_binding_size,
        name: info.name,
    }
}

/// The adapter that `wanted` names (an index, or a part of a name), or the best.
pub(crate) fn choose(all: Vec<wgpu::Adapter>, wanted: Option<&str>) -> Result<wgpu::Adapter> {
    if all.is_empty() {
        return Err(GpuError::NoAdapter(format!("no GPU driver found. {}", driver_remedy())));
    }
    let names: Vec<String> = all.iter().map(|a| a.get_info().name).collect();
    let index = match wanted {
        None => 0,
        Some(text) => match text.parse::<usize>() {
            Ok(i) if i < all.len() => i,
            Ok(_) => return Err(no_match(text, &names)),
            Err(_) => names
                .iter()
                .position(|n| n.to_lowercase().contains(&text.to_lowercase()))
                .ok_or_else(|| no_match(text, &names))?,
        },
    };
    all.into_iter().nth(index).ok_or_else(|| GpuError::NoAdapter("no adapter".into()))
}

fn no_match(wanted: &str, names: &[String]) -> GpuError {
    let list: Vec<String> = names.iter().enumerate().map(|(i, n)| format!("{i}: {n}")).collect();
    GpuError::NoAdapter(format!("no adapter matches {wanted:?}; there are: {}", list.join("; ")))
}

/// The one command that brings a software driver on this platform.
pub(crate) fn driver_remedy() -> &'static str {
    if cfg!(target_os = "linux") {
        "Install your GPU's Vulkan driver, or Mesa's software driver, which runs on any processor: \
         `sudo apt-get install mesa-vulkan-drivers` (Debian, Ubuntu), `sudo dnf install mesa-vulkan-drivers` (Fedora), \
         `sudo pacman -S vulkan-swrast` (Arch)"
    } else if cfg!(target_os = "windows") {
        "Windows has a software DX12 adapter (WARP) built in; if it is missing, repair the graphics components with \
         `sfc /scannow` or install your GPU's driver"
    } else if cfg!(target_os = "macos") {
        "Metal is part of macOS on every Mac since 2012; this machine (a virtual one?) exposes no Metal device"
    } else {
        "Install a Vulkan driver for this platform"
    }
}

/// Every useful feature that `adapter` has and the options allow, and the limits that go with it.
pub(crate) fn wanted(adapter: &wgpu::Adapter, opt: &Options) -> (wgpu::Features, wgpu::Limits) {
    let mut wanted = wgpu::Features::IMMEDIATES
        | wgpu::Features::SUBGROUP
        | wgpu::Features::SHADER_F16
        | wgpu::Features::SHADER_INT64
        | wgpu::Features::TIMESTAMP_QUERY
        | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES;
    if opt.disable.subgroups {
        wanted.remove(wgpu::Features::SUBGROUP);
    }
    if opt.disable.f16 {
        wanted.remove(wgpu::Features::SHADER_F16);
    }
    if opt.disable.int64 {
        wanted.remove(wgpu::Features::SHADER_INT64);
    }
    if opt.disable.timestamps {
        wanted.remove(wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES);
    }
    if opt.disable.immediates {
        wanted.remove(wgpu::Features::IMMEDIATES);
    }
    // Only kernels for software drivers have a use for them.
    if class_of(&adapter.get_info()) != Class::Software {
        wanted.remove(wgpu::Features::SHADER_INT64);
    }
    if opt.cache.is_some() {
        wanted |= wgpu::Features::PIPELINE_CACHE;
    }
    let features = adapter.features() & wanted;
    let limits = if opt.default_limits {
        wgpu::Limits {
            max_immediate_size: if features.contains(wgpu::Features::IMMEDIATES) { 128 } else { 0 },
            ..wgpu::Limits::default()
        }
    } else {
        adapter.limits()
    };
    (features, limits)
}

/// Opens a device on `adapter` with what [`wanted`] says.
pub(crate) fn open(adapter: &wgpu::Adapter, opt: &Options) -> Result<(wgpu::Device, wgpu::Queue)> {
    let (features, limits) = wanted(adapter, opt);
    let request = |features, limits| {
        pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("shadegrad"),
            required_features: features,
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        }))
    };
    // Some drivers list a feature and refuse it: ask again for nothing but the limits.
    request(features, limits.clone())
        .or_else(|_| request(wgpu::Features::empty(), limits))
        .map_err(|e| GpuError::NoDevice { adapter: adapter.get_info().name, reason: e.to_string() })
}

/// The capabilities of an opened device under the options.
pub(crate) fn caps(device: &wgpu::Device, opt: &Options) -> Caps {
    let info = device.adapter_info();
    let (features, limits) = (device.features(), device.limits());
    let fixed_size = info.subgroup_min_size == info.subgroup_max_size && info.subgroup_min_size > 0;
    let subgroups = features.contains(wgpu::Features::SUBGROUP) && !opt.disable.subgroups;
    Caps {
        class: opt.class.unwrap_or_else(|| class_of(&info)),
        subgroup: (subgroups && fixed_size).then_some(info.subgroup_min_size),
        f16: features.contains(wgpu::Features::SHADER_F16) && !opt.disable.f16,
        int64: features.contains(wgpu::Features::SHADER_INT64) && !opt.disable.int64,
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY) && !opt.disable.timestamps,
        immediates: features.contains(wgpu::Features::IMMEDIATES)
            && !opt.disable.immediates
            && limits.max_immediate_size >= 128,
        max_binding: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        max_grid: limits.max_compute_workgroups_per_dimension.min(opt.max_grid.unwrap_or(u32::MAX)),
        storage_bindings: limits.max_storage_buffers_per_shader_stage,
        offset_align: limits.min_storage_buffer_offset_alignment.into(),
        checked: opt.checked.unwrap_or(cfg!(debug_assertions)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &'static [(&'static str, &'static str)]) -> Result<Options> {
        Options::from_lookup(|n| pairs.iter().find(|p| p.0 == n).map(|p| p.1.to_string()))
    }

    #[test]
    fn environment_is_understood() {
        let opt = from(&[
            ("SHADEGRAD_ADAPTER", "llvm"),
            ("SHADEGRAD_DISABLE", "subgroups,immediates"),
            ("SHADEGRAD_LIMITS", "default"),
            ("SHADEGRAD_CLASS", "discrete"),
            ("SHADEGRAD_MAX_GRID", "7"),
            ("SHADEGRAD_CACHE", "/kept"),
        ])
        .unwrap();
        assert_eq!(opt.cache.as_deref(), Some(std::path::Path::new("/kept")));
        assert_eq!(from(&[("SHADEGRAD_CACHE", "off"), ("HOME", "/home/a")]).unwrap().cache, None);
        assert_eq!(opt.adapter.as_deref(), Some("llvm"));
        assert!(opt.disable.subgroups && opt.disable.immediates && !opt.disable.f16);
        assert!(opt.default_limits);
        assert_eq!((opt.class, opt.max_grid), (Some(Class::Discrete), Some(7)));
    }

    #[test]
    fn unknown_words_are_errors_that_list_the_known_ones() {
        for (pairs, word) in [
            (&[("SHADEGRAD_DISABLE", "f61")][..], "f16"),
            (&[("SHADEGRAD_LIMITS", "none")][..], "default"),
            (&[("SHADEGRAD_CLASS", "fast")][..], "integrated"),
            (&[("SHADEGRAD_CHECKED", "maybe")][..], "neither 1 nor 0"),
            (&[("SHADEGRAD_MAX_GRID", "x")][..], "whole number"),
        ] {
            let text = Options::from_lookup(|n| pairs.iter().find(|p| p.0 == n).map(|p| p.1.to_string()))
                .unwrap_err()
                .to_string();
            assert!(text.contains(word), "{text}");
        }
    }
}
