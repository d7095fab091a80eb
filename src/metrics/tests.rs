use super::*;

/// Six samples of three classes, with a tie in the fourth.
const LOGITS: [f32; 18] =
    [2.0, -1.0, 0.5, 0.0, 3.0, 1.0, -0.5, 0.25, 0.125, 1.5, 1.5, -2.0, 0.1, 0.2, 4.0, 1.0, -3.0, 0.75];
const LABELS: [u32; 6] = [0, 2, 1, 1, 2, 2];

fn near(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-7, "{got} is not {want}");
}

fn probabilities() -> Vec<f32> {
    let mut out = Vec::new();
    Scores::logits(&LOGITS, 3).each_distribution(&LABELS, |p, _| out.extend(p.iter().map(|&v| v as f32)));
    out
}

#[test]
fn values_of_an_independent_implementation() {
    // scikit-learn 1.9 (accuracy_score, top_k_accuracy_score, log_loss) and numpy for the Brier score and the
    // calibration error, in double precision, on the same six samples.
    let p = probabilities();
    for s in [Scores::logits(&LOGITS, 3), Scores::probabilities(&p, 3)] {
        assert_eq!(accuracy(s, &LABELS).unwrap(), 0.5);
        assert_eq!(top_k(s, &LABELS, 1).unwrap(), 0.5);
        assert_eq!(top_k(s, &LABELS, 2).unwrap(), 1.0);
        near(nll(s, &LABELS).unwrap(), 0.808_947_705_6);
        near(brier(s, &LABELS).unwrap(), 0.536_998_050_7);
        near(ece(s, &LABELS, 15).unwrap(), 0.453_904_267_8);
        near(ece(s, &LABELS, 5).unwrap(), 0.248_498_272_4);
        assert_eq!(predictions(s).unwrap(), [0, 1, 1, 0, 2, 0]);
    }
}

#[test]
fn extremes() {
    // Certain and right, certain and wrong.
    let certain = [1.0, 0.0, 1.0, 0.0];
    let s = Scores::probabilities(&certain, 2);
    assert_eq!(brier(s, &[0, 0]).unwrap(), 0.0);
    assert_eq!(brier(s, &[1, 1]).unwrap(), 2.0);
    assert_eq!((ece(s, &[0, 0], 15).unwrap(), ece(s, &[1, 1], 15).unwrap()), (0.0, 1.0));
    assert_eq!(nll_per_sample(s, &[0, 1]).unwrap(), [0.0, f64::INFINITY]);
    assert!(nll(s, &[0, 0]).unwrap().is_sign_positive());
    // Large logits neither overflow nor lose the answer.
    let large = [3e38, -3e38, -3e38, 3e38];
    let s = Scores::logits(&large, 2);
    assert_eq!(nll_per_sample(s, &[0, 1]).unwrap(), [0.0, 0.0]);
    near(nll_per_sample(s, &[1, 1]).unwrap()[0] / 6e38, 1.0);
    assert_eq!(brier(s, &[0, 1]).unwrap(), 0.0);
    // All equal: the lowest index wins, everywhere alike.
    let s = Scores::logits(&[1.0; 4], 4);
    assert_eq!((accuracy(s, &[0]).unwrap(), accuracy(s, &[3]).unwrap()), (1.0, 0.0));
    assert_eq!((top_k(s, &[2], 2).unwrap(), top_k(s, &[2], 3).unwrap()), (0.0, 1.0));
    near(nll(s, &[3]).unwrap(), 4f64.ln());
}

#[test]
fn bins_are_open_below_and_closed_above() {
    let p = [0.5, 0.5, 0.75, 0.25, 1.0, 0.0];
    let bins = reliability_bins(Scores::probabilities(&p, 2), &[1, 0, 0], 4).unwrap();
    let counts: Vec<usize> = bins.iter().map(|b| b.count).collect();
    assert_eq!(counts, [0, 1, 1, 1]);
    assert_eq!(bins[1], ReliabilityBin { count: 1, accuracy: 0.0, confidence: 0.5 });
    assert_eq!(bins[3], ReliabilityBin { count: 1, accuracy: 1.0, confidence: 1.0 });
    // One class: its probability is 1 and lies in the last bin.
    assert_eq!(ece(Scores::logits(&[-4.0], 1), &[0], 15).unwrap(), 0.0);
}

type Measure = fn(Scores, &[u32]) -> Result<f64>;
const MEASURES: [(&str, Measure); 5] = [
    ("accuracy", accuracy),
    ("top_k", |s, l| top_k(s, l, 1)),
    ("nll", nll),
    ("brier", brier),
    ("ece", |s, l| ece(s, l, 15)),
];

#[test]
fn every_measure_checks_what_it_is_given() {
    for (name, measure) in MEASURES {
        let fails = |s: Scores, labels: &[u32], part: &str| {
            let text = measure(s, labels).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains(part), "{name}: {text:?} lacks {part:?}");
        };
        fails(Scores::logits(&LOGITS[..17], 3), &LABELS, "17 scores for 6 labels and 3 classes");
        fails(Scores::logits(&LOGITS, 3), &LABELS[..5], "18 scores for 5 labels");
        fails(Scores::logits(&[], 3), &[], "nothing to measure");
        fails(Scores::logits(&[], 0), &[0], "nothing to measure");
        fails(Scores::logits(&LOGITS, 3), &[0, 0, 0, 3, 0, 0], "label 3 of sample 3");
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut v = LOGITS;
            v[7] = bad;
            fails(Scores::logits(&v, 3), &LABELS, "the score of sample 2 for class 1");
            assert!(matches!(measure(Scores::logits(&v, 3), &LABELS), Err(Error::NonFinite(_))));
        }
        fails(Scores::probabilities(&LOGITS, 3), &LABELS, "sample 0 (sum 1.5000)");
        fails(Scores::probabilities(&[1.5, -0.5], 2), &[0], "no probability distribution");
        fails(Scores::probabilities(&[0.5, 0.49], 2), &[0], "pass logits as");
        assert!(measure(Scores::probabilities(&[0.5, 0.4995], 2), &[0]).is_ok());
    }
    let s = Scores::logits(&LOGITS, 3);
    assert!(top_k(s, &LABELS, 0).unwrap_err().to_string().contains("k = 0 of 3"));
    assert!(top_k(s, &LABELS, 4).is_err());
    assert!(ece(s, &LABELS, 0).unwrap_err().to_string().contains("0 bins"));
    assert!(predictions(Scores::logits(&LOGITS[..17], 3)).is_err());
    assert!(predictions(Scores::logits(&[], 0)).is_err());
}

#[test]
fn confusion_of_an_independent_implementation() {
    // scikit-learn's confusion_matrix and precision_recall_fscore_support.
    let mut m = ConfusionMatrix::of(3);
    m.add_predictions(&[0, 0, 1, 1, 1, 0, 1, 1, 2, 0], &[0, 0, 0, 1, 1, 1, 1, 2, 2, 0]).unwrap();
    let rows: Vec<Vec<u64>> = (0..3).map(|y| (0..3).map(|p| m.count(y, p)).collect()).collect();
    assert_eq!(rows, [[3, 1, 0], [1, 3, 0], [0, 1, 1]]);
    let of = |f: fn(&ConfusionMatrix, usize) -> Option<f64>| (0..3).map(|c| f(&m, c).unwrap()).collect::<Vec<_>>();
    assert_eq!(of(ConfusionMatrix::precision), [0.75, 0.6, 1.0]);
    assert_eq!(of(ConfusionMatrix::recall), [0.75, 0.75, 0.5]);
    near(m.macro_f1().unwrap(), 0.694_444_444_4);
    near(m.balanced_accuracy().unwrap(), 0.666_666_666_7);
    assert_eq!((m.accuracy(), m.total(), m.support(2)), (Some(0.7), 10, 2));
    assert_eq!(m.count(3, 0), 0);
    // A class that is predicted but not there, and one that is neither.
    let mut m = ConfusionMatrix::of(4);
    m.add_predictions(&[0, 1, 3, 0], &[0, 0, 3, 3]).unwrap();
    assert_eq!((m.precision(1), m.recall(1), m.f1(1)), (Some(0.0), None, Some(0.0)));
    assert_eq!((m.precision(2), m.recall(2), m.f1(2)), (None, None, None));
    near(m.macro_f1().unwrap(), 0.388_888_888_9);
    near(m.balanced_accuracy().unwrap(), 0.5);
}

#[test]
fn confusion_counts_scores_and_checks() {
    let mut m = ConfusionMatrix::of(3);
    assert_eq!((m.accuracy(), m.macro_f1(), m.balanced_accuracy()), (None, None, None));
    m.add(Scores::logits(&LOGITS, 3), &LABELS).unwrap();
    assert_eq!(m.accuracy(), Some(0.5));
    let before = m.clone();
    assert!(m.add(Scores::logits(&LOGITS, 2), &[0; 9]).unwrap_err().to_string().contains("2 classes in a matrix of 3"));
    assert!(m.add(Scores::logits(&[f32::NAN; 3], 3), &[0]).is_err());
    assert!(m.add_predictions(&[0], &[0, 1]).unwrap_err().to_string().contains("1 predictions for 2 labels"));
    assert!(m.add_predictions(&[0, 3], &[0, 1]).unwrap_err().to_string().contains("label 3"));
    assert!(m.add_predictions(&[0, 1], &[0, 3]).is_err());
    assert_eq!(m, before, "a refused batch leaves the counts alone");
}

#[test]
fn confusion_prints() {
    let mut m = ConfusionMatrix::new(vec!["cat".into(), "dog".into()]);
    m.add_predictions(&[0, 1, 1], &[0, 0, 1]).unwrap();
    let want = "\
rows: true class, columns: predicted class
          0 1
cat    0  1 1
dog    1  0 1

class  precision   recall       F1   samples
cat       1.0000   0.5000   0.6667         2
dog       0.5000   1.0000   0.6667         1
accuracy 0.6667, balanced accuracy 0.7500, macro F1 0.6667, 3 samples";
    assert_eq!(m.to_string(), want);
    let many = ConfusionMatrix::of(100).to_string();
    assert!(!many.contains("columns") && many.contains("accuracy -"));
}

#[test]
fn running_mean_weighs_batches() {
    let mut m = RunningMean::new();
    assert_eq!(m.mean(), None);
    m.push(1.0, 3.0).unwrap();
    m.push(5.0, 1.0).unwrap();
    m.push(7.0, 0.0).unwrap();
    assert_eq!((m.mean(), m.weight()), (Some(2.0), 4.0));
    assert!(matches!(m.push(f64::NAN, 1.0), Err(Error::NonFinite(_))));
    assert!(m.push(1.0, -1.0).unwrap_err().to_string().contains("weight of -1"));
    assert!(m.push(1.0, f64::INFINITY).is_err());
    assert_eq!(m.mean(), Some(2.0));
    m.reset();
    assert_eq!(m.mean(), None);
}

#[test]
fn mean_and_spread_of_runs() {
    let m = MeanStd::of(&[0.91, 0.92, 0.95]).unwrap();
    near(m.mean, 0.926_666_666_7);
    near(m.std.unwrap(), 0.020_816_66);
    assert_eq!((m.to_string(), format!("{m:.2}")), ("0.9267 ± 0.0208 (n = 3)".into(), "0.93 ± 0.02 (n = 3)".into()));
    let one = MeanStd::of(&[0.5]).unwrap();
    assert_eq!((one.std, one.to_string()), (None, "0.5000 (n = 1)".into()));
    assert!(MeanStd::of(&[]).unwrap_err().to_string().contains("no runs"));
    assert!(MeanStd::of(&[1.0, f64::NAN]).unwrap_err().to_string().contains("run 1 gave NaN"));
}
