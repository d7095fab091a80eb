// Spikes of T steps as bits: element [t][i] of zeros and ones is bit t % 32 of word [t / 32][i]. An invocation has one
// word of one neuron, so neighbours read and write neighbours at every step.
#define GROUP 64

#kernel spikes_pack
#kernel spikes_unpack

struct SpikeBitsParams {
  items: u32, // words in all
  gx: u32,
  neurons: u32,
  steps: u32,
}
var<immediate> p: SpikeBitsParams;
#if KERNEL == spikes_pack
@group(0) @binding(0) var<storage, read> spikes: array<f32>;
@group(0) @binding(1) var<storage, read_write> words: array<u32>;
#else
@group(0) @binding(0) var<storage, read> words: array<u32>;
@group(0) @binding(1) var<storage, read_write> spikes: array<f32>;
#endif

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let i = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (i >= p.items) {
    return;
  }
  let first = i / p.neurons * 32u;
  let neuron = i % p.neurons;
  let count = min(p.steps - first, 32u);
#if KERNEL == spikes_pack
  var word = 0u;
  for (var t = 0u; t < count; t += 1u) {
    word |= select(0u, 1u, spikes[(first + t) * p.neurons + neuron] > 0.5) << t;
  }
  words[i] = word;
#else
  let word = words[i];
  for (var t = 0u; t < count; t += 1u) {
    spikes[(first + t) * p.neurons + neuron] = f32((word >> t) & 1u);
  }
#endif
}
