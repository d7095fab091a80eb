//! What all the rest is for: a network that learns, the same way twice, in memory that does not grow.

use std::time::Instant;

use shadegrad::data::{Sampler, digits};
use shadegrad::nn::{Arena, BatchNorm2d, Builder, Conv2d, ConvOptions, Cx, Linear, Module, Weight};
use shadegrad::optim::{Optimizer, Rule, schedule};
use shadegrad::rng::Stream;
use shadegrad::train::{Images, evaluate};
use shadegrad::{CrossEntropy, Error, Gpu, Pool2d, Result, Tensor};

use crate::case::{gpu, own};
use crate::check::checks;

checks! {
    "training":
    a_network_learns_the_digits,
    two_trainings_give_the_same_bits,
    memory_stays_flat_while_batches_change,
}

struct Net(Conv2d, BatchNorm2d, Linear);

impl Module for Net {
    fn forward(&self, cx: &Cx, x: &Tensor) -> Result<Tensor> {
        let x = self.1.forward(cx, &self.0.forward(cx, x)?)?.relu()?;
        self.2.forward(cx, &x.max_pool2d(Pool2d::new(2, 2, 0))?.flatten(1, 3)?)
    }
}

/// Parameters, statistics and the optimiser's moments, on the host.
pub(crate) type State = (Vec<Weight>, Vec<(String, Vec<f32>)>);

pub(crate) struct Run {
    net: Net,
    pub(crate) arena: Arena,
    optimizer: Optimizer,
    train: Images,
    test: Images,
}

impl Run {
    pub(crate) fn new(gpu: &Gpu) -> Result<Self> {
        let data = digits();
        let stats = data.train.channel_stats()?;
        let mut names = Builder::new();
        let net = Net(
            Conv2d::new(&mut names.root().sub("conv"), 1, 16, 3, ConvOptions::new(1, 1)),
            BatchNorm2d::new(&mut names.root().sub("norm"), 16),
            Linear::new(&mut names.root().sub("head"), 4 * 4 * 16, 10, true),
        );
        let arena = Arena::new(gpu, &names, 0)?;
        let optimizer = Optimizer::new(&arena, Rule::adamw(0.01))?;
        let train = Images::upload(gpu, &data.train, &stats)?;
        Ok(Self { net, arena, optimizer, train, test: Images::upload(gpu, &data.test, &stats)? })
    }

    /// A step on these pictures; its loss.
    pub(crate) fn step(&mut self, step: u64, steps: u64, indices: &[u32]) -> Result<Tensor> {
        self.step_in_parts(step, steps, indices, |_| ())
    }

    /// Parts of a step between which [`Run::step_in_parts`] stops.
    pub(crate) const PARTS: usize = 6;

    /// The same, with a call before each of its parts.
    pub(crate) fn step_in_parts(
        &mut self,
        step: u64,
        steps: u64,
        indices: &[u32],
        before: impl Fn(usize) + Clone + Send + Sync + 'static,
    ) -> Result<Tensor> {
        before(0);
        let batch = self.train.plain(indices)?;
        before(1);
        let inside = before.clone();
        let cx = Cx::train(&self.arena).seeded(0, step).observe("norm", move |_, _| {
            inside(2);
            Ok(())
        });
        let logits = self.net.forward(&cx, &batch.images)?;
        before(3);
        let loss = logits.cross_entropy(&batch.labels, CrossEntropy::default())?;
        before(4);
        self.arena.backward(&loss)?;
        before(5);
        self.optimizer.step(&self.arena, schedule::cosine(step, steps, 0.01, 0.0))?;
        Ok(loss)
    }

    /// What it takes to go on elsewhere.
    pub(crate) fn state(&self) -> Result<State> {
        let of = |(name, t): (&str, &Tensor)| Ok((name.to_string(), t.to_vec()?));
        Ok((self.arena.state()?, self.optimizer.state().into_iter().map(of).collect::<Result<_>>()?))
    }

    /// Goes on from there.
    pub(crate) fn restore(&mut self, (values, moments): &State) -> Result<()> {
        self.arena.load(values)?;
        self.optimizer.load_state(moments)
    }
}

fn trained(gpu: &Gpu, steps: u64) -> Result<(Run, Vec<f32>)> {
    let mut run = Run::new(gpu)?;
    let mut batches = Sampler::new(run.train.len(), 64)?.seed(0);
    let mut losses = Vec::new();
    for step in 0..steps {
        let Some(batch) = batches.next_batch().or_else(|| batches.next_batch()) else { break };
        losses.push(run.step(step, steps, &batch.indices)?);
    }
    let losses = losses.iter().map(Tensor::item).collect::<Result<_>>()?;
    Ok((run, losses))
}

fn a_network_learns_the_digits() {
    let (run, losses) = trained(&gpu(), 100).unwrap();
    assert!(losses.iter().all(|l| l.is_finite()), "{losses:?}");
    let test = evaluate(&run.net, &Cx::eval(&run.arena), &run.test, 120).unwrap();
    assert!(test.accuracy > 0.93, "accuracy {:.3} after 100 steps, losses {losses:?}", test.accuracy);
}

fn two_trainings_give_the_same_bits() {
    let bytes = || {
        let (run, losses) = trained(&gpu(), 12).unwrap();
        (run.arena.values_flat().to_bytes().unwrap(), losses.iter().map(|l| l.to_bits()).collect::<Vec<_>>())
    };
    assert!(bytes() == bytes(), "two runs from one seed differ");
}

/// Trains for `steps` steps on batches of ever other sizes, and says every tenth of them what was held and how long it took.
///
/// # Errors
/// If a loss is not finite, or the device holds more than after the first tenth.
pub fn soak(steps: u64, mut say: impl FnMut(String)) -> Result<()> {
    let gpu = own(|_| ());
    let mut run = Run::new(&gpu)?;
    let mut rng = Stream::new(7, 0).philox();
    let tenth = (steps / 10).max(1);
    let (mut first, mut start) = (None, Instant::now());
    for step in 0..steps {
        let size = 1 + rng.next_u32() % 64;
        let indices: Vec<u32> = (0..size).map(|_| rng.next_u32() % run.train.len() as u32).collect();
        let loss = run.step(step, steps, &indices)?;
        if (step + 1) % tenth != 0 {
            continue;
        }
        let (loss, memory, counters) = (loss.item()?, gpu.memory(), gpu.counters());
        let (held, seconds) = (memory.live + memory.cached, start.elapsed().as_secs_f64());
        say(format!(
            "step {}: loss {loss:.4}, {held} bytes held, {} live, {} buffers and {} bind groups made, {:.2} ms a step",
            step + 1,
            memory.live,
            counters.buffers_created,
            counters.bind_groups_created,
            1e3 * seconds / tenth as f64
        ));
        if !loss.is_finite() {
            return Err(Error::NonFinite(format!("the loss after step {} is {loss}", step + 1)));
        }
        if held > *first.get_or_insert(held) {
            return Err(Error::value(
                "soak",
                format!("{held} bytes are held after step {}, more than at first", step + 1),
            ));
        }
        start = Instant::now();
    }
    Ok(())
}

fn memory_stays_flat_while_batches_change() {
    let gpu = own(|_| ());
    let mut run = Run::new(&gpu).unwrap();
    let sizes = [64, 7, 33, 1, 48];
    let mut after = Vec::new();
    for round in 0..8 {
        for (i, &size) in sizes.iter().enumerate() {
            let first = (round * 97 + i as u32 * 31) % 1000;
            let indices: Vec<u32> = (first..first + size).collect();
            let loss = run.step(u64::from(round), 8, &indices).unwrap().item().unwrap();
            assert!(loss.is_finite(), "loss {loss} in round {round} at batch {size}");
        }
        let memory = gpu.memory();
        after.push((memory.live, memory.live + memory.cached, gpu.counters().buffers_created));
    }
    assert!(after[3..].iter().all(|a| *a == after[3]), "live bytes, held bytes, buffers made, by round: {after:?}");
}
