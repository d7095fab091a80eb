//! All values: kept aside, read and set by name.

use crate::autograd::nonfinite;
use crate::error::{Error, Result};
use crate::nn::arena::F32;
use crate::nn::{Arena, Snapshot, Weight, flat};
use crate::tensor::{DType, Tensor};

impl Arena {
    /// The first parameter or buffer that holds a NaN or an infinity, and how many; `None` if all are finite. Reads
    /// everything from the device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// assert_eq!(arena.nonfinite()?, None);
    /// arena.set_value(layer.weight(), &Tensor::from_slice(&gpu, &[1.0, f32::NAN], &[1, 2])?)?;
    /// assert!(arena.nonfinite()?.is_some_and(|text| text.contains("fc.weight")));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn nonfinite(&self) -> Result<Option<String>> {
        let found = |(name, _, data): Weight| nonfinite(&data).map(|count| format!("`{name}` {count}"));
        Ok(self.state()?.into_iter().find_map(found))
    }

    /// A copy of the values and running statistics.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let best = arena.snapshot()?;
    /// arena.set_value(layer.weight(), &Tensor::zeros(&gpu, &[1, 2])?)?; // training went on, and got worse
    /// arena.restore(&best)?;
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [1.0, 1.0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device refuses.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let copy = |t: &Tensor| {
            let new = Tensor::empty(&self.gpu, t.shape(), DType::F32, "snapshot")?;
            flat::copy_into(t, new.storage(), 0)?;
            Ok::<_, Error>(new)
        };
        Ok(Snapshot { values: copy(&self.values)?, buffers: copy(&self.stats)? })
    }

    /// Sets values and running statistics back to a copy, of this arena or another of the same model.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// let start = arena.snapshot()?;
    /// for rate in [0.1, 0.01] {
    ///     arena.restore(&start)?; // every attempt from the same values
    ///     arena.set_values_flat(&arena.values_flat().mul_scalar(rate)?)?;
    ///     assert_eq!(arena.params().get(layer.weight()).to_vec()?, [rate; 2]);
    /// }
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If it is that of another model.
    pub fn restore(&self, snapshot: &Snapshot) -> Result<()> {
        self.set_values_flat(&snapshot.values)?;
        self.set_buffers_flat(&snapshot.buffers)
    }

    /// Names, shapes and values of all parameters and then all buffers, read from the device.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, Some(Init::Const(0.5)));
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// for (name, shape, values) in arena.state()? {
    ///     println!("{name} {shape:?} {values:?}"); // fc.weight [1, 2] [1.0, 1.0], fc.bias [1] [0.5]
    /// }
    /// assert_eq!(arena.state()?[1].2, [0.5]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the device reported a fault.
    pub fn state(&self) -> Result<Vec<Weight>> {
        let mut out = Vec::with_capacity(self.table.len() + self.buffer_table.len());
        for (table, flat) in [(&self.table, &self.values), (&self.buffer_table, &self.stats)] {
            let all = flat.to_vec()?;
            out.extend(
                table.entries().iter().map(|e| (e.name.clone(), e.shape.clone(), all[e.offset..][..e.len].to_vec())),
            );
        }
        Ok(out)
    }

    /// Sets parameters and buffers by name. Strict: nothing may be missing, left over or of another shape; then nothing
    /// is changed.
    ///
    /// ```
    /// # use shadegrad::{nn::*, *};
    /// # let gpu = Gpu::new(Options::from_env()?)?;
    /// # let mut names = Builder::new();
    /// # let layer = Linear::with_init(&mut names.root().sub("fc"), 2, 1, Init::Ones, None);
    /// # let arena = Arena::new(&gpu, &names, 0)?;
    /// arena.load(&[("fc.weight".into(), vec![1, 2], vec![3.0, 4.0])])?;
    /// assert_eq!(arena.params().get(layer.weight()).to_vec()?, [3.0, 4.0]);
    /// assert!(arena.load(&[("fc.scale".into(), vec![1], vec![1.0])]).is_err()); // not its name
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// The names that are missing, those that the model does not have, and those whose shapes differ.
    pub fn load(&self, state: &[Weight]) -> Result<()> {
        let (mut unexpected, mut misshaped, mut seen) = (Vec::new(), Vec::new(), std::collections::HashSet::new());
        let tables = [&self.table, &self.buffer_table];
        let find = |name: &str| tables.iter().find_map(|t| Some(&t.entries()[t.find(name)?]));
        for (name, shape, data) in state {
            match find(name) {
                None => unexpected.push(name.clone()),
                Some(e) if e.shape != *shape || e.len != data.len() => {
                    misshaped.push(format!("{name} is {:?}, given {shape:?} of {} values", e.shape, data.len()));
                }
                Some(_) => {}
            }
            if !seen.insert(name.as_str()) {
                misshaped.push(format!("{name} is given twice"));
            }
        }
        let all = self.table.entries().iter().chain(self.buffer_table.entries());
        let missing: Vec<&str> = all.map(|e| e.name.as_str()).filter(|n| !seen.contains(n)).collect();
        let problems: Vec<String> =
            [("missing", missing.join(", ")), ("unexpected", unexpected.join(", ")), ("wrong", misshaped.join(", "))]
                .into_iter()
                .filter(|(_, names)| !names.is_empty())
                .map(|(what, names)| format!("{what}: {names}"))
                .collect();
        if !problems.is_empty() {
            return Err(Error::Params(format!("cannot load; {}", problems.join("; "))));
        }
        self.set_named(state)
    }

    /// Uploads the parameters and buffers that are given; their names and shapes are right.
    pub(crate) fn set_named(&self, values: &[Weight]) -> Result<()> {
        for (name, _, data) in values {
            for (table, flat) in [(&self.table, &self.values), (&self.buffer_table, &self.stats)] {
                if let Some(i) = table.find(name) {
                    let at = table.entries()[i].offset as u64 * F32;
                    self.gpu.upload_at(flat.storage(), at, bytemuck::cast_slice(data))?;
                }
            }
        }
        Ok(())
    }
}
