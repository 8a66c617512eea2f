//! Twin of `shaders/gather.wgsl`.

use crate::kernels::gather::Gather;
use crate::kernels::surrogate::sample;

fn source_row(op: &Gather, indices: &[u32], i: usize) -> usize {
    (indices[op.start + i] as usize).min(op.rows - 1)
}

/// target[i, :] = source[indices[start + i], :].
pub fn rows<E: Copy>(op: &Gather, source: &[E], indices: &[u32], target: &mut [E]) {
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
