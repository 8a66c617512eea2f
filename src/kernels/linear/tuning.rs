//! Which kernel for a matrix product is the fastest on the adapter at hand.

use super::binding::{LinearParams, Operation, Product, SHADER, record_product};
use crate::error::{Error, Result};
use crate::gpu::{Context, TuningKey, TuningProblem, bind, fastest};
use crate::kernels::Constants;

/// Multiply-adds below which starting a product takes longer than the product, whichever kernel it is.
const LEAST_WORK: usize = 1 << 16;
/// Elements that one problem may allocate: 128 MiB, what WebGPU promises to a binding.
const MOST_ELEMENTS: usize = 1 << 25;
/// Samples that a problem keeps of a batch that is too long for it: enough to fill tiles.
const FEWEST_SAMPLES: usize = 16;

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Forward => "linear_forward",
            Operation::BackwardInput => "linear_backward_input",
            Operation::BackwardParams => "linear_backward_params",
        }
    }

    /// The batch, by which a problem is made smaller.
    fn batch(self, params: &mut LinearParams) -> &mut u32 {
        match self {
            Operation::Forward | Operation::BackwardInput => &mut params.rows,
            Operation::BackwardParams => &mut params.depth,
        }
    }
}

/// Elements of a problem's matrices.
struct Sizes {
    /// a `[rows, depth]`
    a: usize,
    /// b `[depth, columns]`
    b: usize,
    /// `[splits, rows, columns]`
    output: usize,
}

impl Sizes {
    fn of(params: &LinearParams) -> Self {
        let [rows, columns, depth, splits] = [params.rows, params.columns, params.depth, params.splits].map(|n| n as usize);
        Self { a: rows * depth, b: columns * depth, output: rows * columns * splits }
    }

    /// Of a and b behind it, or `saved` over both of them.
    fn inputs(&self) -> usize {
        self.a.saturating_add(self.b).max(self.output)
    }
}

fn work(params: &LinearParams) -> usize {
    [params.rows, params.columns, params.depth].into_iter().fold(1, |work, n| work.saturating_mul(n as usize))
}

/// The fastest candidate on this adapter; `default` where nothing is to be timed.
pub(super) fn tuned(
    context: &mut Context,
    operation: Operation,
    constants: Constants,
    params: &LinearParams,
    default: Product,
) -> Product {
    let candidates: Vec<_> = Product::candidates(context, params.rows as usize, params.columns as usize).collect();
    let Some(index) = candidates.iter().position(|&candidate| candidate == default) else { return default };
    if work(params) < LEAST_WORK {
        return default;
    }
    let sizes = [params.rows, params.columns, params.depth].map(|size| (size as usize).next_power_of_two());
    let names: Vec<_> = candidates.iter().map(|candidate| candidate.name()).collect();
    let key = TuningKey { operation: operation.name(), sizes };
    candidates[fastest(context, SHADER.name, key, &names, index, |context, work| {
        make_problem(context, operation, constants, params, &candidates, work)
    })]
}

/// The same product with a batch short enough for so much work and for memory, on numbers of its own.
fn make_problem<'a>(
    context: &mut Context,
    operation: Operation,
    constants: Constants,
    params: &LinearParams,
    candidates: &'a [Product],
    work: usize,
) -> Result<TuningProblem<'a>> {
    let (mut params, is_full_size) = shortened(operation, params, work)?;
    let sizes = Sizes::of(&params);
    let inputs = context.alloc::<f32>(sizes.inputs())?;
    let output = context.alloc::<f32>(sizes.output)?;
    context.write(&inputs, 0, &numbers(sizes.inputs()))?;
    // All within `inputs` and `output`, which is what the shader's proof asks for: b behind a, a bias anywhere in b, db behind dW.
    (params.a_offset, params.b_offset, params.output_offset) = (0, sizes.a as u32, 0);
    params.bias_offset = match operation {
        Operation::Forward => params.b_offset,
        Operation::BackwardInput => 0,
        Operation::BackwardParams => params.rows * (params.columns - 1),
    };
    let mut buffers = vec![bind("a", &inputs), bind("b", &inputs), bind("output", &output)];
    if operation == Operation::BackwardInput {
        buffers.push(bind("saved", &inputs));
    }
    let record = move |context: &mut Context, candidate: usize| {
        record_product(context, candidates[candidate], operation, constants, &params, &buffers)
    };
    Ok(TuningProblem { record: Box::new(record), output, is_full_size })
}

/// With the longest batch that takes no more than so many multiply-adds and fits into a problem's memory, and whether more work would not
/// lengthen it.
fn shortened(operation: Operation, params: &LinearParams, most_work: usize) -> Result<(LinearParams, bool)> {
    let with_batch = |batch: usize| {
        let mut short = *params;
        *operation.batch(&mut short) = batch as u32;
        short.splits = match operation {
            Operation::BackwardParams => short.depth.div_ceil(short.depth_per_split),
            Operation::Forward | Operation::BackwardInput => 1,
        };
        short
    };
    let batch = *operation.batch(&mut { *params }) as usize;
    let fits = |batch: usize| {
        let sizes = Sizes::of(&with_batch(batch));
        sizes.inputs().saturating_add(sizes.output) <= MOST_ELEMENTS
    };
    let mut longest = batch;
    while longest > 1 && !fits(longest) {
        longest /= 2;
    }
    if !fits(longest) {
        let sizes = Sizes::of(&with_batch(longest));
        return Err(Error::OutOfMemory {
            what: "a problem to be timed".to_owned(),
            needed: 4 * (sizes.inputs() + sizes.output) as u64,
        });
    }
    let work_a_sample = work(params) / batch;
    let short = (most_work / work_a_sample).max(FEWEST_SAMPLES).min(longest);
    Ok((with_batch(short), short == longest))
}

/// `len` numbers in [-1, 1) that look like no pattern: zeros would cost some adapters less.
fn numbers(len: usize) -> Vec<f32> {
    (0..len as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common;
    use crate::gpu::Autotune;

    const FORWARD: LinearParams = LinearParams {
        rows: 1000,
        columns: 40,
        depth: 30,
        depth_per_split: 30,
        splits: 1,
        a_offset: 7,
        a_row_stride: 30,
        a_depth_stride: 1,
        b_offset: 9,
        b_column_stride: 30,
        b_depth_stride: 1,
        bias_offset: 5,
        output_offset: 3,
    };
    const CONSTANTS: Constants = &[("ACTIVATION", 0.0)];

    #[test]
    fn a_cached_choice_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let tuned_anew = |default| {
            let mut context = common::gpu()?.context;
            context.set_bounds_checks(false);
            context.set_autotune(Autotune::OnDisk(folder.path().to_owned()));
            let found = tuned(&mut context, Operation::Forward, CONSTANTS, &FORWARD, default);
            Some((found, context.candidates_timed()))
        };
        let Some((found, 2)) = tuned_anew(Product::Registers) else { return };
        let file = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let file = file.into_iter().find(|path| path.extension().is_some_and(|e| e == "json")).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        for (forced, default) in [(Product::Plain, Product::Registers), (Product::Registers, Product::Plain)] {
            let planted = common::plant(
                &text,
                &format!("1024x64x32\": \"{}\"", found.name()),
                &format!("1024x64x32\": \"{}\"", forced.name()),
            );
            std::fs::write(&file, planted).unwrap();
            assert_eq!(tuned_anew(default), Some((forced, 0)));
        }
    }

    #[test]
    fn a_problem_is_as_large_as_work_and_memory_allow() {
        let with = |rows, columns, depth| LinearParams { rows, columns, depth, ..FORWARD };
        let rows =
            |params: &LinearParams, work| shortened(Operation::Forward, params, work).map(|(short, whole)| (short.rows, whole));
        assert_eq!(rows(&with(1000, 40, 30), 1 << 22).unwrap(), (1000, true));
        assert_eq!(rows(&with(1000, 40, 30), 600_000).unwrap(), (500, false));
        assert_eq!(rows(&with(1000, 40, 30), 1).unwrap(), (16, false), "enough to fill tiles");
        assert_eq!(rows(&with(3, 400, 300), 1).unwrap(), (3, true));
        // 2²¹ rows of eight numbers in and eight out, and 64 weights, are just too many.
        assert_eq!(rows(&with(1 << 24, 8, 8), usize::MAX).unwrap(), (1 << 20, true));
        assert!(rows(&with(1, 65_535, 65_535), 1 << 22).is_err(), "weights alone do not fit");

        let params = LinearParams { rows: 8, columns: 9, depth: 10_000, depth_per_split: 2048, splits: 5, ..FORWARD };
        for (work, depth, splits) in [(usize::MAX, 10_000, 5), (72 * 4097, 4097, 3), (72 * 2048, 2048, 1)] {
            let (short, whole) = shortened(Operation::BackwardParams, &params, work).unwrap();
            assert_eq!((short.depth, short.splits, whole), (depth, splits, depth == 10_000));
        }
    }
}
