// The decision field, read from the engine's own memory.
@group(0) @binding(0) var<storage, read> field: array<f32>;

struct Corner {
    @builtin(position) position: vec4<f32>,
    @location(0) place: vec2<f32>,
}

@vertex
fn corner(@builtin(vertex_index) i: u32) -> Corner {
    // One triangle that covers the viewport.
    let place = vec2<f32>(f32((i << 1u) & 2u), f32(i & 2u));
    return Corner(vec4<f32>(2.0 * place.x - 1.0, 1.0 - 2.0 * place.y, 0.0, 1.0), place);
}

fn score(x: i32, y: i32) -> f32 {
    let last = SIDE - 1;
    return field[clamp(y, 0, last) * SIDE + clamp(x, 0, last)];
}

@fragment
fn colour(in: Corner) -> @location(0) vec4<f32> {
    let at = in.place * f32(SIDE) - 0.5;
    let x = i32(floor(at.x));
    let y = i32(floor(at.y));
    let t = at - floor(at);
    let top = mix(score(x, y), score(x + 1, y), t.x);
    let bottom = mix(score(x, y + 1), score(x + 1, y + 1), t.x);
    let sure = 1.0 / (1.0 + exp(-clamp(mix(top, bottom, t.y), -20.0, 20.0)));
    let blue = vec3<f32>(0.16, 0.33, 0.60);
    let orange = vec3<f32>(0.66, 0.36, 0.10);
    // Dark where the network is undecided.
    let rim = 0.35 + 0.65 * min(1.0, abs(2.0 * sure - 1.0) * 1.5);
    return vec4<f32>(mix(blue, orange, sure) * rim, 1.0);
}
