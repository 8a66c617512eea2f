//! Inputs and hyper-parameters of a case file, checked on request.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::str::FromStr;

use super::file::{CaseFile, Tensor, Values};
use crate::error::{Error, Result};

/// Metadata for people, not for the computation.
const DESCRIPTIVE: [&str; 6] = ["kind", "formula", "scalar", "seed", "generator", "torch"];

/// The inputs of a file, and the names requested so far.
pub(super) struct Inputs<'a> {
    file: &'a CaseFile,
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Inputs<'a> {
    pub fn new(file: &'a CaseFile) -> Self {
        Self { file, asked: RefCell::default() }
    }

    /// Inputs and metadata never requested.
    pub fn unused(&self) -> Vec<String> {
        let asked = self.asked.borrow();
        let is_double = |name: &str| self.file.tensor(&format!("{name}.f32")).is_some();
        let inputs = self.file.names().filter(|name| name.starts_with("in.") && !is_double(name));
        let is_descriptive =
            |name: &str| DESCRIPTIVE.contains(&name) || name.starts_with("f32err:") || name.starts_with("f32abs:");
        let metadata = self.file.hyper_parameters().filter(|name| !is_descriptive(name));
        inputs.chain(metadata).filter(|&name| !asked.contains(name)).map(str::to_owned).collect()
    }

    /// Whether the file has one of these solutions, whose inputs must then exist.
    pub fn wants(&self, solutions: &[&str]) -> bool {
        solutions.iter().any(|name| self.file.tensor(name).is_some())
    }

    pub fn unusable(&self, reason: impl Into<String>) -> Error {
        self.file.unusable(reason)
    }

    fn require(&self, name: &str) -> Result<&'a Tensor> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.file.tensor(name).ok_or_else(|| self.unusable(format!("no tensor {name}; add it")))
    }

    fn require_shape(&self, name: &str, shape: &[usize]) -> Result<&'a Tensor> {
        let tensor = self.require(name)?;
        if tensor.shape != shape {
            return Err(Error::shape(name, format!("{shape:?}"), format!("{:?}", tensor.shape)));
        }
        Ok(tensor)
    }

    fn wrong_type(&self, name: &str, expected: &str, tensor: &Tensor) -> Error {
        self.unusable(format!("{name}: type {}, expected {expected}", tensor.values.name()))
    }

    /// The input `in.NAME.f32` of exactly this shape: no NaN, and equal to any `in.NAME`.
    pub fn f32s(&self, name: &str, shape: &[usize]) -> Result<&'a [f32]> {
        let name = format!("in.{name}.f32");
        let tensor = self.require_shape(&name, shape)?;
        let Values::F32(values) = &tensor.values else { return Err(self.wrong_type(&name, "F32", tensor)) };
        if let Some(i) = values.iter().position(|value| value.is_nan()) {
            return Err(Error::value(format!("{name}[{i}]"), "a number", values[i]));
        }
        let in_double = name.trim_end_matches(".f32");
        let Some(twin) = self.file.tensor(in_double) else { return Ok(values) };
        if twin.shape != shape {
            return Err(Error::shape(in_double, format!("{shape:?}"), format!("{:?}", twin.shape)));
        }
        let Values::F64(doubles) = &twin.values else { return Err(self.wrong_type(in_double, "F64", twin)) };
        match values.iter().zip(doubles).position(|(&value, &double)| f64::from(value) != double) {
            None => Ok(values),
            Some(i) => {
                Err(Error::value(format!("{name}[{i}]"), format!("the number in the F64 tensor, {}", doubles[i]), values[i]))
            }
        }
    }

    /// The input `in.NAME.f32` of flags, each 0 or 1.
    pub fn f32_flags(&self, name: &str, shape: &[usize]) -> Result<&'a [f32]> {
        let flags = self.f32s(name, shape)?;
        match flags.iter().position(|&flag| flag != 0.0 && flag != 1.0) {
            None => Ok(flags),
            Some(i) => Err(Error::value(format!("in.{name}.f32[{i}]"), "0 or 1", flags[i])),
        }
    }

    /// The input `in.NAME` of indices, each below `below`.
    pub fn indices(&self, name: &str, shape: &[usize], below: usize) -> Result<Vec<u32>> {
        let name = format!("in.{name}");
        let tensor = self.require_shape(&name, shape)?;
        let Values::I64(values) = &tensor.values else { return Err(self.wrong_type(&name, "I64", tensor)) };
        let index = |(i, &value): (usize, &i64)| {
            let index = u32::try_from(value).ok().filter(|&index| (index as usize) < below);
            index.ok_or_else(|| Error::value(format!("{name}[{i}]"), format!("an index below {below}"), value))
        };
        values.iter().enumerate().map(index).collect()
    }

    /// The input `in.NAME` of flags, each 0 or 1.
    pub fn flags(&self, name: &str, shape: &[usize]) -> Result<Vec<u32>> {
        let name = format!("in.{name}");
        let tensor = self.require_shape(&name, shape)?;
        let Values::U8(values) = &tensor.values else { return Err(self.wrong_type(&name, "U8", tensor)) };
        let flag = |(i, &value): (usize, &u8)| match value {
            0 | 1 => Ok(u32::from(value)),
            _ => Err(Error::value(format!("{name}[{i}]"), "0 or 1", value)),
        };
        values.iter().enumerate().map(flag).collect()
    }

    /// The shape of the input `in.NAME.f32`.
    pub fn shape(&self, name: &str) -> Result<&'a [usize]> {
        Ok(&self.require(&format!("in.{name}.f32"))?.shape)
    }

    /// Whether there is an input `in.NAME.f32`.
    pub fn has(&self, name: &str) -> bool {
        self.file.tensor(&format!("in.{name}.f32")).is_some()
    }

    /// The text of a hyper-parameter, if the file has it.
    pub fn optional_text(&self, name: &str) -> Option<&'a str> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.file.hyper_parameter(name)
    }

    /// The text of a hyper-parameter.
    pub fn text(&self, name: &str) -> Result<&'a str> {
        self.optional_text(name).ok_or_else(|| self.unusable(format!("no hyper-parameter {name} in the metadata; add it")))
    }

    fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<T> {
        let text = self.text(name)?;
        text.parse().map_err(|_| Error::value(name, expected, text))
    }

    pub fn number(&self, name: &str) -> Result<f64> {
        let number: f64 = self.parsed(name, "a number")?;
        if number.is_finite() { Ok(number) } else { Err(Error::value(name, "a finite number", number)) }
    }

    /// A number, or None for `none` (as Python writes it).
    pub fn optional_number(&self, name: &str) -> Result<Option<f64>> {
        if self.text(name)?.eq_ignore_ascii_case("none") { Ok(None) } else { self.number(name).map(Some) }
    }

    /// A number, or infinity for `inf` or `none`.
    pub fn bound(&self, name: &str) -> Result<f64> {
        match self.text(name)? {
            "inf" => Ok(f64::INFINITY),
            _ => Ok(self.optional_number(name)?.unwrap_or(f64::INFINITY)),
        }
    }

    pub fn size(&self, name: &str) -> Result<usize> {
        self.parsed(name, "a whole number >= 0")
    }

    /// A hyper-parameter of 0 or 1.
    pub fn switch(&self, name: &str) -> Result<bool> {
        match self.text(name)? {
            "0" => Ok(false),
            "1" => Ok(true),
            other => Err(Error::value(name, "0 or 1", other)),
        }
    }

    /// A comma-separated list of sizes, possibly empty.
    pub fn sizes(&self, name: &str) -> Result<Vec<usize>> {
        let text = self.text(name)?;
        let size = |part: &str| part.trim().parse().map_err(|_| Error::value(name, "sizes separated by commas", text));
        if text.is_empty() { Ok(Vec::new()) } else { text.split(',').map(size).collect() }
    }

    /// A hyper-parameter that is one of several words.
    pub fn one_of<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T> {
        let text = self.text(name)?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|&(_, choice)| choice);
        found.ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|&(word, _)| word).collect();
            Error::value(name, format!("one of {}", words.join(", ")), text)
        })
    }
}
