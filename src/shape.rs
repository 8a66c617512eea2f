//! Checks of sizes and hyper-parameters, and allocation on the host.

use crate::error::{Error, Result};

/// A vector with capacity for `len` elements, or an error where `Vec::with_capacity` aborts.
pub(crate) fn reserve<T>(what: &str, len: usize) -> Result<Vec<T>> {
    let mut vector = Vec::new();
    let needed = (len as u64).saturating_mul(size_of::<T>() as u64);
    vector.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { what: what.to_owned(), needed })?;
    Ok(vector)
}

pub(crate) fn defaults<T: Clone + Default>(what: &str, len: usize) -> Result<Vec<T>> {
    let mut vector = reserve(what, len)?;
    vector.resize(len, T::default());
    Ok(vector)
}

pub(crate) fn require_len(name: &str, len: usize, needed: usize) -> Result<()> {
    if len >= needed { Ok(()) } else { Err(Error::shape(name, format!("at least {needed} elements"), len)) }
}

/// Requires a size from 1 to the largest `u32`, the integer type of shaders.
pub(crate) fn require_size(name: &str, size: usize) -> Result<()> {
    if size == 0 || size > u32::MAX as usize {
        return Err(Error::shape(name, "a size from 1 to 4294967295", size));
    }
    Ok(())
}

/// The product of two sizes, less than 2³² because shaders index with `u32`.
pub(crate) fn elements(name: &str, rows: usize, columns: usize) -> Result<usize> {
    match rows.checked_mul(columns) {
        Some(n) if n <= u32::MAX as usize => Ok(n),
        _ => Err(Error::shape(name, "fewer than 2^32 elements", format!("{rows} x {columns}"))),
    }
}

pub(crate) fn require_finite(name: &str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::value(name, "a finite number", value)) }
}

/// Requires `value` in `[low, high]`, which excludes NaN.
pub(crate) fn require_range(name: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if value >= low && value <= high && value.is_finite() {
        return Ok(());
    }
    // Debug output has exponents, which Display lacks.
    let expected =
        if high.is_finite() { format!("a number in [{low:?}, {high:?}]") } else { format!("a finite number >= {low:?}") };
    Err(Error::value(name, expected, value))
}
