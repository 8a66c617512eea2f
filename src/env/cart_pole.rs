//! CartPole-v1: balance a pole on a cart by pushing the cart left or right.

use rand::{Rng, RngExt};

use super::Outcome;

const GRAVITY: f64 = 9.8;
const MASS_POLE: f64 = 0.1;
const TOTAL_MASS: f64 = MASS_POLE + 1.0;
/// Half the pole's length.
const LENGTH: f64 = 0.5;
const POLE_MASS_LENGTH: f64 = MASS_POLE * LENGTH;
const FORCE: f64 = 10.0;
const TAU: f64 = 0.02;
const THETA_LIMIT: f64 = 12.0 * 2.0 * std::f64::consts::PI / 360.0;
const X_LIMIT: f64 = 2.4;

/// The state of one cart and its pole.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CartPole {
    /// Position and velocity of the cart, angle and angular velocity of the pole.
    pub(super) state: [f64; 4],
}

impl CartPole {
    pub(super) fn reset<R: Rng>(&mut self, rng: &mut R) {
        self.state = std::array::from_fn(|_| rng.random_range(-0.05..0.05));
    }

    pub(super) fn observe(&self, out: &mut [f32]) {
        out.iter_mut().zip(self.state).for_each(|(o, s)| *o = s as f32);
    }

    pub(super) fn step(&mut self, action: u32) -> Outcome {
        let [x, x_dot, theta, theta_dot] = self.state;
        let force = if action == 1 { FORCE } else { -FORCE };
        let (sin, cos) = libm::sincos(theta);
        let temp = (force + POLE_MASS_LENGTH * (theta_dot * theta_dot) * sin) / TOTAL_MASS;
        let theta_acc = (GRAVITY * sin - cos * temp) / (LENGTH * (4.0 / 3.0 - MASS_POLE * (cos * cos) / TOTAL_MASS));
        let x_acc = temp - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS;
        // Explicit Euler: positions move by the velocities before the step.
        let (x, theta) = (x + TAU * x_dot, theta + TAU * theta_dot);
        self.state = [x, x_dot + TAU * x_acc, theta, theta_dot + TAU * theta_acc];
        // `!inside` also ends the episode for a NaN state.
        let inside = x.abs() <= X_LIMIT && theta.abs() <= THETA_LIMIT;
        Outcome { reward: 1.0, terminated: !inside }
    }
}
