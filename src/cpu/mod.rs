//! The operations natively in f32, written for speed: vectors, tiles, threads. They share no arithmetic with the twins.

pub(crate) mod actor_critic;
pub(crate) mod advantage;
pub(crate) mod gather;
pub(crate) mod linear;
pub(crate) mod nonfinite;
pub(crate) mod normalize;
pub(crate) mod optimizer;
pub(crate) mod policy;
pub(crate) mod random;
pub(crate) mod surrogate;
