//! Error texts of the command line: what is wrong, then what to do, with flags spelled as flags.

use ppo_kernels::Error;

use super::hyperparameters::HyperparameterArgs;

/// Other flags than hyper-parameters, by the argument's name in an [`Error`].
const OTHER_FLAGS: [&str; 2] = ["only", "target_return"];

/// The text of an error.
pub fn describe(error: &Error) -> String {
    match error {
        Error::Shape { argument, expected, actual } | Error::InvalidValue { argument, expected, actual } => {
            if *argument == argument.to_uppercase() {
                return format!("{argument} is {actual}; set it to {expected}");
            }
            match with_flags(argument) {
                flags if flags == *argument => error.to_string(),
                flags => format!("{flags} is {actual}; pass {}", with_flags(expected)),
            }
        }
        Error::Conflict { argument, other, remedy } => {
            format!("{} conflicts with {}; {}", with_flags(argument), with_flags(other), action(remedy))
        }
        Error::NoAdapter { found, .. } if found.is_empty() => format!("{error}; install a Vulkan driver, or pass --backend cpu"),
        Error::NoAdapter { .. } => format!("{error}; pass part of one of these names to --adapter, or pass --backend cpu"),
        _ => error.to_string(),
    }
}

/// The text of an error of `train`, whose flags choose sizes and step length.
pub fn describe_training(error: &Error) -> String {
    let text = describe(error);
    match error {
        Error::OutOfMemory { .. } | Error::LimitExceeded { .. } => {
            format!("{}; pass smaller --num-envs, --num-steps or --hidden", with_flags(&text))
        }
        Error::NonFinite { .. } => format!("{text}; pass a smaller --learning-rate or --max-grad-norm"),
        _ => text,
    }
}

/// `set clip_vloss to false` as `pass --clip-vloss false`.
fn action(remedy: &str) -> String {
    match remedy.strip_prefix("set ").and_then(|rest| rest.split_once(" to ")) {
        Some((field, value)) => format!("pass {} {value}", with_flags(field)),
        None => remedy.to_owned(),
    }
}

/// Spells flags in `text`: `num_envs x num_steps` becomes `--num-envs x --num-steps`.
fn with_flags(text: &str) -> String {
    let is_flag = |word: &str| HyperparameterArgs::FIELDS.contains(&word) || OTHER_FLAGS.contains(&word);
    let spelled = |word: &str| if is_flag(word) { format!("--{}", word.replace('_', "-")) } else { word.to_owned() };
    text.split(' ').map(spelled).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use ppo_kernels::ppo::Config;

    use super::*;

    fn refused(change: impl Fn(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        describe(&config.validate().and_then(|()| config.require_one_update()).unwrap_err())
    }

    #[test]
    fn what_is_wrong_comes_first_then_what_to_do() {
        for (text, expected) in [
            (refused(|c| c.gamma = 1.5), "--gamma is 1.5; pass a number in [0.0, 1.0]"),
            (refused(|c| c.num_envs = 0), "--num-envs is 0; pass a size from 1 to 4294967295"),
            (refused(|c| c.num_minibatches = 1000), "--num-minibatches is 1000; pass at most --num-envs x --num-steps = 512"),
            (refused(|c| c.total_timesteps = 10), "--total-timesteps is 10; pass at least --num-envs x --num-steps = 512"),
            (refused(|c| c.huber_delta = Some(1.0)), "--huber-delta conflicts with --clip-vloss; pass --clip-vloss false"),
            (
                refused(|c| c.clip_coef = f64::INFINITY),
                "an infinite --clip-coef conflicts with --clip-vloss; pass --clip-vloss false",
            ),
            (refused(|c| c.dual_clip = Some(1.0)), "--dual-clip is 1; pass a finite number > 1"),
            (refused(|c| c.norm_adv_ddof = 2), "--norm-adv-ddof is 2; pass 0 or 1"),
            (refused(|c| c.hidden = vec![64, 0]), "--hidden is 0; pass a size from 1 to 4294967295"),
        ] {
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn what_no_flag_chooses_keeps_its_text() {
        let error = Error::Shape { argument: "rollout".to_owned(), expected: "4 x 2".to_owned(), actual: "4 x 3".to_owned() };
        assert_eq!(describe(&error), error.to_string());
    }
}
