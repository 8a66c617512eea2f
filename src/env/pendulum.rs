//! Pendulum-v1: swing a pendulum up and hold it there by a bounded torque.

use std::f64::consts::PI;

use rand::{Rng, RngExt};

use super::Outcome;

/// Bound of the torque.
pub(super) const MAX_TORQUE: f32 = 2.0;
const MAX_SPEED: f64 = 8.0;
const DT: f64 = 0.05;
/// 3g / 2l, with g = 10 and l = 1.
const PULL: f64 = 15.0;

/// The state of one pendulum.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pendulum {
    /// Angle from upright (not wrapped) and angular velocity.
    pub(super) state: [f64; 2],
}

impl Pendulum {
    pub(super) fn reset<R: Rng>(&mut self, rng: &mut R) {
        self.state = [rng.random_range(-PI..PI), rng.random_range(-1.0..1.0)];
    }

    pub(super) fn observe(&self, out: &mut [f32]) {
        let [theta, theta_dot] = self.state;
        let seen = [libm::cos(theta), libm::sin(theta), theta_dot];
        out.iter_mut().zip(seen).for_each(|(o, s)| *o = s as f32);
    }

    pub(super) fn step(&mut self, torque: f32) -> Outcome {
        let [theta, theta_dot] = self.state;
        let angle = (theta + PI).rem_euclid(2.0 * PI) - PI;
        // NumPy computes terms of the f32 action and Python's numbers in f32.
        let (effort, push) = (0.001f32 * (torque * torque), 3.0 * torque);
        let cost = angle * angle + 0.1 * (theta_dot * theta_dot) + f64::from(effort);
        let theta_dot = theta_dot + (PULL * libm::sin(theta) + f64::from(push)) * DT;
        let theta_dot = theta_dot.clamp(-MAX_SPEED, MAX_SPEED);
        self.state = [theta + theta_dot * DT, theta_dot];
        Outcome { reward: -cost, terminated: false }
    }
}
