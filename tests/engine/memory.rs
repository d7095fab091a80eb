//! The device layer: faults, sharing a device, users' kernels, the profiler. (Memory and transfers are in `tests/registry/device.rs`.)

use shadegrad::kernels::{GpuError, UserKernel};
use shadegrad::{DType, Gpu, Options, Tensor};

use super::gpu;

/// A device of this test's own, so that its counters and memory are not shared.
fn own(change: impl FnOnce(&mut Options)) -> Gpu {
    let mut options = Options::from_env().unwrap();
    change(&mut options);
    Gpu::new(options).unwrap()
}

#[test]
fn the_application_shares_its_device_and_buffers() {
    let first = gpu();
    let shared = Gpu::from_wgpu(first.device().clone(), first.queue().clone(), &Options::from_env().unwrap());
    let buffer = shared.device().create_buffer(&shadegrad::kernels::wgpu::BufferDescriptor {
        label: None,
        size: 512,
        usage: shadegrad::kernels::wgpu::BufferUsages::STORAGE
            | shadegrad::kernels::wgpu::BufferUsages::COPY_SRC
            | shadegrad::kernels::wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    shared.queue().write_buffer(&buffer, 256, bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 4.0]));
    let storage = shared.import(buffer.clone(), 256, 16).unwrap();
    let x = Tensor::from_storage(&shared, storage, &[4], DType::F32).unwrap();
    assert_eq!(x.mul_scalar(2.0).unwrap().to_vec().unwrap(), [2.0, 4.0, 6.0, 8.0]);
    assert!(shared.import(buffer.clone(), 128, 16).is_err());
    assert!(shared.import(buffer, 256, 1000).is_err());
    let other = Tensor::ones(&first, &[4]).unwrap();
    assert!(x.add(&other).unwrap_err().to_string().contains("different devices"));
}

#[test]
fn a_lost_device_is_an_error_on_every_later_call() {
    let first = own(|_| ());
    let gpu = Gpu::from_wgpu(first.device().clone(), first.queue().clone(), &Options::from_env().unwrap());
    let x = Tensor::ones(&gpu, &[4]).unwrap();
    gpu.report_lost("unplugged");
    for _ in 0..2 {
        let err = x.add_scalar(1.0).unwrap_err();
        assert!(matches!(err, shadegrad::Error::Gpu(GpuError::Lost { .. })), "{err}");
        let text = err.to_string();
        assert!(text.contains("unplugged") && text.contains("checkpoint"), "{text}");
    }
}

#[test]
fn a_user_kernel_runs_and_its_mistakes_are_named() {
    let gpu = gpu();
    let text = "
struct P { n: u32, scale: f32 }
var<immediate> p: P;
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < p.n) {
    y[id.x] = p.scale * x[id.x] * x[id.x];
  }
}";
    let kernel = UserKernel::new("scaled_square", text).unwrap();
    let x = Tensor::from_slice(&gpu, &[1.0, 2.0, 3.0], &[3]).unwrap();
    let y = gpu.alloc(12, "y").unwrap();
    let params: Vec<u8> = [3u32.to_le_bytes(), 0.5f32.to_le_bytes()].concat();
    kernel.dispatch(&gpu, &[x.storage()], &[&y], &params, [1, 1, 1]).unwrap();
    assert_eq!(Tensor::from_storage(&gpu, y.clone(), &[3], DType::F32).unwrap().to_vec().unwrap(), [0.5, 2.0, 4.5]);
    let err = kernel.dispatch(&gpu, &[], &[&y], &params, [1, 1, 1]).unwrap_err().to_string();
    assert!(err.contains("scaled_square") && err.contains("reads 1"), "{err}");
    let err = UserKernel::new("broken", &text.replace("p.scale *", "p.scale +* ")).err().unwrap().to_string();
    assert!(err.contains("broken"), "{err}");
}

#[test]
fn the_profiler_counts_every_kernel() {
    let gpu = own(|_| ());
    if !gpu.caps().timestamps {
        assert!(gpu.start_profile().unwrap_err().to_string().contains("timestamp"));
        return;
    }
    gpu.start_profile().unwrap();
    let mut x = Tensor::ones(&gpu, &[1000]).unwrap();
    for _ in 0..5 {
        x = x.add_scalar(1.0).unwrap();
    }
    let profile = gpu.profile().unwrap();
    let row = profile.kernels.iter().find(|k| k.name == "unary_add_scalar").unwrap();
    assert_eq!(row.count, 5);
    assert!(row.bytes == 5.0 * 2.0 * 4000.0 && row.seconds > 0.0, "{row:?}");
    assert!(profile.to_string().contains("unary_add_scalar"));
    assert!(gpu.profile().unwrap().kernels.is_empty());
}

#[test]
fn unknown_adapters_are_errors_that_list_what_exists() {
    let err = Gpu::new(Options { adapter: Some("no such gpu".into()), ..Options::default() }).unwrap_err().to_string();
    assert!(err.contains("no such gpu") && err.contains("0: "), "{err}");
    let listed = Gpu::list(false);
    assert!(!listed.is_empty());
    let by_name =
        Gpu::new(Options { adapter: Some(listed[0].name[..4].to_lowercase()), ..Options::default() }).unwrap();
    assert_eq!(by_name.description().name, listed[0].name);
}

#[test]
fn a_damaged_file_of_pipelines_is_left_aside() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let gpu = own(|o| o.cache = Some(folder.path().join("kept")));
        let y = Tensor::ones(&gpu, &[5]).unwrap().add_scalar(1.0).unwrap().to_vec().unwrap();
        assert_eq!(y, [2.0; 5]);
    };
    let files = || -> Vec<_> {
        let entries = std::fs::read_dir(folder.path().join("kept")).into_iter().flatten();
        entries.map(|e| e.unwrap().path()).collect()
    };
    run();
    // Drivers that keep nothing, such as the software ones, leave no file.
    let first = files();
    assert!(first.len() <= 1, "{first:?}");
    for path in &first {
        let whole = std::fs::read(path).unwrap();
        run();
        for damage in [Vec::new(), whole[..whole.len() / 2].to_vec(), vec![0x5a; whole.len()]] {
            std::fs::write(path, damage).unwrap();
            run();
            assert!(std::fs::read(path).unwrap().len() > 100, "not written again");
        }
    }
    // A folder that cannot be made is no reason not to compute.
    std::fs::write(folder.path().join("file"), "x").unwrap();
    let gpu = own(|o| o.cache = Some(folder.path().join("file/below")));
    assert_eq!(Tensor::ones(&gpu, &[2]).unwrap().to_vec().unwrap(), [1.0; 2]);
}

#[test]
fn a_rehearsal_leaves_the_device_as_it_is() {
    let gpu = own(|_| ());
    let x = Tensor::ones(&gpu, &[3]).unwrap();
    let y = Tensor::zeros(&gpu, &[3]).unwrap();
    gpu.wait().unwrap();
    let before = gpu.counters();
    let other = gpu.clone();
    let (result, kernels) = gpu.rehearse(|| {
        gpu.upload(x.storage(), &[0; 12])?;
        gpu.copy(x.storage(), 0, y.storage(), 0, 12)?;
        gpu.zero(x.storage())?;
        // Another thread's work is done as always.
        let there = std::thread::spawn(move || Tensor::full(&other, &[1], 7.0)?.item()).join().unwrap();
        assert_eq!(there?, 7.0);
        x.exp()?.exp()
    });
    assert_eq!(result.unwrap().shape(), [3]);
    assert_eq!(kernels.names().collect::<Vec<_>>(), ["unary_exp"]);
    assert_eq!(gpu.counters().dispatches, before.dispatches + 1);
    assert_eq!((x.to_vec().unwrap(), y.to_vec().unwrap()), (vec![1.0; 3], vec![0.0; 3]));
    assert_eq!(gpu.compile(&kernels, |_, _| ()).unwrap(), 1);
    assert_eq!(gpu.compile(&kernels, |_, _| ()).unwrap(), 0);
    let pipelines = gpu.counters().pipelines_created;
    x.exp().unwrap();
    assert_eq!(gpu.counters().pipelines_created, pipelines);
}

#[test]
fn kernels_that_do_not_compile_are_an_error_and_the_others_are_there() {
    let gpu = own(|_| ());
    let x = Tensor::ones(&gpu, &[3]).unwrap();
    gpu.replace_kernel("unary_exp", Some("this is no shader".into()));
    let (done, kernels) = gpu.rehearse(|| x.sin()?.exp()?.cos());
    done.unwrap();
    let err = gpu.compile(&kernels, |_, _| ()).unwrap_err().to_string();
    assert!(err.contains("unary_exp"), "{err}");
    let pipelines = gpu.counters().pipelines_created;
    x.sin().unwrap().cos().unwrap();
    assert_eq!(gpu.counters().pipelines_created, pipelines);
}
