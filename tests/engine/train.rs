//! The training loop: what it tells, what it refuses, and what it costs.

use shadegrad::data::digits;
use shadegrad::nn::{Arena, Builder, Cx, Linear, Module};
use shadegrad::optim::{Optimizer, Rule};
use shadegrad::train::{
    EpochEnd, FitOptions, Flow, Hooks, Images, LossMeter, Mixing, NoHooks, Progress, Trainer, evaluate,
};
use shadegrad::{Error, Result, Tensor};

use crate::gpu;

/// One linear layer on the pixels of the digits.
struct Flat(Linear);

impl Module for Flat {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        self.0.forward(cx, &x.flatten(1, 3)?)
    }
}

fn setup() -> Result<(Flat, Arena, Optimizer, Images, Images)> {
    let gpu = gpu();
    let data = digits();
    let stats = data.train.channel_stats()?;
    let mut names = Builder::new();
    let model = Flat(Linear::new(&mut names.root(), 64, 10, true));
    let arena = Arena::new(&gpu, &names, 0)?;
    let optimizer = Optimizer::new(&arena, Rule::adamw(0.0))?;
    let train = Images::upload(&gpu, &data.train.first_per_class(10)?, &stats)?;
    let test = Images::upload(&gpu, &data.test.first_per_class(5)?, &stats)?;
    Ok((model, arena, optimizer, train, test))
}

fn options() -> FitOptions {
    FitOptions { epochs: 3, batch: 30, record_every: 2, ..FitOptions::default() }
}

#[derive(Default)]
struct Watch {
    shown: Vec<u64>,
    recorded: Vec<(u64, f64)>,
    epochs: Vec<(u64, f64)>,
    stop_after: u64,
}

impl Hooks for Watch {
    fn progress(&mut self, now: &Progress) -> Result<()> {
        self.shown.push(now.step);
        Ok(())
    }

    fn record(&mut self, now: &Progress) -> Result<()> {
        self.recorded.push((now.step, now.loss));
        Ok(())
    }

    fn epoch(&mut self, end: &EpochEnd, _: &mut Arena) -> Result<Flow> {
        self.epochs.push((end.epoch, end.train_loss));
        Ok(if end.epoch == self.stop_after { Flow::Stop } else { Flow::Continue })
    }
}

#[test]
fn a_watcher_sees_steps_records_and_epochs_and_may_stop() -> Result<()> {
    let (model, mut arena, mut optimizer, train, test) = setup()?;
    let mut watch = Watch { stop_after: 2, ..Watch::default() };
    let summary =
        Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.01, options()).fit(&train, Some(&test), &mut watch)?;
    // 100 pictures in batches of 30: four steps an epoch, two of three epochs.
    assert_eq!((summary.steps, summary.last.epoch, watch.epochs.len()), (8, 2, 2));
    assert_eq!(watch.shown.first(), Some(&1));
    assert_eq!(watch.recorded.iter().map(|r| r.0).collect::<Vec<_>>(), [2, 4, 6, 8]);
    assert!(watch.epochs[1].1 < watch.epochs[0].1, "{:?}", watch.epochs);
    let test = summary.last.test.expect("an evaluation");
    assert_eq!((test.count, test.logits.len()), (50, 500));
    let again = evaluate(&model, &Cx::eval(&arena), &setup()?.4, 7)?;
    assert!(
        again.accuracy == test.accuracy && (again.loss - test.loss).abs() < 1e-5,
        "the batch size changes the result"
    );
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_losses_to_the_last_bit() -> Result<()> {
    let run = |seed| {
        let (model, mut arena, mut optimizer, train, _) = setup()?;
        let mut augment = train.normalise().clone();
        (augment.pad, augment.flip) = (1, 0.5);
        let options =
            FitOptions { seed, augment: Some(augment), mixing: Mixing::Mixup(0.4), smoothing: 0.1, ..options() };
        let mut watch = Watch::default();
        Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.01, options).fit(&train, None, &mut watch)?;
        Ok::<_, Error>(watch.recorded)
    };
    assert_eq!(run(3)?, run(3)?);
    assert_ne!(run(3)?, run(4)?);
    Ok(())
}

#[test]
fn a_loss_of_ones_own_takes_the_place_of_cross_entropy() -> Result<()> {
    let (model, mut arena, mut optimizer, train, _) = setup()?;
    let mut watch = Watch::default();
    Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.0, options())
        .loss(|step| step.logits()?.mul_scalar(0.0)?.add_scalar(step.step as f32)?.mean(&[0, 1], false))
        .fit(&train, None, &mut watch)?;
    // Steps 2 and 3 (from 0) are the second record's.
    assert_eq!(watch.recorded[1], (4, (2.0 * 30.0 + 3.0 * 10.0) / 40.0));
    Ok(())
}

#[test]
fn a_loss_that_is_not_finite_names_its_step() -> Result<()> {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (model, mut arena, mut optimizer, train, _) = setup()?;
        let err = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.01, options())
            .loss(|step| step.cross_entropy(&step.logits()?)?.mul_scalar(if step.step == 2 { bad } else { 1.0 }))
            .fit(&train, None, &mut NoHooks)
            .unwrap_err();
        let words = format!("the loss of step 3 is {bad};");
        assert!(matches!(&err, Error::NonFinite(text) if text.contains(&words)), "{err}");
    }
    Ok(())
}

#[test]
fn sizes_out_of_range_are_refused() -> Result<()> {
    let (model, mut arena, mut optimizer, train, _) = setup()?;
    for options in [
        FitOptions { epochs: 0, ..options() },
        FitOptions { batch: 0, ..options() },
        FitOptions { record_every: 0, ..options() },
    ] {
        let err = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.01, options).fit(&train, None, &mut NoHooks);
        assert!(matches!(err, Err(Error::Value { .. })), "{err:?}");
    }
    assert!(train.plain(&[100]).err().is_some_and(|e| e.to_string().contains("index 100")));
    assert!(evaluate(&model, &Cx::eval(&arena), &train, 0).is_err());
    let wide = Tensor::ones(&gpu(), &[2])?;
    assert!(LossMeter::new(&gpu(), 2)?.push(&wide, 1).is_err_and(|e| e.to_string().contains("not one float")));
    assert!(LossMeter::new(&gpu(), 0).is_err());
    Ok(())
}

#[test]
fn the_meter_averages_over_samples_and_its_window() -> Result<()> {
    let gpu = gpu();
    let mut meter = LossMeter::new(&gpu, 3)?;
    assert_eq!((meter.mean(), meter.end_epoch()?), (None, None));
    for (loss, samples) in [(1.0, 4), (2.0, 4), (3.0, 4), (4.0, 2)] {
        meter.push(&Tensor::scalar(&gpu, loss)?, samples)?;
    }
    meter.read()?;
    // The first has left the window of three; the epoch has all four.
    assert_eq!((meter.mean(), meter.last()), (Some(28.0 / 10.0), Some(4.0)));
    assert_eq!(meter.end_epoch()?, Some(32.0 / 14.0));
    assert_eq!(meter.end_epoch()?, None);
    Ok(())
}

#[test]
fn warming_up_compiles_and_changes_nothing() -> Result<()> {
    let run = |warm: bool| {
        let gpu = shadegrad::Gpu::new(shadegrad::Options::from_env()?)?;
        let data = digits();
        let stats = data.train.channel_stats()?;
        let mut names = Builder::new();
        let model = Flat(Linear::new(&mut names.root(), 64, 10, true));
        let mut arena = Arena::new(&gpu, &names, 0)?;
        let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.01))?;
        let train = Images::upload(&gpu, &data.train.first_per_class(9)?, &stats)?;
        let mut trainer = Trainer::new(&model, &mut arena, &mut optimizer, |_| 0.01, options());
        let mut made = 0;
        if warm {
            let before = gpu.counters();
            let mut told = Vec::new();
            made = trainer.warm_up(&train, |done, all| told.push((done, all)))?;
            assert_eq!(told, (1..=made).map(|i| (i, made)).collect::<Vec<_>>());
            let after = gpu.counters();
            assert_eq!((after.dispatches, after.uploaded), (before.dispatches, before.uploaded));
            assert_eq!(after.pipelines_created - before.pipelines_created, made as u64);
            assert_eq!(trainer.warm_up(&train, |_, _| ())?, 0, "kernels left to compile");
        }
        let before = gpu.counters().pipelines_created;
        trainer.fit(&train, None, &mut NoHooks)?;
        drop(trainer);
        Ok::<_, Error>((made, gpu.counters().pipelines_created - before, arena.values_flat().to_vec()?))
    };
    let (made, late, values) = run(true)?;
    let (_, all, expected) = run(false)?;
    // The meter of the losses has kernels of its own.
    assert!(made > 5 && late <= 2 && all == made as u64 + late, "{made} before, {late} during the run, {all} without");
    assert_eq!(values, expected, "the run is another one");
    Ok(())
}

/// A small network of everything that a step of training has: convolution, running statistics, moments.
#[test]
fn a_replayed_step_is_the_step_to_the_last_bit() -> Result<()> {
    use shadegrad::nn::{Activation, BatchNorm2d, Conv2d, ConvOptions, Flatten, Sequential};
    use shadegrad::{CrossEntropy, Gpu, Options};
    const SHAPE: [usize; 4] = [6, 5, 5, 3];
    let run = |replayed: bool| {
        let gpu = Gpu::new(Options::from_env()?)?;
        let mut names = Builder::new();
        let mut root = names.root();
        let model = Sequential::new()
            .then(Conv2d::new(&mut root.sub("conv"), 3, 8, 3, ConvOptions::new(1, 1)))
            .then(BatchNorm2d::new(&mut root.sub("bn"), 8))
            .then(Activation::Relu)
            .then(Flatten)
            .then(Linear::new(&mut root.sub("fc"), 200, 4, true));
        let arena = Arena::new(&gpu, &names, 0)?;
        let mut optimizer = Optimizer::new(&arena, Rule::adamw(0.01))?.clip_norm(1.0);
        let x = Tensor::zeros(&gpu, &SHAPE)?;
        let labels = Tensor::from_u32(&gpu, &[0; 6], &[6])?;
        let mut step = || {
            let loss = model.forward(&Cx::train(&arena), &x)?.cross_entropy(&labels, CrossEntropy::default())?;
            arena.backward(&loss)?;
            optimizer.step(&arena, 0.01)?;
            Ok::<_, Error>(loss)
        };
        let (mut plan, mut losses, mut others) = (None, Vec::new(), Vec::new());
        for i in 0..8u64 {
            let mut pixels = vec![0.0; SHAPE.iter().product()];
            shadegrad::rng::Philox::new(1, i).fill_normal(&mut pixels, 0.0, 1.0);
            gpu.upload(x.storage(), bytemuck::cast_slice(&pixels))?;
            gpu.upload(labels.storage(), bytemuck::cast_slice(&[0u32, 1, 2, 3, i as u32 % 4, 1]))?;
            let before = gpu.counters();
            let loss = match &plan {
                Some((loss, plan)) => {
                    shadegrad::kernels::Plan::replay(plan)?;
                    Tensor::clone(loss)
                }
                None if replayed && i == 2 => {
                    let (loss, made) = gpu.capture(&mut step)?;
                    let loss = loss?;
                    assert!(made.commands() > 10 && made.memory() > 1000, "{}", made.commands());
                    plan = Some((loss.clone(), made));
                    loss
                }
                None => step()?,
            };
            if i > 2 && replayed {
                let after = gpu.counters();
                let made =
                    |c: shadegrad::kernels::Counters| (c.buffers_created, c.pipelines_created, c.bind_groups_created);
                assert_eq!((made(after), after.dispatches > before.dispatches), (made(before), true));
            }
            losses.push(loss.item()?.to_bits());
            // Whoever takes memory meanwhile must not get any that the plan writes to, nor keep what it wrote.
            let other = Tensor::full(&gpu, &SHAPE, i as f32)?;
            others.push(other.mul_scalar(2.0)?);
        }
        for (i, other) in others.iter().enumerate() {
            assert!(other.to_vec()?.iter().all(|v| *v == 2.0 * i as f32), "{i}");
        }
        Ok::<_, Error>((losses, arena.state()?))
    };
    assert_eq!(run(true)?, run(false)?);
    Ok(())
}
