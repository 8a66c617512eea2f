//! Case files: safetensors, read whole and checked, so that what follows can trust names, types and shapes.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::error::{Error, Result};

/// The largest file that is read. A case is a few hundred kilobytes; a pipe or a device may never end.
const LARGEST_FILE: u64 = 1 << 30;

/// Elements of a tensor, in the four types that case files have.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// Inputs as a program gets them.
    F32(Vec<f32>),
    /// The truth.
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

    /// All elements as double precision, in which each of the types but very large integers is exact.
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

/// A case: a problem and its solution.
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
    /// [`Error::Io`] where it cannot be read, else those of [`parse`](Self::parse).
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        std::fs::File::open(path).map_err(io)?.take(LARGEST_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > LARGEST_FILE {
            return Err(Error::File { path: path.to_owned(), reason: format!("larger than {LARGEST_FILE} bytes") });
        }
        Self::parse(path, &bytes)
    }

    /// Takes a file apart that has been read from `path`.
    ///
    /// # Errors
    /// [`Error::File`] for what is not safetensors, has tensors of another type than the four, or no `kind`.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let unusable = |reason: String| Error::File { path: path.to_owned(), reason };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| unusable(error.to_string()))?;
        let contents = SafeTensors::deserialize(bytes).map_err(|error| unusable(error.to_string()))?;
        let metadata: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
        if !metadata.contains_key("kind") {
            return Err(unusable("no kind in the metadata".to_owned()));
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

    /// What kind of problem it is.
    pub fn kind(&self) -> &str {
        self.metadata.get("kind").map_or("", String::as_str)
    }

    /// Every `out.` and `grad.` tensor, in order of names.
    pub fn expected(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let tensors = self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        tensors.filter(|(name, _)| name.starts_with("out.") || name.starts_with("grad."))
    }

    /// A tensor, where there is one.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Metadata, as it is written.
    pub(super) fn hyper_parameter(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
    }

    /// The names of all metadata, in order.
    pub(super) fn hyper_parameters(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// The file cannot be used.
    pub(super) fn unusable(&self, reason: impl Into<String>) -> Error {
        Error::File { path: self.path.clone(), reason: reason.into() }
    }

    /// PyTorch's own deviation in single precision, where the file has it.
    ///
    /// # Errors
    /// It is not a number >= 0: an infinite yardstick would let everything pass.
    pub fn yardstick(&self, prefix: &str, tensor: &str) -> Result<Option<f64>> {
        let name = format!("{prefix}:{tensor}");
        let Some(text) = self.metadata.get(&name) else { return Ok(None) };
        match text.parse() {
            Ok(yardstick) if yardstick >= 0.0 && f64::is_finite(yardstick) => Ok(Some(yardstick)),
            _ => Err(Error::value(name, "a finite number >= 0", text)),
        }
    }
}

/// The name of the case in a file of this path.
pub fn case_name(path: &Path) -> String {
    path.file_stem().map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}

fn elements<T, const BYTES: usize>(data: &[u8], from_le_bytes: impl Fn([u8; BYTES]) -> T) -> Vec<T> {
    data.as_chunks::<BYTES>().0.iter().map(|&bytes| from_le_bytes(bytes)).collect()
}
