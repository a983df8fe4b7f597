//! How a job fails: whether trying again can help, and what a person is told.

use std::fmt;
use std::time::Duration;

/// A failure that says whether trying again can help. Any other error becomes a transient one by `?`.
pub struct Error {
    kind: Kind,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Transient(Option<Duration>),
    Permanent,
}

/// An error that says that trying again will not help: for `anyhow` and error enums, wherever it stands in the chain.
#[derive(Debug, Clone)]
pub struct Permanent {
    message: String,
}

/// An error that says when trying again makes sense, likewise. The host keeps the pause between a second and an hour.
#[derive(Debug, Clone)]
pub struct RetryAfter {
    mark: Mark,
    message: String,
}

/// Stands in the chain of causes below [`Permanent`] and [`RetryAfter`]. An error that `anyhow` has boxed no longer tells its own type, but
/// it still tells its causes.
#[derive(Debug, Clone)]
struct Mark(Kind);

const NEVER: Mark = Mark(Kind::Permanent);

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Mark {}

impl Permanent {
    /// Trying again will not help, and this is why.
    pub fn new(message: impl Into<String>) -> Permanent {
        Permanent { message: message.into() }
    }
}

impl RetryAfter {
    /// Trying again makes sense after `pause`.
    pub fn new(pause: Duration, message: impl Into<String>) -> RetryAfter {
        RetryAfter { mark: Mark(Kind::Transient(Some(pause))), message: message.into() }
    }
}

impl Error {
    /// It may work another time; the host pauses longer from attempt to attempt.
    pub fn transient(message: impl fmt::Display) -> Error {
        Error { kind: Kind::Transient(None), message: message.to_string() }
    }

    /// It will not work another time: the host does not retry.
    pub fn permanent(message: impl fmt::Display) -> Error {
        Error { kind: Kind::Permanent, message: message.to_string() }
    }

    /// Makes it transient, to be tried again after `pause`.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Error {
        self.kind = Kind::Transient(Some(pause));
        self
    }

    /// Whether the host will not retry.
    pub fn is_permanent(&self) -> bool {
        self.kind == Kind::Permanent
    }

    /// The pause asked for, if one was.
    pub fn pause(&self) -> Option<Duration> {
        match self.kind {
            Kind::Transient(pause) => pause,
            Kind::Permanent => None,
        }
    }

    /// What a person is told.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn of(error: &(dyn std::error::Error + 'static)) -> Error {
        let mut kind = Kind::Transient(None);
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(Mark(own)) = error.downcast_ref() {
                kind = *own;
            }
            if let Some(Carried(own)) = error.downcast_ref() {
                kind = own.kind;
            }
            cause = error.source();
        }
        Error { kind, message: chain(error) }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause.filter(|error| !error.is::<Mark>()) {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    fn from(error: E) -> Error {
        Error::of(&error)
    }
}

/// Carries an [`Error`] as a standard error: [`Error`] itself cannot be one and take all others by `?`.
#[derive(Debug)]
struct Carried(Error);

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Carried {}

impl From<Error> for Box<dyn std::error::Error + Send + Sync> {
    fn from(error: Error) -> Self {
        Box::new(Carried(error))
    }
}

impl fmt::Display for Permanent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Permanent {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&NEVER)
    }
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for RetryAfter {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.mark)
    }
}

/// What a job may return: nothing, or `Result<(), E>` for any error of the standard kind, [`Error`], `anyhow::Error`, or text.
pub trait IntoOutcome {
    /// As the host is told.
    ///
    /// # Errors
    /// If the job failed.
    fn into_outcome(self) -> Result<(), Error>;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Result<(), Error> {
        Ok(())
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> IntoOutcome for Result<(), E> {
    fn into_outcome(self) -> Result<(), Error> {
        self.map_err(|error| Error::of(&*error.into()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;
    use anyhow::Context as _;

    fn told(outcome: impl IntoOutcome) -> (bool, Option<Duration>, String) {
        let error = outcome.into_outcome().unwrap_err();
        (error.is_permanent(), error.pause(), error.message().to_owned())
    }

    #[test]
    fn any_error_is_transient_and_says_its_causes() {
        let io = || Err::<(), _>(std::io::Error::other("disk on fire"));
        assert_eq!(told(io()), (false, None, "disk on fire".to_owned()));
        assert_eq!(told(io().context("reading orders")), (false, None, "reading orders: disk on fire".to_owned()));
        assert_eq!(told(Err::<(), _>("text")), (false, None, "text".to_owned()));
        assert!(().into_outcome().is_ok() && Ok::<(), Error>(()).into_outcome().is_ok());
    }

    #[test]
    fn permanent_and_retry_after_are_found_wherever_they_stand() {
        assert_eq!(told(Err::<(), _>(Error::permanent("no"))), (true, None, "no".to_owned()));
        let later = Error::transient("busy").retry_after(Duration::from_secs(9));
        assert_eq!(told(Err::<(), _>(later)), (false, Some(Duration::from_secs(9)), "busy".to_owned()));
        let bare: anyhow::Result<()> = Err(Permanent::new("gone").into());
        assert_eq!(told(bare), (true, None, "gone".to_owned()));
        let deep = Err::<(), _>(Permanent::new("gone")).context("fetching");
        assert_eq!(told(deep), (true, None, "fetching: gone".to_owned()));
        let deep = Err::<(), _>(RetryAfter::new(Duration::from_secs(5), "429")).context("fetching");
        assert_eq!(told(deep), (false, Some(Duration::from_secs(5)), "fetching: 429".to_owned()));
        let by_question_mark = || -> Result<(), Error> { Ok(Err(Permanent::new("never"))?) };
        assert!(by_question_mark().unwrap_err().is_permanent());
    }
}
