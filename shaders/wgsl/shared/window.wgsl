// The windows of a map of queries, keys and values [B][H][W][3][heads][D], for families that declare D.
#define D4 ${D / 4}

// windows: of all images; side: of a window; quads: channels of the queries over 4; blocks: workgroups for the queries of a
// window, in the forward pass; parts and rounds: windows are dealt to parts in rounds, in the backward pass.
// flags: bit 0 table, bit 1 sums.
struct WindowParams {
    windows: u32, heads: u32, side: u32, shift: u32, height: u32, width: u32, quads: u32, blocks: u32,
    parts: u32, rounds: u32, gx: u32, flags: u32, scale: f32,
}
var<immediate> p: WindowParams;
@group(0) @binding(0) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> table: array<f32>;

const LOWEST = -3.0e38;

// Where a window lies: first pixel of its image; row and column of its first token; the rows and columns within it from
// which tokens come from the other edge of the map.
struct Place { base: u32, y: u32, x: u32, cut_y: u32, cut_x: u32 }

fn place(window: u32) -> Place {
    let across = p.width / p.side;
    let down = p.height / p.side;
    let image = window / (across * down);
    let k = window - image * across * down;
    let wy = k / across;
    let wx = k - wy * across;
    return Place(
        image * p.height * p.width,
        wy * p.side + p.shift,
        wx * p.side + p.shift,
        select(p.side, p.side - p.shift, wy + 1u == down),
        select(p.side, p.side - p.shift, wx + 1u == across),
    );
}

fn pixel(at: Place, ty: u32, tx: u32) -> u32 {
    let y = at.y + ty;
    let x = at.x + tx;
    return at.base + select(y, y - p.height, y >= p.height) * p.width + select(x, x - p.width, x >= p.width);
}

// Tokens see those of their own quarter of the window.
fn quarter(at: Place, ty: u32, tx: u32) -> u32 {
    return select(0u, 2u, ty >= at.cut_y) + select(0u, 1u, tx >= at.cut_x);
}

// The score of a query and a key: places count from the table's far corner, keys from its near one.
fn score(dotted: f32, place: u32, key: u32, head: u32, seen: bool) -> f32 {
    var s = dotted;
    if ((p.flags & 1u) != 0u) {
        s += table[(place - key) * p.heads + head];
    }
    return select(LOWEST, max(s, LOWEST), seen);
}
