//! The embeddings of the labels and the layer that reads a class from a noised one.

use shadegrad::nn::{Arena, Cx, Init, Linear, Module, ParamId, Scope};
use shadegrad::{Error, Gpu, Result, Tensor};

use super::Samples;

/// How a label becomes a vector: the rows of `W` `[classes, dim]`.
///
/// ```
/// use shadegrad_models::papers::noprop::Embedding;
/// // Ten classes: a number for each, twenty that are trained, or pictures of 8 x 8.
/// let rows = vec![0.5; 10 * 64];
/// let kinds = [Embedding::OneHot, Embedding::Learned { dim: 20 }, Embedding::Prototype { rows }];
/// assert_eq!(kinds.map(|k| k.dim(10)), [10, 20, 64]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Embedding {
    /// `W` is the identity and stays so.
    OneHot,
    /// Trained, with `dim` numbers for each class. Rows start orthonormal where there are no more classes than `dim`, else
    /// standard normal.
    Learned {
        /// Length of an embedding; 20 in the paper.
        dim: usize,
    },
    /// Trained, starting from these rows: one picture of each class in the paper, see [`Embedding::prototypes`].
    Prototype {
        /// `[classes, dim]`, row by row.
        rows: Vec<f32>,
    },
}

impl Embedding {
    /// Length of an embedding of `classes` classes: the width of `z`.
    ///
    /// ```
    /// use shadegrad_models::papers::noprop::Embedding;
    /// assert_eq!(Embedding::OneHot.dim(7), 7);
    /// ```
    pub fn dim(&self, classes: usize) -> usize {
        match self {
            Self::OneHot => classes,
            Self::Learned { dim } => *dim,
            Self::Prototype { rows } => rows.len() / classes.max(1),
        }
    }

    /// For each class the sample whose median distance to the others of its class is the smallest, as it goes into the
    /// network, flattened. Reads every sample once and holds one class at a time.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// use shadegrad_models::papers::noprop::Embedding;
    /// // Three samples of class 0, of which 1 lies between the others, and one of class 1.
    /// let samples = (Tensor::from_slice(&gpu, &[0.0, 1.0, 2.0, 9.0], &[4, 1])?, vec![0, 0, 0, 1]);
    /// let prototypes = Embedding::prototypes(&samples, 2)?;
    /// assert_eq!(prototypes, Embedding::Prototype { rows: vec![1.0, 9.0] });
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a class has no sample, or the device refuses.
    pub fn prototypes(samples: &dyn Samples, classes: usize) -> Result<Self> {
        /// Samples, and rows of distances, that are read at once.
        const CHUNK: usize = 256;
        let mut members = vec![Vec::new(); classes];
        let count = samples.count() as u32;
        for start in (0..count).step_by(CHUNK) {
            let indices: Vec<u32> = (start..count.min(start + CHUNK as u32)).collect();
            for (&i, label) in indices.iter().zip(samples.batch(&indices)?.1) {
                let Some(class) = members.get_mut(label as usize) else {
                    let text = format!("label {label} of sample {i} is not below {classes}, the number of classes");
                    return Err(Error::value("prototypes", text));
                };
                class.push(i);
            }
        }
        let mut rows = Vec::new();
        for (class, members) in members.iter().enumerate() {
            if members.is_empty() {
                return Err(Error::value("prototypes", format!("class {class} has no sample to stand for it")));
            }
            let n = members.len();
            let x = samples.batch(members)?.0;
            let x = x.reshape(&[n, x.numel() / n])?;
            // Around their mean the squares are smaller and lose fewer digits to each other.
            let near = x.sub(&x.mean(&[0], true)?)?;
            let mut best: Option<(f32, usize)> = None;
            for start in (0..n).step_by(CHUNK) {
                let len = CHUNK.min(n - start);
                let all = square_distances(&near.narrow(0, start, len)?, &near)?.to_vec()?;
                for (i, distances) in all.chunks_exact(n).enumerate() {
                    let mut others: Vec<f32> =
                        distances.iter().enumerate().filter(|(j, _)| *j != start + i).map(|(_, d)| d.max(0.0).sqrt()).collect();
                    others.sort_unstable_by(f32::total_cmp);
                    let half = others.len() / 2;
                    let median = match others.len() {
                        0 => 0.0,
                        m if m % 2 == 1 => others[half],
                        _ => 0.5 * (others[half - 1] + others[half]),
                    };
                    if best.is_none_or(|(b, _)| median < b) {
                        best = Some((median, start + i));
                    }
                }
            }
            rows.extend(x.narrow(0, best.map_or(0, |b| b.1), 1)?.to_vec()?);
        }
        Ok(Self::Prototype { rows })
    }
}

/// How a class is read from a noised embedding `z`.
///
/// ```
/// use shadegrad_models::papers::noprop::{Readout, Settings};
/// let settings = Settings { readout: Readout::Distance { sigma: 0.5 }, ..Settings::discrete() };
/// assert_ne!(settings.readout, Readout::default()); // which is a linear layer
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Readout {
    /// The softmax of a linear layer with bias.
    #[default]
    Linear,
    /// With `v = softmax(layer(z)) W`: proportional to `exp(-|v - u_y|^2 / (2 sigma^2))`. The paper found no steady gain.
    Distance {
        /// The scale of the distances.
        sigma: f32,
    },
}

/// `|a_i - b_j|^2` as `[n, m]`, for `[n, d]` and `[m, d]`.
fn square_distances(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let squares = a.square()?.sum(&[1], true)?.add(&b.square()?.sum(&[1], false)?)?;
    squares.sub(&a.matmul_t(b, false, true)?.mul_scalar(2.0)?)
}

/// `W` and the layer that reads a class.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) classes: usize,
    pub(super) dim: usize,
    table: Option<ParamId>,
    first: Option<Vec<f32>>,
    out: Option<Linear>,
    readout: Readout,
}

impl Head {
    /// `embedding` (where it is trained) and `out` in this scope. Without a readout (`None`) there is no layer.
    pub(super) fn new(
        scope: &mut Scope<'_>,
        classes: usize,
        embedding: &Embedding,
        readout: Option<Readout>,
    ) -> Result<Self> {
        let dim = embedding.dim(classes);
        if classes < 2 || dim == 0 {
            let text = format!("{classes} classes with embeddings of {dim} numbers; at least 2 classes and 1 number");
            return Err(Error::value("NoProp", text));
        }
        if let Some(Readout::Distance { sigma }) = readout
            && !(sigma.is_finite() && sigma > 0.0)
        {
            return Err(Error::value("NoProp", format!("sigma {sigma} of the distances; it must be positive")));
        }
        let mut first = None;
        let init = match embedding {
            Embedding::OneHot => None,
            Embedding::Learned { .. } if classes <= dim => Some(Init::Orthogonal(1.0)),
            Embedding::Learned { .. } => Some(Init::Normal(0.0, 1.0)),
            Embedding::Prototype { rows } => {
                if rows.len() != classes * dim || rows.iter().any(|v| !v.is_finite()) {
                    let text = format!("{} numbers for {classes} prototypes; give classes x dim finite ones", rows.len());
                    return Err(Error::shape("NoProp", text));
                }
                first = Some(rows.clone());
                Some(Init::Zeros)
            }
        };
        let table = init.map(|init| scope.param("embedding", &[classes, dim], init));
        let out = readout.map(|_| Linear::new(&mut scope.sub("out"), dim, classes, true));
        Ok(Self { classes, dim, table, first, out, readout: readout.unwrap_or_default() })
    }

    /// Sets the first values that no rule draws.
    pub(super) fn fill(&self, arena: &Arena) -> Result<()> {
        match (self.table, &self.first) {
            (Some(id), Some(rows)) => {
                arena.set_value(id, &Tensor::from_slice(arena.gpu(), rows, &[self.classes, self.dim])?)
            }
            _ => Ok(()),
        }
    }

    /// Whether `W` is trained.
    pub(super) fn is_learned(&self) -> bool {
        self.table.is_some()
    }

    /// `W`.
    pub(super) fn weight(&self, gpu: &Gpu, cx: &Cx) -> Result<Tensor> {
        self.table.map_or_else(|| Tensor::eye(gpu, self.classes), |id| Ok(cx.param(id).clone()))
    }

    /// The labels as checked indices.
    pub(super) fn labels(&self, x: &Tensor, labels: &[u32]) -> Result<Tensor> {
        if x.shape().first() != Some(&labels.len()) || labels.is_empty() {
            return Err(Error::shape(
                "NoProp",
                format!("inputs {:?} with {} labels; give one label for each of at least one sample", x.shape(), labels.len()),
            ));
        }
        Tensor::labels(x.gpu(), labels, self.classes)
    }

    /// `u_y`, `[n, dim]`.
    pub(super) fn embed(&self, cx: &Cx, labels: &Tensor) -> Result<Tensor> {
        self.table.map_or_else(|| labels.one_hot(self.classes), |id| cx.param(id).embedding(labels))
    }

    /// `p W` for rows `[n, classes]`.
    pub(super) fn mix(&self, cx: &Cx, p: &Tensor) -> Result<Tensor> {
        self.table.map_or_else(|| Ok(p.clone()), |id| p.matmul(cx.param(id)))
    }

    /// What a block says the clean embedding is: `softmax(logits) W`.
    pub(super) fn guess(&self, cx: &Cx, logits: &Tensor) -> Result<Tensor> {
        self.mix(cx, &self.checked(logits)?.softmax(1)?)
    }

    /// Refuses what is no logits.
    pub(super) fn checked<'a>(&self, logits: &'a Tensor) -> Result<&'a Tensor> {
        match *logits.shape() {
            [_, c] if c == self.classes => Ok(logits),
            _ => Err(Error::shape(
                "NoProp",
                format!("a block gave {:?}; it must give one score for each of {} classes", logits.shape(), self.classes),
            )),
        }
    }

    /// Scores `[n, classes]` whose softmax is `p_out(y | z)`.
    pub(super) fn scores(&self, cx: &Cx, z: &Tensor) -> Result<Tensor> {
        let Some(out) = &self.out else {
            return Err(Error::value("NoProp", "these embeddings are read by the nearest class, there is no layer"));
        };
        let scores = out.forward(cx, z)?;
        match self.readout {
            Readout::Linear => Ok(scores),
            Readout::Distance { sigma } => {
                let v = self.mix(cx, &scores.softmax(1)?)?;
                square_distances(&v, &self.weight(z.gpu(), cx)?)?.mul_scalar(-0.5 / (sigma * sigma))
            }
        }
    }

    /// `-|z - u_y|^2`, `[n, classes]`.
    pub(super) fn nearness(&self, cx: &Cx, z: &Tensor) -> Result<Tensor> {
        square_distances(z, &self.weight(z.gpu(), cx)?)?.neg()
    }

    /// Mean over the samples of `|u|^2`, `[1]`.
    pub(super) fn mean_square(&self, u: &Tensor) -> Result<Tensor> {
        if self.is_learned() {
            return u.square()?.sum_all()?.mul_scalar(1.0 / u.dim(0) as f32)?.reshape(&[1]);
        }
        Tensor::ones(u.gpu(), &[1])
    }
}

/// Mean over the samples of `|a - b|^2`, a scalar.
pub(super) fn mean_square_error(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.sub(b)?.square()?.sum_all()?.mul_scalar(1.0 / a.dim(0).max(1) as f32)
}
