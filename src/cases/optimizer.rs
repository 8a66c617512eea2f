//! Clipping by the global norm, Adam and AdamW.

use super::Problem;
use crate::backend::Backend;
use crate::error::Result;
use crate::kernels::optimizer::{Adam, GradientNorm};
use crate::layout::{control, schedule, stat};

/// What torch's `clip_grad_norm_` adds to the norm.
const TORCH_NORM_EPSILON: f64 = 1e-6;

/// The state of several tensors after every step of Adam. Case files number steps and tensors from 0.
pub(super) fn adam<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let file = problem.file;
    let steps = file.size("steps")?;
    let (lr, beta1, beta2) = (file.number("lr")?, file.number("beta1")?, file.number("beta2")?);
    let anneal = file.one_of("lr_schedule", &[("constant", false), ("lr*(1-k/steps) at step k=0..", true)])?;
    let max_grad_norm = file.bound("max_norm")?;
    file.shape("param.0")?; // the first there has to be
    let shapes: Vec<Vec<usize>> = (0..)
        .map(|i| format!("param.{i}"))
        .take_while(|name| file.has(name))
        .map(|name| file.shape(&name).map(<[usize]>::to_vec))
        .collect::<Result<_>>()?;
    let flat = |name: &dyn Fn(usize) -> String| -> Result<Vec<f32>> {
        let parts: Vec<&[f32]> = shapes.iter().enumerate().map(|(i, shape)| file.f32s(&name(i), shape)).collect::<Result<_>>()?;
        Ok(parts.concat())
    };
    let initial = flat(&|i| format!("param.{i}"))?;
    let len = initial.len();
    // Before anything is sized by the number of steps: they are as many as there are gradients.
    let grads = (0..steps).map(|k| flat(&|i| format!("grad{k}.{i}"))).collect::<Result<Vec<_>>>()?;

    let mut params = problem.backend.upload_floats(&initial)?;
    let [mut m, mut v] = [problem.filled(len, 0.0)?, problem.filled(len, 0.0)?];
    let mut stats = problem.filled(stat::COLUMNS, 0.0)?;
    let mut control = problem.backend.upload_words(&control::INITIAL)?;
    let (mut norms, mut coefs) = (Vec::new(), Vec::new());
    let norm = GradientNorm { len, max_grad_norm, epsilon: TORCH_NORM_EPSILON, stats_row: 0 };
    let op = Adam {
        len,
        beta1,
        beta2,
        epsilon: file.number("eps")?,
        weight_decay: file.number("weight_decay")?,
        decoupled: file.switch("decoupled")?,
        schedule_row: 0,
        stats_row: 0,
    };
    for (k, grads) in grads.iter().enumerate() {
        let grads = problem.backend.upload_floats(grads)?;
        let learning_rate = if anneal { lr * (1.0 - k as f64 / steps as f64) } else { lr };
        let schedule = problem.backend.upload_floats(&schedule::row(learning_rate, beta1, beta2, k as u64 + 1))?;
        problem.backend.gradient_norm(&norm, &grads, &mut stats)?;
        problem.backend.adam_step(&op, &mut params, &grads, &mut m, &mut v, &schedule, &stats, &mut control)?;
        let row = problem.read(&stats)?;
        norms.push(row[stat::GRAD_NORM]);
        coefs.push(row[stat::CLIP_COEF]);
        for (name, buffer) in [("param", &params), ("m", &m), ("v", &v)] {
            let mut rest = problem.read(buffer)?;
            for (i, shape) in shapes.iter().enumerate() {
                let after = rest.split_off(shape.iter().product());
                problem.keep_values(format!("out.{name}{k}.{i}"), std::mem::replace(&mut rest, after));
            }
        }
    }
    problem.keep_values("out.norms", norms);
    problem.keep_values("out.coefs", coefs);
    Ok(())
}
