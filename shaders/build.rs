//! Expands, validates and reflects every kernel in `wgsl/`, and writes one Rust module per family.

// Each of the two modules has parts that only the library uses.
#[allow(dead_code)]
#[path = "src/preprocess.rs"]
mod preprocess;
#[allow(dead_code)]
#[path = "src/reflect.rs"]
mod reflect;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, process, thread};

use preprocess::{Declared, ShaderError, expand, kernels};
use reflect::{Access, KernelInfo, reflect};

/// One file in `wgsl/`.
struct Family {
    name: String,
    /// Path relative to the repository, for messages.
    path: String,
    text: String,
}

fn main() {
    println!("cargo:rerun-if-changed=wgsl");
    println!("cargo:rerun-if-changed=build.rs");
    let errors = match run() {
        Ok(()) => return,
        Err(errors) => errors,
    };
    // A few for each file: one family's errors must not hide another's.
    let mut shown: BTreeMap<&str, usize> = BTreeMap::new();
    for e in &errors {
        let n = shown.entry(&e.file).or_insert(0);
        *n += 1;
        if *n <= 5 {
            eprintln!("error: {e}");
        }
    }
    for (file, n) in shown.iter().filter(|(_, n)| **n > 5) {
        eprintln!("error: {file}: and {} more", n - 5);
    }
    process::exit(1);
}

fn run() -> Result<(), Vec<ShaderError>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var("OUT_DIR").unwrap_or_default());
    let families = read_folder(&root.join("wgsl"), "shaders/wgsl").map_err(|e| vec![e])?;
    let shared = read_folder(&root.join("wgsl/shared"), "shaders/wgsl/shared").map_err(|e| vec![e])?;

    let mut errors = Vec::new();
    let mut jobs: Vec<(usize, Declared)> = Vec::new();
    for (f, family) in families.iter().enumerate() {
        match kernels(&family.path, &family.text) {
            Ok(list) => jobs.extend(list.into_iter().map(|k| (f, k))),
            Err(e) => errors.push(e),
        }
    }
    jobs.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    for pair in jobs.windows(2).filter(|p| p[0].1.name == p[1].1.name) {
        let (f, k) = &pair[1];
        let other = &families[pair[0].0].path;
        let message = format!("kernel {} is declared in {other} too: names are unique", k.name);
        errors.push(ShaderError::at(&families[*f].path, k.line, message));
    }

    let threads = thread::available_parallelism().map_or(1, usize::from).min(16);
    let size = jobs.len().div_ceil(threads).max(1);
    let results: Vec<Result<KernelInfo, ShaderError>> = thread::scope(|scope| {
        let (families, shared) = (&families, &shared);
        let workers: Vec<_> = jobs
            .chunks(size)
            .map(|chunk| {
                let work = move || chunk.iter().map(|(f, k)| build(&families[*f], k, shared)).collect::<Vec<_>>();
                // naga recurses deeply in unrolled expressions.
                thread::Builder::new().stack_size(16 << 20).spawn_scoped(scope, work)
            })
            .collect();
        let broken = |m: &str| vec![Err(ShaderError::at("shaders/build.rs", 1, m))];
        workers
            .into_iter()
            .flat_map(|w| match w {
                Ok(w) => w.join().unwrap_or_else(|_| broken("naga panicked; its message is above")),
                Err(e) => broken(&format!("no thread: {e}")),
            })
            .collect()
    });
    let mut infos: Vec<Vec<KernelInfo>> = families.iter().map(|_| Vec::new()).collect();
    let mut all = Vec::new();
    if results.iter().all(Result::is_ok) {
        for ((f, _), info) in jobs.iter().zip(results) {
            let Ok(info) = info else { continue };
            all.push(format!("&{}::{}.info", families[*f].name, info.name.to_uppercase()));
            infos[*f].push(info);
        }
    } else {
        errors.extend(results.into_iter().filter_map(Result::err));
    }
    if !errors.is_empty() {
        return Err(errors);
    }

    let mut modules = String::new();
    for (family, infos) in families.iter().zip(&infos) {
        match generate(family, infos) {
            Ok(text) => write(&out.join(format!("{}.rs", family.name)), &text, &mut errors),
            Err(e) => errors.push(e),
        }
        let _ = writeln!(modules, "{}", module_doc(family));
        let _ = writeln!(modules, "pub mod {0} {{ include!(concat!(env!(\"OUT_DIR\"), \"/{0}.rs\")); }}", family.name);
    }
    let _ = writeln!(modules, "static ALL: [&KernelInfo; {}] = [{}];", all.len(), all.join(", "));
    let shared: Vec<String> = shared
        .iter()
        .map(|s| {
            format!("({0:?}, include_str!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/wgsl/shared/{0}.wgsl\")))", s.name)
        })
        .collect();
    let _ = writeln!(modules, "static SHARED: [(&str, &str); {}] = [{}];", shared.len(), shared.join(", "));
    write(&out.join("kernels.rs"), &modules, &mut errors);
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// The `.wgsl` files of a folder, sorted by name.
fn read_folder(folder: &Path, shown: &str) -> Result<Vec<Family>, ShaderError> {
    let broken = |path: &str, e: std::io::Error| ShaderError {
        file: path.into(),
        kernel: String::new(),
        line: None,
        message: e.to_string(),
    };
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| broken(shown, e))? {
        let path = entry.map_err(|e| broken(shown, e))?.path();
        let Some(name) =
            path.file_stem().and_then(|n| n.to_str()).filter(|_| path.extension().is_some_and(|e| e == "wgsl"))
        else {
            continue;
        };
        let shown = format!("{shown}/{name}.wgsl");
        let text = fs::read_to_string(&path).map_err(|e| broken(&shown, e))?;
        out.push(Family { name: name.into(), path: shown, text });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

/// Expands and reflects one kernel.
fn build(family: &Family, kernel: &Declared, shared: &[Family]) -> Result<KernelInfo, ShaderError> {
    let import = |topic: &str| shared.iter().find(|s| s.name == topic).map(|s| (s.path.clone(), s.text.clone()));
    let expanded = expand(&family.path, &family.text, &kernel.defines, &import);
    let expanded = expanded.map_err(|e| ShaderError { kernel: kernel.name.clone(), ..e })?;
    reflect(&kernel.name, &expanded.text()).map_err(|e| expanded.locate(e))
}

/// The Rust module of one family.
fn generate(family: &Family, infos: &[KernelInfo]) -> Result<String, ShaderError> {
    let mut out = String::new();
    // One struct may have a different member order or set only under a different name.
    let mut structs: BTreeMap<&str, &KernelInfo> = BTreeMap::new();
    for info in infos.iter().filter(|i| i.params_size > 0) {
        let first = *structs.entry(&info.params_name).or_insert(info);
        if first.fields != info.fields {
            return Err(ShaderError {
                file: family.path.clone(),
                kernel: info.name.to_string(),
                line: None,
                message: format!(
                    "struct {} differs from the one in kernel {}: give it the same members or another name",
                    info.params_name, first.name
                ),
            });
        }
        if std::ptr::eq(first, info) {
            struct_of(family, info, &mut out);
        }
    }
    let mut sources: BTreeMap<&str, usize> = BTreeMap::new();
    for info in infos {
        *sources.entry(&info.source).or_insert(0) += 1;
    }
    let mut named: BTreeMap<&str, String> = BTreeMap::new();
    for info in infos {
        let shared = sources.get(&*info.source).is_some_and(|n| *n > 1);
        let source = if shared {
            let next = format!("SOURCE_{}", named.len());
            let name = named.entry(&info.source).or_insert_with(|| {
                let _ = writeln!(out, "static {next}: &str = {};", literal(&info.source));
                next
            });
            name.clone()
        } else {
            literal(&info.source)
        };
        let name = &info.name;
        let params = if info.params_size > 0 { &*info.params_name } else { "()" };
        let fields: Vec<String> = info
            .fields
            .iter()
            .map(|f| {
                format!(
                    "crate::Field {{ name: std::borrow::Cow::Borrowed({:?}), offset: {}, size: {}, ty: std::borrow::Cow::Borrowed({:?}) }}",
                    f.name, f.offset, f.size, f.ty
                )
            })
            .collect();
        let access: Vec<&str> = info
            .access
            .iter()
            .map(|a| match a {
                Access::Read => "crate::Access::Read",
                Access::ReadWrite => "crate::Access::ReadWrite",
            })
            .collect();
        let [x, y, z] = info.workgroup_size;
        let _ = writeln!(
            out,
            "/// Kernel `{name}`: reads {r}, writes {w}; {x} x {y} x {z} invocations, {wg} bytes of workgroup memory{sub}.
pub static {upper}: crate::Kernel<{params}, {r}, {w}> = crate::Kernel::new(crate::KernelInfo {{
    name: std::borrow::Cow::Borrowed({name:?}),
    source: std::borrow::Cow::Borrowed({source}),
    access: std::borrow::Cow::Borrowed(&[{access}]),
    workgroup_size: [{x}, {y}, {z}],
    workgroup_bytes: {wg},
    params_size: {psize},
    params_name: std::borrow::Cow::Borrowed({pname:?}),
    fields: std::borrow::Cow::Borrowed(&[{fields}]),
    subgroups: {subgroups},
    f16: {f16},
    int64: {int64},
    hash: {hash:#x},
}});",
            r = info.reads(),
            w = info.writes(),
            wg = info.workgroup_bytes,
            sub = if info.subgroups { ", subgroups" } else { "" },
            upper = name.to_uppercase(),
            access = access.join(", "),
            psize = info.params_size,
            pname = info.params_name,
            fields = fields.join(", "),
            subgroups = info.subgroups,
            f16 = info.f16,
            int64 = info.int64,
            hash = info.hash,
        );
    }
    Ok(out)
}

/// A raw string literal; WGSL has neither quotes nor a use for `"#`.
fn literal(source: &str) -> String {
    format!("r##\"{source}\"##")
}

/// The Rust twin of a parameter struct, with its padding spelled out.
fn struct_of(family: &Family, info: &KernelInfo, out: &mut String) {
    let _ = writeln!(out, "/// Parameters of `{}` and of the kernels that share them.", info.name);
    example_of(family, info, out);
    out.push_str("#[repr(C)]\n#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]\n");
    let _ = writeln!(out, "pub struct {} {{", info.params_name);
    let taken: BTreeSet<&str> = info.fields.iter().map(|f| &*f.name).collect();
    let (mut at, mut pads) = (0, 0);
    let mut pad_to = |at: &mut u32, to: u32, out: &mut String| {
        while *at < to {
            let mut name = format!("_pad{pads}");
            while taken.contains(name.as_str()) {
                pads += 1;
                name = format!("_pad{pads}");
            }
            pads += 1;
            let _ = writeln!(out, "    /// Padding.\n    pub {name}: u32,");
            *at += 4;
        }
    };
    for f in info.fields.iter() {
        pad_to(&mut at, f.offset, out);
        let ty = match f.ty.strip_prefix("vec4<").and_then(|t| t.strip_suffix('>')) {
            Some(base) => format!("[{base}; 4]"),
            None => f.ty.to_string(),
        };
        let doc = field_doc(&family.text, &f.name).unwrap_or_else(|| format!("`{}`, see the kernel.", f.name));
        let _ = writeln!(out, "    /// {doc}\n    pub {}: {ty},", f.name);
        at += f.size;
    }
    pad_to(&mut at, info.params_size, out);
    out.push_str("}\n");
}

/// An example of a parameter struct: its first member set, and what the kernel says of its size.
fn example_of(family: &Family, info: &KernelInfo, out: &mut String) {
    let Some(first) = info.fields.first() else { return };
    let value = match &*first.ty {
        "f32" => "1.0",
        "u32" | "i32" => "1",
        "vec4<f32>" => "[1.0; 4]",
        _ => "[1; 4]",
    };
    let (params, kernel) = (&info.params_name, info.name.to_uppercase());
    let rest = if info.params_size > first.size { ", ..Default::default()" } else { "" };
    let _ = writeln!(
        out,
        "///
/// ```
/// use shadegrad_shaders::{family}::{{{kernel}, {params}}};
/// let params = {params} {{ {name}: {value}{rest} }};
/// assert_eq!(bytemuck::bytes_of(&params).len(), {kernel}.info.params_size as usize);
/// assert_eq!({kernel}.info.fields[0].name, {name:?});
/// ```",
        family = family.name,
        name = first.name,
    );
}

/// The comment behind a member's declaration, `name: type, // comment`.
fn field_doc(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|l| {
        let rest = l.trim().strip_prefix(name)?.trim_start().strip_prefix(':')?;
        let (_, comment) = rest.split_once("//")?;
        Some(escape(comment.trim())).filter(|c| !c.is_empty())
    })
}

/// The comment at the head of the file as the module's documentation.
fn module_doc(family: &Family) -> String {
    let head: Vec<String> = family
        .text
        .lines()
        .map_while(|l| l.trim().strip_prefix("//"))
        .map(|l| format!("/// {}", escape(l.trim())))
        .collect();
    if head.is_empty() { format!("/// The kernels of `{}`.", family.path) } else { head.join("\n") }
}

/// Brackets would be read as links and angle brackets as HTML.
fn escape(comment: &str) -> String {
    comment.replace('[', "\\[").replace(']', "\\]").replace('<', "\\<").replace('>', "\\>")
}

fn write(path: &Path, text: &str, errors: &mut Vec<ShaderError>) {
    if let Err(e) = fs::write(path, text) {
        errors.push(ShaderError {
            file: path.display().to_string(),
            kernel: String::new(),
            line: None,
            message: e.to_string(),
        });
    }
}
