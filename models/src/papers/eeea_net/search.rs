//! The evolution: initial population with early exit, evaluation, selection, variation, and a state on disk.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Instant;

use shadegrad::rng::Philox;
use shadegrad::{Error, Result};

use super::{Concat, Genotype, NetCfg, genetics, mac_count, nsga2, param_count, state};

const OP: &str = "architecture search";

/// Stream of the seed that all genetic choices are drawn from.
pub(super) const STREAM: u64 = 0x4545_4541_0000_0000;

/// An evolutionary search over genotypes. [`Search::default`] has the paper's numbers.
///
/// Objectives, all minimised: error of the trained proxy in per cent, parameters of the full network in millions, its
/// multiply-adds in thousand millions. Dominance is by the first two, crowding by all. The published code crowds by the
/// seconds of an epoch as well, which no second run reproduces; [`Search::compat`] does.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// use shadegrad_models::papers::eeea_net::{Genotype, Op, Search};
/// let search = Search { population: 4, generations: 2, keep: 2, blocks: 2, ..Search::default() };
/// // In place of training: skips are good.
/// let mut evaluate = |g: &Genotype| Ok(g.normal.iter().filter(|b| b.op1 == Op::Skip).count() as f64 / 2.0);
/// let report = search.run(&mut evaluate)?;
/// assert_eq!(report.history.len(), 4 + 2); // two live on in the second generation
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Genotypes of a generation.
    pub population: usize,
    /// Generations, the initial one included.
    pub generations: usize,
    /// Genotypes that live on and are the parents, at least 2.
    pub keep: usize,
    /// Probability that a child has one operation and its state drawn anew.
    pub p_mut: f64,
    /// Probability that a child has two neighbouring operations exchanged.
    pub p_inv: f64,
    /// The early exit: parameters that the full network must stay below. In the initial population other genotypes are
    /// drawn again, later they are given an accuracy of 0 untrained. `None` for no threshold.
    pub beta: Option<usize>,
    /// The full network.
    pub full: NetCfg,
    /// Height and width of the images that multiply-adds are counted for.
    pub image: (usize, usize),
    /// Blocks of a cell.
    pub blocks: usize,
    /// Whether cells give the states of all blocks; otherwise their loose ends.
    pub concat_all: bool,
    /// Decides all genetic choices.
    pub seed: u64,
    /// Draws in a row that may be refused (too large, or known) before the search gives up.
    pub max_draws: usize,
    /// Does as the published code does where it departs from the paper's idea: the inversion copies in place of
    /// exchanging, and seconds are an objective of crowding.
    pub compat: bool,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            population: 40,
            generations: 30,
            keep: 4,
            p_mut: 0.1,
            p_inv: 0.1,
            beta: None,
            full: NetCfg::full(10),
            image: (32, 32),
            blocks: 5,
            concat_all: false,
            seed: 0,
            max_draws: 10_000,
            compat: false,
        }
    }
}

/// A genotype that a search judged.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::eeea_net::{Genotype, SearchReport};
/// use shadegrad_models::papers::eeea_net::Individual;
/// # let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
/// # let one = |accuracy, params| {
/// #     let (genotype, generation, trained) = (genotype.clone(), 0, true);
/// #     Individual { genotype, generation, params, macs: 0, accuracy, trained, seconds: 1.0 }
/// # };
/// # let history = vec![one(0.75, 2_000_000), one(0.5, 1_000_000), one(0.25, 3_000_000)];
/// # let report = SearchReport { front: vec![], history, draws: 3, rejected: 0, evaluations: 3 };
/// // Accuracies of 0.75, 0.5 and 0.25 with 2, 1 and 3 million parameters, a second each.
/// let best: &Individual = &report.history[0];
/// assert_eq!(best.objectives()[1], 2.0); // million parameters
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Individual {
    /// The genotype.
    pub genotype: Genotype,
    /// The generation it was made for, from 0.
    pub generation: usize,
    /// Parameters of its full network.
    pub params: usize,
    /// Multiply-adds of its full network for one image.
    pub macs: u64,
    /// Validation accuracy of the proxy from 0 to 1; 0 if it was not trained.
    pub accuracy: f64,
    /// Whether a proxy was trained: not if the full network is too large.
    pub trained: bool,
    /// Seconds that took.
    pub seconds: f64,
}

impl Individual {
    /// Error in per cent, millions of parameters, thousand millions of multiply-adds.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::{Genotype, Individual};
    /// let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
    /// let (params, macs, accuracy) = (2_000_000, 500_000_000, 0.75);
    /// let one = Individual { genotype, generation: 0, params, macs, accuracy, trained: true, seconds: 9.0 };
    /// assert_eq!(one.objectives(), [25.0, 2.0, 0.5]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn objectives(&self) -> Vec<f64> {
        vec![100.0 * (1.0 - self.accuracy), self.params as f64 / 1e6, self.macs as f64 / 1e9]
    }
}

/// What the initial population came from.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad::rng::Philox;
/// use shadegrad_models::papers::eeea_net::{Draws, Search};
/// let search = Search { population: 8, ..Search::default() };
/// let made: Draws = search.initial(&mut Philox::new(0, 0))?;
/// assert_eq!((made.genotypes.len(), made.rejected), (8, 0)); // without a threshold none is too large
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Draws {
    /// The genotypes, as many as asked for.
    pub genotypes: Vec<Genotype>,
    /// Genotypes drawn for them.
    pub draws: usize,
    /// How many of those were too large.
    pub rejected: usize,
}

/// What a search came to.
///
/// ```
/// # use shadegrad::{nn::*, *};
/// # use shadegrad_models::papers::eeea_net::{Genotype, Individual};
/// use shadegrad_models::papers::eeea_net::SearchReport;
/// # let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
/// # let one = |accuracy, params| {
/// #     let (genotype, generation, trained) = (genotype.clone(), 0, true);
/// #     Individual { genotype, generation, params, macs: 0, accuracy, trained, seconds: 1.0 }
/// # };
/// # let history = vec![one(0.75, 2_000_000), one(0.5, 1_000_000), one(0.25, 3_000_000)];
/// # let report = SearchReport { front: vec![], history, draws: 3, rejected: 0, evaluations: 3 };
/// // Accuracies of 0.75, 0.5 and 0.25 with 2, 1 and 3 million parameters, a second each.
/// let answer: SearchReport = report;
/// assert_eq!(answer.best().map(|i| i.params), Some(2_000_000));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct SearchReport {
    /// The first front of the last population, by falling crowding distance; its first member is the search's answer.
    pub front: Vec<Individual>,
    /// All genotypes in the order they were judged.
    pub history: Vec<Individual>,
    /// Genotypes drawn for the initial population.
    pub draws: usize,
    /// How many of those were too large.
    pub rejected: usize,
    /// Proxies trained.
    pub evaluations: usize,
}

impl SearchReport {
    /// Those that were trained.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::eeea_net::{Genotype, Individual, SearchReport};
    /// # let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
    /// # let one = |accuracy, params| {
    /// #     let (genotype, generation, trained) = (genotype.clone(), 0, true);
    /// #     Individual { genotype, generation, params, macs: 0, accuracy, trained, seconds: 1.0 }
    /// # };
    /// # let history = vec![one(0.75, 2_000_000), one(0.5, 1_000_000), one(0.25, 3_000_000)];
    /// # let report = SearchReport { front: vec![], history, draws: 3, rejected: 0, evaluations: 3 };
    /// // Accuracies of 0.75, 0.5 and 0.25 with 2, 1 and 3 million parameters, a second each.
    /// assert_eq!(report.trained().count(), 3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn trained(&self) -> impl Iterator<Item = &Individual> {
        self.history.iter().filter(|i| i.trained)
    }

    /// The first front, by error and parameters, of all that were trained, by rising number of parameters.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::eeea_net::{Genotype, Individual, SearchReport};
    /// # let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
    /// # let one = |accuracy, params| {
    /// #     let (genotype, generation, trained) = (genotype.clone(), 0, true);
    /// #     Individual { genotype, generation, params, macs: 0, accuracy, trained, seconds: 1.0 }
    /// # };
    /// # let history = vec![one(0.75, 2_000_000), one(0.5, 1_000_000), one(0.25, 3_000_000)];
    /// # let report = SearchReport { front: vec![], history, draws: 3, rejected: 0, evaluations: 3 };
    /// // Accuracies of 0.75, 0.5 and 0.25 with 2, 1 and 3 million parameters, a second each.
    /// // The third is worse than both others in either respect.
    /// let sizes: Vec<usize> = report.archive_front().iter().map(|i| i.params).collect();
    /// assert_eq!(sizes, [1_000_000, 2_000_000]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn archive_front(&self) -> Vec<&Individual> {
        let trained: Vec<&Individual> = self.trained().collect();
        let points: Vec<Vec<f64>> = trained.iter().map(|i| i.objectives()).collect();
        let front = nsga2::fronts(&points, 2).into_iter().next().unwrap_or_default();
        let mut front: Vec<&Individual> = front.into_iter().map(|i| trained[i]).collect();
        front.sort_by_key(|i| i.params);
        front
    }

    /// The highest accuracy of a trained proxy, and whose it is.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::eeea_net::{Genotype, Individual, SearchReport};
    /// # let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
    /// # let one = |accuracy, params| {
    /// #     let (genotype, generation, trained) = (genotype.clone(), 0, true);
    /// #     Individual { genotype, generation, params, macs: 0, accuracy, trained, seconds: 1.0 }
    /// # };
    /// # let history = vec![one(0.75, 2_000_000), one(0.5, 1_000_000), one(0.25, 3_000_000)];
    /// # let report = SearchReport { front: vec![], history, draws: 3, rejected: 0, evaluations: 3 };
    /// // Accuracies of 0.75, 0.5 and 0.25 with 2, 1 and 3 million parameters, a second each.
    /// assert_eq!(report.best().map(|i| i.accuracy), Some(0.75));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn best(&self) -> Option<&Individual> {
        // The first of equals: `max_by` would give the last.
        self.trained().reduce(|a, b| if b.accuracy > a.accuracy { b } else { a })
    }

    /// Area that the trained genotypes dominate in the plane of error (0 to 1) and parameters, up to `reference`.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::eeea_net::{Genotype, Individual, SearchReport};
    /// # let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
    /// # let one = |accuracy, params| {
    /// #     let (genotype, generation, trained) = (genotype.clone(), 0, true);
    /// #     Individual { genotype, generation, params, macs: 0, accuracy, trained, seconds: 1.0 }
    /// # };
    /// # let history = vec![one(0.75, 2_000_000), one(0.5, 1_000_000), one(0.25, 3_000_000)];
    /// # let report = SearchReport { front: vec![], history, draws: 3, rejected: 0, evaluations: 3 };
    /// // Accuracies of 0.75, 0.5 and 0.25 with 2, 1 and 3 million parameters, a second each.
    /// let area = 0.75 * 2e6 + 0.5 * 1e6;
    /// assert_eq!(report.hypervolume([1.0, 4e6]), area);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn hypervolume(&self, reference: [f64; 2]) -> f64 {
        let points: Vec<[f64; 2]> = self.trained().map(|i| [1.0 - i.accuracy, i.params as f64]).collect();
        nsga2::hypervolume(&points, reference)
    }

    /// Seconds spent on training proxies.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad_models::papers::eeea_net::{Genotype, Individual, SearchReport};
    /// # let genotype: Genotype = "skip.0 max3.0 ; sep3.0 avg3.0".parse()?;
    /// # let one = |accuracy, params| {
    /// #     let (genotype, generation, trained) = (genotype.clone(), 0, true);
    /// #     Individual { genotype, generation, params, macs: 0, accuracy, trained, seconds: 1.0 }
    /// # };
    /// # let history = vec![one(0.75, 2_000_000), one(0.5, 1_000_000), one(0.25, 3_000_000)];
    /// # let report = SearchReport { front: vec![], history, draws: 3, rejected: 0, evaluations: 3 };
    /// // Accuracies of 0.75, 0.5 and 0.25 with 2, 1 and 3 million parameters, a second each.
    /// assert_eq!(report.seconds(), 3.0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn seconds(&self) -> f64 {
        self.history.iter().map(|i| i.seconds).sum()
    }
}

/// Where a search stands: all that its continuation depends on.
pub(super) struct State {
    pub rng: Philox,
    pub generation: usize,
    pub population: Vec<Vec<usize>>,
    pub history: Vec<Individual>,
    pub draws: usize,
    pub rejected: usize,
}

impl Search {
    /// Searches. `evaluate` gives the validation accuracy (0 to 1) of a genotype's proxy: it may train anything on any
    /// data, and is asked once for each genotype.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::{Genotype, Search};
    /// let search = Search { population: 4, generations: 3, keep: 2, blocks: 2, seed: 7, ..Search::default() };
    /// let mut asked = 0;
    /// let report = search.run(&mut |_: &Genotype| {
    ///     asked += 1; // here the candidate's proxy is trained
    ///     Ok(0.5)
    /// })?;
    /// assert_eq!((report.evaluations, asked), (4 + 2 + 2, 8)); // each genotype once
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a number is out of range, no small enough genotype turns up in [`Search::max_draws`] draws, an accuracy is not
    /// within 0 and 1, and the errors of `evaluate`.
    pub fn run(&self, evaluate: &mut impl FnMut(&Genotype) -> Result<f64>) -> Result<SearchReport> {
        self.check()?;
        let start = self.start()?;
        self.proceed(start, evaluate, &mut |_| Ok(()))
    }

    /// [`Search::run`] with the state in a file, which is written under another name and renamed after every evaluation.
    /// If the file is there the search continues where it ended; the report is then that of an unbroken search (times
    /// aside), provided that `evaluate` gives the same accuracies.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// use shadegrad_models::papers::eeea_net::{Genotype, Search};
    /// # let path = std::env::temp_dir().join(format!("shadegrad-search-{}.json", std::process::id()));
    /// let search = Search { population: 4, generations: 2, keep: 2, blocks: 2, ..Search::default() };
    /// let report = search.run_saved(&path, &mut |_: &Genotype| Ok(0.5))?;
    /// // The file holds all there is to know: nothing is evaluated again.
    /// let again = search.run_saved(&path, &mut |_: &Genotype| Err(Error::value("evaluate", "asked again")))?;
    /// assert_eq!(again.history.len(), report.history.len());
    /// # std::fs::remove_file(&path).ok();
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Search::run`]; also if the file cannot be read or written, or is that of another search.
    pub fn run_saved(
        &self,
        path: &Path,
        evaluate: &mut impl FnMut(&Genotype) -> Result<f64>,
    ) -> Result<SearchReport> {
        self.check()?;
        let start = if path.exists() { state::load(self, path)? } else { self.start()? };
        state::save(self, &start, path)?;
        self.proceed(start, evaluate, &mut |s| state::save(self, s, path))
    }

    /// The initial population (EE-PI): random genotypes, all different, of fewer than [`Search::beta`] parameters.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # use shadegrad::rng::Philox;
    /// use shadegrad_models::papers::eeea_net::{NetCfg, Search, param_count};
    /// let (population, blocks, full) = (4, 2, NetCfg::proxy(10));
    /// let search = Search { population, blocks, full, beta: Some(200_000), ..Search::default() };
    /// let made = search.initial(&mut Philox::new(0, 0))?;
    /// assert!(made.genotypes.iter().all(|g| param_count(g, &full).is_ok_and(|n| n < 200_000)));
    /// assert!(made.draws >= made.rejected + 4);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Search::run`].
    pub fn initial(&self, rng: &mut Philox) -> Result<Draws> {
        let mut made = Draws { genotypes: Vec::new(), draws: 0, rejected: 0 };
        let mut refused = 0;
        while made.genotypes.len() < self.population {
            if refused >= self.max_draws {
                return Err(Error::value(
                    OP,
                    format!(
                        "{refused} genotypes in a row were refused, {} of {} drawn so far for having {} parameters or \
                         more; raise `beta` or `blocks`, or lower `population`",
                        made.rejected,
                        made.draws,
                        self.beta.unwrap_or(0)
                    ),
                ));
            }
            let genotype = self.genotype(&genetics::random(self.blocks, rng))?;
            made.draws += 1;
            refused += 1;
            if self.too_large(param_count(&genotype, &self.full)?) {
                made.rejected += 1;
            } else if !made.genotypes.contains(&genotype) {
                made.genotypes.push(genotype);
                refused = 0;
            }
        }
        Ok(made)
    }

    pub(super) fn genotype(&self, genes: &[usize]) -> Result<Genotype> {
        let concat = if self.concat_all { Concat::All } else { Concat::LooseEnds };
        Ok(Genotype::from_chromosome(genes)?.concat(concat))
    }

    fn too_large(&self, params: usize) -> bool {
        self.beta.is_some_and(|beta| params >= beta)
    }

    fn check(&self) -> Result<()> {
        let probability = |p: f64| (0.0..=1.0).contains(&p);
        let sound = self.keep >= 2
            && self.population > self.keep
            && self.generations > 0
            && self.blocks > 0
            && self.max_draws > 0
            && probability(self.p_mut)
            && probability(self.p_inv);
        if sound {
            return Ok(());
        }
        Err(Error::value(
            OP,
            format!(
                "population {}, {} kept, {} generations, {} blocks, {} draws, probabilities {} and {}: at least 2 must be \
                 kept of a larger population, the other numbers be at least 1, probabilities within 0 and 1",
                self.population,
                self.keep,
                self.generations,
                self.blocks,
                self.max_draws,
                self.p_mut,
                self.p_inv
            ),
        ))
    }

    fn start(&self) -> Result<State> {
        let mut rng = Philox::new(self.seed, STREAM);
        let made = self.initial(&mut rng)?;
        Ok(State {
            rng,
            generation: 0,
            population: made.genotypes.iter().map(Genotype::to_chromosome).collect(),
            history: Vec::new(),
            draws: made.draws,
            rejected: made.rejected,
        })
    }

    fn proceed(
        &self,
        mut s: State,
        evaluate: &mut impl FnMut(&Genotype) -> Result<f64>,
        save: &mut dyn FnMut(&State) -> Result<()>,
    ) -> Result<SearchReport> {
        let mut known: HashMap<Vec<usize>, usize> =
            s.history.iter().enumerate().map(|(i, one)| (one.genotype.to_chromosome(), i)).collect();
        loop {
            for genes in s.population.clone() {
                if known.contains_key(&genes) {
                    continue;
                }
                let one = self.judge(&genes, s.generation, evaluate)?;
                known.insert(genes, s.history.len());
                s.history.push(one);
                save(&s)?;
            }
            let members: Vec<usize> = s.population.iter().filter_map(|g| known.get(g).copied()).collect();
            let points: Vec<Vec<f64>> = members
                .iter()
                .map(|&i| {
                    let mut objectives = s.history[i].objectives();
                    if self.compat {
                        objectives.push(s.history[i].seconds);
                    }
                    objectives
                })
                .collect();
            let order = nsga2::order(&points, 2);
            if s.generation + 1 >= self.generations {
                let first = nsga2::fronts(&points, 2).first().map_or(0, Vec::len);
                let front = order.iter().take(first).map(|&at| s.history[members[at]].clone()).collect();
                let evaluations = s.history.iter().filter(|i| i.trained).count();
                let State { history, draws, rejected, .. } = s;
                return Ok(SearchReport { front, history, draws, rejected, evaluations });
            }
            let parents: Vec<usize> = order.into_iter().take(self.keep).collect();
            let objectives: Vec<Vec<f64>> = parents.iter().map(|&at| points[at].clone()).collect();
            let parents: Vec<Vec<usize>> = parents.iter().map(|&at| s.population[at].clone()).collect();
            let children = self.children(&parents, &objectives, &known, &mut s.rng)?;
            s.population = parents.into_iter().chain(children).collect();
            s.generation += 1;
            save(&s)?;
        }
    }

    /// A genotype's figures, trained unless it is too large.
    fn judge(
        &self,
        genes: &[usize],
        generation: usize,
        evaluate: &mut impl FnMut(&Genotype) -> Result<f64>,
    ) -> Result<Individual> {
        let genotype = self.genotype(genes)?;
        let params = param_count(&genotype, &self.full)?;
        let macs = mac_count(&genotype, &self.full, self.image)?;
        let trained = !self.too_large(params);
        let began = Instant::now();
        let accuracy = if trained { evaluate(&genotype)? } else { 0.0 };
        if !(0.0..=1.0).contains(&accuracy) {
            return Err(Error::value(OP, format!("an accuracy of {accuracy} for `{genotype}`; it must be within 0 and 1")));
        }
        let seconds = if trained { began.elapsed().as_secs_f64() } else { 0.0 };
        Ok(Individual { genotype, generation, params, macs, accuracy, trained, seconds })
    }

    /// The children of a generation: new to the search and to each other.
    fn children(
        &self,
        parents: &[Vec<usize>],
        objectives: &[Vec<f64>],
        known: &HashMap<Vec<usize>, usize>,
        rng: &mut Philox,
    ) -> Result<Vec<Vec<usize>>> {
        let wanted = self.population - parents.len();
        let mut children: Vec<Vec<usize>> = Vec::with_capacity(wanted);
        let mut seen: HashSet<Vec<usize>> = HashSet::new();
        let mut refused = 0;
        while children.len() < wanted {
            let Some((male, female)) = genetics::tournament(objectives, rng) else {
                return Err(Error::value(OP, format!("{} parents; at least 2 are needed", parents.len())));
            };
            for _ in 0..2 {
                let mut child = genetics::crossover(&parents[male], &parents[female], rng);
                if rng.uniform_f64() < self.p_mut {
                    genetics::mutate(&mut child, rng);
                }
                if rng.uniform_f64() < self.p_inv {
                    genetics::invert(&mut child, self.compat, rng);
                }
                if children.len() == wanted {
                    break;
                }
                // Everything judged is known, and that includes the parents.
                if known.contains_key(&child) || !seen.insert(child.clone()) {
                    refused += 1;
                    if refused >= self.max_draws {
                        return Err(Error::value(
                            OP,
                            format!(
                                "{refused} children in a row were known; raise `p_mut` or `blocks`, or lower \
                                 `population` or `generations`"
                            ),
                        ));
                    }
                    continue;
                }
                children.push(child);
                refused = 0;
            }
        }
        Ok(children)
    }
}
