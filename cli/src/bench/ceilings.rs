//! What a device can do at most: bytes copied and multiply-adds done in a second.

use std::fmt;

use anyhow::Result;
use shadegrad::kernels::UserKernel;
use shadegrad::{Class, Gpu};

use super::measure;

const COPY: &str = "
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3u) {
    y[id.x] = x[id.x];
}
";

/// Eight independent chains of `vec4`s a thread: no load and one store at the end.
const MULTIPLY: &str = "
struct Params { a: f32, b: f32, rounds: u32, }
var<immediate> p: Params;
@group(0) @binding(0) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
#for i in 0..8
    var s$i = vec4f(f32(id.x) + f32($i));
#endfor
    for (var n = 0u; n < p.rounds; n++) {
#for i in 0..8
        s$i = fma(s$i, vec4f(p.a), vec4f(p.b));
#endfor
    }
    y[id.x] = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7;
}
";

/// The two ceilings of the roofline model (Williams, Waterman and Patterson, 2009), per second of processor time on a software
/// driver and of the clock elsewhere.
pub struct Ceilings {
    /// Bytes a second, read and written, of a copy of `vec4`s.
    pub copy: f64,
    /// Floating-point operations a second, two for a multiply-add.
    pub arithmetic: f64,
    /// Of which second they are.
    per: &'static str,
}

impl Ceilings {
    /// Measures both for about `seconds` a round.
    pub fn measure(gpu: &Gpu, seconds: f64) -> Result<Self> {
        let software = gpu.caps().class == Class::Software;
        let bytes: u64 = if software { 16 << 20 } else { 64 << 20 };
        let (x, y) = (gpu.alloc(bytes, "ceilings")?, gpu.alloc(bytes, "ceilings")?);
        shadegrad::kernels::fill::f32(gpu, &x, bytes as usize / 4, 1.5)?;
        let copy = UserKernel::new("ceiling_copy", COPY)?;
        let groups = [(bytes / 16 / 256) as u32, 1, 1];
        let moved = measure(gpu, seconds, &|| Ok(copy.dispatch(gpu, &[&x], &[&y], &[], groups)?))?;

        let (threads, rounds): (u32, u32) = if software { (1 << 12, 512) } else { (1 << 18, 512) };
        let multiply = UserKernel::new("ceiling_multiply", MULTIPLY)?;
        let sums = gpu.alloc(16 * u64::from(threads), "ceilings")?;
        let params: Vec<u8> =
            [0.999f32.to_bits(), 0.001f32.to_bits(), rounds].iter().flat_map(|w| w.to_le_bytes()).collect();
        let groups = [threads / 64, 1, 1];
        let done = measure(gpu, seconds, &|| Ok(multiply.dispatch(gpu, &[], &[&sums], &params, groups)?))?;
        let flop = f64::from(threads) * f64::from(rounds) * 8.0 * 4.0 * 2.0;
        Ok(Self {
            copy: 2.0 * bytes as f64 / moved.counted(gpu),
            arithmetic: flop / done.counted(gpu),
            per: if software { "processor second" } else { "second" },
        })
    }

    /// The share of the roofline that work of so many operations and bytes in `seconds` reaches, and what bounds it.
    pub fn share(&self, flop: f64, bytes: f64, seconds: f64) -> (f64, &'static str) {
        let (arithmetic, copy) = (flop / self.arithmetic, bytes / self.copy);
        if arithmetic > copy { (arithmetic / seconds, "arithmetic") } else { (copy / seconds, "memory") }
    }
}

impl fmt::Display for Ceilings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at most, per {}: {:.1} GFLOP of multiply-adds, {:.2} GB copied (read and written); work of more than {:.1} \
             operations a byte is bound by arithmetic",
            self.per,
            1e-9 * self.arithmetic,
            1e-9 * self.copy,
            self.arithmetic / self.copy
        )
    }
}
