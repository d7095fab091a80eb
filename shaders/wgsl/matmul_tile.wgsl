// Matrix products by tiles in workgroup memory.
//   gemm_tile_*    graphics cards: T x T tile, two buffers, one barrier per 16 of K
//   gemm_single_*  integrated GPUs: 64 x 64 tile, one buffer, fewer registers
#kernel gemm_tile_$T_$TA_$TB_$V : T in 32 64 128, TA in n t, TB in n t, V in 1 4, DB=1
#kernel gemm_single_$TA_$TB_$V : TA in n t, TB in n t, V in 1 4, T=64, DB=0
#kernel gemm_tile_$T_$TA_$TB_$V_$H : T in 32 64 128, TA in n t, TB in n t, V in 1 4, H in half, DB=1
#kernel gemm_single_$TA_$TB_$V_$H : TA in n t, TB in n t, V in 1 4, H in half, T=64, DB=0
#import gemm

// Threads TX x TY; each owns MV x NV blocks of 4 x 4, half a tile apart so that reads of workgroup memory meet no bank twice.
#if KERNEL == gemm_single
#define TX 16
#define TY 8
#define MV 2
#define NV 1
#elif T == 32
#define TX 8
#define TY 8
#define MV 1
#define NV 1
#else
#define TX T / 8
#define TY T / 8
#define MV 2
#define NV 2
#endif
#define THREADS TX * TY
// A row of a tile in vec4s, and a buffer: 16 of K.
#define T4 T / 4
#define BUF 16 * T4
// With twice as many threads as there are blocks of 4 x 4 to load, one half loads A and the other B.
#define HALF THREADS == 2 * BUF / 4

var<workgroup> ta: array<vec4<f32>, ${(1 + DB) * BUF}>;
var<workgroup> tb: array<vec4<f32>, ${(1 + DB) * BUF}>;

// Four values of K by four rows or columns: member i holds K + i.
struct Block { v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32> }

fn turn(u0: vec4<f32>, u1: vec4<f32>, u2: vec4<f32>, u3: vec4<f32>) -> Block {
    return Block(
#for i in 0..4
        vec4<f32>(u0[$i], u1[$i], u2[$i], u3[$i]),
#endfor
    );
}

fn x_edge(base: u32, row: u32, k: u32, k1: u32) -> f32 {
#if TA == n
    let v = x1(base + min(row, p.m - 1u) * p.lda + min(k, p.k - 1u));
#else
    let v = x1(base + min(k, p.k - 1u) * p.lda + min(row, p.m - 1u));
#endif
    return select(0.0, v, k < k1);
}

fn w_edge(base: u32, col: u32, k: u32, k1: u32) -> f32 {
#if TB == t
    let v = w1(base + min(col, p.n - 1u) * p.ldb + min(k, p.k - 1u));
#else
    let v = w1(base + min(k, p.k - 1u) * p.ldb + min(col, p.n - 1u));
#endif
    return select(0.0, v, k < k1);
}

fn x_block(base: u32, row: u32, k: u32, k1: u32, inside: bool) -> Block {
    if (inside) {
#if TA == n
        let at = base + row * p.lda + k;
        return turn(x4(at), x4(at + p.lda), x4(at + 2u * p.lda), x4(at + 3u * p.lda));
#else
        let at = base + k * p.lda + row;
        return Block(x4(at), x4(at + p.lda), x4(at + 2u * p.lda), x4(at + 3u * p.lda));
#endif
    }
    return Block(
#for j in 0..4
        vec4<f32>(
#for i in 0..4
            x_edge(base, row + ${i}u, k + ${j}u, k1),
#endfor
        ),
#endfor
    );
}

fn w_block(base: u32, col: u32, k: u32, k1: u32, inside: bool) -> Block {
    if (inside) {
#if TB == t
        let at = base + col * p.ldb + k;
        return turn(w4(at), w4(at + p.ldb), w4(at + 2u * p.ldb), w4(at + 3u * p.ldb));
#else
        let at = base + k * p.ldb + col;
        return Block(w4(at), w4(at + p.ldb), w4(at + 2u * p.ldb), w4(at + 3u * p.ldb));
#endif
    }
    return Block(
#for j in 0..4
        vec4<f32>(
#for i in 0..4
            w_edge(base, col + ${i}u, k + ${j}u, k1),
#endfor
        ),
#endfor
    );
}

@compute @workgroup_size($THREADS)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let id = wid.y * p.gx + wid.x;
    if (id >= p.count) {
        return;
    }
    let t = part_of(id);
    let row0 = t.tm * ${T}u;
    let col0 = t.tn * ${T}u;
    let inside = row0 + ${T}u <= p.m && col0 + ${T}u <= p.n;
    let tx = lid % ${TX}u;
    let ty = lid / ${TX}u;
    // The block this thread loads: eight neighbours store to eight different banks.
#if HALF
    let job = lid % ${BUF / 4}u;
    let loads_x = lid < ${BUF / 4}u;
#else
    let job = lid;
#endif
    let m4 = job % 8u + job / 32u * 8u;
    let kb = job / 8u % 4u * 4u;
    let slot = kb * ${T4}u + m4;

#for r in 0..4 * MV
#for h in 0..NV
    var c_${r}_${h} = vec4<f32>(0.0);
#endfor
#endfor
    var now = 0u;
    // One turn more than there are tiles of K: turn i loads tile i and multiplies tile i - 1.
    for (var k = t.k0; k < t.k1 + 16u; k += 16u) {
        let loads = k < t.k1;
        let fast = inside && k + 16u <= t.k1;
#if HALF
        var got: Block;
        if (loads) {
            if (loads_x) {
                got = x_block(t.a, row0 + m4 * 4u, k + kb, t.k1, fast);
            } else {
                got = w_block(t.b, col0 + m4 * 4u, k + kb, t.k1, fast);
            }
        }
#else
        var got_x: Block;
        var got_w: Block;
        if (loads) {
            got_x = x_block(t.a, row0 + m4 * 4u, k + kb, t.k1, fast);
            got_w = w_block(t.b, col0 + m4 * 4u, k + kb, t.k1, fast);
        }
#endif
        if (k > t.k0) {
#if DB == 1
            var ia = (now ^ 1u) * ${BUF}u + ty;
            var ib = (now ^ 1u) * ${BUF}u + tx;
#else
            var ia = ty;
            var ib = tx;
#endif
            for (var kk = 0u; kk < 4u; kk++) {
#for u in 0..4
#for v in 0..MV
                let a_${u}_${v} = ta[ia + ${u * T4 + v * T4 / 2}u];
#endfor
#for h in 0..NV
                let b_${u}_${h} = tb[ib + ${u * T4 + h * T4 / 2}u];
#endfor
#for r in 0..4 * MV
#for h in 0..NV
                c_${r}_${h} = fma(vec4<f32>(a_${u}_${r / 4}[${r % 4}]), b_${u}_${h}, c_${r}_${h});
#endfor
#endfor
#endfor
                ia += ${4 * T4}u;
                ib += ${4 * T4}u;
            }
        }
#if DB == 0
        workgroupBarrier();
#endif
        if (loads) {
#if DB == 1
            let at = now * ${BUF}u + slot;
#else
            let at = slot;
#endif
#if HALF
            if (loads_x) {
#for i in 0..4
                ta[at + ${i * T4}u] = got.v${i};
#endfor
            } else {
#for i in 0..4
                tb[at + ${i * T4}u] = got.v${i};
#endfor
            }
#else
#for i in 0..4
            ta[at + ${i * T4}u] = got_x.v${i};
            tb[at + ${i * T4}u] = got_w.v${i};
#endfor
#endif
        }
        workgroupBarrier();
        now ^= 1u;
    }

#for r in 0..4 * MV
#for h in 0..NV
    {
        let row = row0 + ty * 4u + ${r / 4 * (T / 2) + r % 4}u;
        let col = col0 + tx * 4u + ${h * (T / 2)}u;
        let at = t.c + row * p.crs + col * p.ccs;
#for i in 0..4
        if (row < p.m && col + ${i}u < p.n) {
            var v = p.alpha * c_${r}_${h}[$i];
            if (p.bias == 1u) {
                v += bias[col + ${i}u];
            } else if (p.bias == 2u) {
                v += bias[row];
            }
            y[at + ${i}u * p.ccs] = v;
        }
#endfor
    }
#endfor
#endfor
}
