//! The experiment: two searches from one seed, without a threshold and with the early exit.

use std::collections::HashMap;
use std::time::Instant;

use shadegrad::data::{DataPair, Dataset};
use shadegrad::train::{Images, NoHooks};
use shadegrad::{Error, Result};

use super::{Genotype, Individual, NetCfg, Search, SearchReport, TrainCfg, mac_count, proxy_accuracy, train_cells};
use crate::papers::{Better, Chart, Context, Expect, Outcome, Preset, Role};

/// What a preset runs.
struct Plan {
    /// Training pictures of proxies; the rest of the set is for validation.
    pictures: usize,
    /// Share of the pictures that is held out for validation.
    held_out: f64,
    /// Side of the squares of pixels that are averaged into one.
    shrink: usize,
    /// Without a threshold; its `full` network is what parameters are counted for.
    search: Search,
    /// What is trained for each candidate.
    proxy: NetCfg,
    train: TrainCfg,
    /// The method's threshold, and a looser one where there is time.
    beta: usize,
    loose: Option<usize>,
    /// Whether random genotypes under the threshold, as many as the method trained, are an arm.
    random: bool,
    /// How the winners are trained.
    winner: Option<(NetCfg, TrainCfg)>,
    /// Parameters at which the dominated area ends; its other end is an error of 90 %.
    reference: f64,
}

const FREE: &str = "no threshold";
const EXIT: &str = "early exit";
const LOOSE: &str = "early exit, looser";
const RANDOM: &str = "random, early exit";

const ERROR: &str = "best validation error";
const PARAMS: &str = "parameters of candidates";
const FIRST: &str = "parameters at the start";
const MACS: &str = "multiply-adds of proxies";
const TIME: &str = "training of a proxy";
const TOTAL: &str = "training of all proxies";
const TRAINED: &str = "proxies trained";
const DRAWN: &str = "draws at the start";
const REJECTED: &str = "rejected at the start";
const VOLUME: &str = "dominated area";
const TEST: &str = "test error of the winner";

impl Plan {
    fn of(preset: Preset, data: &Dataset, seed: u64) -> Self {
        let classes = data.classes.len();
        let net = |c0, layers| NetCfg { c0, layers, classes, aux: false, in_chans: data.channels };
        let shrink = if data.height >= 32 { 2 } else { 1 };
        let image = (data.height / shrink, data.width / shrink);
        let small = Search { p_mut: 0.3, p_inv: 0.0, image, seed, ..Search::default() };
        match preset {
            Preset::Smoke => Self {
                pictures: 150,
                held_out: 1.0 / 3.0,
                shrink,
                search: Search { population: 4, generations: 2, keep: 2, blocks: 2, full: net(4, 3), ..small },
                proxy: net(4, 3),
                train: TrainCfg::plain(1, 25, seed),
                beta: 4_500,
                loose: None,
                random: false,
                winner: None,
                reference: 15_000.0,
            },
            Preset::Small => Self {
                pictures: 1_000,
                held_out: 0.5,
                shrink,
                search: Search { population: 8, generations: 3, keep: 4, blocks: 3, full: net(8, 5), ..small },
                proxy: net(8, 5),
                train: TrainCfg::plain(2, 50, seed),
                beta: 45_000,
                loose: None,
                random: false,
                winner: None,
                reference: 150_000.0,
            },
            Preset::Full => {
                // The auxiliary head fits images of 32x32 alone.
                let aux = data.height == 32 && data.width == 32;
                let size = |cfg: NetCfg| NetCfg { aux, in_chans: data.channels, ..cfg };
                Self {
                    pictures: data.len(),
                    held_out: 0.2,
                    shrink: 1,
                    search: Search {
                        population: 20,
                        generations: 10,
                        full: size(NetCfg::full(classes)),
                        image: (data.height, data.width),
                        seed,
                        ..Search::default()
                    },
                    proxy: size(NetCfg::proxy(classes)),
                    train: TrainCfg::proxy(seed),
                    beta: 3_000_000,
                    loose: Some(5_000_000),
                    random: true,
                    winner: Some((
                        NetCfg { layers: 14, ..size(NetCfg::proxy(classes)) },
                        TrainCfg { epochs: 50, ..TrainCfg::found(seed) },
                    )),
                    reference: 20_000_000.0,
                }
            }
        }
    }
}

/// One arm's search.
struct Arm {
    name: &'static str,
    role: Role,
    search: Search,
}

/// Accuracy and seconds of the proxies of a seed: arms meet the same genotypes, and train them alike.
type Known = HashMap<u64, (f64, f64)>;

/// Runs the experiment of the context's preset.
pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let pair = context.pair();
    let first = Plan::of(context.preset, &pair.train, 0);
    let (train, valid) = split(&pair.train, &first)?;
    let mut outcome = outcome(&first, &train, &valid);
    let parts = DataPair::new(train, valid)?;
    let (train, valid) = context.upload(&parts)?;
    let mut charts = None;
    for seed in context.seeds.clone() {
        let plan = Plan::of(context.preset, &pair.train, seed);
        let mut known = Known::new();
        let mut reports = Vec::new();
        let mut arms = vec![Arm { name: FREE, role: Role::Baseline, search: plan.search.clone() }];
        let under = |beta: usize| Search { beta: Some(beta), ..plan.search.clone() };
        arms.push(Arm { name: EXIT, role: Role::Method, search: under(plan.beta) });
        arms.extend(plan.loose.map(|b| Arm { name: LOOSE, role: Role::Ablation, search: under(b) }));
        for arm in arms {
            let report = search(context, &plan, &arm, seed, (&train, &valid), &mut known)?;
            record(context, &mut outcome, &plan, (&arm, seed), &report, &known, (&train, &pair.test))?;
            reports.push((arm.name, report));
        }
        if plan.random {
            let evaluations = reports[1].1.evaluations;
            let search_random = Search { population: evaluations, generations: 1, ..under(plan.beta) };
            let arm = Arm { name: RANDOM, role: Role::Control, search: search_random };
            let report = search(context, &plan, &arm, seed, (&train, &valid), &mut known)?;
            record(context, &mut outcome, &plan, (&arm, seed), &report, &known, (&train, &pair.test))?;
            reports.push((arm.name, report));
        }
        charts.get_or_insert_with(|| draw(&reports, &plan));
    }
    outcome.charts = charts.unwrap_or_default();
    compare(&mut outcome, first.random, first.winner.is_some());
    Ok(outcome)
}

/// Pictures to train proxies on and pictures to judge them by, both of the training set.
fn split(data: &Dataset, plan: &Plan) -> Result<(Dataset, Dataset)> {
    let per_class = plan.pictures / data.classes.len().max(1);
    let least = data.class_counts().into_iter().min().unwrap_or(0);
    let chosen = if plan.pictures < data.len() && per_class < least { &data.first_per_class(per_class)? } else { data };
    let chosen = if plan.shrink > 1 { &chosen.shrink(plan.shrink)? } else { chosen };
    chosen.split(plan.held_out, 0)
}

/// Runs one search, resumed from the context's folder where it has one.
fn search(
    context: &mut Context,
    plan: &Plan,
    arm: &Arm,
    seed: u64,
    data: (&Images, &Images),
    known: &mut Known,
) -> Result<SearchReport> {
    let label = format!("{}, seed {seed}", arm.name);
    let path = context.folder.as_ref().map(|f| f.join(format!("{}-{seed}.json", arm.name.replace(", ", "-").replace(' ', "-"))));
    let gpu = context.gpu.clone();
    let (population, children) = (arm.search.population, arm.search.population - arm.search.keep);
    let wanted = population + (arm.search.generations - 1) * children;
    let mut done = 0;
    let mut evaluate = |g: &Genotype| -> Result<f64> {
        done += 1;
        if let Some(&(accuracy, _)) = known.get(&g.hash()) {
            return Ok(accuracy);
        }
        let began = Instant::now();
        let accuracy = proxy_accuracy(&gpu, g, plan.proxy, &plan.train, data)?;
        known.insert(g.hash(), (accuracy, began.elapsed().as_secs_f64()));
        let text = format!("{:.1} % with {g}", 100.0 * accuracy);
        context.watch.progress(&label, f64::from(done) / wanted as f64, &text);
        Ok(accuracy)
    };
    let report = match path {
        Some(path) => arm.search.run_saved(&path, &mut evaluate)?,
        None => arm.search.run(&mut evaluate)?,
    };
    // A continued search brings evaluations from before; later arms may meet them too.
    for i in report.trained() {
        known.entry(i.genotype.hash()).or_insert((i.accuracy, i.seconds));
    }
    Ok(report)
}

fn mean<T>(items: &[T], value: impl Fn(&T) -> f64) -> f64 {
    items.iter().map(value).sum::<f64>() / items.len().max(1) as f64
}

/// Trains the winner where the plan says so, and writes the figures of an arm down.
fn record(
    context: &mut Context,
    outcome: &mut Outcome,
    plan: &Plan,
    (arm, seed): (&Arm, u64),
    report: &SearchReport,
    known: &Known,
    (train, test): (&Images, &Dataset),
) -> Result<()> {
    let trained: Vec<&Individual> = report.trained().collect();
    let best = report.best().ok_or_else(|| Error::value("eeea-net", "no proxy was trained"))?;
    let start: Vec<&Individual> = report.history.iter().filter(|i| i.generation == 0).collect();
    let image = (train.size()[0], train.size()[1]);
    let macs = trained.iter().map(|i| mac_count(&i.genotype, &plan.proxy, image)).collect::<Result<Vec<u64>>>()?;
    let seconds: f64 = trained.iter().map(|i| known.get(&i.genotype.hash()).map_or(i.seconds, |k| k.1)).sum();
    let area = report.hypervolume([0.9, plan.reference]) / (0.9 * plan.reference);
    let mut values = vec![
        (ERROR, 100.0 * (1.0 - best.accuracy)),
        (PARAMS, mean(&trained, |i| i.params as f64) / 1e3),
        (FIRST, mean(&start, |i| i.params as f64) / 1e3),
        (MACS, mean(&macs, |&m| m as f64) / 1e6),
        (TIME, seconds / trained.len() as f64),
        (TOTAL, seconds),
        (TRAINED, trained.len() as f64),
        (DRAWN, report.draws as f64),
        (REJECTED, report.rejected as f64),
        (VOLUME, 100.0 * area),
    ];
    context.watch.say(&format!(
        "{}, seed {seed}: {} of {} draws rejected, {} proxies trained in {seconds:.0} s, best {:.1} %: {}",
        arm.name,
        report.rejected,
        report.draws,
        trained.len(),
        100.0 * best.accuracy,
        best.genotype
    ));
    if let Some((net, cfg)) = &plan.winner {
        let winner = report.front.iter().reduce(|a, b| if b.accuracy > a.accuracy { b } else { a }).unwrap_or(best);
        let stats = context.pair().train.channel_stats()?;
        let test = Images::upload(&context.gpu, test, &stats)?;
        let found = train_cells(&context.gpu, &winner.genotype, *net, cfg, (train, &test), &mut NoHooks)?;
        values.push((TEST, 100.0 * (1.0 - found.valid.accuracy)));
        let name = format!("{}, seed {seed}", arm.name);
        context.watch.say(&format!("{name}: the winner has {:.2} % test accuracy", 100.0 * found.valid.accuracy));
    }
    outcome.record(arm.name, arm.role, seed, &values)
}

fn outcome(plan: &Plan, train: &Dataset, valid: &Dataset) -> Outcome {
    let (s, p, t) = (&plan.search, &plan.proxy, &plan.train);
    let data = format!(
        "{}: {} training and {} validation pictures of {}x{}x{}, both of the training set",
        train.name.trim_end_matches(" train"),
        train.len(),
        valid.len(),
        train.height,
        train.width,
        train.channels
    );
    let setting = format!(
        "{} generations of {} genotypes of {} blocks, {} kept; proxies of {} cells from {} channels, {} epochs in batches \
         of {}; threshold of {} parameters on {} cells from {} channels",
        s.generations,
        s.population,
        s.blocks,
        s.keep,
        p.layers,
        p.c0,
        t.epochs,
        t.batch,
        plan.beta,
        s.full.layers,
        s.full.c0
    );
    let mut o = Outcome::new(data, setting)
        .metric(ERROR, "%", Better::Lower, 1)
        .metric(PARAMS, "thousand", Better::Lower, 1)
        .metric(FIRST, "thousand", Better::Lower, 1)
        .metric(MACS, "million", Better::Lower, 2)
        .metric(TIME, "s", Better::Lower, 2)
        .metric(TOTAL, "s", Better::Lower, 1)
        .metric(TRAINED, "", Better::Neither, 0)
        .metric(DRAWN, "", Better::Neither, 0)
        .metric(REJECTED, "", Better::Neither, 0)
        .metric(VOLUME, "%", Better::Higher, 1);
    if plan.winner.is_some() {
        o = o.metric(TEST, "%", Better::Lower, 2);
    }
    let noise = 100.0 * (0.25f64 * 0.75 / valid.len() as f64).sqrt();
    o.note(format!(
        "An accuracy of 25 % measured on {} pictures has a standard error of {noise:.1} points, and the best of many is a \
         little above what it is worth.",
        valid.len()
    ));
    o.note("Children above the threshold are not trained, as in the published code; they count for none of the means.");
    o.note("Seconds depend on what else the machine does; multiply-adds do not.");
    o.note(
        "Both searches of a seed begin with the same random numbers, and a genotype that both meet is trained once: its \
         accuracy and seconds stand for both.",
    );
    o.note(format!(
        "The dominated area is that of all trained candidates in the plane of error and parameters, as a share of what lies \
         below 90 % and {:.0} parameters.",
        plan.reference
    ));
    o
}

fn compare(o: &mut Outcome, random: bool, winner: bool) {
    let pair = (EXIT, FREE);
    let paper = "abstract: 2.46 % error on CIFAR-10 after 0.52 GPU days of search";
    o.compare("the early exit costs no accuracy", ERROR, pair, Expect::Within(2.0), paper);
    let none = "no figure; expected from random genotypes of the paper's size: 5.9 to below 3 million";
    o.compare("the candidates are smaller", PARAMS, pair, Expect::Lower, none);
    let none = "no figure; expected from random genotypes of the paper's size: 81.9 to 45.7 million";
    o.compare("the candidates take fewer operations", MACS, pair, Expect::Lower, none);
    o.compare("the search takes less time", TOTAL, pair, Expect::Lower, "abstract: 0.52 GPU days against 4 of NSGA-Net");
    if random {
        o.compare("evolution does better than chance", VOLUME, (EXIT, RANDOM), Expect::Higher, "no figure");
    }
    if winner {
        o.compare("what is found is as good", TEST, pair, Expect::Within(0.5), paper);
    }
}

/// The candidates, the fronts, and the error over what was spent.
fn draw(reports: &[(&str, SearchReport)], plan: &Plan) -> Vec<Chart> {
    let error = |i: &Individual| 100.0 * (1.0 - i.accuracy);
    let mut cloud = Chart::scatter("Trained candidates", "parameters, thousand", "validation error, %");
    let mut fronts = Chart::lines("Pareto fronts", "parameters, thousand", "validation error, %");
    let mut spent = Chart::lines("Best error over the search", "multiply-adds of all proxies so far, million an image", "validation error, %");
    for (name, report) in reports {
        let point = |i: &Individual| (i.params as f64 / 1e3, error(i));
        cloud.push(name, report.trained().map(point).collect());
        fronts.push(name, report.archive_front().into_iter().map(point).collect());
        let (mut sum, mut best) = (0.0, f64::INFINITY);
        let course = report.trained().map(|i| {
            // The genotype was built, so it can be counted.
            sum += mac_count(&i.genotype, &plan.proxy, plan.search.image).unwrap_or(0) as f64 / 1e6;
            best = best.min(error(i));
            (sum, best)
        });
        spent.push(name, course.collect());
    }
    vec![fronts, cloud, spent]
}
