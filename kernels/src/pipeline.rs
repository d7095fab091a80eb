//! Pipelines, layouts and bind groups: made once, found again by key.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use shadegrad_shaders::KernelInfo;

use crate::Result;
use crate::adapter::Caps;
use crate::disk::Shelf;
use crate::error::GpuError;
use crate::fault::{Fault, attempt};
use crate::memory::{Storage, VIEW_ALIGN};

/// Bytes of immediates in every layout: one block for all kernels, so that changing the pipeline keeps it.
pub(crate) const PARAM_BYTES: u32 = 128;
/// Most storage buffers one kernel may have, WebGPU's guaranteed number.
pub(crate) const MAX_BINDINGS: usize = 8;

/// A compiled kernel with what a dispatch must check.
pub(crate) struct Pipeline {
    pub(crate) raw: wgpu::ComputePipeline,
    pub(crate) layout: Arc<Layout>,
    pub(crate) name: Arc<str>,
    pub(crate) key: u64,
    pub(crate) has_params: bool,
}

/// The layout shared by all kernels with the same number of read-only and writable buffers.
pub(crate) struct Layout {
    pub(crate) reads: u8,
    pub(crate) writes: u8,
    group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct BindKey {
    layout: (u8, u8),
    /// Buffer id, offset and length of each binding, in units that all are multiples of; zeros behind the last.
    entries: [(u32, u32, u32); MAX_BINDINGS],
}

impl Hash for BindKey {
    /// A word a binding: every dispatch looks its key up. Views of one buffer differ in offset and length alone, which must
    /// reach the low bits that choose a place in the table.
    fn hash<H: Hasher>(&self, state: &mut H) {
        for &(id, offset, bytes) in self.entries.iter().take_while(|e| e.2 > 0) {
            let mixed = u64::from(id)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .wrapping_add(u64::from(offset).wrapping_mul(0xc2b2_ae3d_27d4_eb4f))
                .wrapping_add(u64::from(bytes).wrapping_mul(0x1656_67b1_9e37_79f9));
            state.write_u64(mixed ^ (mixed >> 32));
        }
    }
}

impl BindKey {
    pub(crate) fn new(layout: &Layout, storages: &[&Storage]) -> Self {
        let mut entries = [(0, 0, 0); MAX_BINDINGS];
        for (slot, s) in entries.iter_mut().zip(storages) {
            // No device binds 64 GiB at once, and no process lives to see 2^32 buffers.
            *slot = (s.id() as u32, (s.offset() / VIEW_ALIGN) as u32, (s.bound_bytes() / 16) as u32);
        }
        Self { layout: (layout.reads, layout.writes), entries }
    }
}

#[derive(Default)]
pub(crate) struct Cache {
    pipelines: FxHashMap<u64, Arc<Pipeline>>,
    layouts: HashMap<(u8, u8), Arc<Layout>>,
    /// In the order of their making, which is that of a training step: the next one is found without hashing.
    groups: Vec<Made>,
    /// Where each of them is.
    places: FxHashMap<BindKey, u32>,
    /// The one that was asked for last.
    last: usize,
    uniform_layout: Option<wgpu::BindGroupLayout>,
    /// Texts instead of kernels' own, by name.
    replaced: HashMap<String, String>,
    /// The driver's own store, and its file.
    pub(crate) shelf: Option<Shelf>,
    pub(crate) pipelines_made: u64,
    pub(crate) groups_made: u64,
}

/// A bind group that was made.
struct Made {
    key: BindKey,
    /// Of its making: no other group ever has it.
    number: u64,
    /// Place of the one that was asked for after this one the last time.
    next: u32,
    group: wgpu::BindGroup,
}

/// A kernel that is to be compiled: whatever the compiling needs, so that any thread can do it.
pub(crate) struct Order {
    pub(crate) name: Arc<str>,
    pub(crate) hash: u64,
    has_params: bool,
    layout: Arc<Layout>,
    source: String,
    store: Option<wgpu::PipelineCache>,
}

impl Order {
    /// Compiles it, or says why the driver cannot.
    pub(crate) fn compile(self, device: &wgpu::Device, checked: bool) -> Result<Arc<Pipeline>> {
        let Self { name, hash, has_params, layout, source, store } = self;
        let make = || {
            let module = shader_module(device, &name, source, checked);
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&name),
                layout: Some(&layout.pipeline),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    // Kernels write workgroup memory before they read it; clearing it first can cost more than the kernel.
                    zero_initialize_workgroup_memory: checked,
                },
                cache: store.as_ref(),
            })
        };
        match attempt(device, make) {
            (raw, None) => Ok(Arc::new(Pipeline { raw, layout, name, key: hash, has_params })),
            (_, Some(fault)) => Err(GpuError::Shader { kernel: name.to_string(), reason: fault.to_string() }),
        }
    }
}

/// Bind groups kept at most; past it all are dropped and made again as needed.
const MAX_GROUPS: usize = 1 << 16;

impl Cache {
    pub(crate) fn find(&self, key: u64) -> Option<&Arc<Pipeline>> {
        self.pipelines.get(&key)
    }

    /// See [`Gpu::replace_kernel`](crate::Gpu::replace_kernel).
    pub(crate) fn replace(&mut self, name: &str, text: Option<String>) {
        self.pipelines.retain(|_, p| *p.name != *name);
        match text {
            Some(text) => self.replaced.insert(name.to_string(), text),
            None => self.replaced.remove(name),
        };
    }

    /// Writes what the driver compiled to disk, where it gives it out.
    pub(crate) fn save(&mut self) {
        if let Some(shelf) = self.shelf.as_mut().filter(|_| self.pipelines_made > 0) {
            shelf.save();
        }
    }

    /// Forgets all bind groups, which hold their buffers alive.
    pub(crate) fn drop_groups(&mut self) {
        self.groups.clear();
        self.places.clear();
    }

    pub(crate) fn uniform_layout(&mut self, device: &wgpu::Device) -> wgpu::BindGroupLayout {
        self.uniform_layout
            .get_or_insert_with(|| {
                device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                    label: Some("params"),
                    entries: &[wgpu::BindGroupLayoutEntry {
                        binding: 0,
                        visibility: wgpu::ShaderStages::COMPUTE,
                        ty: wgpu::BindingType::Buffer {
                            ty: wgpu::BufferBindingType::Uniform,
                            has_dynamic_offset: true,
                            min_binding_size: wgpu::BufferSize::new(PARAM_BYTES.into()),
                        },
                        count: None,
                    }],
                })
            })
            .clone()
    }

    fn layout(&mut self, device: &wgpu::Device, caps: &Caps, reads: u8, writes: u8) -> Arc<Layout> {
        if let Some(found) = self.layouts.get(&(reads, writes)) {
            return found.clone();
        }
        let entries: Vec<_> = (0..reads + writes)
            .map(|i| wgpu::BindGroupLayoutEntry {
                binding: i.into(),
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: i < reads },
                    has_dynamic_offset: false,
                    // A fixed minimum spares the check of each dispatch.
                    min_binding_size: wgpu::BufferSize::new(16),
                },
                count: None,
            })
            .collect();
        let group =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries });
        let uniform = (!caps.immediates).then(|| self.uniform_layout(device));
        let groups: Vec<_> = std::iter::once(Some(&group)).chain(uniform.iter().map(Some)).collect();
        let pipeline = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &groups,
            immediate_size: if caps.immediates { PARAM_BYTES } else { 0 },
        });
        let made = Arc::new(Layout { reads, writes, group, pipeline });
        self.layouts.insert((reads, writes), made.clone());
        made
    }

    /// Compiles `info`, or says why the device cannot run it.
    pub(crate) fn make(&mut self, device: &wgpu::Device, caps: &Caps, info: &KernelInfo) -> Result<Arc<Pipeline>> {
        let made = self.order(device, caps, info)?.compile(device, caps.checked)?;
        self.insert(made.clone());
        Ok(made)
    }

    /// Takes in a compiled pipeline.
    pub(crate) fn insert(&mut self, made: Arc<Pipeline>) {
        self.pipelines_made += 1;
        self.pipelines.insert(made.key, made);
    }

    /// What compiling `info` takes, or why the device cannot run it.
    pub(crate) fn order(&mut self, device: &wgpu::Device, caps: &Caps, info: &KernelInfo) -> Result<Order> {
        let fail = |reason: String| GpuError::Shader { kernel: info.name.to_string(), reason };
        let invocations: u32 = info.workgroup_size.iter().product();
        if info.subgroups && caps.subgroup.is_none() {
            return Err(fail("uses subgroups, which this device does not have or which are switched off".into()));
        }
        if info.f16 && !caps.f16 {
            return Err(fail("uses 16-bit floats, which this device does not have or which are switched off".into()));
        }
        if info.int64 && !caps.int64 {
            return Err(fail("uses 64-bit integers, which this device does not have or which are switched off".into()));
        }
        // wgpu does not compare workgroup memory with the limit; drivers then fail in ways of their own.
        if info.workgroup_bytes > caps.workgroup_bytes || invocations > caps.workgroup_invocations {
            return Err(fail(format!(
                "needs {} bytes of workgroup memory and {invocations} invocations, the device has {} and {}",
                info.workgroup_bytes, caps.workgroup_bytes, caps.workgroup_invocations
            )));
        }
        let reads = info.access.iter().filter(|a| **a == shadegrad_shaders::Access::Read).count();
        if info.access.len() > MAX_BINDINGS.min(caps.storage_bindings as usize) {
            return Err(fail(format!(
                "has {} storage buffers, at most {MAX_BINDINGS} work everywhere",
                info.access.len()
            )));
        }
        let layout = self.layout(device, caps, reads as u8, (info.access.len() - reads) as u8);
        let source = self.replaced.get(&*info.name).map_or(&*info.source, String::as_str);
        let source = if caps.immediates { source.to_string() } else { shadegrad_shaders::uniform_params(source) };
        Ok(Order {
            name: info.name.as_ref().into(),
            hash: info.hash,
            has_params: info.params_size > 0,
            layout,
            source,
            store: self.shelf.as_ref().map(|s| s.raw.clone()),
        })
    }

    /// The bind group of `key` and its number, or what wgpu has against it: a buffer of the application that was destroyed, or
    /// that is of another device. (Recorded all the same, it would spoil everything in the same submission.)
    pub(crate) fn group(
        &mut self,
        device: &wgpu::Device,
        layout: &Layout,
        key: &BindKey,
        storages: &[&Storage],
    ) -> Result<(u64, &wgpu::BindGroup), Fault> {
        let likely = self.groups.get(self.last).map_or(0, |before| before.next as usize);
        let at = if self.groups.get(likely).is_some_and(|made| made.key == *key) {
            likely
        } else {
            let at = match self.places.get(key) {
                Some(&at) => at as usize,
                None => self.make_group(device, layout, key, storages)?,
            };
            if let Some(before) = self.groups.get_mut(self.last) {
                before.next = at as u32;
            }
            at
        };
        self.last = at;
        let made = &self.groups[at];
        Ok((made.number, &made.group))
    }

    /// Makes a bind group and says where it is.
    fn make_group(
        &mut self,
        device: &wgpu::Device,
        layout: &Layout,
        key: &BindKey,
        storages: &[&Storage],
    ) -> Result<usize, Fault> {
        if self.groups.len() >= MAX_GROUPS {
            self.drop_groups();
        }
        let entries: Vec<_> = storages
            .iter()
            .enumerate()
            .map(|(i, s)| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: s.buffer(),
                    offset: s.offset(),
                    size: wgpu::BufferSize::new(s.bound_bytes()),
                }),
            })
            .collect();
        let descriptor = wgpu::BindGroupDescriptor { label: None, layout: &layout.group, entries: &entries };
        let (group, fault) = attempt(device, || device.create_bind_group(&descriptor));
        if let Some(fault) = fault {
            return Err(fault);
        }
        self.groups_made += 1;
        let at = self.groups.len();
        self.places.insert(*key, at as u32);
        self.groups.push(Made { key: *key, number: self.groups_made, next: 0, group });
        Ok(at)
    }
}

/// One of the two places in the project that are unsafe: here run-time checks are given up. Release builds run the same texts
/// that the tests run with all checks and with sentinels behind every output; data-dependent indices are clamped in the
/// shaders.
#[allow(unsafe_code)]
fn shader_module(device: &wgpu::Device, name: &str, source: String, checked: bool) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(name), source: wgpu::ShaderSource::Wgsl(source.into()) };
    if checked {
        return device.create_shader_module(descriptor);
    }
    // SAFETY: every index of the built-in kernels lies within its buffer for all shapes the host functions accept
    // (checked there), which the tests confirm with checks on; loops end after a number of turns known on the host.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}

/// The other: the driver's store of compiled pipelines, with `data` that an earlier one gave. wgpu has no safe form of this,
/// since a driver may trust what it is given.
#[allow(unsafe_code)]
pub(crate) fn pipeline_cache(device: &wgpu::Device, data: Option<&[u8]>) -> wgpu::PipelineCache {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("shadegrad"), data, fallback: true };
    // SAFETY: `data` came from `PipelineCache::get_data`: `Shelf` wrote it to a file in the user's own folder, with the
    // device's, the driver's and this crate's names and a sum over all of it, and gives it here only if these agree. wgpu
    // and the driver compare what they wrote into it besides.
    unsafe { device.create_pipeline_cache(&descriptor) }
}
