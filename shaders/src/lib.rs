//! The WGSL kernels of shadegrad, and everything the host has to know about them.
//!
//! Every family of kernels is one file `wgsl/<family>.wgsl`. The build script expands its variants (see [`mod@preprocess`]),
//! validates them with naga and generates, for each family, a module with the parameter structs and one [`Kernel`] per
//! variant: the number of buffers read and written and the type of the parameters are checked by the Rust compiler.
//!
//! Users' own kernels go the same way at run time: [`preprocess()`], [`reflect()`], [`Kernel::typed`].
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
use preprocess::{Defines, value_of};
pub use reflect::{
    Access, Field, KernelInfo, MAX_BINDINGS, MAX_INVOCATIONS, MAX_PARAMS, MAX_WORKGROUP_BYTES, capabilities, fnv1a,
    reflect, uniform_params,
};

/// A kernel that reads `R` buffers, writes `W` buffers and takes parameters of type `P` (`()` for none).
#[derive(Debug)]
pub struct Kernel<P: 'static, const R: usize, const W: usize> {
    /// What reflection found.
    pub info: KernelInfo,
    marker: PhantomData<fn(P)>,
}

impl<P: 'static, const R: usize, const W: usize> Kernel<P, R, W> {
    /// Wraps `info` unchecked; the generated modules use it. For kernels made at run time see [`Kernel::typed`].
    pub const fn new(info: KernelInfo) -> Self {
        Self { info, marker: PhantomData }
    }

    /// Wraps `info` after checking that the numbers of buffers and the size of the parameters agree.
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
    let mut table = Defines::new();
    for (name, value) in defines {
        let value = value_of(value, &table);
        table.insert((*name).into(), value);
    }
    let import = |topic: &str| {
        let at = SHARED.binary_search_by(|(name, _)| (*name).cmp(topic)).ok()?;
        Some((format!("shared/{topic}.wgsl"), SHARED[at].1.to_string()))
    };
    preprocess::expand(file, text, &table, &import).map(|e| e.text())
}

/// The names that `#import` knows, sorted.
pub fn shared_topics() -> impl Iterator<Item = &'static str> {
    SHARED.iter().map(|(name, _)| *name)
}

/// Every built-in kernel, sorted by name.
pub fn all() -> &'static [&'static KernelInfo] {
    &ALL
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
