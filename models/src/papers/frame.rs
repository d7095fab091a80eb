//! What a paper is, and what its recipe runs on.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use shadegrad::data::{self, DataPair, Dataset};
use shadegrad::train::Images;
use shadegrad::{Error, Gpu, Result};

use super::Outcome;

/// How large an experiment is.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::Preset;
/// let preset: Preset = "small".parse()?;
/// assert_eq!(preset, Preset::Small);
/// assert!("huge".parse::<Preset>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Under half a minute on a software driver, on the embedded digits: that it runs, not that it works.
    Smoke,
    /// Minutes on a software driver: the paper's claim at a size that a processor can show.
    Small,
    /// The paper's own size or near it, for a GPU.
    Full,
}

impl Preset {
    /// All, smallest first.
    pub const ALL: [Self; 3] = [Self::Smoke, Self::Small, Self::Full];

    /// As on the command line.
    ///
    /// ```
    /// use shadegrad_models::papers::Preset;
    /// assert_eq!(Preset::ALL.map(Preset::name), ["smoke", "small", "full"]);
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Self::Smoke => "smoke",
            Self::Small => "small",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|p| p.name() == text)
            .ok_or_else(|| format!("no preset is called `{text}`; there are smoke, small and full"))
    }
}

/// A paper and its recipe.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::find;
/// let paper = find("crrelu")?;
/// assert_eq!(paper.source, "arXiv 2405.12954, ICLR 2025");
/// assert_eq!((paper.data, paper.seeds), ("CIFAR-10", 3));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct Paper {
    /// Its name on the command line.
    pub slug: &'static str,
    /// Its title.
    pub title: &'static str,
    /// Where it is published, beginning with its number on arXiv.
    pub source: &'static str,
    /// What it claims, in a line.
    pub claim: &'static str,
    /// What the `small` preset is meant for, such as `CIFAR-10`.
    pub data: &'static str,
    /// Seeds of the presets `small` and `full` where none are given; `smoke` runs one.
    pub seeds: u64,
    /// The experiment; `None` while the paper is not built.
    pub recipe: Option<fn(&mut Context) -> Result<Outcome>>,
}

impl Paper {
    /// Whether it can be run.
    ///
    /// ```
    /// use shadegrad_models::papers::{Paper, find};
    /// let coswin = find("coswin")?;
    /// let planned = Paper { recipe: None, ..*coswin };
    /// assert!(coswin.is_built() && !planned.is_built());
    /// # Ok::<(), shadegrad::Error>(())
    /// ```
    pub fn is_built(&self) -> bool {
        self.recipe.is_some()
    }

    /// Runs the experiment.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::{Better, Context, Outcome, Paper, Preset, Role, Silent};
    /// fn recipe(context: &mut Context) -> Result<Outcome> {
    ///     let mut outcome = Outcome::new("none", "none").metric("twice", "", Better::Higher, 0);
    ///     for seed in context.seeds.clone() {
    ///         outcome.record("method", Role::Method, seed, &[("twice", 2.0 * seed as f64)])?;
    ///     }
    ///     Ok(outcome)
    /// }
    /// # let (slug, title, source, claim, data) = ("mine", "Mine", "arXiv 0", "doubles", "none");
    /// let paper = Paper { slug, title, source, claim, data, seeds: 3, recipe: Some(recipe) };
    /// let outcome = paper.run(&mut Context::new(&gpu, Preset::Small, &mut Silent))?;
    /// assert_eq!(outcome.mean("method", "twice"), Some((2.0, Some(2.0)))); // of 0, 2 and 4
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the paper is not built yet; if preset and data do not go together; whatever the recipe reports.
    pub fn run(&self, context: &mut Context) -> Result<Outcome> {
        let Some(recipe) = self.recipe else {
            return Err(Error::value("papers", format!("`{}` is not built yet", self.slug)));
        };
        if context.preset == Preset::Full && context.data.is_none() {
            return Err(Error::value(
                "papers",
                format!("the full run of `{}` is on {}; give its folder as the data", self.slug, self.data),
            ));
        }
        if context.seeds.is_empty() {
            context.seeds = (0..if context.preset == Preset::Smoke { 1 } else { self.seeds }).collect();
        }
        recipe(context)
    }
}

/// Is told how an experiment goes.
///
/// ```
/// use shadegrad_models::papers::Watch;
/// #[derive(Default)]
/// struct Log(Vec<String>);
/// impl Watch for Log {
///     fn say(&mut self, text: &str) {
///         self.0.push(text.into());
///     }
///     fn progress(&mut self, part: &str, done: f64, _: &str) {
///         self.0.push(format!("{part}: {:.0} %", 100.0 * done));
///     }
/// }
/// let mut log = Log::default();
/// log.progress("plain, seed 0", 0.5, "loss 0.1");
/// assert_eq!(log.0, ["plain, seed 0: 50 %"]);
/// ```
pub trait Watch {
    /// A line that stays.
    fn say(&mut self, text: &str);

    /// How far `part` of the experiment is, from 0 to 1, with figures in `text`.
    fn progress(&mut self, part: &str, done: f64, text: &str);
}

/// A watcher that says nothing.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::{Context, Preset, Silent};
/// let mut watch = Silent;
/// let mut context = Context::new(&gpu, Preset::Smoke, &mut watch);
/// context.watch.say("nobody hears this");
/// # Ok::<(), Error>(())
/// ```
pub struct Silent;

impl Watch for Silent {
    fn say(&mut self, _: &str) {}
    fn progress(&mut self, _: &str, _: f64, _: &str) {}
}

/// What a recipe runs on.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::data::digits;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad_models::papers::{Context, Preset, Silent};
/// let mut watch = Silent;
/// let context = Context::new(&gpu, Preset::Small, &mut watch).data(digits()).seeds(vec![0, 1]);
/// assert!(context.has_data());
/// assert_eq!((context.seeds.len(), context.folder), (2, None));
/// # Ok::<(), Error>(())
/// ```
pub struct Context<'a> {
    /// The device.
    pub gpu: Gpu,
    /// The size.
    pub preset: Preset,
    /// The seeds; every arm is run with each of them.
    pub seeds: Vec<u64>,
    /// Where a recipe that can be resumed keeps its state; nothing is kept if `None`.
    pub folder: Option<PathBuf>,
    /// Is told how it goes.
    pub watch: &'a mut dyn Watch,
    data: Option<DataPair>,
}

impl<'a> Context<'a> {
    /// A context on the embedded digits with the paper's own number of seeds.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::{Context, Preset, Silent};
    /// let mut watch = Silent;
    /// let context = Context::new(&gpu, Preset::Smoke, &mut watch);
    /// assert!(context.seeds.is_empty()); // the paper's own number, unless some are given
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(gpu: &Gpu, preset: Preset, watch: &'a mut dyn Watch) -> Self {
        Self { gpu: gpu.clone(), preset, seeds: Vec::new(), folder: None, watch, data: None }
    }

    /// Runs on this data in place of the digits.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::data::digits;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::{Context, Preset, Silent};
    /// let shrunk = digits().shrink(2)?; // 4 x 4 pixels
    /// let mut watch = Silent;
    /// let context = Context::new(&gpu, Preset::Small, &mut watch).data(shrunk);
    /// assert_eq!(context.pair().train.height, 4);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn data(mut self, data: DataPair) -> Self {
        self.data = Some(data);
        self
    }

    /// Runs these seeds in place of the paper's own number.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::{Context, Preset, Silent};
    /// let mut watch = Silent;
    /// let context = Context::new(&gpu, Preset::Small, &mut watch).seeds(vec![7]);
    /// assert_eq!(context.seeds, [7]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn seeds(mut self, seeds: Vec<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// Keeps the state of a recipe that can be resumed in this folder.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::{Context, Preset, Silent};
    /// let mut watch = Silent;
    /// let context = Context::new(&gpu, Preset::Full, &mut watch).folder("runs/mine".into());
    /// assert!(context.folder.is_some_and(|f| f.ends_with("mine")));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn folder(mut self, folder: PathBuf) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Whether the recipe runs on data that was given and not on the embedded digits. The preset `smoke` is for the
    /// digits and never does.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::data::digits;
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::{Context, Preset, Silent};
    /// let mut watch = Silent;
    /// let context = Context::new(&gpu, Preset::Smoke, &mut watch).data(digits());
    /// assert!(!context.has_data()); // a smoke run is on the digits whatever is given
    /// # Ok::<(), Error>(())
    /// ```
    pub fn has_data(&self) -> bool {
        self.data.is_some() && self.preset != Preset::Smoke
    }

    /// The data: what was given, else the digits (1,437 to train on, 360 to test).
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::{Context, Preset, Silent};
    /// let mut watch = Silent;
    /// let pair = Context::new(&gpu, Preset::Small, &mut watch).pair();
    /// assert_eq!((pair.train.len(), pair.test.len()), (1437, 360));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn pair(&self) -> DataPair {
        match &self.data {
            Some(pair) if self.has_data() => pair.clone(),
            _ => data::digits(),
        }
    }

    /// [`Context::pair`] cut to about this many pictures, the first of every class; all where there are fewer.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::{Context, Preset, Silent};
    /// let mut watch = Silent;
    /// let pair = Context::new(&gpu, Preset::Small, &mut watch).subset(50, 10)?;
    /// assert_eq!(pair.train.class_counts(), [5; 10]);
    /// assert_eq!(pair.test.len(), 10);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If there would be less than one picture of each class.
    pub fn subset(&self, train: usize, test: usize) -> Result<DataPair> {
        let pair = self.pair();
        DataPair::new(first(&pair.train, train)?, first(&pair.test, test)?)
    }

    /// Both parts on the device, normalised by the statistics of the training part.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::{Context, Preset, Silent};
    /// let mut watch = Silent;
    /// let context = Context::new(&gpu, Preset::Small, &mut watch);
    /// let (train, test) = context.upload(&context.subset(50, 10)?)?;
    /// assert_eq!((train.len(), test.size()), (50, [8, 8, 1]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn upload(&self, pair: &DataPair) -> Result<(Images, Images)> {
        let stats = pair.train.channel_stats()?;
        Ok((Images::upload(&self.gpu, &pair.train, &stats)?, Images::upload(&self.gpu, &pair.test, &stats)?))
    }
}

/// About `n` pictures, the same number of each class.
fn first(data: &Dataset, n: usize) -> Result<Dataset> {
    let counts = data.class_counts();
    let least = counts.iter().copied().min().unwrap_or(0);
    match n / counts.len().max(1) {
        0 => {
            Err(Error::value("papers", format!("{n} pictures of {} classes; take at least one of each", counts.len())))
        }
        per_class if per_class >= least => Ok(data.clone()),
        per_class => data.first_per_class(per_class),
    }
}

/// What a data set is called, such as `CIFAR-10` or `digits`: the name of its training part without the part.
///
/// ```
/// use shadegrad_models::papers::data_name;
/// assert_eq!(data_name(&shadegrad::data::digits()), "digits");
/// ```
pub fn data_name(pair: &DataPair) -> &str {
    let name = &pair.train.name;
    name.strip_suffix(" train").unwrap_or(name)
}

/// `CIFAR-10: 5000 training and 2000 test pictures of 32x32x3`, for [`Outcome::data`].
pub(crate) fn describe(pair: &DataPair) -> String {
    let t = &pair.train;
    format!(
        "{}: {} training and {} test pictures of {}x{}x{}",
        data_name(pair),
        t.len(),
        pair.test.len(),
        t.height,
        t.width,
        t.channels
    )
}
