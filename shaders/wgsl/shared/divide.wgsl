// Division of whole numbers by way of floats: drivers without vector division take eight times as long for `/`.

// Quotient and remainder of n / d, exactly, for n and d below 2^31 and d at least 1.
fn sg_divide(n: u32, d: u32) -> vec2<u32> {
  let inverse = 1.0 / f32(d);
  // Off by a relative 2^-21 at most; what is left is small enough for the second step to be off by one at most.
  let q0 = u32(f32(n) * inverse);
  let r0 = i32(n - q0 * d);
  let q1 = i32(floor(f32(r0) * inverse));
  let r1 = r0 - q1 * i32(d);
  let fix = select(select(0, 1, r1 >= i32(d)), -1, r1 < 0);
  return vec2<u32>(q0 + u32(q1 + fix), u32(r1 - fix * i32(d)));
}
