// A team is $TEAM neighbouring invocations that share one row. Modes:
//   t1     every invocation has a row of its own: many short rows
//   s8 s32 a subgroup of that constant size, by shuffles
//   w64 w256  the whole workgroup, by workgroup memory: long rows, or no subgroups
// All invocations of the workgroup must call the team functions together. The order of additions is fixed.
#if MODE == t1
#define TEAM 1
#define TEAMS 64
#define STEPS 0
#elif MODE == s8
#define TEAM 8
#define TEAMS 1
#define STEPS 3
#elif MODE == s32
#define TEAM 32
#define TEAMS 4
#define STEPS 5
#elif MODE == w64
#define TEAM 64
#define TEAMS 1
#define STEPS 6
#else
#define TEAM 256
#define TEAMS 1
#define STEPS 8
#endif

#if MODE == w64 || MODE == w256
var<workgroup> team_cells: array<vec2<f32>, $TEAM>;

// Sums of both components.
fn team_sum2(v: vec2<f32>, lid: u32) -> vec2<f32> {
  team_cells[lid] = v;
  workgroupBarrier();
#for i in 0..STEPS
  if (lid < ${TEAM >> (i + 1)}u) {
    team_cells[lid] += team_cells[lid + ${TEAM >> (i + 1)}u];
  }
  workgroupBarrier();
#endfor
  let r = team_cells[0];
  workgroupBarrier();
  return r;
}

fn team_sum(v: f32, lid: u32) -> f32 {
  return team_sum2(vec2<f32>(v, 0.0), lid).x;
}

fn team_max(v: f32, lid: u32) -> f32 {
  team_cells[lid].x = v;
  workgroupBarrier();
#for i in 0..STEPS
  if (lid < ${TEAM >> (i + 1)}u) {
    team_cells[lid].x = max(team_cells[lid].x, team_cells[lid + ${TEAM >> (i + 1)}u].x);
  }
  workgroupBarrier();
#endfor
  let r = team_cells[0].x;
  workgroupBarrier();
  return r;
}
#else
fn team_sum(v: f32, lid: u32) -> f32 {
  var r = v;
#for i in 0..STEPS
  r += subgroupShuffleXor(r, ${1 << i}u);
#endfor
  return r;
}

fn team_sum2(v: vec2<f32>, lid: u32) -> vec2<f32> {
  var r = v;
#for i in 0..STEPS
  r += subgroupShuffleXor(r, ${1 << i}u);
#endfor
  return r;
}

fn team_max(v: f32, lid: u32) -> f32 {
  var r = v;
#for i in 0..STEPS
  r = max(r, subgroupShuffleXor(r, ${1 << i}u));
#endfor
  return r;
}
#endif
