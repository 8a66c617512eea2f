//! The error type of the whole crate.

use std::path::PathBuf;

/// Everything that can go wrong. Each variant names the argument or the resource, what was expected and what came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A buffer or a tensor has the wrong number of elements, or a size that makes no sense.
    #[error("{argument}: expected {expected}, got {actual}")]
    Shape {
        /// Name of the argument.
        argument: String,
        /// What would have been accepted.
        expected: String,
        /// What came.
        actual: String,
    },
    /// A hyper-parameter or option is outside its range.
    #[error("{argument}: expected {expected}, got {actual}")]
    InvalidValue {
        /// Name of the argument.
        argument: String,
        /// What would have been accepted.
        expected: String,
        /// What came.
        actual: String,
    },
    /// Two arguments exclude each other.
    #[error("{argument} conflicts with {other}; {remedy}")]
    Conflict {
        /// Name of the argument.
        argument: String,
        /// Name of the other.
        other: String,
        /// How the caller gets rid of the conflict.
        remedy: String,
    },
    /// The adapter cannot hold or run what was asked for.
    #[error("{limit}: {needed} needed, the adapter allows {available}")]
    LimitExceeded {
        /// WebGPU's name of the limit.
        limit: &'static str,
        /// How much was needed.
        needed: u64,
        /// How much there is.
        available: u64,
    },
    /// No adapter fits the request.
    #[error("no adapter for {wanted}; found: {}", if found.is_empty() { "none".to_owned() } else { found.join(", ") })]
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// Names of the adapters that exist.
        found: Vec<String>,
    },
    /// The device, or the host, ran out of memory.
    #[error("out of memory: {needed} bytes for {what}")]
    OutOfMemory {
        /// What was to be allocated.
        what: String,
        /// Its size in bytes.
        needed: u64,
    },
    /// The device is gone (driver reset, unplugged, destroyed).
    #[error("the device was lost: {0}")]
    DeviceLost(String),
    /// The device refused a command: a bug in a kernel binding, or a shader it cannot compile.
    #[error("the device reported: {0}")]
    Device(String),
    /// A NaN or an infinity where the configuration forbids it.
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
    /// A bench that did not compute what it should, or could not run.
    #[error("{bench}: {source}")]
    Bench {
        /// The bench's name.
        bench: String,
        /// What went wrong in it.
        source: Box<Error>,
    },
    /// A case file or checkpoint that cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
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
    /// The operation, as the method of the backend trait is called.
    pub operation: &'static str,
    /// The output of that operation.
    pub tensor: &'static str,
    /// Flat index in that output.
    pub element: usize,
    /// Value of the backend under test.
    pub value: f64,
    /// Value of the reference backend.
    pub reference: f64,
    /// Largest |value − reference| that the kernel's contract allows there.
    pub allowed: f64,
    /// Update during which it happened, where a learner was running.
    pub update: Option<usize>,
    /// Minibatch step within that update.
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
