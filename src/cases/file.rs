//! Case files: safetensors, read whole, with names, types and shapes checked.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::error::{Error, Result};

/// The largest file read. A case file has some hundred kilobytes; a pipe may never end.
const LARGEST_FILE: u64 = 1 << 30;

/// Elements of a tensor in a case file's types.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Inputs.
    F32(Vec<f32>),
    /// The solution.
    F64(Vec<f64>),
    /// Actions, permutations.
    I64(Vec<i64>),
    /// Flags, masks.
    U8(Vec<u8>),
}

impl Values {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Values::F32(_) => "F32",
            Values::F64(_) => "F64",
            Values::I64(_) => "I64",
            Values::U8(_) => "U8",
        }
    }

    /// All elements as f64, exact except for very large integers.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Values::F32(values) => values.iter().copied().map(f64::from).collect(),
            Values::F64(values) => values.clone(),
            Values::I64(values) => values.iter().map(|&value| value as f64).collect(),
            Values::U8(values) => values.iter().copied().map(f64::from).collect(),
        }
    }
}

/// A tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its dimensions; none for a scalar.
    pub shape: Vec<usize>,
    /// Its elements.
    pub values: Values,
}

impl Tensor {
    /// Number of elements.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A case file: a problem and its solution.
#[derive(Debug, Clone)]
pub struct CaseFile {
    path: PathBuf,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Tensor>,
}

impl CaseFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], or those of [`parse`](Self::parse).
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(io)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(Error::File {
                path: path.to_owned(),
                reason: format!("is larger than {LARGEST_FILE} bytes, the most for a case file"),
            });
        }
        Self::parse(path, &bytes)
    }

    /// Parses a file read from `path`.
    ///
    /// # Errors
    /// [`Error::File`] for another format, another type of tensor, or no `kind`.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let unusable = |reason: String| Error::File { path: path.to_owned(), reason };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| unusable(error.to_string()))?;
        let contents = SafeTensors::deserialize(bytes).map_err(|error| unusable(error.to_string()))?;
        let metadata: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
        if !metadata.contains_key("kind") {
            return Err(unusable("no kind in the metadata; add one".to_owned()));
        }
        let mut tensors = BTreeMap::new();
        for (name, view) in contents.iter() {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => Values::F32(elements(data, f32::from_le_bytes)),
                Dtype::F64 => Values::F64(elements(data, f64::from_le_bytes)),
                Dtype::I64 => Values::I64(elements(data, i64::from_le_bytes)),
                Dtype::U8 => Values::U8(data.to_vec()),
                other => return Err(unusable(format!("{name}: type {other}, expected F32, F64, I64 or U8"))),
            };
            tensors.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), values });
        }
        Ok(Self { path: path.to_owned(), metadata, tensors })
    }

    /// The file's name without folder and extension.
    pub fn case(&self) -> String {
        case_name(&self.path)
    }

    /// The kind of problem.
    pub fn kind(&self) -> &str {
        self.metadata.get("kind").map_or("", String::as_str)
    }

    /// Every `out.` and `grad.` tensor, sorted by name.
    pub fn expected(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let tensors = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        tensors.filter(|(name, _)| name.starts_with("out.") || name.starts_with("grad."))
    }

    /// A tensor, if the file has it.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub(super) fn hyper_parameter(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
    }

    pub(super) fn hyper_parameters(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    pub(super) fn unusable(&self, reason: impl Into<String>) -> Error {
        Error::File { path: self.path.clone(), reason: reason.into() }
    }

    /// PyTorch's error in single precision, if the file has it.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] for anything but a finite number >= 0: infinity allows every error.
    pub fn yardstick(&self, prefix: &str, tensor: &str) -> Result<Option<f64>> {
        let name = format!("{prefix}:{tensor}");
        let Some(text) = self.metadata.get(&name) else { return Ok(None) };
        match text.parse() {
            Ok(yardstick) if yardstick >= 0.0 && f64::is_finite(yardstick) => Ok(Some(yardstick)),
            _ => Err(Error::value(name, "a finite number >= 0", text)),
        }
    }
}

/// The case's name: the path without folder and extension.
pub fn case_name(path: &Path) -> String {
    path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}

fn elements<T, const BYTES: usize>(data: &[u8], from_le_bytes: impl Fn([u8; BYTES]) -> T) -> Vec<T> {
    data.as_chunks::<BYTES>().0.iter().map(|&bytes| from_le_bytes(bytes)).collect()
}
