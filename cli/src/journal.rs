//! What a training run writes besides its records: environment.json, pictures and report.html. The report is written when
//! the run begins (what cannot be written is found then), while it goes on, and however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use shadegrad::data::Dataset;
use shadegrad::metrics::{self, ConfusionMatrix, ReliabilityBin, Scores};
use shadegrad::nn::{Arena, Module};
use shadegrad::train::{EpochEnd, Images};
use shadegrad::{Error, Gpu, Result};

use crate::attention::{self, Maps};
use crate::config::Config;
use crate::folder::{self, write};
use crate::report::{bytes, duration, thousands};
use crate::runs::{CONFIG, ENVIRONMENT, End, Log, METRICS, PICTURES, REPORT};
use crate::view::{self, Chart, Drawing, Picture, Section, Table};

/// A report is written at most this often while the run goes on.
const EVERY: Duration = Duration::from_secs(15);
/// Bins of the calibration plot, those of the calibration error.
const BINS: usize = 15;
/// Pictures in a grid.
const SHOWN: usize = 24;
/// Filters of the first layer that are shown.
const FILTERS: usize = 128;
/// Classes up to which each has a row of its own.
const CLASSES: usize = 100;

/// What a run learns and is measured on.
pub struct Subject<'a> {
    pub model: &'a dyn Module,
    /// The test set on the device.
    pub images: &'a Images,
    /// The test set as it was read.
    pub test: Dataset,
    /// A number for the data, recorded for a run that goes on.
    pub digest: String,
}

/// Keeps the folder of a run readable for people.
pub struct Journal<'a> {
    folder: PathBuf,
    title: String,
    config: String,
    environment: Value,
    steps: u64,
    subject: Subject<'a>,
    /// What the last evaluation brought.
    looked: Option<Looked>,
    filters: Vec<Picture>,
    /// The parameter that they are.
    filter_name: String,
    /// Where the model looks, and after which epoch; `None` if it was not asked yet.
    attention: Option<(u64, Maps)>,
    written: Instant,
}

/// The outputs for the test set, looked at.
struct Looked {
    epoch: u64,
    confusion: ConfusionMatrix,
    bins: Vec<ReliabilityBin>,
    /// Some pictures of the test set, as they come.
    samples: Vec<Picture>,
    /// The wrong answers of the highest loss.
    mistakes: Vec<Picture>,
    wrong: usize,
}

impl<'a> Journal<'a> {
    /// Writes environment.json and the first report into the folder of a run of `steps` steps in all, which is measured
    /// on the test set of `subject`.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn new(folder: &Path, config: &Config, steps: u64, gpu: &Gpu, subject: Subject<'a>) -> Result<Self> {
        let path = folder.join(CONFIG);
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, &e))?;
        let environment = environment(folder, config, gpu, &subject.digest);
        write(&folder.join(ENVIRONMENT), format!("{environment:#}\n").as_bytes())?;
        let pictures = folder.join(PICTURES);
        fs::create_dir_all(&pictures).map_err(|e| Error::io(&pictures, &e))?;
        let data =
            Path::new(&config.data).file_name().map_or_else(|| config.data.clone().into(), |n| n.to_string_lossy());
        let mut journal = Self {
            folder: folder.into(),
            title: format!("{} on {data}", config.model),
            config: text,
            environment,
            steps,
            subject,
            looked: None,
            filters: Vec::new(),
            filter_name: String::new(),
            attention: None,
            written: Instant::now(),
        };
        journal.refresh()?;
        Ok(journal)
    }

    /// Takes up what an epoch brought. The report follows if the last one is old.
    ///
    /// # Errors
    /// If the device is lost, or the folder cannot be written.
    pub fn epoch(&mut self, end: &EpochEnd, arena: &Arena) -> Result<()> {
        let last = end.epoch == end.epochs;
        // A run that ends between two epochs has the picture of its last one.
        if let Some(test) = &end.test {
            self.looked = Some(Looked::new(end.epoch, &test.logits, &self.subject.test)?);
        }
        (self.filter_name, self.filters) = filters(arena, self.subject.test.channels)?;
        let due = self.written.elapsed() > EVERY;
        // Only for a page, and not again if there was none.
        let ask = match &self.attention {
            None => true,
            Some((_, maps)) => !maps.pictures.is_empty() && (last || due),
        };
        if ask {
            let Subject { model, images, test, .. } = &self.subject;
            self.attention = Some((end.epoch, attention::maps(*model, arena, images, |i| labelled(test, i))?));
        }
        if !last && due { self.refresh() } else { Ok(()) }
    }

    /// The heat maps, if there are any.
    fn maps(&self) -> Option<(u64, &Maps)> {
        self.attention.as_ref().filter(|(_, maps)| !maps.pictures.is_empty()).map(|(epoch, maps)| (*epoch, maps))
    }

    /// Writes the report and the pictures from what was recorded so far.
    ///
    /// # Errors
    /// If the folder cannot be written, or its records cannot be read.
    pub fn refresh(&mut self) -> Result<()> {
        let path = self.folder.join(METRICS);
        let log = Log::read(&path).map_err(|e| Error::data(&path, format!("{e:#}")))?;
        let charts = charts(&log);
        self.draw(&charts)?;
        let html = view::page(&format!("shadegrad: {}", self.title), &self.sections(&log, charts));
        write(&self.folder.join(REPORT), html.as_bytes())?;
        self.written = Instant::now();
        Ok(())
    }

    /// The pictures as files.
    fn draw(&self, charts: &[Chart]) -> Result<()> {
        let mut drawings: Vec<(String, Drawing)> = Vec::new();
        for chart in charts {
            drawings.push((folder::file_name(&chart.title), view::chart(chart)));
        }
        if let Some(looked) = &self.looked {
            drawings.push(("confusion".into(), looked.confusion_drawing(&self.subject.test.classes)));
            drawings.push(("calibration".into(), looked.calibration_drawing()));
        }
        let folder = self.folder.join(PICTURES);
        for (name, drawing) in drawings {
            folder::save_drawing(&folder, &name, &drawing)?;
        }
        let of = |f: fn(&Looked) -> &Vec<Picture>| self.looked.as_ref().map(f).filter(|p| !p.is_empty());
        for (name, pictures, columns) in [
            ("samples", of(|l| &l.samples), 8),
            ("mistakes", of(|l| &l.mistakes), 8),
            ("filters", Some(&self.filters).filter(|f| !f.is_empty()), 16),
            ("attention", self.maps().map(|m| &m.1.pictures), 6),
        ] {
            let Some(pictures) = pictures else { continue };
            let scale = 48usize.div_ceil(pictures[0].width);
            folder::save_picture(&folder, name, &view::grid(name, pictures, columns, scale))?;
        }
        Ok(())
    }

    fn sections(&self, log: &Log, charts: Vec<Chart>) -> Vec<Section> {
        let mut out = vec![Section::Notice(ending(log, self.steps))];
        if let Some(table) = result(log) {
            out.push(Section::Heading("Result".into()));
            out.push(Section::Table(table));
        }
        if !log.steps.is_empty() || !log.epochs.is_empty() {
            out.push(Section::Heading("Curves".into()));
            out.extend(charts.into_iter().map(Section::Chart));
        }
        if let Some(looked) = &self.looked {
            looked.sections(&mut out, &self.subject.test);
        }
        if !self.filters.is_empty() {
            out.push(Section::Heading("Filters of the first layer".into()));
            out.push(Section::Text(format!(
                "{}. Each on its own scale: middle grey is a weight of zero, the largest one is black, white or a full \
                 colour.",
                self.filter_name
            )));
            out.push(Section::Pictures { title: String::new(), pictures: self.filters.clone() });
        }
        if let Some((epoch, maps)) = self.maps() {
            out.push(Section::Heading("Where it looks".into()));
            let who = if maps.class_token { "the class token asks for" } else { "all patches ask for on average" };
            let all = match maps.layers {
                0 => String::new(),
                n => format!(
                    " After it the flow through the last {n} layers together, half of which goes past each layer \
                     (attention rollout)."
                ),
            };
            out.push(Section::Text(format!(
                "Attention after epoch {epoch}: beside each picture what {who} in the last layer, mean over the \
                 heads.{all} Each map on its own scale, from dark over red and yellow to white."
            )));
            out.push(Section::Pictures { title: String::new(), pictures: maps.pictures.clone() });
        }
        out.push(Section::Heading("Configuration".into()));
        out.push(Section::Text(format!("`shadegrad train --config {CONFIG}` repeats the run.")));
        out.push(Section::Code(self.config.clone()));
        out.push(Section::Heading("Environment".into()));
        out.push(Section::Table(folder::rows(&self.environment)));
        out.push(Section::Heading("Files".into()));
        out.push(Section::Text(format!(
            "{METRICS} has every figure, one JSON record a line; {PICTURES}/ has the charts as SVG and PNG. `shadegrad \
             compare` draws this run and others over each other."
        )));
        out
    }
}

impl Looked {
    fn new(epoch: u64, logits: &[f32], test: &Dataset) -> Result<Self> {
        let (classes, labels) = (test.classes.len(), &test.labels);
        let scores = Scores::logits(logits, classes);
        let mut confusion = ConfusionMatrix::new(test.classes.clone());
        confusion.add(scores, labels)?;
        let predicted = metrics::predictions(scores)?;
        let losses = metrics::nll_per_sample(scores, labels)?;
        let mut wrong: Vec<usize> = (0..labels.len()).filter(|&i| predicted[i] != labels[i]).collect();
        // The order of the set decides between equals.
        wrong.sort_by(|a, b| losses[*b].total_cmp(&losses[*a]).then(a.cmp(b)));
        let picture = |i: usize| -> Result<Picture> {
            let (label, said) = (labels[i] as usize, predicted[i] as usize);
            let one = Scores::logits(&logits[i * classes..][..classes], classes);
            // How sure the answer was: the probability of the answer is exp(-loss) as if it were the label.
            let sure = (-metrics::nll(one, &[said as u32])?).exp();
            let name = |c: usize| test.classes[c].as_str();
            let title = if label == said {
                format!("{} ({:.0} %)", name(label), 100.0 * sure)
            } else {
                format!("is {}\nsaid {} ({:.0} %)", name(label), name(said), 100.0 * sure)
            };
            let (pixels, _) = test.get(i).ok_or_else(|| Error::value("report", format!("no picture {i}")))?;
            Ok(shown(title, pixels, [test.height, test.width, test.channels]))
        };
        Ok(Self {
            epoch,
            confusion,
            bins: metrics::reliability_bins(scores, labels, BINS)?,
            samples: (0..labels.len().min(SHOWN)).map(picture).collect::<Result<_>>()?,
            mistakes: wrong.iter().take(SHOWN).map(|&i| picture(i)).collect::<Result<_>>()?,
            wrong: wrong.len(),
        })
    }

    fn confusion_drawing(&self, names: &[String]) -> Drawing {
        view::confusion(&format!("Confusion after epoch {}", self.epoch), &self.confusion, names)
    }

    fn calibration_drawing(&self) -> Drawing {
        view::reliability(&format!("Calibration after epoch {}", self.epoch), &self.bins)
    }

    fn sections(&self, out: &mut Vec<Section>, test: &Dataset) {
        let names = &test.classes;
        out.push(Section::Heading("Predictions on the test set".into()));
        out.push(Section::Drawing(self.confusion_drawing(names)));
        out.push(Section::Drawing(self.calibration_drawing()));
        let m = &self.confusion;
        if m.classes() <= CLASSES {
            let percent = |v: Option<f64>| v.map_or(String::new(), |v| format!("{:.2}", 100.0 * v));
            let row = |c: usize| {
                let figures = [m.precision(c), m.recall(c), m.f1(c)].map(percent);
                [vec![names[c].clone()], figures.to_vec(), vec![thousands(m.support(c) as usize)]].concat()
            };
            let head = ["class", "precision %", "recall %", "F1 %", "pictures"].map(String::from).to_vec();
            out.push(Section::Table(Table {
                title: "By class".into(),
                head,
                rows: (0..m.classes()).map(row).collect(),
            }));
        }
        let pairs = (0..m.classes()).flat_map(|y| (0..m.classes()).map(move |p| (y, p))).filter(|(y, p)| y != p);
        let mut pairs: Vec<(u64, usize, usize)> =
            pairs.map(|(y, p)| (m.count(y, p), y, p)).filter(|(count, ..)| *count > 0).collect();
        pairs.sort_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        if !pairs.is_empty() {
            let row =
                |&(count, y, p): &(u64, usize, usize)| vec![names[y].clone(), names[p].clone(), count.to_string()];
            out.push(Section::Table(Table {
                title: "Most often confused".into(),
                head: ["true class", "answer", "pictures"].map(String::from).to_vec(),
                rows: pairs.iter().take(10).map(row).collect(),
            }));
        }
        if !self.mistakes.is_empty() {
            out.push(Section::Heading("Worst mistakes".into()));
            out.push(Section::Text(format!(
                "The {} of {} wrong answers with the highest loss, and how sure they were.",
                self.mistakes.len(),
                thousands(self.wrong)
            )));
            out.push(Section::Pictures { title: String::new(), pictures: self.mistakes.clone() });
        }
        out.push(Section::Heading("Samples".into()));
        out.push(Section::Text(format!("The first {} pictures of the test set.", self.samples.len())));
        out.push(Section::Pictures { title: String::new(), pictures: self.samples.clone() });
    }
}

/// How the run stands or ended, in a sentence or two.
fn ending(log: &Log, steps: u64) -> String {
    let at = format!("after step {} of {}", thousands(log.last_step() as usize), thousands(steps as usize));
    match &log.end {
        End::Finished(record) => {
            let seconds = record["time"]["seconds"].as_f64().unwrap_or(f64::NAN);
            format!("Finished: {} epochs in {}.", log.epochs.len(), duration(seconds))
        }
        End::Failed(message) => format!("Ended by an error {at}:\n{message}"),
        // The message says so itself.
        End::Interrupted(message) => format!("Interrupted: {}", message.trim_start_matches("interrupted: ")),
        End::Open => format!(
            "Under way: {at} when this page was written, at {}. If it was long ago, the run was killed: \
             `shadegrad train --resume` with its folder goes on from the last checkpoint.",
            crate::date::now()
        ),
    }
}

/// The figures of the last epoch and of the best.
fn result(log: &Log) -> Option<Table> {
    let (last, best) = (log.epochs.last()?, log.best());
    let both = |f: &dyn Fn(&crate::runs::EpochRecord) -> f64, show: &dyn Fn(f64) -> String| {
        [Some(last), best].map(|e| e.map(f).filter(|v| v.is_finite()).map_or(String::new(), show))
    };
    let percent = |v: f64| format!("{:.2} %", 100.0 * v);
    let number = |v: f64| format!("{v:.4}");
    let mut rows = Vec::new();
    let mut row = |name: &str, cells: [String; 2]| {
        if !cells[0].is_empty() {
            rows.push([vec![name.to_string()], cells.to_vec()].concat());
        }
    };
    row("test accuracy", both(&|e| e.accuracy, &percent));
    row("among the first five", both(&|e| e.top5, &percent));
    row("test loss", both(&|e| e.test_loss, &number));
    row("calibration error", both(&|e| e.ece, &number));
    row("Brier score", both(&|e| e.brier, &number));
    row("training loss", both(&|e| e.train_loss, &number));
    row("pictures per second", both(&|e| e.rate, &|v| thousands(v.round() as usize)));
    row("time so far", both(&|e| e.seconds, &duration));
    if let End::Finished(record) = &log.end
        && let Some(peak) = record["time"]["peak_memory_bytes"].as_u64()
    {
        row("most device memory", [bytes(peak), String::new()]);
    }
    let best = best.map_or("best".into(), |b| format!("best: epoch {}", b.epoch));
    Some(Table { title: String::new(), head: vec![String::new(), format!("last: epoch {}", last.epoch), best], rows })
}

/// The curves of a run.
fn charts(log: &Log) -> Vec<Chart> {
    let at_step = |f: fn(&crate::runs::EpochRecord) -> f64| log.epochs.iter().map(|e| (e.step as f64, f(e))).collect();
    let mut out = Vec::new();
    let mut loss = Chart::lines("Loss", "step", "nats");
    loss.push("training, last steps", log.by_step(|s| s.loss));
    loss.push("training, whole epoch", at_step(|e| e.train_loss));
    loss.push("test", at_step(|e| e.test_loss));
    out.push(loss);
    let mut accuracy = Chart::lines("Test accuracy", "epoch", "%");
    accuracy.push("right", log.by_epoch(|e| 100.0 * e.accuracy));
    if log.epochs.iter().any(|e| e.top5.is_finite()) {
        accuracy.push("among the first five", log.by_epoch(|e| 100.0 * e.top5));
    }
    out.push(accuracy);
    let mut rate = Chart::lines("Learning rate", "step", "rate");
    rate.push("", log.by_step(|s| s.lr));
    out.push(rate);
    let mut sure = Chart::lines("Calibration over time", "epoch", "error");
    sure.push("expected calibration error", log.by_epoch(|e| e.ece));
    sure.push("Brier score", log.by_epoch(|e| e.brier));
    out.push(sure);
    out
}

/// The weights of the first layer as pictures, if it is a convolution over the pictures' channels.
fn filters(arena: &Arena, channels: usize) -> Result<(String, Vec<Picture>)> {
    // Weights of convolutions are the only parameters of four dimensions: outputs, height, width, inputs.
    let Some((name, w)) = arena.params().iter().find(|(_, t)| t.rank() == 4) else { return Ok(Default::default()) };
    let &[outputs, height, width, inputs] = w.shape() else { return Ok(Default::default()) };
    if inputs != channels || ![1, 3].contains(&channels) || height * width < 4 {
        return Ok(Default::default());
    }
    let values = w.to_vec()?;
    let size = height * width * channels;
    let one = |(i, filter): (usize, &[f32])| {
        let largest = filter.iter().fold(0.0f32, |m, v| m.max(v.abs())).max(f32::MIN_POSITIVE);
        let pixels: Vec<u8> = filter.iter().map(|v| (127.5 + 127.5 * v / largest).round() as u8).collect();
        shown(i.to_string(), &pixels, [height, width, channels])
    };
    let pictures = values.chunks_exact(size).take(outputs.min(FILTERS)).enumerate().map(one).collect();
    Ok((name.to_string(), pictures))
}

/// A picture of a data set with its class.
fn labelled(test: &Dataset, i: usize) -> Result<Picture> {
    let (pixels, label) = test.get(i).ok_or_else(|| Error::value("report", format!("no picture {i}")))?;
    Ok(shown(test.classes[label as usize].clone(), pixels, [test.height, test.width, test.channels]))
}

/// A picture of a data set: rows of pixels of channels.
fn shown(title: String, pixels: &[u8], [height, width, channels]: [usize; 3]) -> Picture {
    let rgb = |p: &[u8]| match *p {
        [r, g, b, ..] => [r, g, b],
        [v, ..] => [v; 3],
        [] => [0; 3],
    };
    Picture { title, width, height, rgb: pixels.chunks_exact(channels).flat_map(rgb).collect() }
}

/// What the run runs on and with. A run that goes on keeps what it ran on before.
fn environment(folder: &Path, config: &Config, gpu: &Gpu, digest: &str) -> Value {
    let mut now = folder::environment(gpu);
    now["seed"] = config.seed.into();
    now["data_digest"] = digest.into();
    let before = fs::read_to_string(folder.join(ENVIRONMENT)).ok().and_then(|t| serde_json::from_str::<Value>(&t).ok());
    if let Some(mut before) = before {
        let mut earlier = match before.as_object_mut().and_then(|b| b.remove("earlier")) {
            Some(Value::Array(earlier)) => earlier,
            _ => Vec::new(),
        };
        earlier.push(before);
        now["earlier"] = earlier.into();
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mistakes_come_worst_first() {
        let classes = ["cat", "dog"].map(String::from).to_vec();
        let test = Dataset::new("t", vec![10, 20, 30, 40], vec![0, 1, 0, 1], [1, 1, 1], classes).unwrap();
        let looked = Looked::new(3, &[2.0, 0.0, 1.0, 0.0, 0.0, 3.0, 0.0, 1.0], &test).unwrap();
        let titles: Vec<&str> = looked.mistakes.iter().map(|p| p.title.as_str()).collect();
        assert_eq!(titles, ["is cat\nsaid dog (95 %)", "is dog\nsaid cat (73 %)"]);
        assert_eq!(looked.mistakes[0].rgb, [30; 3]);
        assert_eq!((looked.wrong, looked.samples.len(), looked.samples[0].title.as_str()), (2, 4, "cat (88 %)"));
    }

    #[test]
    fn endings() {
        let with = |end| ending(&Log { end, ..Log::default() }, 100);
        assert!(with(End::Failed("boom".into())).contains("Ended by an error after step 0 of 100:\nboom"));
        assert!(with(End::Interrupted("interrupted: saved".into())).contains("Interrupted: saved"));
        assert!(with(End::Open).contains("Under way"));
        assert!(with(End::Finished(json!({ "time": { "seconds": 3.0 } }))).contains("in 3.0 s"));
    }
}
