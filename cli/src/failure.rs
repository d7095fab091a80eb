//! Errors as a person and a script see them: one text with a remedy, and an exit status.

use std::process::ExitCode;

/// A mistake in the command line or the configuration: exit status 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A [`Usage`] error from a text.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}

/// Prints an error and returns the exit status it stands for.
pub fn report(err: &anyhow::Error) -> ExitCode {
    match interrupted(err) {
        // What was asked for is no error.
        Some(text) => eprintln!("{text}"),
        None => eprintln!("error: {err:#}"),
    }
    ExitCode::from(status(err))
}

fn interrupted(err: &anyhow::Error) -> Option<&str> {
    err.chain().find_map(|cause| match cause.downcast_ref() {
        Some(shadegrad::Error::Interrupted(text)) => Some(text.as_str()),
        _ => None,
    })
}

fn status(err: &anyhow::Error) -> u8 {
    if interrupted(err).is_some() {
        return crate::interrupt::STATUS;
    }
    for cause in err.chain() {
        if cause.is::<Usage>() {
            return 2;
        }
        if matches!(cause.downcast_ref(), Some(shadegrad::Error::NonFinite(_))) {
            return 3;
        }
    }
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        assert_eq!(status(&usage("x").context("y")), 2);
        assert_eq!(status(&anyhow::Error::from(shadegrad::Error::NonFinite("x".into())).context("y")), 3);
        assert_eq!(status(&anyhow::anyhow!("x")), 1);
        assert_eq!(status(&anyhow::Error::from(shadegrad::Error::Interrupted("x".into()))), 130);
    }
}
