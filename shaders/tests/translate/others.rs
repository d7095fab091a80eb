//! Two compilers that are not naga, where they are installed: the validator of the SPIR-V that naga writes (`spirv-val`, Debian's
//! package spirv-tools), and Dawn's `tint` on the WGSL. Where one is missing, its test says so and checks nothing.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use shadegrad_shaders::{KernelInfo, all, uniform_params};

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shadegrad-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The first path of a program by this name.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|p| p.is_file())
}

/// Gives each file to the program, some at a time, and reports all that it refuses.
fn each_is_accepted(program: &str, arguments: &[&str], folder: &str, files: &[(String, Vec<u8>)], extension: &str) {
    let Some(path) = find(program) else {
        println!("{program} is not installed: {} files were not given to it", files.len());
        return;
    };
    let folder = Folder::new(folder);
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((name, content)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let file = folder.0.join(format!("{name}.{extension}"));
            std::fs::write(&file, content).expect("a file in the temporary folder");
            let out = Command::new(&path).args(arguments).arg(&file).output().expect("the program starts");
            if !out.status.success() {
                let text = [out.stdout, out.stderr].concat();
                failures.lock().expect("no panic").push(format!("{name}: {}", String::from_utf8_lossy(&text)));
            }
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{program} refuses {} of {}:\n{}", failures.len(), files.len(), failures.join("\n"));
    println!("{program} accepts {} files", files.len());
}

#[test]
fn spirv_val_accepts_every_kernel() {
    let files = Mutex::new(Vec::new());
    super::each_form(|kernel, module, info| {
        let words = super::spirv(module, info)?;
        let bytes = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut files = files.lock().expect("no panic");
        let form = files.len();
        files.push((format!("{}_{form}", kernel.name), bytes));
        Ok(())
    });
    let files = files.into_inner().expect("no panic");
    each_is_accepted("spirv-val", &["--target-env", "vulkan1.1"], "spirv", &files, "spv");
}

#[test]
fn tint_accepts_every_kernel() {
    // The form with uniforms: immediates are an extension that not every version of it reads. What naga allows without being
    // asked, the language wants enabled.
    let text =
        |k: &KernelInfo| if k.subgroups { "enable subgroups;\n" } else { "" }.to_string() + &uniform_params(&k.source);
    // 64-bit integers are naga's extension; the kernels with them are for software drivers below Vulkan alone.
    let files: Vec<_> = all().iter().filter(|k| !k.int64).map(|k| (k.name.to_string(), text(k).into_bytes())).collect();
    each_is_accepted("tint", &["--format", "wgsl", "-o", "/dev/null"], "tint", &files, "wgsl");
}
