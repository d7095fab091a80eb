//! Training of a classifier in a recipe: the same loop, schedule and evaluation for every arm.

use shadegrad::augment::Augment;
use shadegrad::nn::{Arena, Cx, Module};
use shadegrad::optim::{Optimizer, Rule, schedule};
use shadegrad::train::{EpochEnd, Evaluation, FitOptions, Flow, Hooks, Images, Mixing, Progress, Step, Trainer};
use shadegrad::{Result, Tensor};

use super::Context;

/// How the arms of a recipe are trained.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Passes over the training set.
    pub epochs: u64,
    /// Samples of a step.
    pub batch: usize,
    /// The update rule.
    pub rule: Rule,
    /// The highest learning rate.
    pub lr: f32,
    /// Share of the steps over which the rate rises linearly; step `k` of `n` has
    /// `lr * min(1, (k + 1) / (warmup * n)) * (1 + cos(pi k / n)) / 2`.
    pub warmup: f64,
    /// Largest norm of the gradient; none if 0.
    pub clip_norm: f32,
    /// Share of the uniform distribution in the targets.
    pub smoothing: f32,
    /// Padding of 4 pixels, random crop and mirror image.
    pub crop_flip: bool,
    /// Mixing of samples.
    pub mixing: Mixing,
    /// Whether vectors (biases, norms) are kept from weight decay.
    pub decay_matrices_only: bool,
}

impl Plan {
    /// AdamW (0.9, 0.999) with this decay, a tenth of the steps warming up, gradients clipped to norm 1.
    pub(crate) fn adamw(epochs: u64, batch: usize, lr: f32, weight_decay: f32) -> Self {
        Self {
            epochs,
            batch,
            rule: Rule::adamw(weight_decay),
            lr,
            warmup: 0.1,
            clip_norm: 1.0,
            smoothing: 0.0,
            crop_flip: false,
            mixing: Mixing::Off,
            decay_matrices_only: true,
        }
    }

    /// The rate of step `k` of `steps`.
    pub(crate) fn rate(&self, k: u64, steps: u64) -> f32 {
        let rise = (k + 1) as f64 / (self.warmup * steps as f64).max(1e-9);
        rise.min(1.0) as f32 * schedule::cosine(k, steps, self.lr, 0.0)
    }

    /// The optimiser for `arena`, whose groups are set as the plan says.
    ///
    /// # Errors
    /// If the device refuses.
    pub(crate) fn optimizer(&self, arena: &mut Arena) -> Result<Optimizer> {
        if self.decay_matrices_only {
            arena.no_decay_for_vectors(&[])?;
        }
        let optimizer = Optimizer::new(arena, self.rule)?;
        Ok(if self.clip_norm > 0.0 { optimizer.clip_norm(self.clip_norm) } else { optimizer })
    }

    /// The options of the loop for `train`.
    pub(crate) fn options(&self, train: &Images, seed: u64) -> FitOptions {
        let plain = train.normalise();
        let augment = if self.crop_flip { Augment { pad: 4, flip: 0.5, ..plain.clone() } } else { plain.clone() };
        FitOptions {
            epochs: self.epochs,
            batch: self.batch,
            seed,
            augment: Some(augment),
            mixing: self.mixing,
            smoothing: self.smoothing,
            ..FitOptions::default()
        }
    }
}

/// A classifier after its training.
pub(crate) struct Trained<M> {
    /// The model.
    pub model: M,
    /// Its parameters.
    pub arena: Arena,
    /// Test accuracy after each epoch, in per cent.
    pub accuracy: Vec<f64>,
    /// Mean training loss of each epoch.
    pub loss: Vec<f64>,
    /// The last evaluation.
    pub test: Evaluation,
    /// Trainable parameters.
    pub parameters: usize,
    /// Seconds, evaluation included.
    pub seconds: f64,
}

impl<M> Trained<M> {
    /// Test accuracy after the last epoch, in per cent.
    pub(crate) fn last(&self) -> f64 {
        100.0 * self.test.accuracy
    }

    /// The parameters in evaluation.
    pub(crate) fn cx(&self) -> Cx {
        Cx::eval(&self.arena)
    }
}

/// Trains a model from the values in its arena as `plan` says, with this loss, and evaluates it after each epoch, behind
/// which `after_epoch` is called. `seed` decides order and augmentation, so that arms with one seed whose first values came
/// from it differ in nothing but the model.
///
/// # Errors
/// Those of the model, of [`Trainer::fit`], of `loss` and of `after_epoch`.
pub(crate) fn train_on<M: Module>(
    context: &mut Context,
    arm: &str,
    seed: u64,
    (train, test): (&Images, &Images),
    plan: &Plan,
    (model, mut arena): (M, Arena),
    loss: impl FnMut(&Step) -> Result<Tensor>,
    after_epoch: impl FnMut(&mut Arena) -> Result<()>,
) -> Result<Trained<M>> {
    let mut optimizer = plan.optimizer(&mut arena)?;
    let steps = plan.epochs * (train.len() as u64).div_ceil(plan.batch as u64);
    let label = format!("{arm}, seed {seed}");
    let mut hooks = Recorder { context, label: &label, accuracy: Vec::new(), loss: Vec::new(), after_epoch };
    let rate = |k| plan.rate(k, steps);
    let summary = Trainer::new(&model, &mut arena, &mut optimizer, rate, plan.options(train, seed)).loss(loss).fit(
        train,
        Some(test),
        &mut hooks,
    )?;
    let Recorder { accuracy, loss, .. } = hooks;
    let test = summary.last.test.ok_or_else(|| shadegrad::Error::value("classify", "no evaluation was made"))?;
    context.watch.say(&format!(
        "{label}: test accuracy {:.2} %, training loss {:.4}, {:.0} s",
        100.0 * test.accuracy,
        summary.last.train_loss,
        summary.seconds
    ));
    let parameters = arena.table().numel();
    Ok(Trained { model, arena, accuracy, loss, test, parameters, seconds: summary.seconds })
}

/// Keeps the curves and passes on the progress.
struct Recorder<'c, 'w, F> {
    context: &'c mut Context<'w>,
    label: &'c str,
    accuracy: Vec<f64>,
    loss: Vec<f64>,
    after_epoch: F,
}

impl<F: FnMut(&mut Arena) -> Result<()>> Hooks for Recorder<'_, '_, F> {
    fn progress(&mut self, now: &Progress) -> Result<()> {
        let text = format!("epoch {}/{}  loss {:.4}", now.epoch, now.epochs, now.loss);
        self.context.watch.progress(self.label, now.step as f64 / now.steps as f64, &text);
        Ok(())
    }

    fn epoch(&mut self, end: &EpochEnd, arena: &mut Arena) -> Result<Flow> {
        self.loss.push(end.train_loss);
        self.accuracy.extend(end.test.as_ref().map(|t| 100.0 * t.accuracy));
        (self.after_epoch)(arena)?;
        Ok(Flow::Continue)
    }
}
