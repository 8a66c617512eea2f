//! The operations natively in f32, written for speed: vectors, tiles, threads. They share no arithmetic with the twins.

pub(crate) mod advantage;
