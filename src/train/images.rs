//! A labelled data set on the device.

use shadegrad_kernels::Gpu;

use crate::augment::Augment;
use crate::data::{ChannelStats, Dataset};
use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::tensor::Tensor;

/// A data set whose pictures are on the device as bytes: a batch is then a list of indices, and nothing but those goes
/// over the bus in a training step.
///
/// ```
/// # use shadegrad::*;
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// use shadegrad::data::digits;
/// use shadegrad::train::Images;
/// let data = digits();
/// let images = Images::upload(&gpu, &data.test, &data.train.channel_stats()?)?;
/// let batch = images.plain(&[5, 3])?;
/// assert_eq!((batch.images.shape(), batch.labels.shape()), (&[2, 8, 8, 1][..], &[2][..]));
/// # Ok::<(), Error>(())
/// ```
pub struct Images {
    name: String,
    pixels: Tensor,
    labels: Vec<u32>,
    classes: Vec<String>,
    normalise: Augment,
}

/// Samples ready for a model.
///
/// ```
/// # use shadegrad::{data::*, train::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let classes = vec!["dark".into(), "light".into()];
/// # let set = Dataset::new("two", vec![0, 255], vec![0, 1], [1, 1, 1], classes)?;
/// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
/// let batch: Minibatch = images.plain(&[1, 0, 1])?;
/// assert_eq!((batch.images.shape(), batch.labels.to_vec_u32()?), (&[3, 1, 1, 1][..], vec![1, 0, 1]));
/// assert!(batch.soft.is_none() && batch.indices == [1, 0, 1]);
/// # Ok::<(), Error>(())
/// ```
pub struct Minibatch {
    /// Normalised pictures `[batch, height, width, channels]`.
    pub images: Tensor,
    /// Labels `[batch]`, `U32`.
    pub labels: Tensor,
    /// Target distributions `[batch, classes]` in place of the labels, where samples were mixed.
    pub soft: Option<Tensor>,
    /// Which samples these are.
    pub indices: Vec<u32>,
}

impl Images {
    /// Uploads a set. Pictures will be normalised by `stats`, those of the training set for the test set too; see
    /// [`Dataset::channel_stats`].
    ///
    /// ```
    /// # use shadegrad::{data::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// let pair = synthetic::blobs_pair(8, 4, 2, [2, 2, 3], 0)?;
    /// let stats = pair.train.channel_stats()?;
    /// let (train, test) = (Images::upload(&gpu, &pair.train, &stats)?, Images::upload(&gpu, &pair.test, &stats)?);
    /// assert_eq!((train.len(), test.len(), test.size()), (8, 4, [2, 2, 3]));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the set is empty, `stats` are of another number of channels, or the pictures do not fit one buffer of the
    /// device.
    pub fn upload(gpu: &Gpu, data: &Dataset, stats: &ChannelStats) -> Result<Self> {
        if data.is_empty() {
            return Err(Error::value("Images", format!("{} holds no pictures", data.name)));
        }
        if stats.mean.len() != data.channels || stats.std.len() != data.channels {
            return Err(Error::value(
                "Images",
                format!(
                    "statistics of {} channels for {}, which has {}; take those of its own training set",
                    stats.mean.len(),
                    data.name,
                    data.channels
                ),
            ));
        }
        let shape = [data.len(), data.height, data.width, data.channels];
        // A channel that never changes becomes zero whatever it is divided by.
        let std: Vec<f32> = stats.std.iter().map(|&s| if s > 0.0 { s } else { 1.0 }).collect();
        Ok(Self {
            name: data.name.clone(),
            pixels: Tensor::from_bytes(gpu, &data.images, &shape)?,
            labels: data.labels.clone(),
            classes: data.classes.clone(),
            normalise: Augment::none(&stats.mean, &std),
        })
    }

    /// What the set is called.
    ///
    /// ```
    /// # use shadegrad::{data::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let classes = vec!["dark".into(), "light".into()];
    /// # let set = Dataset::new("two", vec![0, 255], vec![0, 1], [1, 1, 1], classes)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// assert_eq!(images.name(), "two"); // the data set's
    /// # Ok::<(), Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of pictures.
    ///
    /// ```
    /// # use shadegrad::{data::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let classes = vec!["dark".into(), "light".into()];
    /// # let set = Dataset::new("two", vec![0, 255], vec![0, 1], [1, 1, 1], classes)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// assert_eq!(images.len(), 2);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never: an empty set is refused.
    ///
    /// ```
    /// # use shadegrad::{data::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let classes = vec!["dark".into(), "light".into()];
    /// # let set = Dataset::new("two", vec![0, 255], vec![0, 1], [1, 1, 1], classes)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// assert!(!images.is_empty());
    /// let nothing = set.subset(&[])?;
    /// assert!(Images::upload(&gpu, &nothing, &set.channel_stats()?).is_err());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Number of classes.
    ///
    /// ```
    /// # use shadegrad::{data::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let classes = vec!["dark".into(), "light".into()];
    /// # let set = Dataset::new("two", vec![0, 255], vec![0, 1], [1, 1, 1], classes)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// assert_eq!(images.classes(), 2); // what a model's last layer must give
    /// # Ok::<(), Error>(())
    /// ```
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// The name of each class.
    ///
    /// ```
    /// # use shadegrad::{data::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let classes = vec!["dark".into(), "light".into()];
    /// # let set = Dataset::new("two", vec![0, 255], vec![0, 1], [1, 1, 1], classes)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// assert_eq!(images.class_names(), ["dark", "light"]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn class_names(&self) -> &[String] {
        &self.classes
    }

    /// Height, width and channels of a picture.
    ///
    /// ```
    /// # use shadegrad::{data::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let classes = vec!["dark".into(), "light".into()];
    /// # let set = Dataset::new("two", vec![0, 255], vec![0, 1], [1, 1, 1], classes)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// let [height, width, channels] = images.size();
    /// assert_eq!(height * width * channels, 1); // what a linear layer behind `Flatten` takes
    /// # Ok::<(), Error>(())
    /// ```
    pub fn size(&self) -> [usize; 3] {
        [self.pixels.dim(1), self.pixels.dim(2), self.pixels.dim(3)]
    }

    /// The labels, in the order of the set.
    ///
    /// ```
    /// # use shadegrad::{data::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let classes = vec!["dark".into(), "light".into()];
    /// # let set = Dataset::new("two", vec![0, 255], vec![0, 1], [1, 1, 1], classes)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// assert_eq!(images.labels(), [0, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The pictures as they are on the device: bytes `[len, height, width, channels]`.
    ///
    /// ```
    /// # use shadegrad::{data::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let classes = vec!["dark".into(), "light".into()];
    /// # let set = Dataset::new("two", vec![0, 255], vec![0, 1], [1, 1, 1], classes)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// assert_eq!((images.pixels().shape(), images.pixels().dtype()), (&[2, 1, 1, 1][..], DType::U8));
    /// assert_eq!(images.pixels().to_bytes()?, [0, 255]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn pixels(&self) -> &Tensor {
        &self.pixels
    }

    /// Normalising with this set's statistics and nothing else: what an augmentation starts from.
    ///
    /// ```
    /// # use shadegrad::{augment::Augment, data::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let classes = vec!["dark".into(), "light".into()];
    /// # let set = Dataset::new("two", vec![0, 255], vec![0, 1], [1, 1, 1], classes)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// let augment = Augment { pad: 1, flip: 0.5, ..images.normalise().clone() };
    /// assert_eq!((augment.mean[0], augment.std[0]), (0.5, 0.5)); // the set's own statistics
    /// # Ok::<(), Error>(())
    /// ```
    pub fn normalise(&self) -> &Augment {
        &self.normalise
    }

    /// The samples at `indices`, normalised.
    ///
    /// ```
    /// # use shadegrad::{data::*, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let classes = vec!["dark".into(), "light".into()];
    /// # let set = Dataset::new("two", vec![0, 255], vec![0, 1], [1, 1, 1], classes)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// let batch = images.plain(&[1, 0])?;
    /// assert_eq!(batch.images.round()?.to_vec()?, [1.0, -1.0]); // mean 0, deviation 1
    /// assert!(images.plain(&[2]).is_err()); // past the end
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If an index is past the end.
    pub fn plain(&self, indices: &[u32]) -> Result<Minibatch> {
        self.batch(indices, &self.normalise, Stream::new(0, 0))
    }

    /// The samples at `indices`, changed at random by `augment` as `stream` says.
    ///
    /// ```
    /// # use shadegrad::{augment::Augment, data::*, rng::Stream, train::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let classes = vec!["dark".into(), "light".into()];
    /// # let set = Dataset::new("two", vec![0, 255], vec![0, 1], [1, 1, 1], classes)?;
    /// # let images = Images::upload(&gpu, &set, &set.channel_stats()?)?;
    /// let augment = Augment { pad: 1, ..images.normalise().clone() }; // crops moved by up to a pixel
    /// let batch = images.batch(&[0, 1], &augment, Stream::new(7, 0))?; // seed and number of the step
    /// assert_eq!(batch.images.shape(), [2, 1, 1, 1]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If an index is past the end, or `augment` does not fit the pictures.
    pub fn batch(&self, indices: &[u32], augment: &Augment, stream: Stream) -> Result<Minibatch> {
        let mut labels = Vec::with_capacity(indices.len());
        for &i in indices {
            let Some(&label) = self.labels.get(i as usize) else {
                return Err(Error::value(
                    "Images",
                    format!("index {i} in {}, which holds {} pictures; indices count from 0", self.name, self.len()),
                ));
            };
            labels.push(label);
        }
        let gpu = self.pixels.gpu();
        let chosen = Tensor::from_u32(gpu, indices, &[indices.len()])?;
        Ok(Minibatch {
            images: augment.apply(&self.pixels, &chosen, stream)?,
            labels: Tensor::from_u32(gpu, &labels, &[labels.len()])?,
            soft: None,
            indices: indices.to_vec(),
        })
    }
}
