//! Parsing, validating and reflecting one expanded kernel with naga, and the convention every kernel keeps.
//!
//! The build script compiles this file too, so that a kernel that breaks the convention never gets into a binary.

use std::borrow::Cow;
use std::error::Error as _;

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, BuiltIn, Expression, ScalarKind, ShaderStage, StorageAccess, TypeInner, VectorSize};

use crate::preprocess::ShaderError;

/// Most bytes of parameters: what immediates hold on every backend.
///
/// ```
/// # use shadegrad_shaders::*;
/// assert!(all().iter().all(|kernel| kernel.params_size <= MAX_PARAMS));
/// ```
pub const MAX_PARAMS: u32 = 128;
/// Most bytes of workgroup memory in a kernel: what Metal and DX12 give.
///
/// ```
/// # use shadegrad_shaders::*;
/// assert!(all().iter().all(|kernel| kernel.workgroup_bytes <= MAX_WORKGROUP_BYTES));
/// ```
pub const MAX_WORKGROUP_BYTES: u32 = 32768;
/// Most storage buffers in a kernel: the WebGPU default limit.
///
/// ```
/// # use shadegrad_shaders::*;
/// assert!(all().iter().all(|kernel| kernel.reads() + kernel.writes() <= MAX_BINDINGS));
/// ```
pub const MAX_BINDINGS: usize = 8;
/// Most invocations in a workgroup: what the desktop drivers give.
///
/// ```
/// # use shadegrad_shaders::*;
/// assert!(all().iter().all(|kernel| kernel.invocations() <= MAX_INVOCATIONS));
/// ```
pub const MAX_INVOCATIONS: u32 = 1024;

/// How a kernel uses a storage buffer.
///
/// ```
/// # use shadegrad_shaders::*;
/// // One buffer read, one written.
/// let info = &shadegrad_shaders::elementwise::UNARY_EXP.info;
/// assert_eq!(info.access[..], [Access::Read, Access::ReadWrite]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// One member of a kernel's parameter struct.
///
/// ```
/// # use shadegrad_shaders::*;
/// let value = &shadegrad_shaders::fill::FILL_F32.info.fields[2];
/// assert_eq!((&value.name[..], &value.ty[..], value.offset, value.size), ("value", "f32", 8, 4));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The member's name.
    pub name: Cow<'static, str>,
    /// Bytes from the beginning of the struct.
    pub offset: u32,
    /// Bytes it takes: 4 or 16.
    pub size: u32,
    /// Its WGSL type: `u32`, `i32`, `f32`, or a `vec4` of one of them, as in `vec4<f32>`.
    pub ty: Cow<'static, str>,
}

/// Everything known about one kernel; `'static` for the built-in ones, owned for a user's.
///
/// ```
/// # use shadegrad_shaders::*;
/// let info = &shadegrad_shaders::fill::FILL_F32.info;
/// assert_eq!((&info.name[..], info.workgroup_size, info.workgroup_bytes), ("fill_f32", [256, 1, 1], 0));
/// assert!(info.source.contains("fn main(") && !info.subgroups && !info.f16);
/// ```
#[derive(Clone, Debug)]
pub struct KernelInfo {
    /// Unique name, such as `fill_f32`.
    pub name: Cow<'static, str>,
    /// Fully expanded WGSL.
    pub source: Cow<'static, str>,
    /// Use of the storage buffers by binding index: all reads come before all writes.
    pub access: Cow<'static, [Access]>,
    /// Invocations per workgroup in x, y and z.
    pub workgroup_size: [u32; 3],
    /// Bytes of all `var<workgroup>` together.
    pub workgroup_bytes: u32,
    /// Bytes of the parameter struct; 0 for a kernel without parameters.
    pub params_size: u32,
    /// The name of the parameter struct; empty for a kernel without parameters.
    pub params_name: Cow<'static, str>,
    /// The members of the parameter struct in order.
    pub fields: Cow<'static, [Field]>,
    /// Whether it uses a subgroup operation or built-in value.
    pub subgroups: bool,
    /// Whether it uses the type `f16`.
    pub f16: bool,
    /// Whether it uses 64-bit integers, an extension of naga's to WGSL.
    pub int64: bool,
    /// FNV-1a of `source`.
    pub hash: u64,
}

impl KernelInfo {
    /// Number of buffers read.
    ///
    /// ```
    /// # use shadegrad_shaders::*;
    /// assert_eq!(shadegrad_shaders::elementwise::BINARY_ADD_VV.info.reads(), 2);
    /// ```
    pub fn reads(&self) -> usize {
        self.access.iter().filter(|a| **a == Access::Read).count()
    }
    /// Number of buffers written.
    ///
    /// ```
    /// # use shadegrad_shaders::*;
    /// assert_eq!(shadegrad_shaders::elementwise::BINARY_ADD_VV.info.writes(), 1);
    /// ```
    pub fn writes(&self) -> usize {
        self.access.len() - self.reads()
    }
    /// Invocations of one workgroup.
    ///
    /// ```
    /// # use shadegrad_shaders::*;
    /// let info = &shadegrad_shaders::fill::FILL_F32.info;
    /// assert_eq!((info.workgroup_size, info.invocations()), ([256, 1, 1], 256));
    /// ```
    pub fn invocations(&self) -> u32 {
        self.workgroup_size.iter().product()
    }
}

/// The FNV-1a hash of some bytes; it is stable across versions and platforms.
///
/// ```
/// # use shadegrad_shaders::*;
/// assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
/// let info = &shadegrad_shaders::fill::FILL_F32.info;
/// assert_eq!(fnv1a(info.source.as_bytes()), info.hash);
/// ```
pub const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}

/// What naga may accept in a kernel: standard WGSL and the optional features the kernels crate asks devices for.
///
/// ```
/// # use shadegrad_shaders::*;
/// use naga::valid::{Capabilities, ValidationFlags, Validator};
/// assert!(capabilities().contains(Capabilities::IMMEDIATES | Capabilities::SUBGROUP));
/// let module = naga::front::wgsl::parse_str("@compute @workgroup_size(1) fn main() {}").expect("WGSL");
/// assert!(Validator::new(ValidationFlags::all(), capabilities()).validate(&module).is_ok());
/// ```
pub fn capabilities() -> Capabilities {
    Capabilities::IMMEDIATES
        | Capabilities::SUBGROUP
        | Capabilities::SUBGROUP_BARRIER
        | Capabilities::SHADER_FLOAT16
        | Capabilities::SHADER_FLOAT16_IN_FLOAT32
        | Capabilities::SHADER_INT64
}

/// Parses and validates a kernel's text, and checks that it keeps the convention:
/// storage buffers at `@group(0)` from binding 0 without gaps, those read before those written, at most eight; an entry
/// point `main` of at most 1024 invocations; at most 32 KiB of workgroup memory; parameters in one `var<immediate>` struct
/// of `u32`, `i32`, `f32` and `vec4` members of at most 128 bytes; no `override`.
///
/// ```
/// # use shadegrad_shaders::*;
/// let text = "
/// @group(0) @binding(0) var<storage, read> x: array<f32>;
/// @group(0) @binding(1) var<storage, read_write> y: array<f32>;
/// @compute @workgroup_size(64)
/// fn main(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = x[id.x]; }";
/// let info = reflect("copy", text)?;
/// assert_eq!((&info.name[..], info.access.to_vec()), ("copy", vec![Access::Read, Access::ReadWrite]));
/// # Ok::<(), ShaderError>(())
/// ```
///
/// # Errors
/// The first thing that does not hold, with the line of `wgsl` where there is one, and naga's message.
pub fn reflect(name: &str, wgsl: &str) -> Result<KernelInfo, ShaderError> {
    let fail = |line: Option<u32>, message: String| ShaderError {
        file: String::new(),
        kernel: name.into(),
        line,
        message: match line.and_then(|l| wgsl.lines().nth(l as usize - 1)) {
            Some(text) => format!("{message}\n    {}", text.trim()),
            None => message,
        },
    };
    let line_of = |span: naga::Span| span.is_defined().then(|| span.location(wgsl).line_number);

    let module = naga::front::wgsl::parse_str(wgsl).map_err(|e| {
        let line = e.labels().next().and_then(|(span, _)| line_of(span));
        let mut message = e.message().to_string();
        for part in e.labels().map(|(_, label)| label).chain(e.notes()) {
            if part.is_empty() || message.contains(part) {
                continue;
            }
            message = format!("{message}; {part}");
        }
        fail(line, message)
    })?;
    Validator::new(ValidationFlags::all(), capabilities()).validate(&module).map_err(|e| {
        let line = e.spans().next().and_then(|(span, _)| line_of(*span));
        let mut message = e.as_inner().to_string();
        let mut cause = e.as_inner().source();
        while let Some(c) = cause {
            message = format!("{message}: {c}");
            cause = c.source();
        }
        fail(line, message)
    })?;

    let gctx = module.to_ctx();
    let mut access: Vec<Option<(Access, u32)>> = Vec::new();
    let mut workgroup_bytes = 0u32;
    let mut params: Option<(String, Vec<Field>, u32)> = None;
    for (handle, var) in module.global_variables.iter() {
        let line = line_of(module.global_variables.get_span(handle));
        let called = var.name.as_deref().unwrap_or("a variable");
        let fail = |message: String| fail(line, message);
        match var.space {
            AddressSpace::Storage { access: flags } => {
                let Some(b) = var.binding.as_ref().filter(|b| b.group == 0) else {
                    return Err(fail(format!("{called}: storage buffers belong to @group(0)")));
                };
                let at = b.binding as usize;
                if at >= MAX_BINDINGS {
                    return Err(fail(format!("{called}: binding {at}; a kernel has at most {MAX_BINDINGS} buffers")));
                }
                if access.len() <= at {
                    access.resize(at + 1, None);
                }
                let kind = if flags.contains(StorageAccess::STORE) { Access::ReadWrite } else { Access::Read };
                if access[at].replace((kind, line.unwrap_or(1))).is_some() {
                    return Err(fail(format!("{called}: binding {at} is used twice")));
                }
            }
            AddressSpace::WorkGroup => {
                let size = module.types[var.ty].inner.try_size(gctx);
                workgroup_bytes = size
                    .and_then(|s| workgroup_bytes.checked_add(s.next_multiple_of(4)))
                    .filter(|&b| b <= MAX_WORKGROUP_BYTES)
                    .ok_or_else(|| {
                        fail(format!("{called}: more than {MAX_WORKGROUP_BYTES} bytes of workgroup memory"))
                    })?;
            }
            AddressSpace::Immediate => {
                if params.is_some() {
                    return Err(fail(format!("{called}: a second var<immediate>; a kernel has one")));
                }
                params = Some(params_of(&module, var.ty).map_err(fail)?);
            }
            AddressSpace::Private => {}
            _ => {
                return Err(fail(format!(
                    "{called}: only storage buffers, workgroup memory and one var<immediate> are used here"
                )));
            }
        }
    }
    if params.is_some() && !wgsl.contains(IMMEDIATE) {
        return Err(fail(None, format!("write `{IMMEDIATE}` without spaces, so that it can be replaced by a uniform")));
    }
    if let Some((_, o)) = module.overrides.iter().next() {
        let called = o.name.as_deref().unwrap_or("");
        return Err(fail(None, format!("override {called}: kernels are specialised by text; use #define")));
    }

    let mut order = Vec::with_capacity(access.len());
    for (at, entry) in access.iter().enumerate() {
        let Some((kind, line)) = *entry else {
            return Err(fail(None, format!("binding {at} is missing: bindings go from 0 without gaps")));
        };
        if kind == Access::Read && order.contains(&Access::ReadWrite) {
            return Err(fail(Some(line), format!("binding {at} is read after a written one: reads come first")));
        }
        order.push(kind);
    }
    if !order.contains(&Access::ReadWrite) {
        return Err(fail(None, "the kernel writes no buffer: the outputs are var<storage, read_write>".into()));
    }

    let entry = match module.entry_points.as_slice() {
        [e] if e.name == "main" && e.stage == ShaderStage::Compute => e,
        other => {
            let names: Vec<&str> = other.iter().map(|e| e.name.as_str()).collect();
            return Err(fail(None, format!("wants exactly one entry point, @compute fn main; found {names:?}")));
        }
    };
    let invocations = entry.workgroup_size.iter().try_fold(1u32, |n, &s| n.checked_mul(s)).unwrap_or(u32::MAX);
    if invocations > MAX_INVOCATIONS {
        return Err(fail(None, format!("{invocations} invocations per workgroup; at most {MAX_INVOCATIONS}")));
    }

    let mut subgroups = wgsl.contains("subgroupBarrier");
    for arg in &entry.function.arguments {
        let is_subgroup = |b: Option<&naga::Binding>| {
            matches!(
                b,
                Some(naga::Binding::BuiltIn(
                    BuiltIn::SubgroupSize | BuiltIn::SubgroupInvocationId | BuiltIn::SubgroupId | BuiltIn::NumSubgroups
                ))
            )
        };
        subgroups |= is_subgroup(arg.binding.as_ref());
        if let TypeInner::Struct { members, .. } = &module.types[arg.ty].inner {
            subgroups |= members.iter().any(|m| is_subgroup(m.binding.as_ref()));
        }
    }
    let functions = module.functions.iter().map(|(_, f)| f).chain([&entry.function]);
    for f in functions {
        subgroups |= f
            .expressions
            .iter()
            .any(|(_, e)| matches!(e, Expression::SubgroupBallotResult | Expression::SubgroupOperationResult { .. }));
    }
    // naga accepts the type only after `enable f16;`, and a device without it refuses that line.
    let code: String = wgsl.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join(" ");
    let f16 = code.split(';').map(str::trim).any(|s| s.starts_with("enable ") && s.contains("f16"));

    // A type that no variable has is not in naga's list of types.
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    let int64 = words.any(|w| w == "u64" || w == "i64");
    let (params_name, fields, params_size) = params.unwrap_or_default();
    Ok(KernelInfo {
        name: name.to_string().into(),
        source: wgsl.to_string().into(),
        access: order.into(),
        workgroup_size: entry.workgroup_size,
        workgroup_bytes,
        params_size,
        params_name: params_name.into(),
        fields: fields.into(),
        subgroups,
        f16,
        int64,
        hash: fnv1a(wgsl.as_bytes()),
    })
}

/// What [`uniform_params`] replaces.
const IMMEDIATE: &str = "var<immediate>";

/// The same kernel with its parameters in a uniform buffer at `@group(1) @binding(0)`, for devices without immediates.
///
/// ```
/// # use shadegrad_shaders::*;
/// assert_eq!(uniform_params("var<immediate> p: Params;"), "@group(1) @binding(0) var<uniform> p: Params;");
/// ```
pub fn uniform_params(source: &str) -> String {
    source.replacen(IMMEDIATE, "@group(1) @binding(0) var<uniform>", 1)
}

/// Name, members and bytes of the parameter struct.
fn params_of(module: &naga::Module, ty: naga::Handle<naga::Type>) -> Result<(String, Vec<Field>, u32), String> {
    let ty = &module.types[ty];
    let (TypeInner::Struct { members, span }, Some(name)) = (&ty.inner, &ty.name) else {
        return Err("the parameters must be a struct".into());
    };
    let mut fields = Vec::with_capacity(members.len());
    for m in members {
        let called = m.name.clone().unwrap_or_default();
        let (scalar, four) = match module.types[m.ty].inner {
            TypeInner::Scalar(s) => (s, false),
            TypeInner::Vector { size: VectorSize::Quad, scalar } => (scalar, true),
            _ => return Err(format!("{name}.{called}: parameters are u32, i32, f32 or vec4 of them")),
        };
        let base = match (scalar.kind, scalar.width) {
            (ScalarKind::Uint, 4) => "u32",
            (ScalarKind::Sint, 4) => "i32",
            (ScalarKind::Float, 4) => "f32",
            _ => return Err(format!("{name}.{called}: parameters are u32, i32, f32 or vec4 of them")),
        };
        fields.push(Field {
            name: called.into(),
            offset: m.offset,
            size: if four { 16 } else { 4 },
            ty: if four { format!("vec4<{base}>").into() } else { base.into() },
        });
    }
    if *span > MAX_PARAMS {
        return Err(format!("{name} takes {span} bytes; immediates hold at most {MAX_PARAMS}"));
    }
    Ok((name.clone(), fields, *span))
}
