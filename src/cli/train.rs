//! `ppo-kernels train`: trains an agent until its environment is solved.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{HumanCount, HumanDuration};
use ppo_kernels::backend::Backend;
use ppo_kernels::env::EnvId;
use ppo_kernels::kernels::linear::Activation;
use ppo_kernels::ppo::Config;
use ppo_kernels::train::{EPISODES_AVERAGED, FinishedEpisode, NamedTensor, Progress, Trainer};
use ppo_kernels::{Error, Result};
use serde_json::{Value, json};

use super::backend::{BackendArgs, Opened};
use super::hyperparameters::HyperparameterArgs;
use super::interrupt::Interrupt;
use super::learning_curve::Caption;
use super::progress::Display;
use super::run_folder::{Description, RunFolder};
use super::{Outcome, output};

/// Work that a killed process may lose; an orderly end loses none.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// Train an agent from scratch until the mean return of the last 100 episodes reaches the target.
///
/// Writes metrics.csv, config.json, learning_curve.svg and policy.safetensors to
/// OUTPUT/<env>-<seed>-<time>/, also after a failure or an interruption (see docs/runs.md). Exits 0
/// when solved, 3 when out of timesteps, 130 after Ctrl-C (which finishes the current update), 1
/// after an error. Equal seeds on one adapter give bit-identical numbers.
#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    /// Environment
    #[arg(long, default_value = "cartpole", value_parser = PossibleValuesParser::new(ENVIRONMENTS).try_map(|name| name.parse::<EnvId>()))]
    env: EnvId,
    /// Hyper-parameters to start from [default: pendulum for pendulum, cleanrl-continuous for
    /// mountain-car-continuous, else cleanrl]
    #[arg(long, value_parser = PossibleValuesParser::new(Config::PRESETS))]
    preset: Option<String>,
    #[command(flatten)]
    backend: BackendArgs,
    /// Folder for the run's folder
    #[arg(long, default_value = "runs", value_name = "DIR")]
    output: PathBuf,
    /// Mean return of the last 100 episodes that counts as solved [default: cartpole 475, acrobot
    /// -100, pendulum -250, mountain-car-continuous 90]
    #[arg(long, value_name = "RETURN", allow_hyphen_values = true)]
    target_return: Option<f64>,
    /// Print the resulting configuration as JSON (config.json without the backend) and exit
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    hyperparameters: HyperparameterArgs,
}

const ENVIRONMENTS: [&str; 4] = ["cartpole", "acrobot", "pendulum", "mountain-car-continuous"];

/// CleanRL's settings for the kind of actions; Pendulum does not learn with them.
fn default_preset(env: EnvId) -> &'static str {
    match env {
        EnvId::CartPole | EnvId::Acrobot => "cleanrl",
        EnvId::Pendulum => "pendulum",
        EnvId::MountainCarContinuous => "cleanrl-continuous",
    }
}

/// The mean return that counts as solved: Gymnasium's threshold; a good controller's for Pendulum.
fn default_target(env: EnvId) -> f64 {
    match env {
        EnvId::CartPole => 475.0,
        EnvId::Acrobot => -100.0,
        EnvId::Pendulum => -250.0,
        EnvId::MountainCarContinuous => 90.0,
    }
}

/// A [`Trainer`] on any backend.
trait Training {
    fn update(&mut self) -> Result<Progress>;
    fn finished(&self) -> bool;
    fn policy(&mut self) -> Result<Vec<NamedTensor>>;
    fn describe_backend(&self) -> String;
}

impl<B: Backend> Training for Trainer<B> {
    fn update(&mut self) -> Result<Progress> {
        self.update()
    }
    fn finished(&self) -> bool {
        self.finished()
    }
    fn policy(&mut self) -> Result<Vec<NamedTensor>> {
        self.policy()
    }
    fn describe_backend(&self) -> String {
        self.backend().describe()
    }
}

fn start(opened: Opened, env: EnvId, config: Config) -> Result<Box<dyn Training>> {
    Ok(match opened {
        Opened::Gpu(gpu) => Box::new(Trainer::new(gpu, env, config)?),
        Opened::Cpu(cpu) => Box::new(Trainer::new(cpu, env, config)?),
        Opened::CrossCheck(both) => Box::new(Trainer::new(both, env, config)?),
    })
}

/// A training run and its outputs.
struct Run {
    training: Box<dyn Training>,
    folder: RunFolder,
    display: Display,
    caption: Caption,
    env: EnvId,
    activation: Activation,
    target_return: f64,
    episodes: Vec<FinishedEpisode>,
    latest: Option<Progress>,
}

pub fn run(args: TrainArgs) -> Result<Outcome> {
    let preset = args.preset.as_deref().unwrap_or_else(|| default_preset(args.env));
    let mut config = Config::preset(preset)?;
    args.hyperparameters.apply(&mut config);
    config.validate()?;
    let target_return = args.target_return.unwrap_or_else(|| default_target(args.env));
    if target_return.is_nan() {
        let expected = "a number".to_owned();
        return Err(Error::InvalidValue { argument: "target_return".to_owned(), expected, actual: target_return.to_string() });
    }

    config.require_one_update()?;
    let mut description = Description {
        version: env!("CARGO_PKG_VERSION"),
        env: args.env.to_string(),
        backend: None,
        preset,
        target_return,
        config: &config,
    };
    if args.print_config {
        output::line(&description.to_json()?)?;
        return Ok(Outcome::Success);
    }

    let training = start(args.backend.open()?, args.env, config.clone())?;
    let backend = training.describe_backend();
    let folder = RunFolder::create(&args.output, args.env, config.seed)?;
    description.backend = Some(backend.clone());
    folder.write_description(&description)?;
    let interrupt = Interrupt::listen("finishing this update, then saving")?;
    output::line(&format!("{} on {backend}; results in {}", args.env, folder.path().display()))?;

    let caption = Caption {
        title: format!("PPO on {}", args.env),
        subtitle: format!("preset {preset}, seed {}, {backend}", config.seed),
        target: target_return,
    };
    let display = Display::new(config.total_timesteps);
    let (env, activation) = (args.env, config.activation);
    let mut run = Run { training, folder, display, caption, env, activation, target_return, episodes: Vec::new(), latest: None };
    let result = run.until_done(&interrupt);
    run.display.close();
    // Save whatever ended the training; the first error is reported.
    let saved = run.save();
    if result.is_err() {
        output::note(&format!("the results until then are in {}", run.folder.path().display()));
    }
    let outcome = result?;
    saved?;
    run.print_result(outcome)?;
    Ok(outcome)
}

impl Run {
    fn until_done(&mut self, interrupt: &Interrupt) -> Result<Outcome> {
        let mut saved = Instant::now();
        loop {
            let progress = self.training.update()?;
            self.episodes.extend_from_slice(&progress.episodes);
            self.folder.append_metrics(&progress)?;
            let outcome = self.outcome_after(&progress, interrupt.requested());
            self.display.show(&progress, outcome.is_some())?;
            self.latest = Some(progress);
            if let Some(outcome) = outcome {
                return Ok(outcome);
            }
            if saved.elapsed() > SAVE_EVERY {
                self.save()?;
                saved = Instant::now();
            }
        }
    }

    fn outcome_after(&self, progress: &Progress, interrupted: bool) -> Option<Outcome> {
        if is_solved(progress, self.target_return) {
            Some(Outcome::Success)
        } else if interrupted {
            Some(Outcome::Interrupted)
        } else if self.training.finished() {
            Some(Outcome::Unsolved)
        } else {
            None
        }
    }

    /// The picture first: it needs no device.
    fn save(&mut self) -> Result<()> {
        let steps = self.latest.as_ref().map_or(0, |progress| progress.global_step);
        let drawn = self.folder.write_learning_curve(&self.episodes, steps, &self.caption);
        let policy = self.training.policy().and_then(|policy| self.folder.write_policy(&policy, &self.description()));
        drawn.and(policy)
    }

    /// Metadata for using the policy, with its score at the time of saving.
    fn description(&self) -> Value {
        let latest = self.latest.as_ref();
        json!({
            "env": self.env.spec().id,
            "activation": self.activation,
            "global_step": latest.map(|progress| progress.global_step),
            "mean_return": latest.and_then(|progress| progress.mean_return),
            "solved": latest.is_some_and(|progress| is_solved(progress, self.target_return)),
        })
    }

    fn print_result(&self, outcome: Outcome) -> Result<()> {
        let Some(progress) = &self.latest else { return Ok(()) };
        let mean = match progress.mean_return {
            Some(mean) => {
                format!("mean return {mean:.1} over the last {} episodes", progress.episodes_seen.min(EPISODES_AVERAGED as u64))
            }
            None => "no episode has ended".to_owned(),
        };
        let verdict = match outcome {
            Outcome::Success => "solved",
            Outcome::Interrupted => "interrupted",
            Outcome::Unsolved | Outcome::Negative => "out of timesteps, not solved",
        };
        let (steps, elapsed) = (HumanCount(progress.global_step), HumanDuration(self.display.elapsed()));
        output::line(&format!("{verdict} after {steps} steps ({elapsed:#}): {mean}, target {}", self.target_return))?;
        output::line(&format!("results in {}", self.folder.path().display()))
    }
}

fn is_solved(progress: &Progress, target_return: f64) -> bool {
    progress.episodes_seen >= EPISODES_AVERAGED as u64 && progress.mean_return.is_some_and(|mean| mean >= target_return)
}
