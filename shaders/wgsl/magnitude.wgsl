// The elements of largest magnitude of a whole tensor, in the order of their places. Magnitudes order like their bits, so
// the k-th is found exactly by its bits, eight at a time from the top (radix selection); ties go to the lowest places, NaN
// counts as the largest. found: the bits so far, and the rank of the k-th among the elements that begin with them.
//   magnitude_count    a share's elements by the next eight bits, among those that begin with the bits found
//   magnitude_narrow   finds the next bits
//   magnitude_runs     elements above the k-th magnitude and elements of it, in each run of neighbours
//   magnitude_offsets  running sums of these over the runs before
//   magnitude_take     the elements and their places
#define GROUP 256

#kernel magnitude_count
#kernel magnitude_narrow
#kernel magnitude_runs
#kernel magnitude_offsets
#kernel magnitude_take

#if KERNEL == magnitude_count || KERNEL == magnitude_narrow
struct MagnitudeParams {
  n: u32,
  share: u32, // elements of a workgroup
  shares: u32,
  shift: u32, // of the next bits
  bits: u32, // how many they are
  rank: u32, // in the first round: of the k-th among all, counted from 1; else 0
}
#else
struct MagnitudeRunParams {
  n: u32,
  run: u32, // elements of a run
  runs: u32,
  gx: u32, // workgroups in x of the folded grid
}
#endif

#if KERNEL == magnitude_count
var<immediate> p: MagnitudeParams;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> found: array<u32>;
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;
var<workgroup> bins: array<atomic<u32>, $GROUP>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  atomicStore(&bins[lid], 0u);
  workgroupBarrier();
  let above = p.shift + p.bits;
  let begin = select(found[0] >> above, 0u, p.rank > 0u);
  let end = min((wid.x + 1u) * p.share, p.n);
  for (var i = wid.x * p.share + lid; i < end; i += ${GROUP}u) {
    let m = x[i] & 0x7fffffffu;
    if (m >> above == begin) {
      atomicAdd(&bins[(m >> p.shift) & ((1u << p.bits) - 1u)], 1u);
    }
  }
  workgroupBarrier();
  counts[wid.x * ${GROUP}u + lid] = atomicLoad(&bins[lid]);
}

#elif KERNEL == magnitude_narrow
var<immediate> p: MagnitudeParams;
@group(0) @binding(0) var<storage, read> counts: array<u32>;
@group(0) @binding(1) var<storage, read_write> found: array<u32>;
var<workgroup> bins: array<u32, $GROUP>;

@compute @workgroup_size($GROUP)
fn main(@builtin(local_invocation_index) lid: u32) {
  var sum = 0u;
  for (var s = 0u; s < p.shares; s += 1u) {
    sum += counts[s * ${GROUP}u + lid];
  }
  bins[lid] = sum;
  workgroupBarrier();
  if (lid == 0u) {
    let first = p.rank > 0u;
    var rank = select(found[1], p.rank, first);
    var digit = ${GROUP - 1}u;
    while (digit > 0u && rank > bins[digit]) {
      rank -= bins[digit];
      digit -= 1u;
    }
    found[0] = select(found[0], 0u, first) | (digit << p.shift);
    found[1] = rank;
  }
}

#elif KERNEL == magnitude_runs
var<immediate> p: MagnitudeRunParams;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> found: array<u32>;
@group(0) @binding(2) var<storage, read_write> sums: array<vec2<u32>>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let r = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (r < p.runs) {
    let edge = found[0];
    var sum = vec2<u32>(0u);
    for (var i = r * p.run; i < min((r + 1u) * p.run, p.n); i += 1u) {
      let m = x[i] & 0x7fffffffu;
      sum += vec2<u32>(select(0u, 1u, m > edge), select(0u, 1u, m == edge));
    }
    sums[r] = sum;
  }
}

#elif KERNEL == magnitude_offsets
var<immediate> p: MagnitudeRunParams;
@group(0) @binding(0) var<storage, read> sums: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read_write> offsets: array<vec2<u32>>;
var<workgroup> cells: array<vec2<u32>, $GROUP>;

@compute @workgroup_size($GROUP)
fn main(@builtin(local_invocation_index) lid: u32) {
  let part = (p.runs + ${GROUP - 1}u) / ${GROUP}u;
  let end = min((lid + 1u) * part, p.runs);
  var sum = vec2<u32>(0u);
  for (var r = lid * part; r < end; r += 1u) {
    sum += sums[r];
  }
  cells[lid] = sum;
  workgroupBarrier();
  var before = vec2<u32>(0u);
  for (var c = 0u; c < lid; c += 1u) {
    before += cells[c];
  }
  for (var r = lid * part; r < end; r += 1u) {
    offsets[r] = before;
    before += sums[r];
  }
}

#else
var<immediate> p: MagnitudeRunParams;
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read> found: array<u32>;
@group(0) @binding(2) var<storage, read> offsets: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> values: array<u32>;
@group(0) @binding(4) var<storage, read_write> places: array<u32>;

@compute @workgroup_size($GROUP)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
  let r = (wid.y * p.gx + wid.x) * ${GROUP}u + lid;
  if (r < p.runs) {
    let edge = found[0];
    // So many elements of the k-th magnitude itself are taken.
    let ties = found[1];
    var above = offsets[r].x;
    var same = offsets[r].y;
    for (var i = r * p.run; i < min((r + 1u) * p.run, p.n); i += 1u) {
      let m = x[i] & 0x7fffffffu;
      if (m > edge || (m == edge && same < ties)) {
        let at = above + min(same, ties);
        values[at] = x[i];
        places[at] = i;
      }
      above += select(0u, 1u, m > edge);
      same += select(0u, 1u, m == edge);
    }
  }
}
#endif
