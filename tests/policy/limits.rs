//! The longest rows.

use ppo_kernels::Error;

use crate::common::{checked, gpu};
use crate::inputs::{Normals, Rows};

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
