//! The device's memory and transfers.

use shadegrad::Tensor;
use shadegrad::kernels::GpuError;

use crate::case::{gpu, own};
use crate::check::checks;

checks! {
    "device":
    memory_returns_to_the_pool_and_is_reused,
    running_out_of_memory_is_an_error_that_says_who_holds_what,
    a_tensor_beyond_the_binding_limit_is_refused_with_the_figure,
    transfers_keep_their_place_among_the_kernels,
    reading_back_without_waiting,
    views_are_aligned_and_cannot_be_read_and_written_at_once,
}

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

fn a_tensor_beyond_the_binding_limit_is_refused_with_the_figure() {
    let gpu = own(|o| o.default_limits = true);
    let err = gpu.alloc((128 << 20) + 4, "huge").unwrap_err().to_string();
    assert!(err.contains("huge") && err.contains("134217728"), "{err}");
}

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
    // As numbers: only whole ones, and none at all is no mistake.
    let pairs = gpu.alloc_from(&[[1u16, 2], [3, 4]], "pairs").unwrap();
    assert_eq!(gpu.read_as::<[u16; 2]>(&pairs).unwrap(), [[1, 2], [3, 4]]);
    assert_eq!(gpu.read_as::<u32>(&pairs).unwrap(), [0x2_0001, 0x4_0003]);
    assert!(gpu.read_as::<[u32; 3]>(&pairs).unwrap_err().to_string().contains("whole number"));
    assert!(gpu.read_as::<()>(&pairs).is_err());
    let none = gpu.alloc_from::<f32>(&[], "none").unwrap();
    assert!(gpu.read_as::<f32>(&none).unwrap().is_empty());
}

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

fn views_are_aligned_and_cannot_be_read_and_written_at_once() {
    let gpu = gpu();
    let arena = gpu.alloc(1024, "arena").unwrap();
    let (a, b) = (arena.view(0, 64).unwrap(), arena.view(256, 64).unwrap());
    assert!(arena.view(4, 4).is_none() && arena.view(1024, 4).is_none());
    let err = gpu.copy(&a, 0, &b, 0, 64).unwrap_err().to_string();
    assert!(err.contains("share one buffer"), "{err}");
    assert!(gpu.copy(&a, 0, &gpu.alloc(8, "small").unwrap(), 0, 64).is_err());
}
