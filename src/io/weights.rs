//! A model's weights between files and an arena.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::atomic::read_file;
use crate::io::{Meta, Saved, safetensors, torch, write_safetensors};
use crate::nearest::did_you_mean;
use crate::nn::{Arena, Entry, Weight, glob};

/// Begins the names of tensors that are no weights: the optimiser's state in a checkpoint.
pub(crate) const RESERVED: &str = "shadegrad.";

/// The tensors of a file, as they are there: PyTorch's names, layouts and element types.
///
/// ```
/// # use shadegrad::{Error, Gpu, Options};
/// use shadegrad::io::{LoadOptions, Weights};
/// # use shadegrad::nn::{Arena, Builder, Linear};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # Linear::new(&mut names.root().sub("fc"), 2, 1, true);
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let path = folder.path().join("trained.safetensors");
/// Weights::of(&arena)?.save(&path)?; // PyTorch reads it, too
/// let done = Weights::open(&path)?.load_into(&arena, &LoadOptions::strict())?; // or a .pth of its making
/// assert_eq!(done.set, 2); // weight and bias
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Weights {
    tensors: Vec<Saved>,
    meta: Meta,
    /// For error texts.
    path: PathBuf,
}

/// What [`Weights::load_into`] lets through.
///
/// ```
/// # use shadegrad::{io::*, nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let body = Weights::new(vec![Saved::f32("fc.weight", &[1, 2], &[3.0, 4.0])?], Meta::new());
/// assert!(body.load_into(&arena, &LoadOptions::strict()).is_err()); // the bias is missing
/// let done = body.load_into(&arena, &LoadOptions { allow: vec!["*.bias".into()] })?;
/// assert_eq!((done.set, done.left), (1, vec!["fc.bias".to_string()]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Names that may be missing, unexpected or of another shape, as [`glob`]s: `fc.*` for a classifier of other
    /// classes. Such parameters stay as they are.
    pub allow: Vec<String>,
}

impl LoadOptions {
    /// Every name and shape must agree.
    ///
    /// ```
    /// # use shadegrad::{io::*, nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let all = Weights::of(&arena)?;
    /// assert_eq!(all.load_into(&arena, &LoadOptions::strict())?.set, 2); // weight and bias, as they were
    /// # Ok::<(), Error>(())
    /// ```
    pub fn strict() -> Self {
        Self::default()
    }

    /// All but the names that match must agree.
    ///
    /// ```
    /// # use shadegrad::{io::*, nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let other = Weights::new(vec![Saved::f32("fc.weight", &[9, 9], &[0.0; 81])?], Meta::new());
    /// let done = other.load_into(&arena, &LoadOptions::allowing(&["fc.*"]))?; // a head for other classes is left
    /// assert_eq!(done.set, 0);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn allowing(patterns: &[&str]) -> Self {
        Self { allow: patterns.iter().map(|p| (*p).to_string()).collect() }
    }
}

/// What [`Weights::load_into`] did.
///
/// ```
/// # use shadegrad::{io::*, nn::*, *};
/// # let gpu = Gpu::new(Options::from_env()?)?;
/// # let mut names = Builder::new();
/// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.0)));
/// # let arena = Arena::new(&gpu, &names, 0)?;
/// let bias = Weights::new(vec![Saved::f32("fc.bias", &[1], &[0.5])?], Meta::new());
/// let Loaded { set, left } = bias.load_into(&arena, &LoadOptions::allowing(&["fc.weight"]))?;
/// assert_eq!((set, left), (1, vec!["fc.weight".to_string()]));
/// assert_eq!(arena.params().by_name("fc.bias")?.to_vec()?, [0.5]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Parameters and buffers that were set.
    pub set: usize,
    /// Names that were let through: missing, unexpected or of another shape.
    pub left: Vec<String>,
}

impl Weights {
    /// Tensors that are not from a file.
    ///
    /// ```
    /// # use shadegrad::{io::*, nn::*, *};
    /// let bias = Saved::f32("fc.bias", &[2], &[0.5, -0.5])?;
    /// let weights = Weights::new(vec![bias], Meta::from([("note".to_string(), "made up".to_string())]));
    /// assert_eq!(weights.get("fc.bias").map(Saved::numel), Some(2));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn new(tensors: Vec<Saved>, meta: Meta) -> Self {
        Self { tensors, meta, path: PathBuf::new() }
    }

    /// Reads a safetensors file, or a state dictionary that `torch.save` wrote (PyTorch 1.6 and later, `.pt` or `.pth`).
    /// The content says which, not the name. Nothing in the file is executed, and no number in it is trusted.
    ///
    /// ```
    /// # use shadegrad::{io::*, nn::*, *};
    /// # let folder = tempfile::tempdir().expect("a folder");
    /// # let path = folder.path().join("model.safetensors");
    /// # Weights::new(vec![Saved::f32("fc.bias", &[2], &[0.5, -0.5])?], Meta::new()).save(&path)?;
    /// let weights = Weights::open(&path)?; // .safetensors, .pt or .pth
    /// for t in weights.tensors() {
    ///     println!("{} {:?} {}", t.name(), t.shape(), t.dtype().name()); // fc.bias [2] F32
    /// }
    /// # std::fs::write(&path, b"GGUF").expect("a file");
    /// # assert!(Weights::open(&path).is_err());
    /// assert_eq!(weights.tensors().len(), 1);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Data`] if it is neither, or damaged: what it is, and what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read_file(path)?;
        let parsed = match foreign(&bytes) {
            _ if is_safetensors(&bytes) => safetensors::parse(bytes),
            Some(what) => Err(what.to_string()),
            None if bytes.starts_with(b"PK") => torch::parse(&bytes).map(|t| (t, Meta::new())),
            None => safetensors::parse(bytes),
        };
        let (tensors, meta) = parsed.map_err(|detail| Error::data(path, detail))?;
        Ok(Self { tensors, meta, path: path.into() })
    }

    /// The parameters and buffers of an arena, with PyTorch's names and layouts.
    ///
    /// ```
    /// # use shadegrad::{io::*, nn::{Arena, Builder, Conv2d, ConvOptions}, Error, Gpu, Options};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Conv2d::new(&mut names.root().sub("conv"), 3, 8, 5, ConvOptions::new(1, 2));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let weights = Weights::of(&arena)?;
    /// assert_eq!(weights.get("conv.weight").map(Saved::shape), Some(&[8, 3, 5, 5][..])); // PyTorch's layout
    /// assert_eq!(arena.params().by_name("conv.weight")?.shape(), [8, 5, 5, 3]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn of(arena: &Arena) -> Result<Self> {
        let entries = arena.table().entries().iter().chain(arena.buffer_table().entries());
        let tensors = arena.state()?.into_iter().zip(entries).map(|((name, shape, data), e)| {
            Saved::f32(name, &e.layout.outside_shape(&shape), &e.layout.outside(&shape, data))
        });
        Ok(Self { tensors: tensors.collect::<Result<_>>()?, meta: Meta::new(), path: PathBuf::new() })
    }

    /// The tensors in the order of the file.
    ///
    /// ```
    /// # use shadegrad::{io::*, nn::*, *};
    /// let (a, b) = (Saved::f32("a", &[2], &[1.0, 2.0])?, Saved::f32("b", &[1], &[3.0])?);
    /// let weights = Weights::new(vec![a, b], Meta::new());
    /// let count: usize = weights.tensors().iter().map(Saved::numel).sum();
    /// assert_eq!(count, 3);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn tensors(&self) -> &[Saved] {
        &self.tensors
    }

    /// The file's notes.
    ///
    /// ```
    /// # use shadegrad::{io::*, nn::*, *};
    /// # let folder = tempfile::tempdir().expect("a folder");
    /// # let path = folder.path().join("model.safetensors");
    /// let notes = Meta::from([("licence".to_string(), "MIT".to_string())]);
    /// Weights::new(vec![], notes).save(&path)?;
    /// assert_eq!(Weights::open(&path)?.meta()["licence"], "MIT");
    /// # Ok::<(), Error>(())
    /// ```
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The tensor called `name`.
    ///
    /// ```
    /// # use shadegrad::{io::*, nn::*, *};
    /// let weights = Weights::new(vec![Saved::f32("fc.bias", &[2], &[0.5, -0.5])?], Meta::new());
    /// assert_eq!(weights.get("fc.bias").map(Saved::to_f32), Some(vec![0.5, -0.5]));
    /// assert!(weights.get("fc.weight").is_none());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn get(&self, name: &str) -> Option<&Saved> {
        self.tensors.iter().find(|t| t.name() == name)
    }

    /// Changes, renames (see [`Saved::renamed`]) or drops each tensor.
    ///
    /// ```
    /// # use shadegrad::{io::*, nn::*, *};
    /// let all = vec![Saved::f32("net.fc.bias", &[1], &[0.5])?, Saved::f32("ema.fc.bias", &[1], &[0.4])?];
    /// let own = Weights::new(all, Meta::new()).map(|t| {
    ///     let name = t.name().strip_prefix("net.").map(String::from); // the rest is dropped
    ///     Ok(name.map(|name| t.renamed(name)))
    /// })?;
    /// assert_eq!(own.tensors().iter().map(Saved::name).collect::<Vec<_>>(), ["fc.bias"]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `f`.
    pub fn map(self, mut f: impl FnMut(Saved) -> Result<Option<Saved>>) -> Result<Self> {
        let tensors = self.tensors.into_iter().filter_map(|t| f(t).transpose()).collect::<Result<_>>()?;
        Ok(Self { tensors, ..self })
    }

    /// Without the other state and the notes of a checkpoint.
    ///
    /// ```
    /// # use shadegrad::{io::*, nn::*, *};
    /// let all = vec![Saved::f32("fc.bias", &[1], &[0.5])?, Saved::f32("shadegrad.mask", &[1], &[1.0])?];
    /// let own = Weights::new(all, Meta::new()).weights_only();
    /// assert_eq!(own.tensors().iter().map(Saved::name).collect::<Vec<_>>(), ["fc.bias"]);
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn weights_only(mut self) -> Self {
        self.tensors.retain(|t| !t.name().starts_with(RESERVED));
        Self { meta: Meta::new(), ..self }
    }

    /// Writes a safetensors file, whole or not at all.
    ///
    /// ```
    /// # use shadegrad::{io::*, nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.5)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// # let folder = tempfile::tempdir().expect("a folder");
    /// let path = folder.path().join("trained.safetensors");
    /// Weights::of(&arena)?.save(&path)?;
    /// let file = Weights::open(&path)?;
    /// assert_eq!(file.get("fc.bias").map(Saved::to_f32), Some(vec![0.5]));
    /// assert_eq!(file.meta()["format"], "pt"); // what PyTorch's readers ask for
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If a name occurs twice, or the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        // PyTorch's readers want to know whose layouts these are.
        let mut meta = self.meta.clone();
        meta.entry("format".into()).or_insert("pt".into());
        write_safetensors(path.as_ref(), &self.tensors, &meta)
    }

    /// Sets an arena's parameters and buffers, converting types and layouts. The number of batches that PyTorch's batch
    /// normalisation has seen (`*.num_batches_tracked`) is passed over, of whatever type: only a momentum of `None` reads
    /// it there, which layers here do not have. PyTorch fills it in when it loads a file from here.
    ///
    /// ```
    /// # use shadegrad::{io::*, nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let file = Weights::new(vec![Saved::f32("fc.weight", &[1, 2], &[3.0, 4.0])?], Meta::new());
    /// file.load_into(&arena, &LoadOptions::strict())?;
    /// assert_eq!(layer.forward(&Cx::eval(&arena), &Tensor::ones(&gpu, &[1, 2])?)?.item()?, 7.0);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Params`] if names or shapes do not agree, and the options do not allow it: all that are missing, with
    /// near names, all that are left over, and all of other shapes. Then nothing is changed.
    pub fn load_into(&self, arena: &Arena, options: &LoadOptions) -> Result<Loaded> {
        let allowed = |name: &str| options.allow.iter().any(|p| glob(p, name));
        let tables = [arena.table(), arena.buffer_table()];
        let row = |name: &str| tables.iter().find_map(|t| Some(&t.entries()[t.find(name)?]));
        let all = self.tensors.iter().filter(|t| !t.name().starts_with(RESERVED));
        let mut report =
            Report { all: all.filter(|t| row(t.name()).is_some() || !counts(t)).collect(), ..Report::default() };
        let (mut given, mut found) = (HashSet::new(), Vec::new());
        for t in report.all.clone() {
            if !given.insert(t.name()) {
                report.misshaped.push(format!("`{}` is there twice", t.name()));
            }
            match row(t.name()) {
                Some(e) if e.layout.outside_shape(&e.shape) == t.shape() => found.push((e, t)),
                _ if allowed(t.name()) => report.left.push(t.name().to_string()),
                None => report.unexpected.push(t),
                Some(e) => report.misshaped.push(format!(
                    "`{}` is {:?} in the model, {:?} in the file",
                    t.name(),
                    e.layout.outside_shape(&e.shape),
                    t.shape()
                )),
            }
        }
        for e in tables.iter().flat_map(|t| t.entries()).filter(|e| !given.contains(e.name.as_str())) {
            if allowed(&e.name) { report.left.push(e.name.clone()) } else { report.missing.push(e) }
        }
        if !report.fits() {
            return Err(Error::Params(report.text(&self.path)));
        }
        let values =
            found.iter().map(|(e, t)| (e.name.clone(), e.shape.clone(), e.layout.inside(&e.shape, t.to_f32())));
        let values: Vec<Weight> = values.collect();
        arena.set_named(&values)?;
        Ok(Loaded { set: values.len(), left: report.left })
    }
}

/// Whether this is PyTorch's number of batches seen.
fn counts(t: &Saved) -> bool {
    t.name().rsplit('.').next() == Some("num_batches_tracked") && t.numel() == 1
}

#[derive(Default)]
struct Report<'a> {
    all: Vec<&'a Saved>,
    missing: Vec<&'a Entry>,
    unexpected: Vec<&'a Saved>,
    misshaped: Vec<String>,
    left: Vec<String>,
}

/// Names of a list in a message; the rest is counted.
const SHOWN: usize = 20;

impl Report<'_> {
    fn fits(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshaped.is_empty()
    }

    fn text(&self, path: &Path) -> String {
        let of = if path.as_os_str().is_empty() { "the weights".into() } else { path.display().to_string() };
        let mut text = format!("{of} do not fit the model; nothing was changed");
        // Near names are looked for among what nobody asked for, if there is any.
        let pool = if self.unexpected.is_empty() { &self.all } else { &self.unexpected };
        let names: Vec<&str> = pool.iter().take(2000).map(|t| t.name()).collect();
        let missing = self.missing.iter().take(SHOWN).map(|e| {
            let near = did_you_mean(&e.name, &names).replace("; did you mean", " - is it").replace('?', "");
            format!("`{}` {:?}{near}", e.name, e.layout.outside_shape(&e.shape))
        });
        let unexpected = self.unexpected.iter().take(SHOWN).map(|t| format!("`{}` {:?}", t.name(), t.shape()));
        let misshaped = self.misshaped.iter().take(SHOWN).cloned();
        let lists: [(&str, usize, Vec<String>); 3] = [
            ("missing in the file", self.missing.len(), missing.collect()),
            ("not in the model", self.unexpected.len(), unexpected.collect()),
            ("of other shapes", self.misshaped.len(), misshaped.collect()),
        ];
        for (what, count, list) in lists.iter().filter(|l| l.1 > 0) {
            text += &format!("\n  {count} {what}:");
            for line in list {
                text += &format!("\n    {line}");
            }
            if *count > SHOWN {
                text += &format!("\n    and {} more", count - SHOWN);
            }
        }
        text + "\n  (take the model that the file is of; names that may differ can be allowed by pattern)"
    }
}

/// Whether this begins as a safetensors file does: the length of a header that fits into the file, and its brace. That comes
/// before all other kinds, since the length may be any number, those that other files begin with too.
fn is_safetensors(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk() else { return false };
    rest.first() == Some(&b'{') && u64::from_le_bytes(*length) <= rest.len() as u64
}

/// What a file of another known kind is, by its first bytes.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    const KINDS: &[(&[u8], &str)] = &[
        (
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
            "is in PyTorch's format before 1.6; load it there and save it again",
        ),
        (b"\x80", "is a bare Python pickle; save `model.state_dict()` with torch.save, or as safetensors"),
        (b"GGUF", "is a GGUF file; weights are read from safetensors and from torch.save"),
        (b"\x93NUMPY", "is a NumPy array; weights are read from safetensors and from torch.save"),
        (b"\x89HDF", "is an HDF5 file; weights are read from safetensors and from torch.save"),
        (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
    ];
    if bytes.is_empty() {
        return Some("is empty");
    }
    KINDS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|k| k.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers whose length begins as a pickle (0x80), an archive (`PK`) or gzip does are headers all the same.
    #[test]
    fn a_header_of_any_length_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let mut begins = HashSet::new();
        let names = (1..300).chain(0x4B50 - 200..0x4B50);
        for n in names.map(|n| "n".repeat(n)) {
            let tensor = Saved::f32(n.as_str(), &[1], &[2.0]).unwrap();
            Weights::new(vec![tensor], Meta::new()).save(&path).unwrap();
            begins.insert(std::fs::read(&path).unwrap()[..2].to_vec());
            let file = Weights::open(&path).unwrap();
            assert_eq!(file.tensors()[0].to_f32(), [2.0]);
        }
        assert!(begins.iter().any(|b| b[0] == 0x80) && begins.contains(&b"PK"[..]), "{begins:?}");
        // The other kinds are still known.
        std::fs::write(&path, b"\x80\x04}q\x00.").unwrap();
        let err = Weights::open(&path).unwrap_err().to_string();
        assert!(err.contains("a bare Python pickle"), "{err}");
    }
}
