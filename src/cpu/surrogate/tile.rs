//! Samples side by side, so that loops over them are vectorised.

use crate::layout::sample;

/// Samples in a tile: enough that no loop over them is unrolled before it is vectorised. Where fewer are left, the others are zeros, whose loss is 0.
pub(crate) const LANES: usize = 64;

/// One quantity of a tile's samples.
pub(crate) type Lanes<E> = [E; LANES];

/// A column of packed samples `[rows, 4]`, at most [`LANES`] of them.
#[inline(always)]
pub(crate) fn column(samples: &[f32], column: usize) -> Lanes<f32> {
    let mut lanes = [0.0; LANES];
    for (lane, row) in lanes.iter_mut().zip(samples.chunks_exact(sample::COLUMNS)) {
        *lane = row[column];
    }
    lanes
}

/// What begins with `values`, at most [`LANES`] of them.
#[inline(always)]
pub(crate) fn padded<E: Copy + Default>(values: &[E]) -> Lanes<E> {
    let mut lanes = [E::default(); LANES];
    lanes[..values.len()].copy_from_slice(values);
    lanes
}

/// The transpose of a matrix whose rows have `columns` elements and are `from_stride` apart. Four rows at once make a store of four elements.
#[inline(always)]
fn transpose<E: Copy>(from: &[E], from_stride: usize, columns: usize, to: &mut [E], to_stride: usize) {
    const BLOCK: usize = 4;
    let rows = from.len() / from_stride;
    let row = |i: usize| from[i * from_stride..][..columns].iter();
    let blocks = rows / BLOCK * BLOCK;
    for i in (0..blocks).step_by(BLOCK) {
        let four = row(i).zip(row(i + 1)).zip(row(i + 2)).zip(row(i + 3));
        for ((((&a, &b), &c), &d), to) in four.zip(to[i..].chunks_mut(to_stride)) {
            to[..BLOCK].copy_from_slice(&[a, b, c, d]);
        }
    }
    for i in blocks..rows {
        for (&element, to) in row(i).zip(to[i..].chunks_mut(to_stride)) {
            to[0] = element;
        }
    }
}

/// The transpose of `rows [n, width]`, n ≤ [`LANES`], as `columns [width, LANES]`.
#[inline(always)]
pub(crate) fn transpose_into<E: Copy>(rows: &[E], width: usize, columns: &mut [E]) {
    transpose(rows, width, width, columns, LANES);
}

/// The way back.
#[inline(always)]
pub(crate) fn transpose_from<E: Copy>(columns: &[E], width: usize, rows: &mut [E]) {
    transpose(columns, LANES, rows.len() / width, rows, width);
}
