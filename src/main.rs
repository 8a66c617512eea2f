//! The `ppo-kernels` program; see [`ppo_kernels`].

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
