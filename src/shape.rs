//! Checks on sizes and hyper-parameters, shared by every kernel's contract.

use crate::error::{Error, Result};

/// Room for `len` elements on the host: what is too large for it is an error, where `Vec::with_capacity` ends the process.
pub(crate) fn reserve<T>(what: &str, len: usize) -> Result<Vec<T>> {
    let mut room = Vec::new();
    let needed = (len as u64).saturating_mul(size_of::<T>() as u64);
    room.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { what: what.to_owned(), needed })?;
    Ok(room)
}

/// As many defaults.
pub(crate) fn defaults<T: Clone + Default>(what: &str, len: usize) -> Result<Vec<T>> {
    let mut room = reserve(what, len)?;
    room.resize(len, T::default());
    Ok(room)
}

/// `name` holds at least `needed` elements.
pub(crate) fn require_len(name: &str, len: usize, needed: usize) -> Result<()> {
    if len >= needed { Ok(()) } else { Err(Error::shape(name, format!("at least {needed} elements"), len)) }
}

/// `name` is a size of at least one that a shader can count in 32 bits.
pub(crate) fn require_size(name: &str, size: usize) -> Result<()> {
    if size == 0 || size > u32::MAX as usize {
        return Err(Error::shape(name, "a size from 1 to 4294967295", size));
    }
    Ok(())
}

/// The product of two sizes, which has to stay below 2³² because shaders index with `u32`.
pub(crate) fn elements(name: &str, rows: usize, columns: usize) -> Result<usize> {
    match rows.checked_mul(columns) {
        Some(n) if n <= u32::MAX as usize => Ok(n),
        _ => Err(Error::shape(name, "fewer than 2^32 elements", format!("{rows} x {columns}"))),
    }
}

/// `value` is finite.
pub(crate) fn require_finite(name: &str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::value(name, "a finite number", value)) }
}

/// `value` lies in `[low, high]` (which NaN does not).
pub(crate) fn require_range(name: &str, value: f64, low: f64, high: f64) -> Result<()> {
    if value >= low && value <= high && value.is_finite() {
        return Ok(());
    }
    // As debug output, because Display has no exponents.
    let expected =
        if high.is_finite() { format!("a number in [{low:?}, {high:?}]") } else { format!("a finite number >= {low:?}") };
    Err(Error::value(name, expected, value))
}
