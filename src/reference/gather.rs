//! Twin of `shaders/gather.wgsl`.

use crate::kernels::gather::Gather;
use crate::layout::sample;

fn source_row(op: &Gather, indices: &[u32], i: usize) -> usize {
    (indices[op.start + i] as usize).min(op.rows - 1)
}

/// target[i, :] = source[indices[start + i], :].
pub fn rows<E: Copy>(op: &Gather, source: &[E], indices: &[u32], target: &mut [E]) {
    match op.width {
        1 => narrow_rows::<E, 1>(op, source, indices, target),
        2 => narrow_rows::<E, 2>(op, source, indices, target),
        3 => narrow_rows::<E, 3>(op, source, indices, target),
        4 => narrow_rows::<E, 4>(op, source, indices, target),
        _ => wide_rows(op, source, indices, target),
    }
}

/// Rows of a length that is known, so that none of them is a call.
fn narrow_rows<E: Copy, const WIDTH: usize>(op: &Gather, source: &[E], indices: &[u32], target: &mut [E]) {
    let ((source, _), (target, _)) = (source.as_chunks::<WIDTH>(), target.as_chunks_mut::<WIDTH>());
    for (i, row) in target.iter_mut().take(op.count).enumerate() {
        *row = source[source_row(op, indices, i)];
    }
}

fn wide_rows<E: Copy>(op: &Gather, source: &[E], indices: &[u32], target: &mut [E]) {
    for (i, target_row) in target.chunks_exact_mut(op.width).take(op.count).enumerate() {
        let row = source_row(op, indices, i) * op.width;
        target_row.copy_from_slice(&source[row..row + op.width]);
    }
}

/// `samples[i] = (old_logp[r], advantages[r], returns[r], old_values[r])`, `r = indices[start + i]`.
pub fn pack_samples<E: Copy>(op: &Gather, indices: &[u32], columns: [&[E]; sample::COLUMNS], samples: &mut [E]) {
    for (i, packed) in samples.chunks_exact_mut(sample::COLUMNS).take(op.count).enumerate() {
        let row = source_row(op, indices, i);
        packed.copy_from_slice(&columns.map(|column| column[row]));
    }
}
