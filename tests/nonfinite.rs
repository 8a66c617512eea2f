//! Finding NaN and infinities.

mod common;

use common::{Draw, checked, expect_mismatch, plant};
use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, Memory, NonfiniteOps};
use ppo_kernels::kernels::nonfinite::Watched;
use ppo_kernels::layout::{control, stop};

on_every_backend!(
    reports_nothing_where_all_is_finite,
    reports_the_first_element,
    sees_nan_and_both_infinities,
    keeps_the_first_tensor_reported,
    reports_the_first_of_several_tensors,
    leaves_the_rest_of_a_longer_buffer_alone,
);

const LARGE: usize = 100_001;

fn find<B: NonfiniteOps>(backend: &mut B, x: &[f32]) -> Vec<u32> {
    let len = x.len();
    let x = backend.upload_floats(x).unwrap();
    let mut control = backend.upload_words(&control::INITIAL).unwrap();
    backend.find_nonfinite(&[Watched { tensor: 7, len, x: &x }], &mut control).unwrap();
    backend.read_words(&control, 0, control::WORDS).unwrap()
}

fn reports_nothing_where_all_is_finite<B: NonfiniteOps>(backend: &mut B) {
    assert_eq!(find(backend, &[f32::MAX, f32::MIN, 0.0, -0.0, f32::MIN_POSITIVE, 1e-45]), control::INITIAL);
    assert_eq!(find(backend, &vec![f32::MAX; LARGE]), control::INITIAL);
}

fn reports_the_first_element<B: NonfiniteOps>(backend: &mut B) {
    for len in [1, 2, 255, 256, 257, 1 << 15, (1 << 15) + 1, LARGE] {
        for first in [0, len / 2, len - 1] {
            let mut x = vec![1.0; len];
            x[first] = f32::NAN;
            x[len - 1] = f32::NAN;
            assert_eq!(find(backend, &x), [stop::NON_FINITE, 0, 7, first as u32], "{len} elements");
        }
    }
}

fn sees_nan_and_both_infinities<B: NonfiniteOps>(backend: &mut B) {
    // The last two are NaNs with the smallest and the largest payload.
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0x7f80_0001), f32::from_bits(u32::MAX)] {
        assert_eq!(find(backend, &[0.0, bad]), [stop::NON_FINITE, 0, 7, 1], "{bad} ({:#x})", bad.to_bits());
    }
}

fn keeps_the_first_tensor_reported<B: NonfiniteOps>(backend: &mut B) {
    for len in [4, LARGE] {
        let mut late = vec![0.0; len];
        late[3] = f32::INFINITY;
        let late = backend.upload_floats(&late).unwrap();
        let early = backend.upload_floats(&vec![f32::NAN; len]).unwrap();
        let mut control = backend.upload_words(&control::INITIAL).unwrap();
        for (tensor, x) in [(5, &late), (5, &early), (6, &early)] {
            backend.find_nonfinite(&[Watched { tensor, len, x }], &mut control).unwrap();
            let found = backend.read_words(&control, 0, control::WORDS).unwrap();
            assert_eq!(found, [stop::NON_FINITE, 0, 5, 3], "even under the same number");
        }
    }
}

fn reports_the_first_of_several_tensors<B: NonfiniteOps>(backend: &mut B) {
    // Six at once, one by itself because it is long, and two more.
    let lens = [300, 1, 5000, 256, 7, 2048, LARGE, 12, 700];
    for bad in 0..lens.len() {
        for further in [None, Some(bad + 1), Some(lens.len() - 1)] {
            let buffers = std::array::from_fn::<_, 9, _>(|k| {
                let mut x = vec![1.0; lens[k]];
                // The later one at an earlier place.
                if k == bad {
                    x[lens[k] / 2] = f32::NAN;
                } else if Some(k) == further {
                    x[0] = f32::INFINITY;
                }
                backend.upload_floats(&x).unwrap()
            });
            let tensors = std::array::from_fn::<_, 9, _>(|k| Watched { tensor: 10 + k as u32, len: lens[k], x: &buffers[k] });
            let mut control = backend.upload_words(&control::INITIAL).unwrap();
            backend.find_nonfinite(&tensors, &mut control).unwrap();
            let found = backend.read_words(&control, 0, control::WORDS).unwrap();
            assert_eq!(found, [stop::NON_FINITE, 0, 10 + bad as u32, lens[bad] as u32 / 2], "{bad}, {further:?}");
        }
    }
}

fn leaves_the_rest_of_a_longer_buffer_alone<B: NonfiniteOps>(backend: &mut B) {
    let x = backend.upload_floats(&[1.0, 2.0, f32::NAN]).unwrap();
    let mut control = backend.upload_words(&control::INITIAL).unwrap();
    backend.find_nonfinite(&[Watched { tensor: 1, len: 2, x: &x }], &mut control).unwrap();
    assert_eq!(backend.read_words(&control, 0, control::WORDS).unwrap(), control::INITIAL);
}

#[test]
fn agrees_with_its_twin_at_edge_sizes() {
    let Some(mut both) = checked() else { return };
    let mut draw = Draw::new(1);
    for len in [1, 255, 256, 257, (1 << 15) - 1, 1 << 15, (1 << 15) + 1, 16 * 256 * 1024 + 300] {
        let mut x = draw.floats(len, 1.0);
        for at in draw.words(3, len as u32) {
            x[at as usize] = f32::NAN;
        }
        let x = both.upload_floats(&x).unwrap();
        let mut control = both.upload_words(&control::INITIAL).unwrap();
        both.find_nonfinite(&[Watched { tensor: 1, len, x: &x }], &mut control).unwrap();
    }
}

#[test]
fn a_wrong_kernel_is_caught() {
    for (len, from, to) in [
        (5, "atomicMin(&sh_firsts[k], first)", "atomicMax(&sh_firsts[k], first)"),
        (5, "i < small.lens", "i + 2u < small.lens"),
        (40_000, "/ stride + 1u;", "/ stride;"),
        (40_000, "atomicMin(&control[BAD_ELEMENT], first)", "atomicAdd(&control[BAD_ELEMENT], first)"),
        (40_000, "word & EXPONENT", "word & 0x7f000000u"),
    ] {
        let Some(mut both) = checked() else { return };
        both.a.context.replace_shader("nonfinite", plant(include_str!("../shaders/nonfinite.wgsl"), from, to));
        let mut x = vec![0.0; len];
        x[len - 2] = f32::NAN;
        x[len - 1] = f32::NAN;
        let x = both.upload_floats(&x).unwrap();
        let mut control = both.upload_words(&control::INITIAL).unwrap();
        let mismatch = expect_mismatch(both.find_nonfinite(&[Watched { tensor: 1, len, x: &x }], &mut control));
        assert_eq!((mismatch.operation, mismatch.tensor), ("find_nonfinite", "control"), "{from}");
    }
}

#[test]
fn a_wrong_choice_among_tensors_is_caught() {
    for (from, to) in [("return second[i];", "return second[i] & 1u;"), ("small.tensors[k / 4u][k % 4u]", "small.tensors[0][0]")]
    {
        let Some(mut both) = checked() else { return };
        both.a.context.replace_shader("nonfinite", plant(include_str!("../shaders/nonfinite.wgsl"), from, to));
        let buffers = [[1.0; 5], [f32::NAN; 5]].map(|x| both.upload_floats(&x).unwrap());
        let tensors = [1, 2].map(|tensor| Watched { tensor, len: 5, x: &buffers[tensor as usize - 1] });
        let mut control = both.upload_words(&control::INITIAL).unwrap();
        let mismatch = expect_mismatch(both.find_nonfinite(&tensors, &mut control));
        assert_eq!((mismatch.operation, mismatch.tensor), ("find_nonfinite", "control"), "{from}");
    }
}

#[test]
fn names_the_argument_that_does_not_fit() {
    let mut cpu = Cpu::<f32>::new();
    let x = cpu.upload_floats(&[0.0; 3]).unwrap();
    let mut control = cpu.upload_words(&control::INITIAL).unwrap();
    let mut short = cpu.upload_words(&[0; 3]).unwrap();
    for (len, argument) in [(0, "len"), (4, "x"), (usize::MAX, "len")] {
        match cpu.find_nonfinite(&[Watched { tensor: 1, len, x: &x }], &mut control) {
            Err(Error::Shape { argument: named, .. }) => assert_eq!(named, argument, "{len}"),
            other => panic!("{len}: {other:?}"),
        }
    }
    assert!(
        matches!(cpu.find_nonfinite(&[Watched { tensor: 0, len: 3, x: &x }], &mut control), Err(Error::InvalidValue { argument, .. }) if argument == "tensor")
    );
    assert!(
        matches!(cpu.find_nonfinite(&[Watched { tensor: 1, len: 3, x: &x }], &mut short), Err(Error::Shape { argument, .. }) if argument == "control")
    );
}
