// One code for scalars (V = 1) and for vec4s (V = 4) along a row.
#if V == 4
#define T vec4<f32>
fn hsum(v: vec4<f32>) -> f32 {
  return (v.x + v.y) + (v.z + v.w);
}

fn hmax(v: vec4<f32>) -> f32 {
  return max(max(v.x, v.y), max(v.z, v.w));
}

// Column numbers of the components of element c.
fn lane_columns(c: u32) -> vec4<u32> {
  return vec4<u32>(4u * c) + vec4<u32>(0u, 1u, 2u, 3u);
}
#define TU vec4<u32>
#else
#define T f32
#define TU u32
fn hsum(v: f32) -> f32 {
  return v;
}

fn hmax(v: f32) -> f32 {
  return v;
}

fn lane_columns(c: u32) -> u32 {
  return c;
}
#endif

// The lowest value that counts: a row of -infinity must not become NaN. NaN passes.
const LOWEST = -3.0e38;
fn no_less(v: $T) -> $T {
  return select(v, $T(LOWEST), v < $T(LOWEST));
}
