// Matrix products for software drivers with subgroups of 8 lanes and 64-bit integers: C columns of R rows in registers, C / 8
// columns to a lane, nothing in workgroup memory.
// There one load costs as much as 60 multiplications: A is read once per subgroup, rows spread over the lanes, and goes round by
// broadcasts. All loads of a step come before its arithmetic, because each is a loop over the lanes in machine code, and
// values in registers do not survive that; a row then takes four terms at once, so that it is fetched and put back once.
// Where rows begin at any element (V = 1), aligned fours are read all the same and slid into place between neighbours: along K
// those of the step before and of this one, across K those of this lane and of the next.
#kernel gemm_sub_$R_$C_$TA_$TB_$V : R in 8 16 24, C=64, TA in n t, TB in n t, V in 1 4, L=1
#kernel gemm_sub_$R_$C_$TA_$TB_$V_$H : R in 8 16 24, C=64, TA in n t, TB in n t, V in 1 4, H in half, L=1
#kernel gemm_sub_$R_$C_$TA_$TB_$V : R=16, C=32, TA in n t, TB in n t, V in 1 4, L=1
#kernel gemm_sub_$R_$C_$TA_$TB_$V_$H : R=16, C=32, TA in n t, TB in n t, V in 1 4, H in half, L=1
#import gemm
// Rows of A lie G to a lane, columns in N fours; RV fours hold the R rows of one k.
#define G R / 8
#define N C / 32
#define RV R / 4
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
// Fours of A transposed that one k takes, one more where rows begin anywhere, and loads for four k.
#if V == 4
#define F RV
#else
#define F RV + 1
#endif
#define LOADS (4 * (F) + 7) / 8

// The four elements from position s on, of eight.
fn slide(lo: vec4<f32>, hi: vec4<f32>, by1: bool, by2: bool) -> vec4<f32> {
    let one = select(lo, vec4<f32>(lo.yzw, hi.x), by1);
    let next = select(hi.xy, hi.yz, by1);
    return select(one, vec4<f32>(one.zw, next), by2);
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let id = wid.y * p.gx + wid.x;
    if (id >= p.count) {
        return;
    }
    let t = part_of(id);
    let row0 = t.tm * ${R}u;
    let col0 = t.tn * ${C}u + lane * ${4 * (N)}u;
    let last_row = p.m - 1u;
#if V == 1
    let last_x = arrayLength(&x) * 4u - 1u;
    let last_w = arrayLength(&w) * 4u - 1u;
    let beside = (lane + 1u) & 7u;
    let at_end = lane == 7u;
#endif

    // Rows and columns past the edge repeat the last one; what they give is not stored.
#for g in 0..G
    let r_${g} = t.a + min(row0 + lane + ${8 * g}u, last_row) * $AM;
#endfor
#if TA == t
#for i in 0..LOADS
    let f_$i = min(lane + ${8 * i}u, ${4 * (F) - 1}u);
#if V == 4
    let ra_$i = t.a + f_$i / ${F}u * p.lda + min(row0 + f_$i % ${F}u * 4u, last_row & ~3u);
#else
    let ra_$i = t.a + f_$i / ${F}u * p.lda + row0 + f_$i % ${F}u * 4u;
#endif
#endfor
#elif V == 1
#for g in 0..G
    let by1_a_$g = ((r_$g + t.k0) & 1u) == 1u;
    let by2_a_$g = ((r_$g + t.k0) & 2u) == 2u;
    var was_a_$g = x4(min(r_$g + t.k0, last_x));
#endfor
#endif
#for j in 0..4 * (N)
#if TB == n && V == 4
    let q_${j} = t.b + min(col0 + ${j / 4 * 4}u, (p.n - 1u) & ~3u) + ${j % 4}u;
#else
    let q_${j} = t.b + min(col0 + ${j}u, p.n - 1u) * $BN;
#endif
#endfor
#if V == 1 && TB == t
#for j in 0..4 * (N)
    let by1_$j = ((q_$j + t.k0) & 1u) == 1u;
    let by2_$j = ((q_$j + t.k0) & 2u) == 2u;
    var was_$j = w4(min(q_$j + t.k0, last_w));
#endfor
#elif V == 1
    let qb = t.b + col0;
    // Lane i loads what follows the columns in row i.
    let qe = t.b + (t.tn + 1u) * ${C}u + (lane & 3u) * p.ldb;
#endif

#for r in 0..R
#for h in 0..N
    var c_${r}_$h = vec4<f32>(0.0);
#endfor
#endfor
    var k = t.k0;
    for (; k + 4u <= t.k1; k += 4u) {
#if TA == n && V == 4
#for g in 0..G
        let a_${g} = x4(r_${g} + k);
#endfor
#elif TA == n
#for g in 0..G
        let new_a_${g} = x4(min(r_${g} + k + 4u, last_x));
        let a_$g = slide(was_a_$g, new_a_$g, by1_a_$g, by2_a_$g);
        was_a_$g = new_a_$g;
#endfor
#elif V == 4
#for i in 0..LOADS
        let a_$i = x4(ra_$i + k * p.lda);
#endfor
#else
#for i in 0..LOADS
        let at_$i = ra_$i + k * p.lda;
        let part_$i = x4(min(at_$i, last_x));
        let turned_$i = subgroupShuffle(part_$i, beside);
#endfor
#for i in 0..LOADS
#define NEXT (i + 1) % (LOADS)
        let a_$i = slide(part_$i, select(turned_$i, turned_$NEXT, at_end), (at_$i & 1u) == 1u, (at_$i & 2u) == 2u);
#endfor
#endif
#if TB == t && V == 4
#for j in 0..4 * (N)
        let v_${j} = w4(q_${j} + k);
#endfor
#elif TB == t
#for j in 0..4 * (N)
        let new_${j} = w4(min(q_${j} + k + 4u, last_w));
        let v_$j = slide(was_$j, new_$j, by1_$j, by2_$j);
        was_$j = new_$j;
#endfor
#elif V == 4
#for kk in 0..4
#for h in 0..N
        let b_${kk}_${h} = w4(q_${h * 4} + (k + ${kk}u) * p.ldb);
#endfor
#endfor
#else
        let rest = w4(min(qe + k * p.ldb, last_w));
#for kk in 0..4
        let at_b_$kk = qb + (k + ${kk}u) * p.ldb;
#for h in 0..N
        let v_${kk}_$h = w4(min(at_b_$kk + ${4 * h}u, last_w));
#endfor
#endfor
#for kk in 0..4
        let v_${kk}_${N} = select(subgroupShuffle(v_${kk}_0, beside), subgroupBroadcast(rest, ${kk}u), at_end);
        let by1_$kk = (at_b_$kk & 1u) == 1u;
        let by2_$kk = (at_b_$kk & 2u) == 2u;
#for h in 0..N
        let b_${kk}_$h = slide(v_${kk}_$h, v_${kk}_${h + 1}, by1_$kk, by2_$kk);
#endfor
#endfor
#endif
#if TB == t
#for kk in 0..4
#for h in 0..N
        let b_${kk}_${h} = vec4<f32>(v_${h * 4}[$kk], v_${h * 4 + 1}[$kk], v_${h * 4 + 2}[$kk], v_${h * 4 + 3}[$kk]);
#endfor
#endfor
#endif
#for r in 0..R
#for kk in 0..4
#if TA == n
        let s_${kk}_${r} = vec4<f32>(subgroupBroadcast(a_${r / 8}[$kk], ${r % 8}u));
#else
#define AT kk * (F) + r / 4
        let s_${kk}_${r} = vec4<f32>(subgroupBroadcast(a_${(AT) / 8}[${r % 4}], ${(AT) % 8}u));
#endif
#endfor
#for h in 0..N
#for kk in 0..4
        c_${r}_$h = fma(s_${kk}_${r}, b_${kk}_$h, c_${r}_$h);
#endfor
#endfor
#endfor
    }
    // What is left of K, one at a time.
    for (; k < t.k1; k += 1u) {
#for g in 0..G
        let a_${g} = x1(r_${g} + k * $AK);
#endfor
#for h in 0..N
        let b_${h} = vec4<f32>(
#for i in 0..4
            w1(q_${h * 4 + i} + k * $BK),
#endfor
        );
#endfor
#for r in 0..R
        let s_${r} = vec4<f32>(subgroupBroadcast(a_${r / 8}, ${r % 8}u));
#for h in 0..N
        c_${r}_$h = fma(s_$r, b_$h, c_${r}_$h);
#endfor
#endfor
    }

    // Loops of at most one turn, not conditions: software drivers run both sides of a condition.
#for h in 0..N
    var per_col_$h = vec4<f32>(0.0);
#endfor
    for (var once = 0u; once < (p.bias & 1u); once++) {
#for h in 0..N
        per_col_${h} = vec4<f32>(
#for i in 0..4
            bias[min(col0 + ${h * 4 + i}u, p.n - 1u)],
#endfor
        );
#endfor
    }
#for r in 0..R
#for h in 0..N
    c_${r}_$h = fma(c_${r}_$h, vec4<f32>(p.alpha), per_col_$h);
#endfor
#endfor
    for (var once = 0u; once < (p.bias >> 1u); once++) {
#for r in 0..R
        let per_row_${r} = vec4<f32>(bias[min(row0 + ${r}u, last_row)]);
#for h in 0..N
        c_${r}_$h += per_row_$r;
#endfor
#endfor
    }
#if V == 4
    // Four rows by four columns at a time, by rows or, where the result lies the other way, by columns.
    let by_rows = p.ccs == 1u;
    let down = select(1u, 0u, by_rows);
#for g in 0..RV
#for h in 0..N
#for i in 0..4
    {
        let turned = vec4<f32>(
#for j in 0..4
            c_${4 * g + j}_$h[$i],
#endfor
        );
        let row = row0 + ${4 * g}u + ${i}u * (1u - down);
        let col = col0 + ${4 * h}u + ${i}u * down;
        if (row < p.m && col < p.n) {
            y[(t.c + row * p.crs + col * p.ccs) >> 2u] = bits(select(turned, c_${4 * g + i}_$h, by_rows));
        }
    }
#endfor
#endfor
#endfor
#else
    let out = t.c + row0 * p.crs + col0 * p.ccs;
#for r in 0..R
    if (row0 + ${r}u < p.m) {
#for h in 0..N
#for i in 0..4
        if (col0 + ${h * 4 + i}u < p.n) {
            y[out + ${r}u * p.crs + ${h * 4 + i}u * p.ccs] = c_${r}_${h}[$i];
        }
#endfor
#endfor
    }
#endfor
#endif
}
