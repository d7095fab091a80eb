// Matrix products in registers alone, for software drivers that lack what matmul_lanes.wgsl needs, and the sum over a split K.
//   gemm_reg_*  8 x 8 outputs per invocation. All loads of a step come before its arithmetic, and a row takes four terms at
//               once: see matmul_lanes.wgsl
//   gemm_sum    adds the partial products of a K split over workgroups, in fixed order
#kernel gemm_reg_$TA_$TB_$V : TA in n t, TB in n t, V in 1 4, R=8
#kernel gemm_reg_$TA_$TB_$V_$H : TA in n t, TB in n t, V in 1 4, H in half, R=8
#kernel gemm_sum

#if KERNEL != gemm_sum
#import gemm

// Strides of A and B along K and across it.
#if TA == n
#define AK 1u
#define AM p.lda
#else
#define AK p.lda
#define AM 1u
#endif
#if TB == n
#define BK p.ldb
#define BN 1u
#else
#define BK 1u
#define BN p.ldb
#endif
// vec4s that hold the R rows of one k.
#define RV R / 4

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let id = wid.y * p.gx + wid.x;
    if (id >= p.count) {
        return;
    }
    let t = part_of(id);
    let row0 = t.tm * ${R}u;
    let col0 = t.tn * 64u + lane * 4u;

    // Rows and columns past the edge repeat the last one; what they give is not stored.
    let last_row = p.m - 1u;
#if TA == t && V == 4
#for g in 0..R
    let r_${g} = t.a + min(row0 + ${g / 4 * 4}u, last_row & ~3u) + ${g % 4}u;
#endfor
#else
#for g in 0..R
    let r_${g} = t.a + min(row0 + ${g}u, last_row) * $AM;
#endfor
#endif
#for j in 0..8
#if TB == n && V == 4
    let q_${j} = t.b + min(col0 + ${j / 4 * 32}u, (p.n - 1u) & ~3u) + ${j % 4}u;
#else
    let q_${j} = t.b + min(col0 + ${j / 4 * 32 + j % 4}u, p.n - 1u) * $BN;
#endif
#endfor

#for r in 0..R
    var c_${r}_0 = vec4<f32>(0.0);
    var c_${r}_1 = vec4<f32>(0.0);
#endfor
    var k = t.k0;
    for (; k + 4u <= t.k1; k += 4u) {
#if TA == n
#for g in 0..R
        let a_${g} = x4(r_${g} + k);
#endfor
#else
#for kk in 0..4
#for v in 0..RV
#if V == 4
        let a_${kk}_${v} = x4(r_${v * 4} + (k + ${kk}u) * p.lda);
#else
        let a_${kk}_${v} = vec4<f32>(
#for i in 0..4
            x1(r_${v * 4 + i} + (k + ${kk}u) * p.lda),
#endfor
        );
#endif
#endfor
#endfor
#endif
#if TB == t
#for j in 0..8
        let v_${j} = w4(q_${j} + k);
#endfor
#endif
#for kk in 0..4
#for h in 0..2
#if TB == t
        let b_${kk}_${h} = vec4<f32>(v_${h * 4}[$kk], v_${h * 4 + 1}[$kk], v_${h * 4 + 2}[$kk], v_${h * 4 + 3}[$kk]);
#elif V == 4
        let b_${kk}_${h} = w4(q_${h * 4} + (k + ${kk}u) * p.ldb);
#else
        let b_${kk}_${h} = vec4<f32>(
#for i in 0..4
            w1(q_${h * 4 + i} + (k + ${kk}u) * p.ldb),
#endfor
        );
#endif
#endfor
#endfor
#for r in 0..R
#for h in 0..2
#for kk in 0..4
#if TA == n
        c_${r}_$h = fma(vec4<f32>(a_${r}[$kk]), b_${kk}_$h, c_${r}_$h);
#else
        c_${r}_$h = fma(vec4<f32>(a_${kk}_${r / 4}[${r % 4}]), b_${kk}_$h, c_${r}_$h);
#endif
#endfor
#endfor
#endfor
    }
    // What is left of K, one at a time.
    for (; k < t.k1; k += 1u) {
#for g in 0..R
        let a_${g} = x1(r_${g} + k * $AK);
#endfor
#for h in 0..2
        let b_${h} = vec4<f32>(
#for i in 0..4
            w1(q_${h * 4 + i} + k * $BK),
#endfor
        );
#endfor
#for r in 0..R
        c_${r}_0 = fma(vec4<f32>(a_$r), b_0, c_${r}_0);
        c_${r}_1 = fma(vec4<f32>(a_$r), b_1, c_${r}_1);
#endfor
    }

    // Loops of at most one turn, not conditions: software drivers run both sides of a condition.
    var per_col_0 = vec4<f32>(0.0);
    var per_col_1 = vec4<f32>(0.0);
    for (var once = 0u; once < (p.bias & 1u); once++) {
#for h in 0..2
        per_col_${h} = vec4<f32>(
#for i in 0..4
            bias[min(col0 + ${h * 32 + i}u, p.n - 1u)],
#endfor
        );
#endfor
    }
#for r in 0..R
    c_${r}_0 = fma(c_${r}_0, vec4<f32>(p.alpha), per_col_0);
    c_${r}_1 = fma(c_${r}_1, vec4<f32>(p.alpha), per_col_1);
#endfor
    for (var once = 0u; once < (p.bias >> 1u); once++) {
#for r in 0..R
        let per_row_${r} = vec4<f32>(bias[min(row0 + ${r}u, last_row)]);
        c_${r}_0 += per_row_${r};
        c_${r}_1 += per_row_${r};
#endfor
    }
    let out = t.c + row0 * p.crs + col0 * p.ccs;
#for r in 0..R
    if (row0 + ${r}u < p.m) {
#for h in 0..2
#for i in 0..4
        if (col0 + ${h * 32 + i}u < p.n) {
            y[out + ${r}u * p.crs + ${h * 32 + i}u * p.ccs] = c_${r}_${h}[$i];
        }
#endfor
#endfor
    }
#endfor
}
#else
// Element (b, r, c) of part s is at s * sp + (b * m + r) * n + c; the result's strides as above.
struct GemmSumParams {
    m: u32, n: u32, count: u32, gx: u32,
    splits: u32, sp: u32, crs: u32, inner: u32,
    c0: u32, co: u32, ci: u32, bias: u32,
    alpha: f32,
}
var<immediate> p: GemmSumParams;
@group(0) @binding(0) var<storage, read> part: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let i = (wid.y * p.gx + wid.x) * 64u + lid;
    if (i < p.count) {
        var sum = 0.0;
        for (var s = 0u; s < p.splits; s++) {
            sum += part[s * p.sp + i];
        }
        let row = i / p.n;
        let col = i - row * p.n;
        let batch = row / p.m;
        let o = batch / p.inner;
        sum *= p.alpha;
        if (p.bias == 1u) {
            sum += bias[col];
        }
        y[p.c0 + o * p.co + (batch - o * p.inner) * p.ci + (row - batch * p.m) * p.crs + col] = sum;
    }
}
#endif
