//! Twin of `shaders/gather.wgsl`.

use crate::kernels::gather::{Gather, SamplesOperands};
use crate::layout::sample;

/// `target[i, :] = source[indices[start + i], :]`, an index beyond the last row being the last.
pub fn rows<E: Copy>(op: &Gather, source: &[E], indices: &[u32], target: &mut [E]) {
    for i in 0..op.count {
        let row = row(op, indices, i);
        for column in 0..op.width {
            target[i * op.width + column] = source[row * op.width + column];
        }
    }
}

/// `samples[i] = (old_logp[r], advantages[r], returns[r], old_values[r])`, `r = indices[start + i]`.
pub fn pack_samples<T: Copy>(op: &Gather, operands: SamplesOperands<'_, Vec<T>, Vec<u32>>) {
    let SamplesOperands { indices, old_logp, advantages, returns, old_values, samples } = operands;
    for i in 0..op.count {
        let row = row(op, indices, i);
        samples[i * sample::COLUMNS + sample::OLD_LOGP] = old_logp[row];
        samples[i * sample::COLUMNS + sample::ADVANTAGE] = advantages[row];
        samples[i * sample::COLUMNS + sample::RETURN] = returns[row];
        samples[i * sample::COLUMNS + sample::OLD_VALUE] = old_values[row];
    }
}

fn row(op: &Gather, indices: &[u32], i: usize) -> usize {
    (indices[op.start + i] as usize).min(op.rows - 1)
}
