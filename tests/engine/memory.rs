//! The device layer: memory, order of transfers, faults, sharing a device, users' kernels, the profiler.

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
fn memory_returns_to_the_pool_and_is_reused() {
    let gpu = own(|_| ());
    let a = gpu.alloc(1000, "first").unwrap();
    let live = gpu.memory().live;
    assert!((1000..=1250).contains(&live), "{live}");
    assert_eq!(gpu.memory().by_label, vec![("first", live)]);
    drop(a);
    assert_eq!(gpu.memory().live, 0);
    assert_eq!(gpu.memory().cached, live);
    let made = gpu.counters().buffers_created;
    let b = gpu.alloc(990, "second").unwrap();
    assert_eq!(gpu.counters().buffers_created, made);
    assert_eq!(gpu.memory().peak, live);
    drop(b);
    gpu.trim();
    assert_eq!(gpu.memory().cached, 0);
}

#[test]
fn running_out_of_memory_is_an_error_that_says_who_holds_what() {
    let gpu = own(|o| o.memory_limit = Some(1 << 20));
    let _held = gpu.alloc(900_000, "weights").unwrap();
    let err = gpu.alloc(500_000, "activations").unwrap_err();
    let text = err.to_string();
    assert!(matches!(err, GpuError::OutOfMemory { asked: 500_000, .. }), "{text}");
    assert!(text.contains("activations") && text.contains("weights") && text.contains("smaller batch"), "{text}");
    let small = Tensor::ones(&gpu, &[16]).unwrap();
    assert_eq!(small.to_vec().unwrap(), vec![1.0; 16]);
}

#[test]
fn a_tensor_beyond_the_binding_limit_is_refused_with_the_figure() {
    let gpu = own(|o| o.default_limits = true);
    let err = gpu.alloc((128 << 20) + 4, "huge").unwrap_err().to_string();
    assert!(err.contains("huge") && err.contains("134217728"), "{err}");
}

#[test]
fn transfers_keep_their_place_among_the_kernels() {
    let gpu = gpu();
    // An upload into memory that an earlier, unsubmitted kernel reads must come after that kernel.
    for n in [64usize, 1 << 19] {
        let x = Tensor::full(&gpu, &[n], 1.0).unwrap();
        let y = x.add_scalar(1.0).unwrap();
        gpu.upload(x.storage(), bytemuck::cast_slice(&vec![5.0f32; n])).unwrap();
        let z = x.add_scalar(1.0).unwrap();
        assert_eq!((y.to_vec().unwrap()[n - 1], z.to_vec().unwrap()[n - 1]), (2.0, 6.0));
    }
    let bytes = gpu.alloc(7, "odd").unwrap();
    gpu.upload(&bytes, &[1, 2, 3, 4, 5, 6, 7]).unwrap();
    assert_eq!(gpu.read(&bytes).unwrap(), [1, 2, 3, 4, 5, 6, 7]);
    assert!(gpu.upload(&bytes, &[0; 8]).unwrap_err().to_string().contains("do not fit"));
}

#[test]
fn reading_back_without_waiting() {
    let gpu = gpu();
    let x = Tensor::arange(&gpu, 3, 100).unwrap();
    let mut pending = x.read_async().unwrap();
    gpu.flush().unwrap();
    let bytes = loop {
        match pending.try_take().unwrap() {
            Some(bytes) => break bytes,
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(bytemuck::pod_collect_to_vec::<u8, u32>(&bytes), (3..103).collect::<Vec<u32>>());
    assert!(pending.try_take().is_err());
}

#[test]
fn views_are_aligned_and_cannot_be_read_and_written_at_once() {
    let gpu = gpu();
    let arena = gpu.alloc(1024, "arena").unwrap();
    let (a, b) = (arena.view(0, 64).unwrap(), arena.view(256, 64).unwrap());
    assert!(arena.view(4, 4).is_none() && arena.view(1024, 4).is_none());
    let err = gpu.copy(&a, 0, &b, 0, 64).unwrap_err().to_string();
    assert!(err.contains("share one buffer"), "{err}");
    assert!(gpu.copy(&a, 0, &gpu.alloc(8, "small").unwrap(), 0, 64).is_err());
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
