//! The hazards of WGSL that no validator reports, each a rule over the text of every kernel.

use shadegrad_shaders::{KernelInfo, MAX_BINDINGS, MAX_WORKGROUP_BYTES, all};

/// Lists every line of every kernel for which `bad` says why.
fn no_line(bad: impl Fn(&str) -> Option<String>) {
    let mut failures = Vec::new();
    for info in all() {
        for line in info.source.lines() {
            if let Some(why) = bad(line) {
                failures.push(format!("{}: {why}: {line}", info.name));
            }
        }
    }
    assert!(failures.is_empty(), "{} lines:\n{}", failures.len(), failures.join("\n"));
}

fn word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c| !word(c)).filter(|w| !w.is_empty())
}

/// Constants that overflow, infinities made from constant bits, and divisions by a literal zero.
fn infinite(line: &str) -> Option<String> {
    if let Some(name) = words(line).find(|w| ["inf", "nan", "INFINITY", "NAN"].contains(w)) {
        return Some(format!("`{name}`"));
    }
    let dense: String = line.split_whitespace().collect();
    for bits in ["0x7f8", "0x7fc", "0xff8", "0xffc"] {
        if dense.to_lowercase().contains(&format!("bitcast<f32>({bits}")) {
            return Some("an infinity or NaN from constant bits".into());
        }
    }
    for zero in ["/0.0", "/0f", "/0."] {
        if let Some(at) = dense.find(zero)
            && !dense[at + zero.len()..].starts_with(|c: char| c.is_ascii_digit())
        {
            return Some("a division by zero".into());
        }
    }
    None
}

/// Whether a comparison has the same operand on both sides.
fn compares_with_itself(line: &str) -> Option<String> {
    let operand = |c: char| word(c) || ".[]".contains(c);
    for op in ["!=", "=="] {
        for (at, _) in line.match_indices(op) {
            let left = line[..at].trim_end();
            let left = &left[left.rfind(|c| !operand(c)).map_or(0, |i| i + 1)..];
            let right = line[at + 2..].trim_start();
            let right = &right[..right.find(|c| !operand(c)).unwrap_or(right.len())];
            // `a(x) != x` ends with a parenthesis on the left and compares something else.
            if !left.is_empty() && left == right {
                return Some(format!("`{left} {op} {right}`"));
            }
        }
    }
    None
}

#[test]
fn no_infinity_or_nan_literals() {
    no_line(infinite);
}

#[test]
fn no_nan_test_by_comparison_with_itself() {
    no_line(compares_with_itself);
}

#[test]
fn no_float_atomics() {
    no_line(|l| {
        l.contains("atomic<f").then(|| "a float atomic: not in the standard, and the order of sums varies".into())
    });
}

#[test]
fn no_num_workgroups() {
    no_line(|l| l.contains("num_workgroups").then(|| "emulated on DX12: pass the grid in the parameters".into()));
}

#[test]
fn no_driver_tanh_and_no_predeclared_names() {
    no_line(|l| {
        let calls_tanh = l.match_indices("tanh(").any(|(i, _)| !l[..i].ends_with(word));
        calls_tanh.then(|| "the driver's tanh overflows to NaN on Metal: use sg_tanh".into())
    });
    no_line(|l| {
        let rest = l.split("var<storage").nth(1)?;
        let name = rest.split('>').nth(1)?.split(':').next()?.trim();
        ["A", "B", "C"].contains(&name).then(|| format!("a binding called {name}: naga knows the name already"))
    });
}

#[test]
fn no_enable_subgroups() {
    no_line(|l| l.contains("enable subgroups").then(|| "naga rejects it".into()));
}

#[test]
fn bindings_and_workgroup_memory_fit() {
    let mut above: Vec<&KernelInfo> = Vec::new();
    for info in all() {
        assert!(info.access.len() <= MAX_BINDINGS, "{}: {} bindings", info.name, info.access.len());
        assert!(info.workgroup_bytes <= MAX_WORKGROUP_BYTES, "{}: {} bytes", info.name, info.workgroup_bytes);
        if info.workgroup_bytes > 16384 {
            above.push(info);
        }
    }
    // Not an error: such kernels need a variant for devices that give the WebGPU default only.
    for info in &above {
        println!(
            "{} takes {} bytes of workgroup memory, above the default limit of 16384",
            info.name, info.workgroup_bytes
        );
    }
    println!("{} of {} kernels take more than 16 KiB", above.len(), all().len());
    println!("{} bytes of text in all", all().iter().map(|k| k.source.len()).sum::<usize>());
}

#[test]
fn shader_files_are_short() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("wgsl");
    for folder in [root.clone(), root.join("shared")] {
        for entry in std::fs::read_dir(folder).expect("the folder exists") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|e| e == "wgsl") {
                let lines = std::fs::read_to_string(&path).expect("a text file").lines().count();
                assert!(lines <= 400, "{}: {lines} lines; split the family", path.display());
            }
        }
    }
}

#[test]
fn the_rules_find_what_they_look_for() {
    for bad in ["let m = -inf;", "bitcast<f32>(0x7f800000u)", "let a = 1.0 / 0.0;", "bitcast<f32>( 0xFF800000u )"] {
        assert!(infinite(bad).is_some(), "{bad}");
    }
    for good in ["let a = x / 0.5;", "(bitcast<u32>(x) & 0x7f800000u) == 0x7f800000u", "let info = 1.0 / 0.01;"] {
        assert!(infinite(good).is_none(), "{good}");
    }
    for bad in ["if (x != x) {", "select(a, b, v.x==v.x)", "y[i] != y[i]"] {
        assert!(compares_with_itself(bad).is_some(), "{bad}");
    }
    for good in ["if (x != xx) {", "floor(x) == x", "p.a == q.a", "x[i] != x[j]", "a <= a"] {
        assert!(compares_with_itself(good).is_none(), "{good}");
    }
}
