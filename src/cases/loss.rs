//! PPO's objective and its terms.

use super::Problem;
use super::config::overridden;
use super::policy::Head;
use crate::backend::Backend;
use crate::error::Result;
use crate::kernels::normalize::Normalize;
use crate::kernels::surrogate::{CategoricalOperands, GaussianOperands, Surrogate, SurrogateOperands, ValueLoss};
use crate::layout::{sample, stat, term};
use crate::ppo::{AdvantageScope, Config};

/// No clipping, penalty or bonus; each kind of case file sets its own fields.
const PLAIN: Surrogate = Surrogate {
    batch: 0,
    clip_low: f64::INFINITY,
    clip_high: f64::INFINITY,
    dual_clip: None,
    vf_coef: 0.0,
    ent_coef: 0.0,
    kl_coef: 0.0,
    value_loss: ValueLoss::Mse,
    stats_row: 0,
};

/// Results of the elementwise objective for a batch.
struct Evaluated<F> {
    /// `[batch, term::COLUMNS]`.
    terms: Vec<f64>,
    /// `[batch]`.
    d_logp: F,
    /// `[batch]`.
    d_values: F,
    /// One row.
    stats: Vec<f64>,
}

impl<F> Evaluated<F> {
    fn term(&self, column: usize) -> Vec<f64> {
        column_of(&self.terms, column, term::COLUMNS)
    }
}

fn column_of(matrix: &[f64], column: usize, columns: usize) -> Vec<f64> {
    matrix.iter().skip(column).step_by(columns).copied().collect()
}

/// Packs old log-probabilities, advantages, returns and old values `[batch]` each into
/// `[batch, sample::COLUMNS]`, with zeros for missing ones.
fn pack<B: Backend>(problem: &mut Problem<'_, B>, batch: usize, columns: [(usize, &[f64]); 4]) -> Result<B::Floats> {
    let mut samples = problem.alloc(batch * sample::COLUMNS)?;
    let mut packed = vec![0.0; batch * sample::COLUMNS];
    for (column, values) in columns {
        packed.iter_mut().skip(column).step_by(sample::COLUMNS).zip(values).for_each(|(to, &from)| *to = from);
    }
    problem.backend.write_f64(&mut samples, 0, &packed)?;
    Ok(samples)
}

/// The input in f32, which all backends use, as f64.
fn column<B: Backend>(problem: &Problem<'_, B>, name: &str, batch: usize) -> Result<Vec<f64>> {
    Ok(problem.file.f32s(name, &[batch])?.iter().copied().map(f64::from).collect())
}

/// The hyper-parameters of a policy loss; advantages are normalised as in CleanRL, if at all.
fn config<B: Backend>(problem: &Problem<'_, B>) -> Result<Config> {
    let file = problem.file;
    let norm_adv = if file.switch("normalise_advantages")? { AdvantageScope::Minibatch } else { AdvantageScope::None };
    Ok(Config { clip_coef: file.bound("clip")?, norm_adv, ..Config::default() })
}

fn normalise<B: Backend>(problem: &mut Problem<'_, B>, config: &Config, batch: usize, samples: &mut B::Floats) -> Result<()> {
    if config.norm_adv == AdvantageScope::None {
        return Ok(());
    }
    let op = config.normalization(1, batch, sample::ADVANTAGE, sample::COLUMNS);
    let mut moments = problem.alloc(Normalize::MOMENTS)?;
    problem.backend.normalize(&op, samples, &mut moments)
}

fn evaluate<B: Backend>(
    problem: &mut Problem<'_, B>,
    op: &Surrogate,
    logp: &B::Floats,
    values: &B::Floats,
    samples: &B::Floats,
) -> Result<Evaluated<B::Floats>> {
    let batch = op.batch;
    let entropy = &problem.filled(batch, 0.0)?;
    let [terms, stats] = &mut [problem.alloc(batch * term::COLUMNS)?, problem.alloc(stat::COLUMNS)?];
    let [mut own_d_logp, mut own_d_values] = [problem.alloc(batch)?, problem.alloc(batch)?];
    let (d_logp, d_values) = (&mut own_d_logp, &mut own_d_values);
    let operands = SurrogateOperands { logp, entropy, values, samples, terms, d_logp, d_values, stats };
    problem.backend.surrogate(op, operands)?;
    Ok(Evaluated { terms: problem.read(terms)?, d_logp: own_d_logp, d_values: own_d_values, stats: problem.read(stats)? })
}

/// The clipped (or dual-clipped) surrogate from log-probabilities `[batch]`.
pub(super) fn clipped_surrogate<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let file = problem.file;
    let (batch, dual_clip) = (file.size("batch")?, file.optional_number("dual_clip")?);
    let alone = Config { dual_clip, clip_vloss: false, vf_coef: 0.0, ent_coef: 0.0, ..config(problem)? };
    let config = overridden(file, alone)?;
    let logp = problem.input("logp", &[batch])?;
    let (old_logp, advantages) = (column(problem, "old_logp", batch)?, column(problem, "advantages", batch)?);
    let columns =
        [(sample::OLD_LOGP, &old_logp[..]), (sample::ADVANTAGE, &advantages), (sample::RETURN, &[]), (sample::OLD_VALUE, &[])];
    let mut samples = pack(problem, batch, columns)?;
    normalise(problem, &config, batch, &mut samples)?;
    let used = problem.read(&samples)?;
    problem.keep_values("out.advantages_used", column_of(&used, sample::ADVANTAGE, sample::COLUMNS));
    let values = problem.filled(batch, 0.0)?;
    let evaluated = evaluate(problem, &config.surrogate(batch, 0), &logp, &values, &samples)?;
    for (name, column) in [
        ("logratio", term::LOG_RATIO),
        ("ratio", term::RATIO),
        ("clipped_ratio", term::CLIPPED_RATIO),
        ("per_sample", term::PG_LOSS),
    ] {
        problem.keep_values(format!("out.{name}"), evaluated.term(column));
    }
    for (name, column) in [
        ("loss", stat::LOSS),
        ("approx_kl_k1", stat::OLD_APPROX_KL),
        ("approx_kl_k3", stat::APPROX_KL),
        ("clipfrac", stat::CLIPFRAC),
    ] {
        problem.keep_values(format!("out.{name}"), vec![evaluated.stats[column]]);
    }
    problem.keep("grad.logp", &evaluated.d_logp)
}

/// The three value losses on values `[batch]`, and the explained variance.
pub(super) fn value_loss<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let file = problem.file;
    let (batch, clip) = (file.size("batch")?, file.number("clip")?);
    let values = problem.input("values", &[batch])?;
    let (old_values, returns) = (column(problem, "old_values", batch)?, column(problem, "returns", batch)?);
    let columns =
        [(sample::OLD_LOGP, &[][..]), (sample::ADVANTAGE, &[]), (sample::RETURN, &returns), (sample::OLD_VALUE, &old_values)];
    let samples = pack(problem, batch, columns)?;
    let logp = problem.filled(batch, 0.0)?;
    for (name, value_loss) in
        [("unclipped", ValueLoss::Mse), ("clipped", ValueLoss::Clipped { clip }), ("huber", ValueLoss::Huber { delta: 1.0 })]
    {
        let op = Surrogate { batch, vf_coef: 1.0, value_loss, ..PLAIN };
        let evaluated = evaluate(problem, &op, &logp, &values, &samples)?;
        problem.keep_values(format!("out.loss_{name}"), vec![evaluated.stats[stat::V_LOSS]]);
        problem.keep(format!("grad.values_{name}"), &evaluated.d_values)?;
        if name == "clipped" {
            problem.keep_values("out.v_clipped", evaluated.term(term::CLIPPED_VALUE));
        }
    }
    let [old_values, returns] = [problem.input("old_values", &[batch])?, problem.input("returns", &[batch])?];
    let mut stats = problem.filled(stat::COLUMNS, 0.0)?;
    problem.backend.explained_variance(batch, &old_values, &returns, &mut stats, 0)?;
    let explained = problem.read(&stats)?[stat::EXPLAINED_VARIANCE];
    problem.keep_values("out.explained_variance", vec![explained]);
    Ok(())
}

/// The unclipped surrogate with an adaptive KL penalty: the exact KL(old ‖ new), and k3.
pub(super) fn kl_penalty<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let (beta, target) = (problem.file.number("beta")?, problem.file.number("kl_target")?);
    let (new, old) = (Head::input(problem, "")?, Head::input(problem, "old_")?);
    let batch = new.batch();
    let ((logp, _), (old_logp, _)) = (new.evaluate(problem)?, old.evaluate(problem)?);
    problem.keep("out.logp", &logp)?;
    problem.keep("out.old_logp", &old_logp)?;
    let (old_logp, advantages) = (problem.read(&old_logp)?, column(problem, "advantages", batch)?);
    let columns =
        [(sample::OLD_LOGP, &old_logp[..]), (sample::ADVANTAGE, &advantages), (sample::RETURN, &[]), (sample::OLD_VALUE, &[])];
    let samples = pack(problem, batch, columns)?;
    let values = problem.filled(batch, 0.0)?;

    let op = Surrogate { batch, ..PLAIN };
    let evaluated = evaluate(problem, &op, &logp, &values, &samples)?;
    let pg_loss = evaluated.stats[stat::PG_LOSS];
    problem.keep_values("out.ratio", evaluated.term(term::RATIO));
    problem.keep_values("out.pg_loss", vec![pg_loss]);

    let (kl, of_kl) = old.kl_to(problem, &new, beta / batch as f64)?;
    let kl_mean = kl.iter().sum::<f64>() / batch as f64;
    problem.keep_values("out.kl", kl);
    problem.keep_values("out.kl_mean", vec![kl_mean]);
    problem.keep_values("out.loss", vec![pg_loss + beta * kl_mean]);
    problem.keep_values("out.next_beta", vec![adapted(beta, kl_mean, target)]);
    for ((name, of_ratio), (_, of_kl)) in new.backward(problem, &evaluated.d_logp)?.into_iter().zip(of_kl) {
        problem.keep_values(format!("grad.{name}"), of_ratio.iter().zip(&of_kl).map(|(a, b)| a + b).collect());
    }

    let op = Surrogate { kl_coef: beta, ..op };
    let evaluated = evaluate(problem, &op, &logp, &values, &samples)?;
    problem.keep_values("out.loss_k3", vec![evaluated.stats[stat::LOSS]]);
    for (name, gradient) in new.backward(problem, &evaluated.d_logp)? {
        problem.keep_values(format!("grad.{name}_k3"), gradient);
    }
    Ok(())
}

/// Schulman et al. 2017 §4: the weight doubles above 1.5·target and halves below target/1.5.
fn adapted(beta: f64, kl: f64, target: f64) -> f64 {
    if kl > 1.5 * target {
        2.0 * beta
    } else if kl < target / 1.5 {
        0.5 * beta
    } else {
        beta
    }
}

/// The whole objective of the outputs of policy and value function.
pub(super) fn ppo_loss<B: Backend>(problem: &mut Problem<'_, B>) -> Result<()> {
    let file = problem.file;
    let (vf_coef, ent_coef, clip_vloss) = (file.number("vf_coef")?, file.number("ent_coef")?, file.switch("clip_vloss")?);
    let config = overridden(file, Config { vf_coef, ent_coef, clip_vloss, ..config(problem)? })?;
    let head = Head::input(problem, "")?;
    let batch = head.batch();
    let [old_logp, advantages] = [column(problem, "old_logp", batch)?, column(problem, "advantages", batch)?];
    let [returns, old_values] = [column(problem, "returns", batch)?, column(problem, "old_values", batch)?];
    let columns = [
        (sample::OLD_LOGP, &old_logp[..]),
        (sample::ADVANTAGE, &advantages),
        (sample::RETURN, &returns),
        (sample::OLD_VALUE, &old_values),
    ];
    let samples = &mut pack(problem, batch, columns)?;
    normalise(problem, &config, batch, samples)?;
    let (logp, entropy) = head.evaluate(problem)?;
    problem.keep("out.logp", &logp)?;
    problem.keep("out.entropy", &entropy)?;

    let values = &problem.input("values", &[batch])?;
    let [d_values, stats] = &mut [problem.alloc(batch)?, problem.alloc(stat::COLUMNS)?];
    let op = config.surrogate(batch, 0);
    match &head {
        Head::Categorical { op: policy, logits, actions } => {
            let (mask, d_logits) = (None, &mut problem.alloc(policy.elements())?);
            let operands = CategoricalOperands { logits, mask, actions, values, samples, d_logits, d_values, stats };
            problem.backend.surrogate_categorical(&op, policy, operands)?;
            problem.keep("grad.logits", d_logits)?;
        }
        Head::Gaussian { op: policy, mean, log_std, actions } => {
            let [d_mean, d_log_std] = &mut [problem.alloc(policy.elements())?, problem.alloc(policy.dim)?];
            let d_log_std_offset = 0;
            let operands = GaussianOperands {
                mean,
                log_std,
                actions,
                values,
                samples,
                d_mean,
                d_log_std,
                d_log_std_offset,
                d_values,
                stats,
            };
            problem.backend.surrogate_gaussian(&op, policy, operands)?;
            problem.keep("grad.mean", d_mean)?;
            problem.keep("grad.logstd", d_log_std)?;
        }
    }
    problem.keep("grad.values", d_values)?;
    let stats = problem.read(stats)?;
    for (name, column) in LOGGED {
        problem.keep_values(format!("out.{name}"), vec![stats[column]]);
    }
    Ok(())
}

/// Statistics of a loss by their names in case files, parts before sums.
pub(super) const LOGGED: [(&str, usize); 7] = [
    ("old_approx_kl", stat::OLD_APPROX_KL),
    ("approx_kl", stat::APPROX_KL),
    ("clipfrac", stat::CLIPFRAC),
    ("pg_loss", stat::PG_LOSS),
    ("v_loss", stat::V_LOSS),
    ("entropy_mean", stat::ENTROPY),
    ("loss", stat::LOSS),
];
