//! Minibatches by an index buffer.

mod common;

use common::{checked, expect_mismatch, plant};
use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, GatherOps, Memory};
use ppo_kernels::kernels::gather::{Gather, SamplesOperands};

on_every_backend!(takes_the_named_rows, packs_columns_into_rows, moves_any_bits);

fn takes_the_named_rows<B: GatherOps>(backend: &mut B) {
    let source = backend.upload_floats(&[0.0, 1.0, 10.0, 11.0, 20.0, 21.0]).unwrap();
    let indices = backend.upload_words(&[9, 2, 0, 1]).unwrap();
    let mut target = backend.alloc_floats(4).unwrap();
    let op = Gather { rows: 3, width: 2, start: 1, count: 2 };
    backend.gather_floats(&op, &source, &indices, &mut target).unwrap();
    assert_eq!(backend.read_floats(&target, 0, 4).unwrap(), [20.0, 21.0, 0.0, 1.0]);

    let clamped = Gather { rows: 3, width: 2, start: 0, count: 1 };
    backend.gather_floats(&clamped, &source, &indices, &mut target).unwrap();
    assert_eq!(backend.read_floats(&target, 0, 2).unwrap(), [20.0, 21.0], "index 9 is clamped to the last row");
}

fn packs_columns_into_rows<B: GatherOps>(backend: &mut B) {
    let columns = [[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [100.0, 200.0, 300.0], [1000.0, 2000.0, 3000.0]];
    let [old_logp, advantages, returns, old_values] = columns.map(|column| backend.upload_floats(&column).unwrap());
    let indices = backend.upload_words(&[2, 0]).unwrap();
    let mut samples = backend.alloc_floats(8).unwrap();
    let op = Gather { rows: 3, width: 1, start: 0, count: 2 };
    let (indices, old_logp, advantages, returns) = (&indices, &old_logp, &advantages, &returns);
    let (old_values, packed) = (&old_values, &mut samples);
    let operands = SamplesOperands { indices, old_logp, advantages, returns, old_values, samples: packed };
    backend.gather_samples(&op, operands).unwrap();
    assert_eq!(backend.read_floats(&samples, 0, 8).unwrap(), [3.0, 30.0, 300.0, 3000.0, 1.0, 10.0, 100.0, 1000.0]);
}

fn moves_any_bits<B: GatherOps>(backend: &mut B) {
    let bits = [f32::NAN.to_bits(), f32::INFINITY.to_bits(), 0x7f80_0001, 1, u32::MAX];
    let source = backend.upload_words(&bits).unwrap();
    let indices = backend.upload_words(&[4, 3, 2, 1, 0]).unwrap();
    let mut target = backend.alloc_words(5).unwrap();
    let op = Gather { rows: 5, width: 1, start: 0, count: 5 };
    backend.gather_words(&op, &source, &indices, &mut target).unwrap();
    let mut expected = bits;
    expected.reverse();
    assert_eq!(backend.read_words(&target, 0, 5).unwrap(), expected);
}

#[test]
fn a_wrong_kernel_is_caught() {
    let Some(mut both) = checked() else { return };
    let wrong = plant(include_str!("../shaders/gather.wgsl"), "indices[params.start + i]", "indices[i]");
    both.a.context.replace_shader("gather", wrong);
    let source = both.upload_floats(&[0.0, 1.0, 2.0]).unwrap();
    let indices = both.upload_words(&[0, 1, 2]).unwrap();
    let mut target = both.alloc_floats(2).unwrap();
    let op = Gather { rows: 3, width: 1, start: 1, count: 2 };
    let mismatch = expect_mismatch(both.gather_floats(&op, &source, &indices, &mut target));
    assert_eq!((mismatch.operation, mismatch.tensor, mismatch.element), ("gather_floats", "target", 0));
}

#[test]
fn a_write_past_the_end_is_caught() {
    let Some(mut both) = checked() else { return };
    let wrong = plant(include_str!("../shaders/gather.wgsl"), "target_rows[element] =", "target_rows[element + 1u] =");
    both.a.context.replace_shader("gather", wrong);
    let source = both.upload_floats(&[0.0]).unwrap();
    let indices = both.upload_words(&[0]).unwrap();
    let mut target = both.alloc_floats(1).unwrap();
    let op = Gather { rows: 1, width: 1, start: 0, count: 1 };
    let error = both.gather_floats(&op, &source, &indices, &mut target).unwrap_err();
    assert!(error.to_string().contains("wrote element 1 of a buffer of 1 elements"), "{error}");
}

#[test]
fn names_the_argument_that_does_not_fit() {
    let mut cpu = Cpu::<f32>::new();
    let source = cpu.upload_floats(&[0.0; 6]).unwrap();
    let indices = cpu.upload_words(&[0; 4]).unwrap();
    let mut target = cpu.alloc_floats(4).unwrap();
    let fits = Gather { rows: 3, width: 2, start: 0, count: 2 };
    for (op, argument) in [
        (Gather { rows: 4, ..fits }, "source"),
        (Gather { count: 3, ..fits }, "target"),
        (Gather { start: 3, ..fits }, "indices"),
        (Gather { start: usize::MAX, ..fits }, "start"),
        (Gather { count: 0, ..fits }, "count"),
        (Gather { width: 0, ..fits }, "width"),
        (Gather { rows: usize::MAX, ..fits }, "rows"),
        (Gather { rows: 1 << 31, width: 4, ..fits }, "source"),
    ] {
        match cpu.gather_floats(&op, &source, &indices, &mut target) {
            Err(Error::Shape { argument: named, .. }) => assert_eq!(named, argument, "{op:?}"),
            other => panic!("{op:?}: {other:?}"),
        }
    }
}
