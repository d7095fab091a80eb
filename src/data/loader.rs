//! The order in which a run visits a set: shuffled epochs, batches of indices, an exact place to resume from, and
//! subsets.
//!
//! ```
//! use shadegrad::data::{Sampler, loader};
//! let labels = [0, 0, 0, 1, 1, 1];
//! let (train, test) = loader::stratified_split(&labels, 2, 0.34, 0)?; // one of each class to test
//! let mut sampler = Sampler::over(train, 3)?.seed(1);
//! assert_eq!((sampler.batches_per_epoch(), test.len()), (2, 2));
//! assert!(sampler.next_batch().is_some_and(|batch| batch.indices.iter().all(|i| !test.contains(i))));
//! # Ok::<(), shadegrad::Error>(())
//! ```

use crate::error::{Error, Result};
use crate::rng::Philox;

/// Streams of the seed that this module draws from; the number of the epoch or class is added.
const EPOCHS: u64 = 0x4C4F_4100_0000_0000;
const SPLITS: u64 = 0x4C4F_4101_0000_0000;

/// A place in a run: what has to be saved to go on exactly where it stopped.
///
/// ```
/// # use shadegrad::{data::*, *};
/// let mut sampler = Sampler::new(10, 4)?;
/// sampler.next_batch();
/// assert_eq!(sampler.position(), Position { epoch: 0, step: 1 });
/// let mut resumed = Sampler::new(10, 4)?;
/// resumed.seek(Position { epoch: 0, step: 1 })?;
/// assert_eq!(resumed.next_batch(), sampler.next_batch());
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The epoch, from 0.
    pub epoch: u64,
    /// Batches of that epoch that have been handed out.
    pub step: u64,
}

/// One batch: which pictures, and where in the run it stands.
///
/// ```
/// # use shadegrad::{data::*, *};
/// let mut sampler = Sampler::new(3, 2)?.shuffle(false);
/// assert_eq!(sampler.next_batch(), Some(Batch { epoch: 0, step: 0, indices: vec![0, 1] }));
/// assert_eq!(sampler.next_batch(), Some(Batch { epoch: 0, step: 1, indices: vec![2] }));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The batch's number in its epoch, from 0.
    pub step: u64,
    /// Indices into the set.
    pub indices: Vec<u32>,
}

/// Hands out batches of indices, epoch after epoch.
///
/// The order of an epoch depends on the seed, the epoch and the set's size only, not on what was drawn before: epoch 7
/// can be entered directly, and a resumed run sees the pictures of the unbroken one.
///
/// ```
/// # use shadegrad::data::Sampler;
/// let mut sampler = Sampler::new(10, 4)?.seed(1);
/// while let Some(batch) = sampler.next_batch() {
///     println!("step {}: {:?}", batch.step, batch.indices); // 4, 4, then 2 indices
/// }
/// assert_eq!(sampler.position().epoch, 1); // the next call begins epoch 1
/// # Ok::<(), shadegrad::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sampler {
    indices: Vec<u32>,
    batch: usize,
    seed: u64,
    shuffle: bool,
    drop_last: bool,
    position: Position,
    /// The order of the epoch named beside it; drawn when first needed.
    order: Option<(u64, Vec<u32>)>,
}

impl Sampler {
    /// Batches of `batch` out of the indices `0..len`; shuffled with seed 0, the short last batch kept.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let set = synthetic::blobs(10, 2, 4, 4, 1, 0)?;
    /// let mut sampler = Sampler::new(set.len(), 4)?.seed(7);
    /// let first = sampler.next_batch().map(|batch| set.batch(&batch.indices)).transpose()?;
    /// assert_eq!(first.map(|(_images, labels)| labels.len()), Some(4));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when `len` or `batch` is 0 or `len` exceeds 32 bits.
    pub fn new(len: usize, batch: usize) -> Result<Self> {
        let Ok(n) = u32::try_from(len) else {
            let detail = format!("{len} pictures; indices have 32 bits, split the set");
            return Err(Error::value("Sampler::new", detail));
        };
        Self::over((0..n).collect(), batch)
    }

    /// Batches out of the given indices (a subset, or with repeats); shuffled with seed 0, the short last batch kept.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let mut sampler = Sampler::over(vec![8, 3, 8], 2)?.shuffle(false); // picture 8 twice an epoch
    /// assert_eq!(sampler.next_batch().map(|b| b.indices), Some(vec![8, 3]));
    /// assert_eq!(sampler.next_batch().map(|b| b.indices), Some(vec![8]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when there are no indices, more than 32 bits count, or `batch` is 0.
    pub fn over(indices: Vec<u32>, batch: usize) -> Result<Self> {
        const OP: &str = "Sampler::new";
        if indices.is_empty() || u32::try_from(indices.len()).is_err() {
            let detail = format!("{} pictures to draw from; give between 1 and 2^32 - 1", indices.len());
            return Err(Error::value(OP, detail));
        }
        if batch == 0 {
            return Err(Error::value(OP, "a batch size of 0; give at least 1"));
        }
        let position = Position::default();
        Ok(Self { indices, batch, seed: 0, shuffle: true, drop_last: false, position, order: None })
    }

    /// Shuffles with this seed.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let order = |seed| Ok::<_, Error>(Sampler::new(100, 10)?.seed(seed).order(0));
    /// assert_eq!(order(1)?, order(1)?);
    /// assert_ne!(order(1)?, order(2)?);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self.order = None;
        self
    }

    /// Whether each epoch is shuffled (the default) or in the order given.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let sampler = Sampler::new(5, 2)?.shuffle(false);
    /// assert_eq!(sampler.order(3), [0, 1, 2, 3, 4]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self.order = None;
        self
    }

    /// Leaves out the last batch of an epoch where it would be short.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let sampler = Sampler::new(10, 4)?;
    /// assert_eq!(sampler.batches_per_epoch(), 3); // of 4, 4 and 2 pictures
    /// assert_eq!(sampler.drop_last(true)?.batches_per_epoch(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when the set is smaller than one batch, so that no batch would be left.
    pub fn drop_last(mut self, drop_last: bool) -> Result<Self> {
        if drop_last && self.indices.len() < self.batch {
            return Err(Error::value(
                "Sampler::drop_last",
                format!(
                    "{} pictures do not fill one batch of {}, so every epoch would be empty; use a smaller batch or \
                     keep the last one",
                    self.indices.len(),
                    self.batch
                ),
            ));
        }
        self.drop_last = drop_last;
        Ok(self)
    }

    /// Batches in an epoch.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let epochs = 5;
    /// let steps = Sampler::new(1000, 64)?.batches_per_epoch() * epochs; // for a schedule of the rate
    /// assert_eq!(steps, 80);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn batches_per_epoch(&self) -> u64 {
        let n = self.indices.len();
        (if self.drop_last { n / self.batch } else { n.div_ceil(self.batch) }) as u64
    }

    /// The order of an epoch: the indices, shuffled (Fisher and Yates) by a Philox stream of its own.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let sampler = Sampler::new(100, 10)?.seed(1);
    /// let mut sorted = sampler.order(7); // that of epoch 7, at once
    /// assert_ne!(sorted, sampler.order(8));
    /// sorted.sort();
    /// assert_eq!(sorted, (0..100).collect::<Vec<u32>>()); // every picture once
    /// # Ok::<(), Error>(())
    /// ```
    pub fn order(&self, epoch: u64) -> Vec<u32> {
        let mut order = self.indices.clone();
        if self.shuffle {
            Philox::new(self.seed, EPOCHS.wrapping_add(epoch)).shuffle(&mut order);
        }
        order
    }

    /// The next batch, or `None` once at the end of each epoch; the call after that begins the next epoch.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let mut sampler = Sampler::new(3, 2)?.shuffle(false);
    /// for epoch in 0..2 {
    ///     while let Some(batch) = sampler.next_batch() {
    ///         assert_eq!((batch.epoch, batch.indices.len()), (epoch, [2, 1][batch.step as usize]));
    ///     }
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    pub fn next_batch(&mut self) -> Option<Batch> {
        let Position { epoch, step } = self.position;
        if step >= self.batches_per_epoch() {
            self.position = Position { epoch: epoch + 1, step: 0 };
            return None;
        }
        if self.order.as_ref().is_none_or(|(of, _)| *of != epoch) {
            self.order = Some((epoch, self.order(epoch)));
        }
        let (_, order) = self.order.as_ref()?;
        let start = step as usize * self.batch;
        let indices = order[start..(start + self.batch).min(order.len())].to_vec();
        self.position.step += 1;
        Some(Batch { epoch, step, indices })
    }

    /// Where the run stands: the batch that [`Sampler::next_batch`] hands out next.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let mut sampler = Sampler::new(10, 4)?;
    /// while sampler.next_batch().is_some() {}
    /// assert_eq!(sampler.position(), Position { epoch: 1, step: 0 });
    /// # Ok::<(), Error>(())
    /// ```
    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes to a saved position.
    ///
    /// ```
    /// # use shadegrad::{data::*, *};
    /// let (mut unbroken, mut resumed) = (Sampler::new(10, 4)?.seed(3), Sampler::new(10, 4)?.seed(3));
    /// unbroken.next_batch();
    /// resumed.seek(unbroken.position())?;
    /// assert_eq!(resumed.next_batch(), unbroken.next_batch());
    /// assert!(resumed.seek(Position { epoch: 0, step: 4 }).is_err()); // an epoch has three batches
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Value`] when an epoch has fewer batches than `position.step`: the set or the batch size is not the
    /// saved run's.
    pub fn seek(&mut self, position: Position) -> Result<()> {
        let most = self.batches_per_epoch();
        if position.step > most {
            return Err(Error::value(
                "Sampler::seek",
                format!(
                    "step {} of epoch {}, but an epoch has {most} batches; resume with the data and the batch size of \
                     the saved run",
                    position.step, position.epoch
                ),
            ));
        }
        self.position = position;
        Ok(())
    }
}

/// The members of each class, in order.
fn by_class(op: &'static str, labels: &[u32], classes: usize) -> Result<Vec<Vec<u32>>> {
    if u32::try_from(labels.len()).is_err() {
        return Err(Error::value(op, format!("{} labels; indices have 32 bits, split the set", labels.len())));
    }
    let mut members = vec![Vec::new(); classes];
    for (i, &label) in labels.iter().enumerate() {
        let Some(class) = members.get_mut(label as usize) else {
            let detail = format!("label {label} at {i}, but there are {classes} classes; labels count from 0");
            return Err(Error::value(op, detail));
        };
        class.push(i as u32);
    }
    Ok(members)
}

/// A balanced subset: the indices of the first `n` of every class, in the order of the set.
///
/// ```
/// # use shadegrad::{data::*, *};
/// assert_eq!(loader::first_per_class(&[1, 0, 0, 1, 1], 2, 2)?, [0, 1, 2, 3]);
/// assert!(loader::first_per_class(&[1, 0, 0, 1, 1], 2, 3).is_err()); // class 0 has two
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Value`] when a class has fewer than `n` or a label is not under `classes`.
pub fn first_per_class(labels: &[u32], classes: usize, n: usize) -> Result<Vec<u32>> {
    const OP: &str = "first_per_class";
    let mut chosen = Vec::new();
    for (class, members) in by_class(OP, labels, classes)?.iter().enumerate() {
        let Some(first) = members.get(..n) else {
            let detail = format!("class {class} has {} of the {n} asked for; ask for fewer", members.len());
            return Err(Error::value(OP, detail));
        };
        chosen.extend_from_slice(first);
    }
    chosen.sort_unstable();
    Ok(chosen)
}

/// Splits off `fraction` of every class, chosen by `seed`: returns the indices of (the rest, the part), each in order.
///
/// A class gives the nearest whole number to its share, at least 1 and never all of them; a class of one stays in the
/// rest.
///
/// ```
/// # use shadegrad::{data::*, *};
/// let (train, test) = loader::stratified_split(&[0, 0, 1, 1], 2, 0.5, 0)?;
/// assert_eq!((train.len(), test.len()), (2, 2));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// [`Error::Value`] when `fraction` is not strictly between 0 and 1, a label is not under `classes`, or the part would
/// be empty.
pub fn stratified_split(labels: &[u32], classes: usize, fraction: f64, seed: u64) -> Result<(Vec<u32>, Vec<u32>)> {
    const OP: &str = "stratified_split";
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(Error::value(
            OP,
            format!("a fraction of {fraction}; give a number between 0 and 1, for example 0.1"),
        ));
    }
    let (mut rest, mut part) = (Vec::new(), Vec::new());
    for (class, mut members) in by_class(OP, labels, classes)?.into_iter().enumerate() {
        Philox::new(seed, SPLITS.wrapping_add(class as u64)).shuffle(&mut members);
        let most = members.len().saturating_sub(1);
        let take = ((members.len() as f64 * fraction).round() as usize).max(1).min(most);
        part.extend_from_slice(&members[..take]);
        rest.extend_from_slice(&members[take..]);
    }
    if part.is_empty() {
        let detail =
            format!("no class has two pictures ({} in all), so nothing can be split off; add pictures", labels.len());
        return Err(Error::value(OP, detail));
    }
    rest.sort_unstable();
    part.sort_unstable();
    Ok((rest, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(s: &mut Sampler) -> Vec<Vec<u32>> {
        std::iter::from_fn(|| s.next_batch()).map(|b| b.indices).collect()
    }

    #[test]
    fn an_epoch_visits_everything_once() {
        let mut s = Sampler::new(23, 5).unwrap().seed(4);
        assert_eq!(s.batches_per_epoch(), 5);
        let (first, second) = (epoch(&mut s), epoch(&mut s));
        assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5, 5, 5, 3]);
        for e in [&first, &second] {
            let mut all = e.concat();
            all.sort_unstable();
            assert_eq!(all, (0..23).collect::<Vec<_>>());
        }
        assert_ne!(first, second);
        assert_eq!(s.position(), Position { epoch: 2, step: 0 });
    }

    #[test]
    fn order_depends_on_seed_and_epoch_only() {
        let a = Sampler::new(50, 7).unwrap().seed(1);
        let mut b = Sampler::new(50, 3).unwrap().seed(1);
        epoch(&mut b);
        assert_eq!(a.order(5), b.order(5));
        assert_ne!(a.order(5), a.order(6));
        assert_ne!(a.order(5), a.clone().seed(2).order(5));
        assert_eq!(a.shuffle(false).order(5), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn a_resumed_run_sees_the_same_batches() {
        let make = || Sampler::new(23, 5).unwrap().seed(9);
        let mut whole = make();
        epoch(&mut whole);
        whole.next_batch();
        whole.next_batch();
        let mut resumed = make();
        resumed.seek(whole.position()).unwrap();
        assert_eq!(whole.next_batch(), resumed.next_batch());
        assert_eq!(epoch(&mut whole), epoch(&mut resumed));
        assert_eq!(epoch(&mut whole), epoch(&mut resumed));
        // Saved after the last batch of an epoch, before its end was seen.
        let mut end = make();
        end.seek(Position { epoch: 0, step: 5 }).unwrap();
        assert_eq!(end.next_batch(), None);
        assert_eq!(end.next_batch().unwrap().epoch, 1);
        let wrong = end.seek(Position { epoch: 0, step: 6 }).unwrap_err().to_string();
        assert!(wrong.contains("step 6") && wrong.contains("5 batches") && wrong.contains("resume with"), "{wrong}");
    }

    #[test]
    fn changing_the_seed_takes_effect_at_once() {
        let mut s = Sampler::new(50, 50).unwrap();
        s.next_batch();
        let mut t = s.clone().seed(3);
        t.seek(Position::default()).unwrap();
        assert_eq!(t.next_batch().unwrap().indices, t.order(0));
    }

    #[test]
    fn drop_last_and_subsets() {
        let mut s = Sampler::over(vec![4, 8, 15, 16, 23], 2).unwrap().shuffle(false).drop_last(true).unwrap();
        assert_eq!(s.batches_per_epoch(), 2);
        assert_eq!(epoch(&mut s), [[4, 8], [15, 16]]);
        let small = Sampler::new(3, 4).unwrap().drop_last(true).unwrap_err().to_string();
        assert!(small.contains("3 pictures do not fill one batch of 4"), "{small}");
        assert!(Sampler::new(3, 4).unwrap().drop_last(false).is_ok());
    }

    #[test]
    fn bad_sizes_are_refused() {
        assert!(Sampler::new(0, 4).unwrap_err().to_string().contains("0 pictures"));
        assert!(Sampler::new(4, 0).unwrap_err().to_string().contains("batch size of 0"));
        assert!(Sampler::over(vec![], 1).is_err());
        assert!(Sampler::new(1 << 33, 4).unwrap_err().to_string().contains("32 bits"));
    }

    #[test]
    fn balanced_subsets() {
        let labels = [2, 0, 0, 1, 2, 1, 0];
        assert_eq!(first_per_class(&labels, 3, 2).unwrap(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(first_per_class(&labels, 3, 1).unwrap(), [0, 1, 3]);
        let few = first_per_class(&labels, 3, 3).unwrap_err().to_string();
        assert!(few.contains("class 1 has 2 of the 3"), "{few}");
        let label = first_per_class(&labels, 2, 1).unwrap_err().to_string();
        assert!(label.contains("label 2 at 0"), "{label}");
    }

    #[test]
    fn splits_keep_the_proportions() {
        let labels: Vec<u32> = (0..100).map(|i| u32::from(i % 10 == 0)).collect();
        let (rest, part) = stratified_split(&labels, 2, 0.2, 7).unwrap();
        let ones = |ix: &[u32]| ix.iter().filter(|&&i| labels[i as usize] == 1).count();
        assert_eq!((rest.len(), part.len(), ones(&part)), (80, 20, 2));
        let mut all = [rest.clone(), part.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert_eq!(stratified_split(&labels, 2, 0.2, 7).unwrap(), (rest, part.clone()));
        assert_ne!(stratified_split(&labels, 2, 0.2, 8).unwrap().1, part);
        // A tiny share still gives one, a huge one leaves one, and a class of one stays.
        assert_eq!(stratified_split(&[0, 0, 1], 2, 0.001, 0).unwrap().1.len(), 1);
        assert_eq!(stratified_split(&[0, 0, 1], 2, 0.999, 0).unwrap().0.len(), 2);
        for f in [0.0, 1.0, -1.0, f64::NAN] {
            assert!(stratified_split(&labels, 2, f, 0).is_err());
        }
        assert!(stratified_split(&[0, 1], 2, 0.5, 0).unwrap_err().to_string().contains("no class has two"));
        assert!(stratified_split(&[5], 2, 0.5, 0).is_err());
    }
}
