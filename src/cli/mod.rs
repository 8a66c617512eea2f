//! The program's commands.

mod adapters;
mod backend;
mod bench;
mod chart;
mod check;
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

use clap::{Parser, Subcommand};

/// PPO on any GPU: train, check that an adapter computes what it should, and measure how fast.
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

RUST_LOG=info shows what wgpu has to say, WGPU_VALIDATION=1 has the driver's layers check it,
WGPU_BACKEND=vulkan, dx12 or metal leaves the others out.
PPO_KERNELS_AUTOTUNE=off chooses no kernel by timing and keeps nothing on disk;
PPO_KERNELS_CACHE_DIR=FOLDER keeps it there instead of in the user's cache folder.";

#[derive(Debug, Subcommand)]
enum Command {
    Train(Box<train::TrainArgs>),
    Verify(verify::VerifyArgs),
    Check(check::CheckArgs),
    Bench(bench::BenchArgs),
    Adapters(adapters::AdaptersArgs),
}

/// What a command ends with, besides an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It did what was asked for.
    Success,
    /// It ran, and the answer is no: a miss, an empty list.
    Negative,
    /// Training ran out of timesteps before the environment was solved.
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
    // That a request could not be met is for everybody to know.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error,ppo_kernels=warn")).init();
    let result = match Program::parse().command {
        Command::Train(args) => train::run(*args),
        Command::Verify(args) => verify::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Adapters(args) => adapters::run(&args),
    };
    match result {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => {
            output::note(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
