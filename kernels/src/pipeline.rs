//! Pipelines, layouts and bind groups: made once, found again by key.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use shadegrad_shaders::KernelInfo;

use crate::Result;
use crate::adapter::Caps;
use crate::error::GpuError;
use crate::fault::{Fault, attempt};
use crate::memory::Storage;

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

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BindKey {
    layout: (u8, u8),
    /// Buffer id, offset and length of each binding; zeros behind the last.
    entries: [(u64, u64, u64); MAX_BINDINGS],
}

impl BindKey {
    pub(crate) fn new(layout: &Layout, storages: &[&Storage]) -> Self {
        let mut entries = [(0, 0, 0); MAX_BINDINGS];
        for (slot, s) in entries.iter_mut().zip(storages) {
            *slot = (s.id(), s.offset(), s.bound_bytes());
        }
        Self { layout: (layout.reads, layout.writes), entries }
    }
}

#[derive(Default)]
pub(crate) struct Cache {
    pipelines: HashMap<u64, Arc<Pipeline>>,
    layouts: HashMap<(u8, u8), Arc<Layout>>,
    groups: HashMap<BindKey, wgpu::BindGroup>,
    uniform_layout: Option<wgpu::BindGroupLayout>,
    /// Texts instead of kernels' own, by name.
    replaced: HashMap<String, String>,
    pub(crate) pipelines_made: u64,
    pub(crate) groups_made: u64,
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

    /// Forgets all bind groups, which hold their buffers alive.
    pub(crate) fn drop_groups(&mut self) {
        self.groups.clear();
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
        let make = || {
            let module = shader_module(device, &info.name, source, caps.checked);
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&info.name),
                layout: Some(&layout.pipeline),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[],
                    // Kernels write workgroup memory before they read it; clearing it first can cost more than the kernel.
                    zero_initialize_workgroup_memory: caps.checked,
                },
                cache: None,
            })
        };
        let (raw, fault) = attempt(device, make);
        if let Some(fault) = fault {
            return Err(fail(fault.to_string()));
        }
        self.pipelines_made += 1;
        let made = Arc::new(Pipeline {
            raw,
            layout,
            name: info.name.as_ref().into(),
            key: info.hash,
            has_params: info.params_size > 0,
        });
        self.pipelines.insert(info.hash, made.clone());
        Ok(made)
    }

    /// The bind group of `key`, or what wgpu has against it: a buffer of the application that was destroyed, or that is of
    /// another device. (Recorded all the same, it would spoil everything in the same submission.)
    pub(crate) fn group(
        &mut self,
        device: &wgpu::Device,
        layout: &Layout,
        key: &BindKey,
        storages: &[&Storage],
    ) -> Result<&wgpu::BindGroup, Fault> {
        if self.groups.len() >= MAX_GROUPS {
            self.groups.clear();
        }
        match self.groups.entry(*key) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(place) => {
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
                Ok(place.insert(group))
            }
        }
    }
}

/// The one place in the project that gives up run-time checks. Release builds run the same texts that the tests run
/// with all checks and with sentinels behind every output; data-dependent indices are clamped in the shaders.
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
