//! Acrobot-v1: swing a two-link pendulum above a height by a torque at the joint between its links.

use std::f64::consts::PI;

use rand::{Rng, RngExt};

use super::Outcome;

const DT: f64 = 0.2;
const LENGTH_1: f64 = 1.0;
const MASS_1: f64 = 1.0;
const MASS_2: f64 = 1.0;
const CENTRE_1: f64 = 0.5;
const CENTRE_2: f64 = 0.5;
const INERTIA: f64 = 1.0;
const GRAVITY: f64 = 9.8;
const MAX_VELOCITY_1: f64 = 4.0 * PI;
const MAX_VELOCITY_2: f64 = 9.0 * PI;

/// The state of one two-link pendulum.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Acrobot {
    /// Angle of the first link from hanging down, of the second from the first, their velocities.
    pub(super) state: [f64; 4],
}

impl Acrobot {
    pub(super) fn reset<R: Rng>(&mut self, rng: &mut R) {
        // Gymnasium rounds only the initial state to f32.
        self.state = std::array::from_fn(|_| f64::from(rng.random_range(-0.1..0.1) as f32));
    }

    pub(super) fn observe(&self, out: &mut [f32]) {
        let [a, b, a_dot, b_dot] = self.state;
        let seen = [libm::cos(a), libm::sin(a), libm::cos(b), libm::sin(b), a_dot, b_dot];
        out.iter_mut().zip(seen).for_each(|(o, s)| *o = s as f32);
    }

    pub(super) fn step(&mut self, action: u32) -> Outcome {
        let torque = f64::from(action) - 1.0;
        let [a, b, a_dot, b_dot] = runge_kutta(self.state, torque);
        self.state =
            [wrap(a), wrap(b), a_dot.clamp(-MAX_VELOCITY_1, MAX_VELOCITY_1), b_dot.clamp(-MAX_VELOCITY_2, MAX_VELOCITY_2)];
        let [a, b, ..] = self.state;
        let terminated = -libm::cos(a) - libm::cos(b + a) > 1.0;
        Outcome { reward: if terminated { 0.0 } else { -1.0 }, terminated }
    }
}

/// One step of the classical Runge-Kutta method.
fn runge_kutta(y: [f64; 4], torque: f64) -> [f64; 4] {
    let moved = |by: f64, k: &[f64; 4]| std::array::from_fn(|i| y[i] + by * k[i]);
    let k1 = derivatives(y, torque);
    let k2 = derivatives(moved(DT / 2.0, &k1), torque);
    let k3 = derivatives(moved(DT / 2.0, &k2), torque);
    let k4 = derivatives(moved(DT, &k3), torque);
    std::array::from_fn(|i| y[i] + DT / 6.0 * (k1[i] + 2.0 * k2[i] + 2.0 * k3[i] + k4[i]))
}

/// Equations of motion from Sutton and Barto's book, Gymnasium's default.
fn derivatives([theta1, theta2, dtheta1, dtheta2]: [f64; 4], torque: f64) -> [f64; 4] {
    let (sin2, cos2) = libm::sincos(theta2);
    let centre2_squared = CENTRE_2 * CENTRE_2;
    let d1 = MASS_1 * (CENTRE_1 * CENTRE_1)
        + MASS_2 * (LENGTH_1 * LENGTH_1 + centre2_squared + 2.0 * LENGTH_1 * CENTRE_2 * cos2)
        + INERTIA
        + INERTIA;
    let d2 = MASS_2 * (centre2_squared + LENGTH_1 * CENTRE_2 * cos2) + INERTIA;
    let phi2 = MASS_2 * CENTRE_2 * GRAVITY * libm::cos(theta1 + theta2 - PI / 2.0);
    let phi1 = -MASS_2 * LENGTH_1 * CENTRE_2 * (dtheta2 * dtheta2) * sin2
        - 2.0 * MASS_2 * LENGTH_1 * CENTRE_2 * dtheta2 * dtheta1 * sin2
        + (MASS_1 * CENTRE_1 + MASS_2 * LENGTH_1) * GRAVITY * libm::cos(theta1 - PI / 2.0)
        + phi2;
    let ddtheta2 = (torque + d2 / d1 * phi1 - MASS_2 * LENGTH_1 * CENTRE_2 * (dtheta1 * dtheta1) * sin2 - phi2)
        / (MASS_2 * centre2_squared + INERTIA - d2 * d2 / d1);
    let ddtheta1 = -(d2 * ddtheta2 + phi1) / d1;
    [dtheta1, dtheta2, ddtheta1, ddtheta2]
}

/// `angle` in [−π, π].
fn wrap(angle: f64) -> f64 {
    // A step makes few turns. In a larger angle set by hand, subtracting 2π could change no bit.
    if angle.abs() > 1e3 {
        return libm::remainder(angle, 2.0 * PI);
    }
    let mut angle = angle;
    while angle > PI {
        angle -= 2.0 * PI;
    }
    while angle < -PI {
        angle += 2.0 * PI;
    }
    angle
}
