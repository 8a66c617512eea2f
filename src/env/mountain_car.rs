//! MountainCarContinuous-v0: rock a car that is too weak out of a valley.

use std::ops::{Add, Neg};

use num_traits::{AsPrimitive, Zero, clamp};
use rand::{Rng, RngExt};

use super::Outcome;

const MIN_POSITION: f64 = -1.2;
const MAX_POSITION: f64 = 0.6;
const MAX_SPEED: f64 = 0.07;
const GOAL_POSITION: f64 = 0.45;
/// Bound of the force.
pub(super) const MAX_FORCE: f32 = 1.0;
const POWER: f32 = 0.0015;
const SLOPE: f64 = 0.0025;

/// The state of one car.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MountainCar {
    /// Position and velocity.
    pub(super) state: [f64; 2],
    /// Whether the state is in f64: in Gymnasium, from a reset to the first step.
    wide: bool,
}

impl MountainCar {
    pub(super) fn reset<R: Rng>(&mut self, rng: &mut R) {
        self.state = [rng.random_range(-0.6..-0.4), 0.0];
        self.wide = true;
    }

    /// A state that f32 represents exactly counts as one reached by a step.
    pub(super) fn set(&mut self, state: [f64; 2]) {
        self.state = state;
        self.wide = state.iter().any(|&s| f64::from(s as f32) != s);
    }

    pub(super) fn observe(&self, out: &mut [f32]) {
        out.iter_mut().zip(self.state).for_each(|(o, s)| *o = s as f32);
    }

    pub(super) fn step(&mut self, force: f32) -> Outcome {
        let [position, velocity] = self.state;
        let angle = if self.wide { 3.0 * position } else { f64::from(3.0 * position as f32) };
        let change = force * POWER - (SLOPE * libm::cos(angle)) as f32;
        let (position, velocity, terminated) = if self.wide {
            advance(position, velocity, f64::from(change))
        } else {
            advance(position as f32, velocity as f32, change)
        };
        self.state = [f64::from(position), f64::from(velocity)];
        self.wide = false;
        let force = f64::from(force);
        Outcome { reward: if terminated { 100.0 } else { 0.0 } - force * force * 0.1, terminated }
    }
}

/// The state after a step in f32, and whether it is the goal; compares in `F`.
fn advance<F>(position: F, velocity: F, change: F) -> (f32, f32, bool)
where
    F: Copy + PartialOrd + Add<Output = F> + Neg<Output = F> + Zero + AsPrimitive<f32>,
    f64: AsPrimitive<F>,
{
    let (low, high, fastest) = (MIN_POSITION.as_(), MAX_POSITION.as_(), MAX_SPEED.as_());
    let mut velocity = clamp(velocity + change, -fastest, fastest);
    let position = clamp(position + velocity, low, high);
    if position == low && velocity < F::zero() {
        velocity = F::zero();
    }
    let goal: F = GOAL_POSITION.as_();
    (position.as_(), velocity.as_(), position >= goal && velocity >= F::zero())
}
