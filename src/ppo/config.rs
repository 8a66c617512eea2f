//! Hyper-parameters, with CleanRL's names, and presets of well-known implementations.

use serde::{Deserialize, Serialize};

use super::infinity_as_text;
use crate::error::{Error, Result};
use crate::kernels::linear::Activation;
use crate::kernels::normalize::{EpsilonMode, Normalize};
use crate::kernels::surrogate::{Surrogate, ValueLoss};
use crate::shape::{require_finite, require_range, require_size};

/// The range of positive numbers on every device: shaders compute in `f32` and may flush
/// subnormals.
const SMALLEST: f64 = f32::MIN_POSITIVE as f64;
const LARGEST: f64 = f32::MAX as f64;

/// The samples over which advantages are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdvantageScope {
    /// Each minibatch by its own mean and standard deviation (CleanRL, SB3, baselines).
    Minibatch,
    /// The whole rollout at once, before the first epoch (rsl_rl, rl_games, skrl).
    Rollout,
    /// Not at all.
    None,
}

/// The effect of `target_kl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlStop {
    /// Ends after an epoch whose last minibatch has approx_kl > target_kl (CleanRL).
    AfterEpoch,
    /// Ends before the step of a minibatch with approx_kl > 1.5·target_kl (SB3).
    BeforeStep,
}

/// All hyper-parameters of a training run. A [`Learner`](crate::ppo::Learner) reads every field
/// that does not say otherwise. With serde, missing fields have their defaults; infinities are
/// [text](infinity_as_text).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seed of everything random.
    pub seed: u64,
    /// Total environment steps. Read by [`num_updates`](Self::num_updates), not by a learner.
    pub total_timesteps: u64,
    /// Adam's initial learning rate. Read by [`learning_rate_at`](Self::learning_rate_at).
    pub learning_rate: f64,
    /// N, parallel environments.
    pub num_envs: usize,
    /// T, steps of each environment in a rollout.
    pub num_steps: usize,
    /// Whether [`learning_rate_at`](Self::learning_rate_at) falls linearly to 0 over the updates.
    pub anneal_lr: bool,
    /// Discount γ.
    pub gamma: f64,
    /// λ of generalised advantage estimation.
    pub gae_lambda: f64,
    /// Minibatches in an epoch. A remainder makes one more, shorter minibatch (CleanRL).
    pub num_minibatches: usize,
    /// Passes over each rollout.
    pub update_epochs: usize,
    /// The samples over which advantages are normalised.
    pub norm_adv: AdvantageScope,
    /// Delta degrees of freedom of the standard deviation: 1 in torch, 0 in numpy and JAX.
    pub norm_adv_ddof: u32,
    /// ε of the normalisation.
    pub norm_adv_epsilon: f64,
    /// Place of ε in the formula.
    pub norm_adv_epsilon_mode: EpsilonMode,
    /// Clip range of the ratio; `f64::INFINITY` for none, without `clip_vloss`.
    #[serde(with = "infinity_as_text")]
    pub clip_coef: f64,
    /// Upper clip range if it differs from `clip_coef` (clip-higher).
    #[serde(with = "infinity_as_text::optional")]
    pub clip_coef_high: Option<f64>,
    /// Dual clip, c > 1.
    #[serde(with = "infinity_as_text::optional")]
    pub dual_clip: Option<f64>,
    /// Whether the value loss is clipped too, by `clip_coef`.
    pub clip_vloss: bool,
    /// δ of a Huber value loss, which replaces the squared one.
    #[serde(with = "infinity_as_text::optional")]
    pub huber_delta: Option<f64>,
    /// Weight of the entropy bonus.
    pub ent_coef: f64,
    /// Weight of the value loss, which contains ½.
    pub vf_coef: f64,
    /// Weight of the KL penalty (k3 estimator).
    pub kl_coef: f64,
    /// Largest global norm of the gradient; `f64::INFINITY` for any.
    #[serde(with = "infinity_as_text")]
    pub max_grad_norm: f64,
    /// Added to the norm when clipping: 1e-6 in torch, 0 in optax.
    pub max_grad_norm_epsilon: f64,
    /// Approximate KL that ends an update early.
    #[serde(with = "infinity_as_text::optional")]
    pub target_kl: Option<f64>,
    /// How `target_kl` stops.
    pub kl_stop: KlStop,
    /// Adam's β₁.
    pub adam_beta1: f64,
    /// Adam's β₂.
    pub adam_beta2: f64,
    /// Adam's ε, added after the bias correction (torch).
    pub adam_eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Whether weight decay is decoupled (AdamW) or L2.
    pub decoupled_weight_decay: bool,
    /// Whether a truncation bootstraps with its last state's value (SB3) or terminates (CleanRL).
    pub bootstrap_truncated: bool,
    /// Widths of the hidden layers, in the actor and in the critic.
    pub hidden: Vec<usize>,
    /// Activation of the hidden layers.
    pub activation: Activation,
    /// Initial log standard deviation of Gaussian policies.
    pub log_std_init: f64,
    /// Factor of the rewards that [`Trainer`](crate::train::Trainer) learns from, not of the
    /// returns it reports. A learner does not apply it.
    pub reward_scale: f64,
}

impl Default for Config {
    /// CleanRL's `ppo.py`.
    fn default() -> Self {
        Self {
            seed: 1,
            total_timesteps: 500_000,
            learning_rate: 2.5e-4,
            num_envs: 4,
            num_steps: 128,
            anneal_lr: true,
            gamma: 0.99,
            gae_lambda: 0.95,
            num_minibatches: 4,
            update_epochs: 4,
            norm_adv: AdvantageScope::Minibatch,
            norm_adv_ddof: 1,
            norm_adv_epsilon: 1e-8,
            norm_adv_epsilon_mode: EpsilonMode::AddToStd,
            clip_coef: 0.2,
            clip_coef_high: None,
            dual_clip: None,
            clip_vloss: true,
            huber_delta: None,
            ent_coef: 0.01,
            vf_coef: 0.5,
            kl_coef: 0.0,
            max_grad_norm: 0.5,
            max_grad_norm_epsilon: 1e-6,
            target_kl: None,
            kl_stop: KlStop::AfterEpoch,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_eps: 1e-5,
            weight_decay: 0.0,
            decoupled_weight_decay: false,
            bootstrap_truncated: false,
            hidden: vec![64, 64],
            activation: Activation::Tanh,
            log_std_init: 0.0,
            reward_scale: 1.0,
        }
    }
}

impl Config {
    /// Names for [`preset`](Self::preset).
    pub const PRESETS: &'static [&'static str] = &["cleanrl", "cleanrl-continuous", "sb3", "pendulum"];

    /// The defaults of an implementation, or settings for an environment. `cleanrl-continuous` has
    /// the numbers of CleanRL's `ppo_continuous_action.py`, without its wrappers for normalising
    /// and clipping.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] for an unknown name.
    pub fn preset(name: &str) -> Result<Self> {
        let cleanrl = Self::default();
        let cleanrl_continuous = Self {
            total_timesteps: 1_000_000,
            learning_rate: 3e-4,
            num_envs: 1,
            num_steps: 2048,
            num_minibatches: 32,
            update_epochs: 10,
            ent_coef: 0.0,
            ..cleanrl.clone()
        };
        match name {
            "cleanrl" => Ok(cleanrl),
            "cleanrl-continuous" => Ok(cleanrl_continuous),
            // SB3's value loss lacks our ½, so its vf_coef of 0.5 is 1 here.
            "sb3" => Ok(Self {
                anneal_lr: false,
                clip_vloss: false,
                vf_coef: 1.0,
                kl_stop: KlStop::BeforeStep,
                bootstrap_truncated: true,
                ..cleanrl_continuous
            }),
            // Pendulum never terminates, so truncations must bootstrap; its returns are large.
            "pendulum" => Ok(Self {
                total_timesteps: 300_000,
                learning_rate: 1e-3,
                num_envs: 4,
                num_steps: 1024,
                gamma: 0.9,
                clip_vloss: false,
                bootstrap_truncated: true,
                reward_scale: 0.1,
                ..cleanrl_continuous
            }),
            _ => Err(Error::value("preset", format!("one of {}", Self::PRESETS.join(", ")), name)),
        }
    }

    /// Samples of a rollout, T·N.
    pub fn batch_size(&self) -> usize {
        self.num_envs.saturating_mul(self.num_steps)
    }

    /// Samples of a minibatch.
    pub fn minibatch_size(&self) -> usize {
        self.batch_size() / self.num_minibatches.max(1)
    }

    /// Whole updates within `total_timesteps`.
    pub fn num_updates(&self) -> u64 {
        self.total_timesteps / (self.batch_size() as u64).max(1)
    }

    /// The learning rate of an update, counted from 0. With `anneal_lr`, it falls linearly and
    /// would reach 0 after [`num_updates`](Self::num_updates) (CleanRL).
    pub fn learning_rate_at(&self, update: u64) -> f64 {
        let done = update as f64 / self.num_updates().max(1) as f64;
        self.learning_rate * if self.anneal_lr { (1.0 - done).max(0.0) } else { 1.0 }
    }

    pub(crate) fn value_loss(&self) -> ValueLoss {
        match self.huber_delta {
            Some(delta) => ValueLoss::Huber { delta },
            None if self.clip_vloss => ValueLoss::Clipped { clip: self.clip_coef },
            None => ValueLoss::Mse,
        }
    }

    pub(crate) fn surrogate(&self, batch: usize, stats_row: usize) -> Surrogate {
        Surrogate {
            batch,
            clip_low: self.clip_coef,
            clip_high: self.clip_coef_high.unwrap_or(self.clip_coef),
            dual_clip: self.dual_clip,
            vf_coef: self.vf_coef,
            ent_coef: self.ent_coef,
            kl_coef: self.kl_coef,
            value_loss: self.value_loss(),
            stats_row,
        }
    }

    pub(crate) fn normalization(&self, vectors: usize, len: usize, offset: usize, stride: usize) -> Normalize {
        Normalize {
            vectors,
            len,
            offset,
            stride,
            ddof: self.norm_adv_ddof,
            epsilon: self.norm_adv_epsilon,
            epsilon_mode: self.norm_adv_epsilon_mode,
        }
    }

    /// Checks that `total_timesteps` suffices for one update.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] for fewer than [`batch_size`](Self::batch_size).
    pub fn require_one_update(&self) -> Result<()> {
        if self.num_updates() > 0 {
            return Ok(());
        }
        let expected = format!("at least num_envs x num_steps = {}", self.batch_size());
        Err(Error::value("total_timesteps", expected, self.total_timesteps))
    }

    /// Checks every field, so that no operation of an update refuses one.
    ///
    /// # Errors
    /// [`Error::InvalidValue`], [`Error::Shape`] or [`Error::Conflict`] for the first wrong field.
    pub fn validate(&self) -> Result<()> {
        require_size("num_envs", self.num_envs)?;
        require_size("num_steps", self.num_steps)?;
        require_size("num_minibatches", self.num_minibatches)?;
        require_size("update_epochs", self.update_epochs)?;
        require_size("num_envs x num_steps", self.batch_size())?;
        if self.num_minibatches > self.batch_size() {
            let expected = format!("at most num_envs x num_steps = {}", self.batch_size());
            return Err(Error::value("num_minibatches", expected, self.num_minibatches));
        }
        self.hidden.iter().try_for_each(|&width| require_size("hidden", width))?;
        if self.huber_delta.is_some() && self.clip_vloss {
            return Err(Error::conflict("huber_delta", "clip_vloss", "set clip_vloss to false"));
        }
        for (name, value) in [
            ("learning_rate", self.learning_rate),
            ("norm_adv_epsilon", self.norm_adv_epsilon),
            ("vf_coef", self.vf_coef),
            ("kl_coef", self.kl_coef),
            ("max_grad_norm_epsilon", self.max_grad_norm_epsilon),
            ("adam_eps", self.adam_eps),
            ("weight_decay", self.weight_decay),
        ] {
            require_range(name, value, 0.0, LARGEST)?;
        }
        for (name, value) in [("ent_coef", self.ent_coef), ("log_std_init", self.log_std_init)] {
            require_range(name, value, -LARGEST, LARGEST)?;
        }
        require_finite("reward_scale", self.reward_scale)?;
        for (name, value) in [
            ("clip_coef", Some(self.clip_coef)),
            ("clip_coef_high", self.clip_coef_high),
            ("max_grad_norm", Some(self.max_grad_norm)),
        ] {
            if let Some(value) = value.filter(|v| !(*v > 0.0)) {
                return Err(Error::value(name, "a number > 0, or infinity", value));
            }
        }
        // A clipped value loss needs a finite range.
        if self.clip_vloss && self.clip_coef == f64::INFINITY {
            return Err(Error::conflict("an infinite clip_coef", "clip_vloss", "set clip_vloss to false"));
        }
        for (name, value) in [
            ("clip_coef", Some(self.clip_coef).filter(|_| self.clip_vloss)),
            ("huber_delta", self.huber_delta),
            ("target_kl", self.target_kl),
        ] {
            value.map_or(Ok(()), |value| require_range(name, value, SMALLEST, LARGEST))?;
        }
        if let Some(c) = self.dual_clip.filter(|c| !(*c > 1.0 && *c <= LARGEST)) {
            return Err(Error::value("dual_clip", "a finite number > 1", c));
        }
        for (name, value) in [("gamma", self.gamma), ("gae_lambda", self.gae_lambda)] {
            require_range(name, value, 0.0, 1.0)?;
        }
        for (name, value) in [("adam_beta1", self.adam_beta1), ("adam_beta2", self.adam_beta2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::value(name, "a number in [0, 1)", value));
            }
        }
        if self.norm_adv_ddof > 1 {
            return Err(Error::value("norm_adv_ddof", "0 or 1", self.norm_adv_ddof));
        }
        Ok(())
    }
}
