//! Whole PPO updates.

use super::Problem;
use super::config::overridden;
use super::loss::LOGGED;
use super::mlp::ACTIVATIONS;
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::kernels::gather::Gather;
use crate::kernels::policy::{Categorical, CategoricalEvaluateOperands, GaussianEvaluateOperands};
use crate::layout::stat;
use crate::ppo::{Actions, AdvantageScope, Config, Ends, Learner, Network, NetworkSpec, PolicyKind, Rollout};

/// A case file's settings of the learner.
struct Setup {
    config: Config,
    minibatch_size: usize,
    observation_size: usize,
    policy: PolicyKind,
    /// `[parameters]`, in the network's order.
    initial: Vec<f32>,
    /// `[epochs, T·N]`.
    permutations: Vec<u32>,
}

/// An update by the learner itself, minibatch by minibatch.
pub(super) fn ppo_update<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let setup = read_setup(problem)?;
    let rollout = read_rollout(problem, &setup)?;
    let Setup { config, minibatch_size, observation_size, policy, initial, permutations } = setup;
    let (learning_rate, epochs) = (config.learning_rate, config.update_epochs);
    let backend = &mut *problem.backend;
    let mut learner = Learner::with_minibatch_size(backend, observation_size, policy, config, minibatch_size)?;
    learner.set_parameters(backend, &initial)?;
    learner.begin(backend, &rollout, learning_rate, Some(&permutations))?;
    problem.keep("out.advantages", &learner.advantages)?;
    problem.keep("out.returns", &learner.returns)?;
    let per_epoch = learner.steps_per_epoch();
    learner.step(problem.backend, &rollout, 0)?;
    let first = minibatch_size.min(permutations.len() / epochs);
    keep_first(problem, &learner, &rollout, &initial, first)?;
    let steps = epochs * per_epoch;
    for step in 1..steps {
        learner.step(problem.backend, &rollout, step)?;
    }
    let stats = learner.finish(problem.backend, learning_rate)?;
    for (name, column) in LOGGED.into_iter().chain([("grad_norm", stat::GRAD_NORM), ("clip_coef", stat::CLIP_COEF)]) {
        problem.keep_values(format!("out.steps.{name}"), stats.log.iter().map(|row| row[column]).collect());
    }
    problem.keep_values("out.epochs_done", vec![stats.steps.div_ceil(per_epoch) as f64]);
    let [params, m, v] = learner.state_f64(problem.backend)?;
    let delta: Vec<f64> = params.iter().zip(&initial).map(|(after, &before)| after - f64::from(before)).collect();
    for (name, values) in [("after", &params), ("delta", &delta), ("adam_m", &m), ("adam_v", &v)] {
        keep_tensors(problem, &format!("out.{name}"), learner.network(), values);
    }
    Ok(())
}

/// Adds every tensor of the network in a flat buffer to the results, as PREFIX.NAME.
fn keep_tensors<B: Backend>(problem: &mut Problem<'_, B>, prefix: &str, network: &Network, flat: &[f64]) {
    for tensor in network.tensors() {
        problem.keep_values(format!("{prefix}.{}", tensor.name), flat[tensor.offset..][..tensor.len()].to_vec());
    }
}

/// Adds the learner's state after the first minibatch of `count` samples to the results.
fn keep_first<B: Backend>(
    problem: &mut Problem<'_, B>,
    learner: &Learner<B>,
    rollout: &Rollout<B>,
    initial: &[f32],
    count: usize,
) -> Result<()> {
    let network = learner.network();
    // The heads' outputs are from that minibatch; the log-std comes from the initial parameters.
    let [logp, entropy] = &mut [problem.alloc(count)?, problem.alloc(count)?];
    let head = learner.minibatch.actor.head();
    let gather = |width| Gather { rows: rollout.steps * rollout.envs, width, start: 0, count };
    match (network.spec().policy, &rollout.actions) {
        (PolicyKind::Categorical { actions: n }, Actions::Discrete(source)) => {
            let op = Categorical { batch: count, actions: n };
            let (logits, mask, actions) = (head, None, &mut problem.backend.alloc_words(count)?);
            problem.backend.gather_words(&gather(1), source, &learner.permutations, actions)?;
            problem.backend.categorical_evaluate(&op, CategoricalEvaluateOperands { logits, mask, actions, logp, entropy })?;
        }
        (PolicyKind::Gaussian { dim }, Actions::Continuous(source)) => {
            let op = network.gaussian(count, dim);
            let actions = &mut problem.alloc(count * dim)?;
            problem.backend.gather_floats(&gather(dim), source, &learner.permutations, actions)?;
            let (mean, log_std) = (head, &problem.backend.upload_floats(initial)?);
            problem.backend.gaussian_evaluate(&op, GaussianEvaluateOperands { mean, log_std, actions, logp, entropy })?;
        }
        _ => return Err(Error::value("actions", "the policy's kind of actions", "the other kind")),
    }
    problem.keep("out.first.logp", logp)?;
    problem.keep("out.first.entropy", entropy)?;
    let values = problem.backend.read_f64(learner.minibatch.critic.head(), 0, count)?;
    problem.keep_values("out.first.value", values);

    let grads = problem.read(&learner.state.grads)?;
    keep_tensors(problem, "grad.first", network, &grads);
    let [params, ..] = learner.state_f64(problem.backend)?;
    keep_tensors(problem, "out.after_first", network, &params);
    Ok(())
}

/// Hyper-parameters, parameters and permutations. A tensor's shape confirms each size.
fn read_setup<B: Backend>(problem: &Problem<'_, B>) -> Result<Setup> {
    let file = problem.file;
    let (num_steps, num_envs) = (file.size("T")?, file.size("N")?);
    file.f32s("rewards", &[num_steps, num_envs])?;
    let batch = num_steps * num_envs;
    let epochs = file.size("epochs")?;
    let permutations = file.indices("perms", &[epochs, batch], batch)?;
    let (observation_size, outputs) = (file.size("obs_dim")?, file.size("act_dim")?);
    let policy = match file.one_of("policy", &[("categorical", true), ("gaussian", false)])? {
        true => PolicyKind::Categorical { actions: outputs },
        false => PolicyKind::Gaussian { dim: outputs },
    };
    let activation = file.one_of("activation", &ACTIVATIONS)?;
    let hidden = file.sizes("hidden")?;
    let network = Network::new(NetworkSpec { observation_size, hidden: hidden.clone(), activation, policy })?;
    let mut initial = Vec::new();
    for tensor in network.tensors() {
        initial.extend(file.f32s(&tensor.name, &tensor.shape)?);
    }
    let config = Config {
        learning_rate: file.number("lr")?,
        num_envs,
        num_steps,
        gamma: file.number("gamma")?,
        gae_lambda: file.number("lam")?,
        num_minibatches: 1,
        update_epochs: epochs,
        norm_adv: if file.switch("norm_adv")? { AdvantageScope::Minibatch } else { AdvantageScope::None },
        clip_coef: file.bound("clip")?,
        clip_vloss: file.switch("clip_vloss")?,
        ent_coef: file.number("ent_coef")?,
        vf_coef: file.number("vf_coef")?,
        max_grad_norm: file.bound("max_grad_norm")?,
        target_kl: file.optional_number("target_kl")?,
        adam_beta1: file.number("beta1")?,
        adam_beta2: file.number("beta2")?,
        adam_eps: file.number("adam_eps")?,
        hidden,
        activation,
        // These case files take CleanRL's other defaults for granted.
        ..Config::default()
    };
    let sizes = |config: &Config| (config.num_steps, config.num_envs, config.update_epochs, config.hidden.clone());
    let expected = sizes(&config);
    let config = overridden(file, config)?;
    if sizes(&config) != expected {
        return Err(Error::value("config", "num_steps, num_envs, update_epochs and hidden equal to the file's", "others"));
    }
    Ok(Setup { config, minibatch_size: file.size("minibatch")?, observation_size, policy, initial, permutations })
}

/// The rollout, `[T, N]` flattened by t·N + n, in CleanRL's or, to bootstrap, Gymnasium's
/// convention.
fn read_rollout<B: Backend>(problem: &mut Problem<'_, B>, setup: &Setup) -> Result<Rollout<B>> {
    let Config { num_steps: steps, num_envs: envs, .. } = setup.config;
    let batch = steps * envs;
    let actions = match setup.policy {
        PolicyKind::Categorical { actions } => Actions::Discrete(problem.indices("actions", &[batch], actions)?),
        PolicyKind::Gaussian { dim } => Actions::Continuous(problem.input("actions", &[batch, dim])?),
    };
    let shape = [steps, envs];
    let ends = if setup.config.bootstrap_truncated {
        let [terminated, truncated] = [problem.flags("terminated", &shape)?, problem.flags("truncated", &shape)?];
        Ends::AfterStep { next_values: problem.input("next_values", &shape)?, terminated, truncated }
    } else {
        let [dones, next_done] = [problem.f32_flags("dones", &shape)?, problem.f32_flags("next_done", &shape[1..])?];
        Ends::BeforeStep { dones, next_value: problem.input("next_value", &shape[1..])?, next_done }
    };
    Ok(Rollout {
        steps,
        envs,
        observations: problem.input("obs", &[batch, setup.observation_size])?,
        actions,
        logp: problem.input("old_logp", &[batch])?,
        values: problem.input("old_values", &[batch])?,
        rewards: problem.input("rewards", &shape)?,
        ends,
    })
}
