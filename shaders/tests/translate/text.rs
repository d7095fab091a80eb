//! The preprocessor and the convention that reflection enforces.

use shadegrad_shaders::preprocess::{Defines, Value, eval, kernels};
use shadegrad_shaders::{Access, Kernel, preprocess, reflect};

fn expand(text: &str) -> String {
    preprocess("t.wgsl", text, &[]).unwrap_or_else(|e| panic!("{e}\nin:\n{text}"))
}

fn error(text: &str) -> String {
    preprocess("t.wgsl", text, &[]).err().map(|e| e.to_string()).unwrap_or_else(|| panic!("accepted:\n{text}"))
}

#[test]
fn conditions_choose_one_branch() {
    let text = "#if M == fast\na\n#elif N > 2 && N < 5\nb\n#elif defined(Q)\nc\n#else\nd\n#endif\nz";
    let with = |d: &[(&str, &str)]| preprocess("t", text, d).expect("expands");
    assert_eq!(with(&[("M", "fast"), ("N", "3")]), "a\nz\n");
    assert_eq!(with(&[("N", "3")]), "b\nz\n");
    assert_eq!(with(&[("N", "7"), ("Q", "0")]), "c\nz\n");
    assert_eq!(with(&[("N", "7"), ("M", "slow")]), "d\nz\n");
    assert_eq!(expand("#if 1\n#if 0\na\n#else\nb\n#endif\n#else\n#if 1\nc\n#endif\n#endif"), "b\n");
    // A branch that is not taken is not looked into.
    assert_eq!(expand("#if 0\n#import nowhere\n$unknown\n#endif\na"), "a\n");
}

#[test]
fn loops_repeat_and_nest() {
    assert_eq!(
        expand("#for i in 0..2\n#for j in i..2\nc${i}_${j+1} = $i;\n#endfor\n#endfor"),
        "c0_1 = 0;\nc0_2 = 0;\nc1_2 = 1;\n"
    );
    assert_eq!(expand("#define N 3\n#for i in 0..N*2-5\nx$i\n#endfor\n#for i in 2..2\ny\n#endfor"), "x0\n");
    assert_eq!(expand("#define i 9\n#for i in 0..1\n$i\n#endfor\n$i"), "0\n9\n");
    assert_eq!(expand("#for i in 0..3\n#if i % 2 == 0\n#define last i\n#endif\n#endfor\n$last"), "2\n");
}

#[test]
fn names_are_replaced() {
    let defines = [("T", "vec4<f32>"), ("WG", "256"), ("A_B", "7")];
    let with = |t: &str| preprocess("t", t, &defines).map_err(|e| e.to_string());
    assert_eq!(with("array<$T, ${WG*2}>").as_deref(), Ok("array<vec4<f32>, 512>\n"));
    assert_eq!(with("  x_$WG_$A_B_q; // $nothing").as_deref(), Ok("x_256_7_q;\n"));
    assert_eq!(with("#define HALF $WG / 2\n${HALF}u").as_deref(), Ok("128u\n"));
    assert!(with("$WGu").is_err_and(|e| e.contains("line 1") && e.contains("WGu")));
    assert!(with("\n\n${WG+}").is_err_and(|e| e.starts_with("t: line 3: ")));
    assert!(with("${TYPO}").is_err_and(|e| e.contains("TYPO is not defined")));
}

#[test]
fn expressions_have_the_usual_precedence() {
    let mut d = Defines::new();
    d.insert("N".into(), Value::Int(4));
    d.insert("OP".into(), Value::Sym("max".into()));
    let cases = [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3 - -1", 10),
        ("N << 2 | 1", 17),
        ("0x10 / 3 % 4", 1),
        ("N >= 4 && N != 5 || 0", 1),
        ("!N == 0", 1),
        ("OP == max && OP != min", 1),
        ("defined(N) + defined(M)", 1),
        ("defined(M) && M > 3", 0),
        ("N == 4 ? 10 : M + 1", 10),
        ("min(N, 3) + max(N, 9)", 12),
        ("~0 & 7 ^ 2", 5),
    ];
    for (text, value) in cases {
        assert_eq!(eval(text, &d), Ok(Value::Int(value)), "{text}");
    }
    for text in ["M + 1", "1 / 0", "(1", "1 2", "", "1 ? 2", "1 << 99", "3x"] {
        assert!(eval(text, &d).is_err(), "{text}");
    }
}

#[test]
fn imports_come_once_and_bring_only_what_is_used() {
    let text = expand("#import math\n#import math\nfn f(x: f32) -> f32 { return sg_tanh(x); }");
    assert_eq!(text.matches("fn sg_tanh(").count(), 1);
    assert_eq!(text.matches("fn sg_is_nan(").count(), 1, "used by sg_tanh");
    assert_eq!(text.matches("const SG_MAGNITUDE").count(), 1, "used by sg_is_nan");
    assert!(!text.contains("sg_erf"));
    assert!(shadegrad_shaders::shared_topics().any(|t| t == "math"));
}

#[test]
fn errors_name_the_file_and_the_line() {
    let cases = [
        ("a\n#if 1\nb", "t.wgsl: line 2: #if without #endif"),
        ("#endif", "t.wgsl: line 1: #endif without #if"),
        ("#for i in 0..2\n", "t.wgsl: line 1: #for without #endfor"),
        ("\n#endfor", "t.wgsl: line 2: #endfor without #for"),
        ("#for i = 0..2\n#endfor", "t.wgsl: line 1: write `#for i in a..b`"),
        ("#for i in 0..N\n#endfor", "t.wgsl: line 1: #for: the bound `N` is not defined"),
        ("\n\n#import nowhere", "t.wgsl: line 3: #import nowhere: there is no shared/nowhere.wgsl"),
        ("#frobnicate", "t.wgsl: line 1: unknown directive #frobnicate"),
        (
            "#if UNKNOWN\n#endif",
            "t.wgsl: line 1: `UNKNOWN`: UNKNOWN is not a number; compare it, or use defined(UNKNOWN)",
        ),
        ("#if 0\n#else\n#elif 1\n#endif", "t.wgsl: line 3: a branch after #else"),
        ("#define 3 4", "t.wgsl: line 1: #define 3: not a name"),
        ("#error no such mode", "t.wgsl: line 1: no such mode"),
    ];
    for (text, message) in cases {
        assert_eq!(error(text), message);
    }
}

#[test]
fn kernels_are_products_of_choices() {
    let names = |text: &str| -> Vec<String> {
        kernels("t.wgsl", text).unwrap_or_else(|e| panic!("{e}")).into_iter().map(|k| k.name).collect()
    };
    assert_eq!(names("#kernel copy"), ["copy"]);
    let text =
        "#kernel mm_$A_n$B : A in x y, B in 0..2, WG=64 if A == x || B > 0 // all but y_n0\n#kernel other_$A : A in 1";
    assert_eq!(names(text), ["mm_x_n0", "mm_x_n1", "mm_y_n1", "other_1"]);
    let list = kernels("t.wgsl", text).expect("parses");
    assert_eq!(list[0].defines["WG"], Value::Int(64));
    assert_eq!(list[0].defines["KERNEL"], Value::Sym("mm".into()));
    assert_eq!(list[3].defines["KERNEL"], Value::Sym("other".into()));
    let error = |text: &str| kernels("t.wgsl", text).err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error("fn main() {}").contains("declares no kernel"));
    assert!(error("\n#kernel a_$X").starts_with("t.wgsl: line 2: "));
    assert!(error("#kernel a\n#kernel a").contains("declared twice, first on line 1"));
    assert!(error("#kernel a_$X : X of 1 2").contains("neither"));
    assert!(error("#kernel a_$X : X in F32").contains("lower-case"));
}

const GOOD: &str = "struct P { n: u32, a: f32, v: vec4<f32> }
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
var<immediate> p: P;
var<workgroup> w: array<f32, 64>;
@compute @workgroup_size(8, 8)
fn main(@builtin(local_invocation_index) i: u32) {
  w[i] = x[i];
  if (i < p.n) { y[i] = w[i] * p.a + p.v.x; }
}";

#[test]
fn reflection_finds_everything() {
    let k = reflect("good", GOOD).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(&*k.access, [Access::Read, Access::ReadWrite]);
    assert_eq!((k.workgroup_size, k.invocations(), k.workgroup_bytes), ([8, 8, 1], 64, 256));
    assert_eq!((k.params_size, &*k.params_name), (32, "P"));
    let fields: Vec<(&str, u32, u32, &str)> = k.fields.iter().map(|f| (&*f.name, f.offset, f.size, &*f.ty)).collect();
    assert_eq!(fields, [("n", 0, 4, "u32"), ("a", 4, 4, "f32"), ("v", 16, 16, "vec4<f32>")]);
    assert!(!k.subgroups && !k.f16 && !k.int64);
    let sub = GOOD.replace("w[i] = x[i]", "w[i] = subgroupShuffleXor(x[i], 1u)");
    assert!(reflect("sub", &sub).is_ok_and(|k| k.subgroups));
    let half = format!("enable f16;\n{}", GOOD.replace("w[i] = x[i]", "w[i] = f32(f16(x[i]))"));
    assert!(reflect("half", &half).is_ok_and(|k| k.f16));
    let long = GOOD.replace("w[i] = x[i]", "w[i] = f32(u64(i) << 33u)");
    assert!(reflect("long", &long).is_ok_and(|k| k.int64));

    assert!(Kernel::<[u32; 8], 1, 1>::typed(k.clone()).is_ok());
    assert!(Kernel::<[u32; 4], 1, 1>::typed(k.clone()).is_err_and(|e| e.to_string().contains("32 bytes")));
    assert!(Kernel::<[u32; 8], 2, 1>::typed(k).is_err_and(|e| e.to_string().contains("reads 1 and writes 1")));
}

#[test]
fn reflection_refuses_what_breaks_the_convention() {
    let cases = [
        ("@binding(1) var<storage, read_write> y", "@binding(2) var<storage, read_write> y", "binding 1 is missing"),
        (
            "@binding(1) var<storage, read_write> y",
            "@binding(0) var<storage, read_write> y",
            "line 3: Entry point main at Compute is invalid: Bindings for [1] conflict",
        ),
        ("@binding(1)", "@binding(8)", "at most 8"),
        ("@group(0) @binding(0)", "@group(1) @binding(0)", "line 2: x: storage buffers belong to @group(0)"),
        ("fn main", "fn start", "@compute fn main"),
        ("a: f32, ", "a: f32, b: vec2<f32>, ", "P.b: parameters are"),
        ("a: f32, ", "a: f32, b: array<vec4<f32>, 2>, ", "P.b: parameters are"),
        ("(8, 8)", "(64, 32)", "2048 invocations"),
        ("array<f32, 64>", "array<f32, 8193>", "line 5: w: more than 32768 bytes"),
        ("var<immediate> p", "var<immediate > p", "without spaces"),
        ("var<immediate> p: P;", "@group(1) @binding(0) var<uniform> p: P;", "line 4: p: only storage buffers"),
        ("w[i] = x[i];", "w[i] = q[i];", "line 8: "),
        ("w[i] = x[i];", "w[i] = 1u;", "line 8: "),
        ("@compute", "override k = 1u;\n@compute", "#define"),
    ];
    for (from, to, message) in cases {
        let e = reflect("bad", &GOOD.replace(from, to)).err().map(|e| e.to_string());
        let e = e.unwrap_or_else(|| panic!("accepted: {to}"));
        assert!(e.starts_with("kernel bad: ") && e.contains(message), "{to}: {e}");
    }
    let swapped = GOOD
        .replace("@binding(0)", "@binding(9)")
        .replace("@binding(1)", "@binding(0)")
        .replace("@binding(9)", "@binding(1)");
    assert!(
        reflect("bad", &swapped)
            .is_err_and(|e| e.to_string().contains("line 2: binding 1 is read after a written one"))
    );
    let members: Vec<String> = (0..8).map(|i| format!("m{i}: vec4<f32>")).collect();
    let large = GOOD.replace("v: vec4<f32>", &format!("v: vec4<f32>, {}", members.join(", ")));
    assert!(reflect("bad", &large).is_err_and(|e| e.to_string().contains("160 bytes")));
    let silent = GOOD.replace("read_write", "read").replace("y[i] = ", "let z = ");
    assert!(reflect("bad", &silent).is_err_and(|e| e.to_string().contains("writes no buffer")));
}
