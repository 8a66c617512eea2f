//! Configuration, presets and the network's layout: no backend involved.

use ppo_kernels::Error;
use ppo_kernels::kernels::linear::Activation;
use ppo_kernels::ppo::{AdvantageScope, Config, KlStop, Network, NetworkSpec, PolicyKind};

fn network(hidden: &[usize], policy: PolicyKind) -> Network {
    let spec = NetworkSpec { observation_size: 4, hidden: hidden.to_vec(), activation: Activation::Tanh, policy };
    Network::new(spec).unwrap()
}

#[test]
fn tensors_lie_end_to_end_and_have_the_fields_names() {
    let network = network(&[8, 6], PolicyKind::Gaussian { dim: 2 });
    let names: Vec<&str> = network.tensors().iter().map(|t| t.name.as_str()).collect();
    let layers = |net: &str| (0..3).flat_map(|i| [format!("{net}.W{i}"), format!("{net}.b{i}")]).collect::<Vec<_>>();
    let expected: Vec<String> = [layers("actor"), layers("critic"), vec!["logstd".to_owned()]].concat();
    assert_eq!(names, expected);
    let mut end = 0;
    for tensor in network.tensors() {
        assert_eq!(tensor.offset, end, "{}", tensor.name);
        end += tensor.len();
    }
    assert_eq!(end, network.len());
    assert_eq!(network.tensors()[4].shape, [2, 6], "the actor's last layer is [out, in]");
    assert_eq!(network.log_std_offset(), Some(network.len() - 2));
}

#[test]
fn initial_weights_are_orthogonal_with_cleanrls_gains() {
    are_orthogonal(&network(&[8, 6], PolicyKind::Categorical { actions: 3 }));
}

/// Wider than the blocks in which they are made, of which the last is not whole.
#[test]
fn initial_weights_of_wide_layers_are_orthogonal() {
    are_orthogonal(&network(&[200, 150, 170], PolicyKind::Categorical { actions: 3 }));
}

#[track_caller]
fn are_orthogonal(network: &Network) {
    let last = network.spec().hidden.len();
    let parameters = network.initial_parameters(1, 0.0).unwrap();
    for tensor in network.tensors() {
        let data = &parameters[tensor.offset..tensor.offset + tensor.len()];
        let [rows, columns] = tensor.shape[..] else {
            assert!(data.iter().all(|b| *b == 0.0), "{} is not zero", tensor.name);
            continue;
        };
        let gain: f64 = match tensor.name.as_str() {
            name if name == format!("actor.W{last}") => 0.01,
            name if name == format!("critic.W{last}") => 1.0,
            _ => std::f64::consts::SQRT_2,
        };
        let at = |row: usize, column: usize| f64::from(data[row * columns + column]);
        for i in 0..rows.min(columns) {
            for j in 0..rows.min(columns) {
                let dot: f64 = if rows <= columns {
                    (0..columns).map(|k| at(i, k) * at(j, k)).sum()
                } else {
                    (0..rows).map(|k| at(k, i) * at(k, j)).sum()
                };
                let expected = if i == j { gain * gain } else { 0.0 };
                assert!((dot - expected).abs() <= 1e-6 * gain * gain, "{}: {i}·{j} is {dot}", tensor.name);
            }
        }
    }
    assert_ne!(parameters, network.initial_parameters(2, 0.0).unwrap());
    assert_eq!(parameters, network.initial_parameters(1, 0.0).unwrap());
}

#[test]
fn every_preset_is_valid_and_differs_where_its_model_does() {
    for name in Config::PRESETS {
        Config::preset(name).unwrap().validate().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let (cleanrl, sb3) = (Config::preset("cleanrl").unwrap(), Config::preset("sb3").unwrap());
    assert_eq!((cleanrl.batch_size(), cleanrl.minibatch_size(), cleanrl.num_updates()), (512, 128, 976));
    assert!(cleanrl.clip_vloss && cleanrl.anneal_lr && !cleanrl.bootstrap_truncated);
    assert!(!sb3.clip_vloss && !sb3.anneal_lr && sb3.bootstrap_truncated && sb3.kl_stop == KlStop::BeforeStep);
    assert!(matches!(Config::preset("nonesuch"), Err(Error::InvalidValue { argument, .. }) if argument == "preset"));
}

#[test]
fn the_learning_rate_falls_to_nothing_after_the_last_update() {
    let config = Config { num_envs: 2, num_steps: 8, total_timesteps: 64, learning_rate: 1e-3, ..Config::default() };
    let rates = |config: &Config| (0..6).map(|update| config.learning_rate_at(update)).collect::<Vec<_>>();
    assert_eq!(rates(&config), [1e-3, 0.75e-3, 0.5e-3, 0.25e-3, 0.0, 0.0]);
    assert_eq!(rates(&Config { anneal_lr: false, ..config.clone() }), [1e-3; 6]);
    // Only who counts timesteps needs any.
    let none = Config { total_timesteps: 0, ..config };
    none.validate().unwrap();
    assert_eq!(none.learning_rate_at(0), 1e-3);
}

#[test]
fn a_configuration_survives_json_and_refuses_unknown_fields() {
    let config = Config { norm_adv: AdvantageScope::Rollout, target_kl: Some(0.01), ..Config::default() };
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    let misspelt = text.replace("\"gamma\"", "\"gama\"");
    assert!(serde_json::from_str::<Config>(&misspelt).is_err());
}

#[test]
fn infinities_survive_json_and_missing_fields_are_defaults() {
    for infinity in [f64::INFINITY, f64::NEG_INFINITY] {
        let config = Config {
            clip_coef: infinity,
            clip_coef_high: Some(infinity),
            dual_clip: Some(infinity),
            huber_delta: Some(infinity),
            max_grad_norm: infinity,
            target_kl: Some(infinity),
            ..Config::default()
        };
        let text = serde_json::to_string(&config).unwrap();
        assert!(!text.contains("null"), "{text}");
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
    }
    let config = Config { gamma: 0.9, max_grad_norm: f64::INFINITY, dual_clip: Some(3.0), ..Config::default() };
    assert_eq!(serde_json::from_str::<Config>(r#"{"gamma": 0.9, "max_grad_norm": "inf", "dual_clip": 3}"#).unwrap(), config);
    let refused = serde_json::from_str::<Config>(r#"{"max_grad_norm": "much"}"#).unwrap_err().to_string();
    assert!(refused.contains("inf"), "{refused}");
}

#[test]
fn a_network_without_room_for_an_action_is_refused() {
    let spec = NetworkSpec {
        observation_size: 4,
        hidden: vec![usize::MAX / 2],
        activation: Activation::Tanh,
        policy: PolicyKind::Categorical { actions: 2 },
    };
    assert!(matches!(Network::new(spec.clone()), Err(Error::Shape { argument, .. }) if argument == "hidden"));
    let none = NetworkSpec { hidden: vec![], policy: PolicyKind::Categorical { actions: 0 }, ..spec };
    assert!(matches!(Network::new(none), Err(Error::Shape { argument, .. }) if argument == "policy"));
    let too_many = NetworkSpec {
        observation_size: 1 << 20,
        hidden: vec![1 << 20],
        activation: Activation::Tanh,
        policy: PolicyKind::Categorical { actions: 2 },
    };
    assert!(matches!(Network::new(too_many), Err(Error::Shape { argument, .. }) if argument == "actor.W0"));
}
