//! Backends against each other over edge sizes and far-out numbers, and planted faults.

use ppo_kernels::Error;
use ppo_kernels::backend::{Cpu, CrossCheck, PolicyOps};
use proptest::prelude::*;

use crate::common::{Draw, checked, gpu};
use crate::inputs::{Normals, Rows};

/// Runs a body on the adapter and on the CPU's f32, each checked against f64.
fn on_checked(body: impl Fn(&mut dyn FnMut(&Rows), &mut dyn FnMut(&Normals))) {
    fn run<B: PolicyOps>(backend: B, body: &impl Fn(&mut dyn FnMut(&Rows), &mut dyn FnMut(&Normals))) {
        let backend = std::cell::RefCell::new(backend);
        body(
            &mut |rows| rows.everything(&mut *backend.borrow_mut()).unwrap_or_else(|error| panic!("{:?}: {error}", rows.op)),
            &mut |normals| {
                normals.everything(&mut *backend.borrow_mut()).unwrap_or_else(|error| panic!("{:?}: {error}", normals.op));
            },
        );
    }
    run(CrossCheck::new(Cpu::<f32>::new(), Cpu::<f64>::new()), &body);
    if let Some(both) = checked() {
        run(both, &body);
    }
}

/// Rows around the workgroup of 64; up to 64 actions one invocation takes a row, beyond a workgroup shares it.
const BATCHES: [usize; 5] = [1, 63, 64, 65, 257];

#[test]
fn categorical_agrees_with_its_twin_at_edge_sizes() {
    on_checked(|categorical, _| {
        for batch in BATCHES {
            for actions in [1, 2, 6, 63, 64, 65, 1025] {
                for masked in [false, true] {
                    categorical(&Rows::drawn((batch + actions) as u64, batch, actions, 1.0, masked));
                }
            }
        }
    });
}

#[test]
fn categorical_agrees_with_its_twin_at_extreme_logits() {
    on_checked(|categorical, _| {
        for extreme in [60.0, 1e4] {
            for (batch, actions) in [(65, 2), (33, 6), (9, 65), (3, 1025)] {
                for masked in [false, true] {
                    let mut rows = Rows::drawn(11, batch, actions, 1.0, masked);
                    let signs = Draw::new(12).flags(2 * batch * actions, 0.5);
                    // Whole numbers of extremes tie; a drawn remainder on every other row keeps the rest apart.
                    for (i, &sign) in signs.iter().enumerate() {
                        let row = &mut if i % 2 == 0 { &mut rows.logits } else { &mut rows.q_logits }[i / 2];
                        let rest = if (i / 2 / actions) % 2 == 0 { 0.0 } else { f64::from(*row as f32 * 0.25) };
                        *row = f64::from((if sign == 0 { extreme } else { -extreme } + rest) as f32);
                    }
                    categorical(&rows);
                }
            }
        }
    });
}

#[test]
fn gaussian_agrees_with_its_twin_at_edge_sizes() {
    on_checked(|_, gaussian| {
        for batch in BATCHES {
            for dim in [1, 3, 17, 65] {
                for state_dependent_std in [false, true] {
                    gaussian(&Normals::drawn((batch + dim) as u64, batch, dim, state_dependent_std));
                }
            }
        }
    });
}

#[test]
fn gaussian_agrees_with_its_twin_far_out() {
    on_checked(|_, gaussian| {
        for state_dependent_std in [false, true] {
            let mut normals = Normals::drawn(13, 66, 3, state_dependent_std);
            // Log-stds from e^-8 to e^4; u where 1 − tanh² is far below what f32 can tell from 0.
            for (i, s) in normals.log_std.iter_mut().enumerate() {
                *s = [-8.0, -0.5, 4.0][i % 3];
            }
            for (i, s) in normals.q_log_std.iter_mut().enumerate() {
                *s = [-7.875, -1.0, 3.0, 4.0][i % 4];
            }
            for (i, x) in normals.x.iter_mut().enumerate() {
                *x = [0.0, 1e-4, -0.5, 3.0, -9.0, 20.0, -60.0, 100.0, 1e4][i % 9];
            }
            gaussian(&normals);
        }
    });
}

#[test]
fn log_stds_shared_by_a_long_batch_are_summed_by_parts() {
    // One part, two, and more rows a part than 64, as 1024 parts no longer do.
    on_checked(|_, gaussian| {
        for (batch, dim) in [(64, 2), (65, 2), (65_537, 1)] {
            gaussian(&Normals::drawn(14, batch, dim, false));
        }
    });
}

#[test]
fn more_than_65535_workgroups_are_folded() {
    let Some(mut both) = checked() else { return };
    // A workgroup a row, and 64 rows a workgroup.
    Rows::drawn(15, 65_600, 65, 1.0, true).distribution(&mut both).unwrap();
    Rows::drawn(16, 4_194_400, 1, 1.0, false).evaluate(&mut both).unwrap();
    Normals::drawn(17, 4_194_400, 1, true).backward(&mut both).unwrap();
}

/// The loops of an invocation add up where a software adapter ends them after 65 535 rounds: the longest row that is accepted has to come
/// out right, and a longer one has to be refused.
#[test]
fn rows_are_right_up_to_the_longest_and_refused_beyond() {
    let longest = |mut fits: usize, mut refused: usize, accepts: &mut dyn FnMut(usize) -> bool| {
        while refused - fits > 1 {
            let middle = fits.midpoint(refused);
            *(if accepts(middle) { &mut fits } else { &mut refused }) = middle;
        }
        fits
    };
    let Some(mut probe) = gpu() else { return };
    let mut accepts_actions = |actions: usize| match Rows::of(actions, &vec![0.0; actions]).kl(&mut probe) {
        Err(Error::LimitExceeded { limit, .. }) => {
            assert_eq!(limit, "actions");
            false
        }
        result => result.is_ok(),
    };
    let actions = longest(1 << 16, 1 << 22, &mut accepts_actions);
    let Some(mut both) = checked() else { return };
    Rows::drawn(18, 1, actions, 1.0, true).everything(&mut both).unwrap();

    let mut accepts_dim = |dim: usize| match Normals::drawn(19, 1, dim, false).evaluate(&mut probe) {
        Err(Error::LimitExceeded { limit, .. }) => {
            assert_eq!(limit, "dim");
            false
        }
        result => result.is_ok(),
    };
    let dim = longest(1 << 12, 1 << 20, &mut accepts_dim);
    Normals::drawn(19, 1, dim, false).everything(&mut both).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn all_operations_agree_with_their_twins(
        seed: u64, batch in 1usize..100, width in 1usize..100, exponent in -4.0f32..2.0, flag: bool,
    ) {
        on_checked(|categorical, gaussian| {
            categorical(&Rows::drawn(seed, batch, width, 10f32.powf(exponent), flag));
            gaussian(&Normals::drawn(seed, batch, width, flag));
        });
    }
}
