//! Every hyper-parameter as a flag, with its CleanRL name.

use std::str::FromStr;

use clap::ArgAction;
use clap::builder::BoolishValueParser;
use ppo_kernels::kernels::linear::Activation;
use ppo_kernels::kernels::normalize::EpsilonMode;
use ppo_kernels::ppo::{AdvantageScope, Config, KlStop};
use serde::de::DeserializeOwned;

/// Declares a flag for each field of [`Config`]; a field without one does not compile.
macro_rules! hyperparameters {
    ($($(#[$meta:meta])* $field:ident: $type:ty,)+) => {
        /// Flags that override the preset.
        #[derive(Debug, Clone, clap::Args)]
        #[command(next_help_heading = "Hyper-parameters (they override the preset, whose values stand in brackets)")]
        pub struct HyperparameterArgs {
            $($(#[$meta])* pub $field: Option<$type>,)+
        }

        impl HyperparameterArgs {
            /// Names of the fields.
            pub const FIELDS: &'static [&'static str] = &[$(stringify!($field)),+];

            /// Writes the values given to `config`.
            pub fn apply(self, config: &mut Config) {
                let Config { $($field),+ } = config;
                $(if let Some(value) = self.$field {
                    *$field = value.into();
                })+
            }
        }
    };
}

// Numbers may have a sign. clap's `allow_negative_numbers` misses some (-1e-3); range checks refuse
// negative ones.
hyperparameters! {
    /// Seed of everything random
    #[arg(long)]
    seed: u64,
    /// Total environment steps; a rest smaller than a rollout, num-envs x num-steps, is not taken
    #[arg(long)]
    total_timesteps: u64,
    /// Adam's initial learning rate
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    learning_rate: f64,
    /// Parallel environments
    #[arg(long, value_name = "N")]
    num_envs: usize,
    /// Steps of each environment in a rollout
    #[arg(long, value_name = "N")]
    num_steps: usize,
    /// Decrease the learning rate linearly to 0
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    anneal_lr: bool,
    /// Discount
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    gamma: f64,
    /// λ of generalised advantage estimation
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    gae_lambda: f64,
    /// Minibatches in an epoch
    #[arg(long, value_name = "N")]
    num_minibatches: usize,
    /// Passes over each rollout
    #[arg(long, value_name = "N")]
    update_epochs: usize,
    /// Samples for normalising advantages: minibatch (or true), rollout, none (or false)
    #[arg(long, value_name = "SCOPE", num_args = 0..=1, default_missing_value = "minibatch", value_parser = advantage_scope)]
    norm_adv: AdvantageScope,
    /// Delta degrees of freedom of their standard deviation
    #[arg(long, value_name = "0|1")]
    norm_adv_ddof: u32,
    /// ε of the normalisation
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    norm_adv_epsilon: f64,
    /// Place of that ε: add-to-std, add-to-variance, max
    #[arg(long, value_name = "MODE", value_parser = by_name::<EpsilonMode>)]
    norm_adv_epsilon_mode: EpsilonMode,
    /// Clip range of the ratio; inf for none, with clip-vloss=false
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    clip_coef: f64,
    /// Upper clip range if it differs, or none
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    clip_coef_high: NumberOrNone,
    /// Dual clip, > 1, or none
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    dual_clip: NumberOrNone,
    /// Clip the value loss too
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    clip_vloss: bool,
    /// δ of a Huber value loss, or none for a squared one
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    huber_delta: NumberOrNone,
    /// Weight of the entropy bonus
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    ent_coef: f64,
    /// Weight of the value loss, which contains ½
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    vf_coef: f64,
    /// Weight of a KL penalty
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    kl_coef: f64,
    /// Largest global norm of the gradient; inf for any
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    max_grad_norm: f64,
    /// Added to the norm in clipping
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    max_grad_norm_epsilon: f64,
    /// Approximate KL that ends an update early, or none
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    target_kl: NumberOrNone,
    /// Point at which target-kl ends it: after-epoch (CleanRL), before-step (SB3)
    #[arg(long, value_name = "HOW", value_parser = by_name::<KlStop>)]
    kl_stop: KlStop,
    /// Adam's β₁
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    adam_beta1: f64,
    /// Adam's β₂
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    adam_beta2: f64,
    /// Adam's ε
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    adam_eps: f64,
    /// Weight decay
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    weight_decay: f64,
    /// AdamW's weight decay instead of L2
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    decoupled_weight_decay: bool,
    /// Bootstrap truncated episodes with their last state's value
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    bootstrap_truncated: bool,
    /// Widths of the hidden layers, as 64,64, or none
    #[arg(long, value_name = "WIDTHS")]
    hidden: Widths,
    /// Activation: identity, tanh, relu, elu, silu, gelu-erf, gelu-tanh
    #[arg(long, value_name = "NAME", value_parser = by_name::<Activation>)]
    activation: Activation,
    /// Initial log standard deviation of Gaussian policies
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    log_std_init: f64,
    /// Factor of the rewards for learning
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    reward_scale: f64,
}

/// Adds each preset's value to a flag's help: `[cleanrl 0.99; pendulum 0.9]`.
pub fn with_defaults(train: clap::Command) -> clap::Command {
    let presets: Vec<(&str, serde_json::Value)> =
        Config::PRESETS.iter().filter_map(|name| Some((*name, serde_json::to_value(Config::preset(name).ok()?).ok()?))).collect();
    train.mut_args(|arg| {
        let field = arg.get_id().to_string();
        if !HyperparameterArgs::FIELDS.contains(&field.as_str()) {
            return arg;
        }
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let values = presets.iter().map(|(preset, config)| (*preset, flag_value(&config[&field]))).collect::<Vec<_>>();
        arg.help(format!("{help} [{}]", by_preset(&values)))
    })
}

/// The value that all presets share, or each value with its presets.
fn by_preset(values: &[(&str, String)]) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (preset, value) in values {
        match groups.iter_mut().find(|(known, _)| known == value) {
            Some((_, presets)) => presets.push(preset),
            None => groups.push((value, vec![preset])),
        }
    }
    match groups.as_slice() {
        [(value, _)] => format!("default: {value}"),
        groups => groups.iter().map(|(value, presets)| format!("{} {value}", presets.join(", "))).collect::<Vec<_>>().join("; "),
    }
}

/// A field of a configuration in its flag's spelling: the inverse of parsing.
fn flag_value(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Null => "none".to_owned(),
        Value::String(name) => name.replace('_', "-"),
        Value::Array(widths) if widths.is_empty() => "none".to_owned(),
        Value::Array(widths) => widths.iter().map(flag_value).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// A number, or `none` to turn off a preset's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NumberOrNone(Option<f64>);

impl FromStr for NumberOrNone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self(None));
        }
        text.parse().map(|x| Self(Some(x))).map_err(|_| "expected a number or none".to_owned())
    }
}

impl From<NumberOrNone> for Option<f64> {
    fn from(number: NumberOrNone) -> Self {
        number.0
    }
}

/// Layer widths, separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Widths(Vec<usize>);

impl FromStr for Widths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self(Vec::new()));
        }
        let widths = text.split(',').map(|width| width.trim().parse());
        widths
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(|_| "expected widths separated by commas, as 64,64, or none".to_owned())
    }
}

impl From<Widths> for Vec<usize> {
    fn from(widths: Widths) -> Self {
        widths.0
    }
}

/// An enum's value by its name in configuration files, with - for _.
fn by_name<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::String(text.replace('-', "_"))).map_err(|error| error.to_string())
}

/// A scope, or a boolean as in CleanRL.
fn advantage_scope(text: &str) -> Result<AdvantageScope, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(AdvantageScope::Minibatch),
        "false" => Ok(AdvantageScope::None),
        name => by_name(name),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        hyperparameters: HyperparameterArgs,
    }

    fn config(flags: &[&str]) -> Config {
        let mut config = Config::default();
        let parsed = Flags::try_parse_from([&["flags"], flags].concat()).unwrap();
        parsed.hyperparameters.apply(&mut config);
        config
    }

    #[test]
    fn no_flag_leaves_the_preset_alone() {
        assert_eq!(config(&[]), Config::default());
    }

    #[test]
    fn every_field_has_a_flag_that_reaches_it() {
        let flags = "--seed 7 --total-timesteps 9000 --learning-rate 1e-3 --num-envs 3 --num-steps 5 --anneal-lr false --gamma 0.9 \
            --gae-lambda 0.8 --num-minibatches 2 --update-epochs 6 --norm-adv rollout --norm-adv-ddof 0 --norm-adv-epsilon 1e-5 \
            --norm-adv-epsilon-mode add-to-variance --clip-coef 0.1 --clip-coef-high 0.3 --dual-clip 3 --clip-vloss False \
            --huber-delta 2 --ent-coef 0.02 --vf-coef 0.25 --kl-coef 0.1 --max-grad-norm inf --max-grad-norm-epsilon 0 --target-kl 0.02 \
            --kl-stop before-step --adam-beta1 0.8 --adam-beta2 0.99 --adam-eps 1e-7 --weight-decay 0.01 --decoupled-weight-decay \
            --bootstrap-truncated --hidden 32,16,8 --activation gelu-erf --log-std-init -0.5 --reward-scale 0.1";
        let expected = Config {
            seed: 7,
            total_timesteps: 9000,
            learning_rate: 1e-3,
            num_envs: 3,
            num_steps: 5,
            anneal_lr: false,
            gamma: 0.9,
            gae_lambda: 0.8,
            num_minibatches: 2,
            update_epochs: 6,
            norm_adv: AdvantageScope::Rollout,
            norm_adv_ddof: 0,
            norm_adv_epsilon: 1e-5,
            norm_adv_epsilon_mode: EpsilonMode::AddToVariance,
            clip_coef: 0.1,
            clip_coef_high: Some(0.3),
            dual_clip: Some(3.0),
            clip_vloss: false,
            huber_delta: Some(2.0),
            ent_coef: 0.02,
            vf_coef: 0.25,
            kl_coef: 0.1,
            max_grad_norm: f64::INFINITY,
            max_grad_norm_epsilon: 0.0,
            target_kl: Some(0.02),
            kl_stop: KlStop::BeforeStep,
            adam_beta1: 0.8,
            adam_beta2: 0.99,
            adam_eps: 1e-7,
            weight_decay: 0.01,
            decoupled_weight_decay: true,
            bootstrap_truncated: true,
            hidden: vec![32, 16, 8],
            activation: Activation::GeluErf,
            log_std_init: -0.5,
            reward_scale: 0.1,
        };
        assert_eq!(config(&flags.split_whitespace().collect::<Vec<_>>()), expected);
    }

    #[test]
    fn values_in_the_help_are_those_of_the_presets() {
        for preset in Config::PRESETS {
            let config = Config::preset(preset).unwrap();
            let fields = serde_json::to_value(&config).unwrap();
            let flags: Vec<String> = HyperparameterArgs::FIELDS
                .iter()
                .map(|field| format!("--{}={}", field.replace('_', "-"), flag_value(&fields[field])))
                .collect();
            assert_eq!(super::tests::config(&flags.iter().map(String::as_str).collect::<Vec<_>>()), config, "{preset}");
        }
    }

    #[test]
    fn presets_that_agree_share_a_value_in_the_help() {
        let values = |values: [&str; 3]| {
            by_preset(&[("a", values[0].to_owned()), ("b", values[1].to_owned()), ("c", values[2].to_owned())])
        };
        assert_eq!(values(["1", "1", "1"]), "default: 1");
        assert_eq!(values(["1", "2", "1"]), "a, c 1; b 2");
    }

    #[test]
    fn a_switch_needs_no_value_and_none_switches_off() {
        let on = config(&["--norm-adv", "--clip-vloss", "--target-kl", "none", "--hidden", "none"]);
        assert_eq!((on.norm_adv, on.clip_vloss, on.target_kl, on.hidden), (AdvantageScope::Minibatch, true, None, vec![]));
        assert_eq!(config(&["--norm-adv", "false"]).norm_adv, AdvantageScope::None);
    }

    #[test]
    fn negative_numbers_are_values() {
        let negative = config(&["--ent-coef", "-0.1", "--reward-scale", "-1", "--target-kl", "-1e-3"]);
        assert_eq!((negative.ent_coef, negative.reward_scale, negative.target_kl), (-0.1, -1.0, Some(-1e-3)));
        let error = Flags::try_parse_from(["flags", "--gamma", "--seed"]).unwrap_err().to_string();
        assert!(error.contains("invalid value '--seed' for '--gamma <X>'"), "{error}");
    }

    #[test]
    fn an_unknown_name_lists_those_that_exist() {
        let error = Flags::try_parse_from(["flags", "--activation", "swish"]).unwrap_err().to_string();
        assert!(error.contains("swish") && error.contains("silu"), "{error}");
    }
}
