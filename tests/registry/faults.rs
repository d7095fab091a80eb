//! Memory that runs out anywhere in a step of training.

use crate::case::own;
use crate::check::checks;
use crate::training::Run;
use shadegrad::Error;
use shadegrad::kernels::GpuError;

checks! {
    "faults":
    memory_may_run_out_at_every_allocation_of_a_step,
}

fn memory_may_run_out_at_every_allocation_of_a_step() {
    let gpu = own(|_| ());
    let mut run = Run::new(&gpu).unwrap();
    let indices: Vec<u32> = (0..32).collect();
    // Warm: what a first step makes once and keeps is there.
    for step in 0..2 {
        run.step(step, 1000, &indices).unwrap();
    }
    let before = gpu.memory().live;
    let mut failed = 0;
    for point in 0.. {
        gpu.fail_allocation(Some(point));
        let result = run.step(2 + point, 1000, &indices);
        gpu.fail_allocation(None);
        match result {
            // The allocation that was to fail lies behind the step's last.
            Ok(_) => break,
            Err(Error::Gpu(GpuError::OutOfMemory { .. })) => failed += 1,
            Err(other) => panic!("allocation {point}: {other}"),
        }
        let live = gpu.memory().live;
        assert_eq!(live, before, "after the failed allocation {point} the device holds other than before the step");
        let loss = run.step(2 + point, 1000, &indices).unwrap().item().unwrap();
        assert!(loss.is_finite(), "the step after the failed allocation {point} has the loss {loss}");
        assert!(run.arena.nonfinite().unwrap().is_none(), "after the failed allocation {point}");
    }
    assert!(failed > 20, "a step allocates {failed} times only");
}
