//! Action distributions.

pub(crate) mod categorical;
pub(crate) mod gaussian;
