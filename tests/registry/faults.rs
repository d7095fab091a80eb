//! Memory that runs out anywhere in a step of training, and devices that disappear there.

use crate::case::own;
use crate::check::checks;
use crate::training::Run;
use shadegrad::Error;
use shadegrad::kernels::GpuError;

checks! {
    "faults":
    memory_may_run_out_at_every_allocation_of_a_step,
    a_device_may_disappear_in_any_part_of_a_step,
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

fn a_device_may_disappear_in_any_part_of_a_step() {
    let indices: Vec<u32> = (0..32).collect();
    let lost = |e: &Error| matches!(e, Error::Gpu(GpuError::Lost { .. } | GpuError::Driver { .. }));
    let mut whole = Run::new(&own(|_| ())).unwrap();
    whole.step(0, 1000, &indices).unwrap();
    let saved = whole.state().unwrap();
    whole.step(1, 1000, &indices).unwrap();
    let end = whole.state().unwrap();
    for part in 0..Run::PARTS {
        let gpu = own(|_| ());
        let mut run = Run::new(&gpu).unwrap();
        run.restore(&saved).unwrap();
        let device = gpu.device().clone();
        let result = run.step_in_parts(1, 1000, &indices, move |now| {
            if now == part {
                device.destroy();
            }
        });
        // Commands are only recorded until something is read: what cannot run is noticed there at the latest.
        let err = result.and_then(|loss| loss.item()).expect_err("a loss of a device that is gone");
        assert!(lost(&err), "part {part}: {err}");
        for _ in 0..2 {
            let err = run.step(2, 1000, &indices).and_then(|loss| loss.item()).expect_err("a step after that");
            assert!(lost(&err), "part {part}, afterwards: {err}");
        }
        assert!(run.state().is_err(), "part {part}: parameters of a device that is gone");
        drop(run);
    }
    // What was read back before is all that another device needs: the same step, to the bit.
    let mut run = Run::new(&own(|_| ())).unwrap();
    run.restore(&saved).unwrap();
    run.step(1, 1000, &indices).unwrap();
    assert!(run.state().unwrap() == end);
}
