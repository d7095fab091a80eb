//! One check by name, and how it can end.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use shadegrad::Error;
use shadegrad::kernels::GpuError;

/// Why a check did not pass.
#[derive(Debug)]
pub enum Failed {
    /// A result is wrong, or an error came where none should.
    Wrong(String),
    /// The device lacks what the check needs, and the engine said so instead of computing something else.
    Refused(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(text) => f.write_str(text),
            Self::Refused(text) => write!(f, "refused by this device: {text}"),
        }
    }
}

impl std::error::Error for Failed {}

impl From<Error> for Failed {
    fn from(err: Error) -> Self {
        match err {
            Error::Gpu(err) => err.into(),
            err => Self::Wrong(err.to_string()),
        }
    }
}

impl From<GpuError> for Failed {
    fn from(err: GpuError) -> Self {
        match err {
            GpuError::TooLarge { .. } => Self::Refused(err.to_string()),
            err => Self::Wrong(err.to_string()),
        }
    }
}

impl From<String> for Failed {
    fn from(text: String) -> Self {
        Self::Wrong(text)
    }
}

impl From<&str> for Failed {
    fn from(text: &str) -> Self {
        Self::Wrong(text.to_string())
    }
}

/// How a check ends.
pub type Outcome = Result<(), Failed>;

/// A check by the name under which tests, reports and filters know it: `family/row/aspect`.
pub struct Check {
    name: String,
    run: Box<dyn FnOnce() -> Outcome + Send>,
}

impl Check {
    pub(crate) fn new(name: impl Into<String>, run: impl FnOnce() -> Outcome + Send + 'static) -> Self {
        Self { name: name.into(), run: Box::new(run) }
    }

    /// `family/row/aspect`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part of the name before the first slash.
    pub fn family(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }

    /// Runs the check. An assertion that fails in it is [`Failed::Wrong`].
    ///
    /// # Errors
    /// What is wrong, or why the device cannot run it.
    pub fn run(self) -> Outcome {
        let run = self.run;
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").into())
        })
    }
}

/// Functions without arguments, which assert, as the checks of a family.
macro_rules! checks {
    ($family:literal: $($name:ident),+ $(,)?) => {
        pub(crate) fn checks() -> Vec<crate::check::Check> {
            vec![$(crate::check::Check::new(concat!($family, "/", stringify!($name)), || {
                $name();
                Ok(())
            })),+]
        }
    };
}
pub(crate) use checks;
