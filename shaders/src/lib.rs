//! The WGSL kernels of shadegrad, and everything the host has to know about them.
//!
//! Every family of kernels is one file `wgsl/<family>.wgsl`. The build script expands its variants (see [`mod@preprocess`]),
//! validates them with naga and generates, for each family, a module with the parameter structs and one [`Kernel`] per
//! variant: the number of buffers read and written and the type of the parameters are checked by the Rust compiler.
//!
//! Users' own kernels go the same way at run time: [`user_kernel`], or [`preprocess()`] and [`reflect()`]; [`Kernel::typed`].
#![deny(missing_docs, unsafe_code)]
// Bad input is an error, never a panic: what could panic is refused by the compiler. Tests may.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::todo)
)]

pub mod preprocess;
pub mod reflect;

use std::marker::PhantomData;

pub use preprocess::ShaderError;
use preprocess::{Defines, Expanded, value_of};
pub use reflect::{
    Access, Field, KernelInfo, MAX_BINDINGS, MAX_INVOCATIONS, MAX_PARAMS, MAX_WORKGROUP_BYTES, capabilities, fnv1a,
    reflect, uniform_params,
};

/// A kernel that reads `R` buffers, writes `W` buffers and takes parameters of type `P` (`()` for none).
///
/// ```
/// use shadegrad_shaders::Kernel;
/// use shadegrad_shaders::fill::{FILL_F32, FillF32Params};
/// let kernel: &Kernel<FillF32Params, 0, 1> = &FILL_F32; // no buffer read, one written
/// assert_eq!(kernel.info.name, "fill_f32");
/// ```
#[derive(Debug)]
pub struct Kernel<P: 'static, const R: usize, const W: usize> {
    /// What reflection found.
    pub info: KernelInfo,
    marker: PhantomData<fn(P)>,
}

impl<P: 'static, const R: usize, const W: usize> Kernel<P, R, W> {
    /// Wraps `info` unchecked; the generated modules use it. For kernels made at run time see [`Kernel::typed`].
    ///
    /// ```
    /// # use shadegrad_shaders::*;
    /// # let text = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
    /// # @compute @workgroup_size(1) fn main() { y[0] = 1.0; }";
    /// let info = reflect("one", text)?; // writes one buffer, has no parameters
    /// let kernel = Kernel::<(), 0, 1>::new(info); // nothing checks the numbers: `typed` does
    /// assert_eq!((kernel.info.reads(), kernel.info.writes()), (0, 1));
    /// # Ok::<(), ShaderError>(())
    /// ```
    pub const fn new(info: KernelInfo) -> Self {
        Self { info, marker: PhantomData }
    }

    /// Wraps `info` after checking that the numbers of buffers and the size of the parameters agree.
    ///
    /// ```
    /// # use shadegrad_shaders::*;
    /// let text = "
    /// struct Params { value: f32 }
    /// var<immediate> p: Params;
    /// @group(0) @binding(0) var<storage, read_write> y: array<f32>;
    /// @compute @workgroup_size(1)
    /// fn main() { y[0] = p.value; }";
    /// let info = reflect("set", text)?;
    /// assert!(Kernel::<f32, 0, 1>::typed(info.clone()).is_ok());
    /// assert!(Kernel::<[f32; 2], 0, 1>::typed(info.clone()).is_err()); // 8 bytes of parameters
    /// assert!(Kernel::<f32, 1, 1>::typed(info).is_err());
    /// # Ok::<(), ShaderError>(())
    /// ```
    ///
    /// # Errors
    /// The counts or sizes that differ.
    pub fn typed(info: KernelInfo) -> Result<Self, ShaderError> {
        let fail = |message: String| {
            Err(ShaderError { file: String::new(), kernel: info.name.to_string(), line: None, message })
        };
        let (r, w) = (info.reads(), info.writes());
        if (r, w) != (R, W) {
            return fail(format!("reads {r} and writes {w} buffers, but Kernel<_, {R}, {W}> was asked for"));
        }
        let size = size_of::<P>();
        if size != info.params_size as usize {
            return fail(format!(
                "its parameters take {} bytes, but the Rust type {} takes {size}",
                info.params_size,
                std::any::type_name::<P>()
            ));
        }
        Ok(Self::new(info))
    }
}

impl<P: 'static, const R: usize, const W: usize> Clone for Kernel<P, R, W> {
    fn clone(&self) -> Self {
        Self::new(self.info.clone())
    }
}

/// Expands a user's kernel text: the directives `#import`, `#define`, `#if`, `#for` and the replacement of `$NAME` and
/// `${expression}`. Imports come from the shared files of this crate (see [`shared_topics`]). `#kernel` lines are ignored;
/// their choices are what `defines` gives.
///
/// `file` is what error messages call the text.
///
/// ```
/// # use shadegrad_shaders::*;
/// let text = preprocess("mine", "#for I in 0..2\nlet x${I} = ${I}u;\n#endfor\n", &[])?;
/// assert!(text.contains("let x1 = 1u;"));
/// # Ok::<(), ShaderError>(())
/// ```
///
/// # Errors
/// Malformed directives, unknown names and imports, with the file and the line.
pub fn preprocess(file: &str, text: &str, defines: &[(&str, &str)]) -> Result<String, ShaderError> {
    expanded(file, text, defines).map(|e| e.text())
}

/// Expands a user's kernel as [`preprocess()`] does and gives the result to [`reflect()`]. Errors name the line of `text`,
/// whatever the expansion made of it.
///
/// ```
/// # use shadegrad_shaders::*;
/// let text = "
/// // Ones.
/// @group(0) @binding(0) var<storage, read_write> y: array<f32>;
/// @compute @workgroup_size($GROUP)
/// fn main(@builtin(local_invocation_index) i: u32) { y[i] = 1.0; }";
/// assert_eq!(user_kernel("ones", text, &[("GROUP", "64")])?.workgroup_size, [64, 1, 1]);
/// let err = user_kernel("ones", &text.replace("y[i]", "z[i]"), &[("GROUP", "64")]).unwrap_err();
/// assert_eq!(err.line, Some(5));
/// # Ok::<(), ShaderError>(())
/// ```
///
/// # Errors
/// Those of both.
pub fn user_kernel(name: &str, text: &str, defines: &[(&str, &str)]) -> Result<KernelInfo, ShaderError> {
    let expanded = expanded(name, text, defines)?;
    // The text is called by the kernel's name: once is enough.
    reflect(name, &expanded.text()).map_err(|e| ShaderError { kernel: String::new(), ..expanded.locate(e) })
}

fn expanded(file: &str, text: &str, defines: &[(&str, &str)]) -> Result<Expanded, ShaderError> {
    let mut table = Defines::new();
    for (name, value) in defines {
        let value = value_of(value, &table);
        table.insert((*name).into(), value);
    }
    let import = |topic: &str| {
        let at = SHARED.binary_search_by(|(name, _)| (*name).cmp(topic)).ok()?;
        Some((format!("shared/{topic}.wgsl"), SHARED[at].1.to_string()))
    };
    preprocess::expand(file, text, &table, &import)
}

/// The names that `#import` knows, sorted.
///
/// ```
/// # use shadegrad_shaders::*;
/// assert!(shared_topics().any(|topic| topic == "math"));
/// let text = preprocess("mine", "#import math\nfn f(x: f32) -> f32 { return sg_tanh(x); }", &[])?;
/// assert!(text.contains("fn sg_tanh("));
/// # Ok::<(), ShaderError>(())
/// ```
pub fn shared_topics() -> impl Iterator<Item = &'static str> {
    SHARED.iter().map(|(name, _)| *name)
}

/// Every built-in kernel, sorted by name.
///
/// ```
/// # use shadegrad_shaders::*;
/// let at = all().binary_search_by(|info| (*info.name).cmp("fill_f32")).expect("a built-in kernel");
/// assert_eq!(all()[at].params_name, "FillF32Params");
/// ```
pub fn all() -> &'static [&'static KernelInfo] {
    &ALL
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
