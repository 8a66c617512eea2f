//! Whether an adapter's tensor cores compute what they should, asked before anything relies on them.

use super::{Cpu, CrossCheck, Gpu, LinearOps, Memory, Variant};
use crate::error::{Error, Result};
use crate::kernels::linear::{Activation, ForwardOperands, Linear, TensorCores, gradient_scale};

/// Batch, inputs and outputs: smaller than a tile and no multiple of anything; multiples of four, beyond the largest tile.
const SHAPES: [[usize; 3]; 2] = [[37, 21, 19], [200, 132, 136]];
/// Above the largest number of f16.
const TOO_LARGE: f32 = 1e6;

/// Runs the three products against double precision, by the contract's tolerance; says what is wrong if anything is.
pub(super) fn self_test(mut gpu: Gpu) -> (Gpu, std::result::Result<(), String>) {
    let variant = std::mem::replace(&mut gpu.variant, Variant::Fast);
    let mut both = CrossCheck::new(gpu, Cpu::<f64>::new());
    let by_shape = both.a.tensor_cores;
    let large = by_shape.and_then(TensorCores::in_large_tiles);
    let outcome = [by_shape, large].into_iter().flatten().try_for_each(|cores| {
        both.a.tensor_cores = Some(cores);
        SHAPES.iter().try_for_each(|&shape| products(&mut both, shape))
    });
    let mut gpu = both.a;
    gpu.tensor_cores = by_shape;
    let outcome = outcome.and_then(|()| overflow(&mut gpu));
    gpu.variant = variant;
    gpu.take_used_precision();
    gpu.context.release();
    (gpu, outcome.map_err(|error| format!("tensor cores failed a self-test: {error}")))
}

fn products(both: &mut CrossCheck<Gpu, Cpu<f64>>, [batch, in_features, out_features]: [usize; 3]) -> Result<()> {
    let bias_offset = in_features * out_features;
    let layer = Linear { batch, in_features, out_features, weight_offset: 0, bias_offset };
    let params = both.upload_floats(&operand(out_features, in_features + 1, 1.0))?;
    let x = both.upload_floats(&operand(batch, in_features, 1.0))?;
    let d_pre = both.upload_floats(&operand(batch, out_features, gradient_scale(batch)))?;
    let mut y = both.alloc_floats(batch * out_features)?;
    let mut d_x = both.alloc_floats(batch * in_features)?;
    let mut grads = both.alloc_floats(bias_offset + out_features)?;
    both.linear_forward(
        &layer,
        Activation::Identity,
        ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
    )?;
    both.linear_backward_input(&layer, &d_pre, &params, None, &mut d_x)?;
    both.linear_backward_params(&layer, &d_pre, &x, &mut grads)
}

/// What does not fit f16 has to end as an infinity or a NaN, which a learner finds, and not as the largest number that fits.
fn overflow(gpu: &mut Gpu) -> Result<()> {
    let layer = Linear { batch: 1, in_features: 1, out_features: 1, weight_offset: 0, bias_offset: 1 };
    let (x, params) = (gpu.upload_floats(&[TOO_LARGE])?, gpu.upload_floats(&[1.0, 0.0])?);
    let mut y = gpu.alloc_floats(1)?;
    gpu.linear_forward(
        &layer,
        Activation::Identity,
        ForwardOperands { x: &x, x_offset: 0, params: &params, pre: None, y: &mut y, y_offset: 0 },
    )?;
    match gpu.read_floats(&y, 0, 1)?[0] {
        y if y.is_finite() => Err(Error::value("an operand beyond f16", "a result that is not finite", y)),
        _ => Ok(()),
    }
}

/// Numbers whose mantissas lie nine tenths of the way from one half to the next, so that an adapter that truncates instead of rounding is found:
/// all are positive, and its errors add up. Every fifth row is of numbers that are subnormal in f16, where an adapter must not flush them to zero.
fn operand(rows: usize, columns: usize, scale: f64) -> Vec<f32> {
    let number = |i: usize| {
        let mantissa = 1.0 + ((i * 37 % 61) as f64 + 0.9) / 1024.0;
        let exponent = (i * 5 % 3) as i32 - if i / columns % 5 == 4 { 17 } else { 1 };
        (mantissa * 2f64.powi(exponent) / scale) as f32
    };
    (0..rows * columns).map(number).collect()
}
