//! Benches of one call: losses and samplers at one shape, and the run of any [`Call`].

use std::collections::BTreeMap;

use super::inputs::Inputs;
use super::losses::{self, Head};
use super::measure::Effort;
use super::peaks::{Benchmarked, Peaks, time};
use super::{Record, record};
use crate::backend::{Backend, Cpu, CrossCheck};
use crate::error::Result;
use crate::kernels::policy::{Categorical, Gaussian};
use crate::operations::{self, Call, Draw, Step, Work};

#[derive(Debug)]
pub(super) struct Bench {
    pub name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Loss { head: Head, batch: usize },
    CategoricalSample { batch: usize, actions: usize },
    GaussianSample { batch: usize, dim: usize },
}

const BATCHES: [usize; 2] = [1 << 14, 1 << 20];

/// All benches; with `small`, the short ones.
pub(super) fn all(small: bool) -> Vec<Bench> {
    let mut benches = Vec::new();
    let mut add = |name: String, kind| benches.push(Bench { name, kind });
    let batches = &BATCHES[..if small { 1 } else { 2 }];
    for actions in [2, 6, 18] {
        for &batch in batches {
            add(format!("loss_cat/A{actions}_B{batch}"), Kind::Loss { head: Head::Categorical { actions }, batch });
        }
    }
    for dim in [6, 21] {
        for &batch in batches {
            add(format!("loss_gauss/A{dim}_B{batch}"), Kind::Loss { head: Head::Gaussian { dim }, batch });
        }
    }
    let (batch, vocabulary) = (if small { 512 } else { 4096 }, 32_000);
    add(format!("loss_token/N{batch}_V{vocabulary}"), Kind::Loss { head: Head::Tokens { vocabulary }, batch });
    add("sample_cat/A16_B2048".to_owned(), Kind::CategoricalSample { batch: 2048, actions: 16 });
    add("sample_gauss/A12_B4096".to_owned(), Kind::GaussianSample { batch: 4096, dim: 12 });
    benches
}

impl Call for Bench {
    fn work(&self) -> Work {
        let (flops, words, items) = match self.kind {
            Kind::Loss { head, batch } => {
                let items = if matches!(head, Head::Tokens { .. }) { "tokens_per_s" } else { "samples_per_s" };
                (head.flops(batch), head.words(batch), (items, batch))
            }
            Kind::CategoricalSample { batch, actions } => {
                (4.0 * (batch * actions) as f64, batch * (actions + 3), ("samples_per_s", batch))
            }
            Kind::GaussianSample { batch, dim } => (7.0 * (batch * dim) as f64, batch * (3 * dim + 1), ("samples_per_s", batch)),
        };
        Work { flops, bytes: 4.0 * words as f64, items: Some((items.0, items.1 as f64)) }
    }

    fn prepare<B: Backend>(&self, buffers: &mut operations::Inputs<'_, B>) -> Result<Step<B>> {
        let (backend, mut inputs) = (&mut *buffers.backend, Inputs::new());
        match self.kind {
            Kind::Loss { head, batch } => losses::prepare(backend, &mut inputs, head, batch),
            Kind::CategoricalSample { batch, actions } => {
                let logits = backend.upload_floats(&inputs.floats(batch * actions, 1.0))?;
                let uniforms = backend.upload_floats(&inputs.uniforms(batch))?;
                let (mut drawn, mut logp) = (backend.alloc_words(batch)?, backend.alloc_floats(batch)?);
                let op = Categorical { batch, actions };
                Ok(Box::new(move |backend| backend.categorical_sample(&op, &logits, None, &uniforms, 0, &mut drawn, &mut logp)))
            }
            Kind::GaussianSample { batch, dim } => {
                let mean = backend.upload_floats(&inputs.floats(batch * dim, 1.0))?;
                let log_std = backend.upload_floats(&inputs.floats(dim, 0.3))?;
                let noise = backend.upload_floats(&inputs.floats(batch * dim, 1.0))?;
                let (mut drawn, mut logp) = (backend.alloc_floats(batch * dim)?, backend.alloc_floats(batch)?);
                let op = Gaussian { batch, dim, state_dependent_std: false, log_std_offset: 0 };
                Ok(Box::new(move |backend| backend.gaussian_sample(&op, &mean, &log_std, &noise, 0, &mut drawn, &mut logp)))
            }
        }
    }
}

/// Checks one call against double precision, then times it. Always returns the backend.
pub(super) fn run<B: Benchmarked>(
    backend: B,
    name: &str,
    call: &impl Call,
    effort: Effort,
    peaks: &Peaks,
) -> (B, Result<Record>) {
    let mut checked = CrossCheck::new(backend, Cpu::<f64>::new());
    let outcome = prepare(call, &mut checked).and_then(|mut step| step(&mut checked));
    let check = |(&(operation, tensor), worst): (&(&str, &str), &crate::backend::Worst)| {
        (format!("{operation}: {tensor}"), worst.ratio())
    };
    let check: BTreeMap<String, f64> = checked.worst().iter().map(check).collect();
    let mut backend = checked.a;
    let outcome = outcome.and_then(|()| {
        let step = prepare(call, &mut backend)?;
        let samples = time(&mut backend, step, effort)?;
        Ok(record(name, &mut backend, &samples, call.work(), Some(peaks), check))
    });
    (backend, outcome)
}

/// Draws equal inputs on every backend.
fn prepare<B: Backend>(call: &impl Call, backend: &mut B) -> Result<Step<B>> {
    call.prepare(&mut operations::Inputs { backend, draw: Draw::new(1, 0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_the_small_ones_are_a_part() {
        let names = |small| all(small).into_iter().map(|bench| bench.name).collect::<Vec<_>>();
        let (small, full) = (names(true), names(false));
        let distinct: std::collections::BTreeSet<&String> = full.iter().collect();
        assert_eq!(distinct.len(), full.len());
        let token = |name: &&String| name.starts_with("loss_token");
        assert!(small.iter().all(|name| full.contains(name) || token(&name)), "{small:?}");
    }

    #[test]
    fn a_loss_moves_its_head_twice_and_six_numbers_a_sample() {
        let work = |head| Bench { name: String::new(), kind: Kind::Loss { head, batch: 10 } }.work();
        assert_eq!(work(Head::Categorical { actions: 6 }).bytes, 4.0 * 10.0 * (12.0 + 1.0 + 6.0));
        assert_eq!(work(Head::Gaussian { dim: 6 }).bytes, 4.0 * 10.0 * (18.0 + 6.0));
    }
}
