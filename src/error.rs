//! The error type of the whole crate.

use std::path::PathBuf;

/// All errors. Each variant names the argument or resource, the expectation and the actual value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A size is invalid, or a buffer or tensor has the wrong number of elements.
    #[error("{argument}: expected {expected}, got {actual}")]
    Shape {
        /// Name of the argument.
        argument: String,
        /// The accepted values.
        expected: String,
        /// The actual value.
        actual: String,
    },
    /// A hyper-parameter or option is outside its range.
    #[error("{argument}: expected {expected}, got {actual}")]
    InvalidValue {
        /// Name of the argument.
        argument: String,
        /// The accepted values.
        expected: String,
        /// The actual value.
        actual: String,
    },
    /// Two arguments conflict.
    #[error("{argument} conflicts with {other}; {remedy}")]
    Conflict {
        /// Name of the argument.
        argument: String,
        /// Name of the other.
        other: String,
        /// The caller's way out of the conflict.
        remedy: String,
    },
    /// The request exceeds a limit of the adapter.
    #[error("{limit}: {needed} needed, the adapter allows {available}")]
    LimitExceeded {
        /// The limit's name in WebGPU.
        limit: &'static str,
        /// The amount needed.
        needed: u64,
        /// The adapter's limit.
        available: u64,
    },
    /// No adapter fits the request.
    #[error("no adapter for {wanted}; found: {}", if found.is_empty() { "none".to_owned() } else { found.join(", ") })]
    NoAdapter {
        /// The requested adapter.
        wanted: String,
        /// Names of the adapters that exist.
        found: Vec<String>,
    },
    /// The device or the host is out of memory.
    #[error("out of memory: {needed} bytes for {what}")]
    OutOfMemory {
        /// The object to be allocated.
        what: String,
        /// Its size in bytes.
        needed: u64,
    },
    /// The device is gone (driver reset, unplugged, destroyed).
    #[error("the device was lost: {0}")]
    DeviceLost(String),
    /// The device reported an error: a bug in a kernel binding, or a shader that does not compile.
    #[error("the device reported: {0}")]
    Device(String),
    /// A NaN or an infinity.
    #[error("{tensor}: element {element} is not finite")]
    NonFinite {
        /// Name of the tensor.
        tensor: String,
        /// Flat index of the first such element.
        element: usize,
    },
    /// Two backends disagree; see [`Mismatch`].
    #[error("{0}")]
    Mismatch(Box<Mismatch>),
    /// A bench computed a wrong result or could not run.
    #[error("{bench}: {source}")]
    Bench {
        /// The bench's name.
        bench: String,
        /// The bench's error.
        source: Box<Error>,
    },
    /// A file that cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// The first element in which two backends differ by more than the kernel's tolerance.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// The operation: the method of the backend trait.
    pub operation: &'static str,
    /// The output.
    pub tensor: &'static str,
    /// Flat index in that output.
    pub element: usize,
    /// Value of the backend under test.
    pub value: f64,
    /// Value of the reference backend.
    pub reference: f64,
    /// Largest |value − reference| allowed by the kernel's contract.
    pub allowed: f64,
    /// Number of the update, if a learner was running.
    pub update: Option<usize>,
    /// Minibatch step of that update.
    pub minibatch: Option<usize>,
    /// The two backends.
    pub backends: (String, String),
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}[{}]", self.operation, self.tensor, self.element)?;
        if let Some(update) = self.update {
            write!(f, " in update {update}")?;
        }
        if let Some(minibatch) = self.minibatch {
            write!(f, ", minibatch {minibatch}")?;
        }
        write!(
            f,
            ": {:e} on {}, {:e} on {}; they differ by {:e}, allowed {:e}",
            self.value,
            self.backends.0,
            self.reference,
            self.backends.1,
            (self.value - self.reference).abs(),
            self.allowed
        )
    }
}

/// `Result` with this crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn shape(argument: impl Into<String>, expected: impl Into<String>, actual: impl ToString) -> Self {
        Error::Shape { argument: argument.into(), expected: expected.into(), actual: actual.to_string() }
    }

    pub(crate) fn conflict(argument: impl Into<String>, other: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error::Conflict { argument: argument.into(), other: other.into(), remedy: remedy.into() }
    }

    pub(crate) fn value(argument: impl Into<String>, expected: impl Into<String>, actual: impl ToString) -> Self {
        Error::InvalidValue { argument: argument.into(), expected: expected.into(), actual: actual.to_string() }
    }
}
