//! The program's commands.

mod adapters;
mod backend;
mod bench;
mod chart;
mod check;
mod driver;
mod error_text;
mod hyperparameters;
mod interrupt;
mod learning_curve;
mod output;
mod planted_faults;
mod progress;
mod roofline;
mod run_folder;
mod sweep;
mod train;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use ppo_kernels::Error;

/// PPO on any GPU: train, check an adapter's results, and measure its speed.
#[derive(Debug, Parser)]
#[command(name = "ppo-kernels", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0    success
  1    an error, a miss, nothing found
  2    a command line that cannot be parsed
  3    `train` ran out of timesteps
  130  interrupted

RUST_LOG=info shows wgpu's messages, WGPU_VALIDATION=1 turns on the driver's validation,
WGPU_BACKEND=vulkan, dx12 or metal restricts the APIs.
PPO_KERNELS_AUTOTUNE=off turns off timing kernels and caching choices and pipelines;
PPO_KERNELS_CACHE_DIR=FOLDER replaces the user's cache folder for them.";

#[derive(Debug, Subcommand)]
enum Command {
    Train(Box<train::TrainArgs>),
    Verify(verify::VerifyArgs),
    Check(check::CheckArgs),
    Bench(bench::BenchArgs),
    Adapters(adapters::AdaptersArgs),
}

/// The outcome of a command without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Success,
    /// A negative answer: a miss, an empty list.
    Negative,
    /// Training used all timesteps without solving the environment.
    Unsolved,
    /// Ctrl-C.
    Interrupted,
}

impl Outcome {
    fn code(self) -> u8 {
        match self {
            Outcome::Success => 0,
            Outcome::Negative => 1,
            Outcome::Unsolved => 3,
            Outcome::Interrupted => interrupt::EXIT_CODE,
        }
    }
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    // Show warnings about requests that could not be met.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error,ppo_kernels=warn")).init();
    let matches = Program::command().mut_subcommand("train", hyperparameters::with_defaults).get_matches();
    let command = match Program::from_arg_matches(&matches) {
        Ok(program) => program.command,
        Err(error) => error.exit(),
    };
    let describe: fn(&Error) -> String = match command {
        Command::Train(_) => error_text::describe_training,
        _ => error_text::describe,
    };
    let result = match command {
        Command::Train(args) => train::run(*args),
        Command::Verify(args) => verify::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Adapters(args) => adapters::run(&args),
    };
    match result {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => {
            output::note(&format!("error: {}", describe(&error)));
            ExitCode::FAILURE
        }
    }
}
