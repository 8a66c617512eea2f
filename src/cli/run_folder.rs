//! The folder of a training run.

use std::fs::{File, create_dir, create_dir_all};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ppo_kernels::env::EnvId;
use ppo_kernels::ppo::{Config, StopReason};
use ppo_kernels::train::{FinishedEpisode, NamedTensor, Progress};
use ppo_kernels::{Error, Result};
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use serde_json::Value;

use super::learning_curve::{self, Caption};

/// Most folders of one environment, seed and second.
const MOST_IN_A_SECOND: usize = 1000;

/// Contents of `config.json`.
#[derive(Debug, Serialize)]
pub struct Description<'a> {
    /// This program's version.
    pub version: &'static str,
    pub env: String,
    /// Backend and adapter; none before opening.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Preset under the flags.
    pub preset: &'a str,
    /// Mean return at which training stops.
    #[serde(with = "ppo_kernels::ppo::infinity_as_text")]
    pub target_return: f64,
    /// All hyper-parameters.
    pub config: &'a Config,
}

impl Description<'_> {
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|error| Error::Io { path: "config.json".into(), source: std::io::Error::other(error) })
    }
}

/// A row of `metrics.csv`. It does not depend on the clock: equal seeds give equal files.
#[derive(Debug, Serialize)]
struct Metrics {
    update: u64,
    global_step: u64,
    episodes: u64,
    mean_return: Option<f64>,
    /// Mean over the rollout's episodes, like the next.
    episodic_return: Option<f64>,
    episodic_length: Option<f64>,
    learning_rate: f64,
    loss: f64,
    pg_loss: f64,
    v_loss: f64,
    entropy: f64,
    old_approx_kl: f64,
    approx_kl: f64,
    stopping_kl: Option<f64>,
    clipfrac: f64,
    grad_norm: f64,
    explained_variance: f64,
    optimizer_steps: usize,
    stopped_early: bool,
}

impl Metrics {
    fn of(progress: &Progress) -> Self {
        let stats = &progress.stats;
        Self {
            update: progress.update,
            global_step: progress.global_step,
            episodes: progress.episodes_seen,
            mean_return: progress.mean_return,
            episodic_return: mean(&progress.episodes, |episode| episode.episodic_return),
            episodic_length: mean(&progress.episodes, |episode| episode.length as f64),
            learning_rate: stats.learning_rate,
            loss: stats.loss,
            pg_loss: stats.pg_loss,
            v_loss: stats.v_loss,
            entropy: stats.entropy,
            old_approx_kl: stats.old_approx_kl,
            approx_kl: stats.approx_kl,
            stopping_kl: stats.stopping_kl,
            clipfrac: stats.clipfrac,
            grad_norm: stats.grad_norm,
            explained_variance: stats.explained_variance,
            optimizer_steps: stats.steps,
            stopped_early: stats.stop == StopReason::TargetKl,
        }
    }
}

fn mean(episodes: &[FinishedEpisode], what: impl Fn(&FinishedEpisode) -> f64) -> Option<f64> {
    (!episodes.is_empty()).then(|| episodes.iter().map(what).sum::<f64>() / episodes.len() as f64)
}

/// `OUTPUT/<env>-<seed>-<time>/`, with `metrics.csv` open.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    metrics: csv::Writer<File>,
}

impl RunFolder {
    /// Creates the folder and `metrics.csv`.
    pub fn create(output: &Path, env: EnvId, seed: u64) -> Result<Self> {
        create_dir_all(output).map_err(|source| Error::Io { path: output.to_owned(), source })?;
        let path = fresh_folder(output, &format!("{env}-{seed}-{}", utc(SystemTime::now())))?;
        let metrics_path = path.join("metrics.csv");
        let file = File::create(&metrics_path).map_err(|source| Error::Io { path: metrics_path, source })?;
        Ok(Self { path, metrics: csv::Writer::from_writer(file) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn write_description(&self, description: &Description<'_>) -> Result<()> {
        write_whole(&self.path.join("config.json"), format!("{}\n", description.to_json()?).as_bytes())
    }

    /// Appends a row to `metrics.csv` and flushes it.
    pub fn append_metrics(&mut self, progress: &Progress) -> Result<()> {
        let row = self.metrics.serialize(Metrics::of(progress)).map_err(std::io::Error::other);
        row.and_then(|()| self.metrics.flush()).map_err(|source| Error::Io { path: self.path.join("metrics.csv"), source })
    }

    pub fn write_learning_curve(&self, episodes: &[FinishedEpisode], steps: u64, caption: &Caption) -> Result<()> {
        write_whole(&self.path.join("learning_curve.svg"), learning_curve::draw(episodes, steps, caption).as_bytes())
    }

    /// Writes `policy.safetensors`; its metadata `run` describes the policy's use. safetensors
    /// writes several entries in any order, so there is one.
    pub fn write_policy(&self, policy: &[NamedTensor], run: &Value) -> Result<()> {
        let path = self.path.join("policy.safetensors");
        let unusable = |error: safetensors::SafeTensorError| Error::File { path: path.clone(), reason: error.to_string() };
        let bytes: Vec<Vec<u8>> =
            policy.iter().map(|tensor| tensor.data.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
        let views = policy.iter().zip(&bytes).map(|(tensor, bytes)| {
            TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map(|view| (tensor.name.as_str(), view)).map_err(unusable)
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        write_whole(&path, &safetensors::serialize(views, Some([("run".to_owned(), run.to_string())].into())).map_err(unusable)?)
    }
}

fn fresh_folder(output: &Path, name: &str) -> Result<PathBuf> {
    let numbered = (2..MOST_IN_A_SECOND).map(|i| format!("{name}-{i}"));
    let mut taken = output.join(name);
    for name in std::iter::once(name.to_owned()).chain(numbered) {
        let path = output.join(name);
        match create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => taken = path,
            Err(source) => return Err(Error::Io { path, source }),
        }
    }
    Err(Error::Io { path: taken, source: std::io::ErrorKind::AlreadyExists.into() })
}

/// Writes beside the target and renames: readers see the old contents or the new, never a part.
pub fn write_whole(path: &Path, contents: &[u8]) -> Result<()> {
    let beside = beside(path);
    let written = File::create(&beside)
        .and_then(|mut file| file.write_all(contents).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|source| {
        // The error to report is the first.
        let _ = std::fs::remove_file(&beside);
        Error::Io { path: path.to_owned(), source }
    })
}

/// Fails where [`write_whole`] would, before long work and without touching the file.
pub fn require_writable(path: &Path) -> Result<()> {
    let beside = beside(path);
    let tried = match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => Err(std::io::Error::other("exists and is not a file; pass another path")),
        _ => File::create(&beside).and_then(|_| std::fs::remove_file(&beside)),
    };
    tried.map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// The temporary name for `path`.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// UTC as `20260131-235959`.
pub fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}{month:02}{day:02}-{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day from days since 1970-01-01 (Hinnant, "chrono-compatible low-level date
/// algorithms"). Years start in March, so the leap day is the last; 400 years have 146 097 days.
fn civil(days_since_1970: u64) -> (u64, u64, u64) {
    let days = days_since_1970 + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (400 * era + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_utc() {
        for (seconds, expected) in [
            (0, "19700101-000000"),
            (951_782_399, "20000228-235959"),
            (951_782_400, "20000229-000000"),
            (1_709_251_200, "20240301-000000"),
            (4_107_542_400, "21000301-000000"),
            (1_798_761_599, "20261231-235959"),
        ] {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn two_runs_in_one_second_get_two_folders() {
        let output = tempfile::tempdir().unwrap();
        let folders = [(); 3].map(|()| fresh_folder(output.path(), "cartpole-1-now").unwrap());
        let names = folders.map(|f| f.file_name().unwrap().to_owned());
        assert_eq!(names, ["cartpole-1-now", "cartpole-1-now-2", "cartpole-1-now-3"]);
    }

    #[test]
    fn a_file_that_cannot_be_written_keeps_its_old_contents() {
        let output = tempfile::tempdir().unwrap();
        let path = output.path().join("policy.safetensors");
        write_whole(&path, b"old").unwrap();
        std::fs::create_dir(beside(&path)).unwrap();
        let error = write_whole(&path, b"new").unwrap_err();
        assert!(matches!(&error, Error::Io { path: named, .. } if *named == path), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn what_can_be_written_is_found_without_touching_it() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old.json"), folder.path().join("new.json"));
        std::fs::write(&old, b"old").unwrap();
        [&old, &new].into_iter().try_for_each(|path| require_writable(path)).unwrap();
        assert_eq!(std::fs::read(&old).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left there");
        for path in [folder.path(), &folder.path().join("none").join("new.json"), &old.join("new.json")] {
            let error = require_writable(path).unwrap_err();
            assert!(matches!(&error, Error::Io { path: named, .. } if named == path), "{error}");
        }
    }
}
