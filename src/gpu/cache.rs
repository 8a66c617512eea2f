//! Results that a context computes once: choices made by timing, and compiled pipelines.

use std::collections::HashMap;

use super::autotune::Autotune;
use super::choices::ChoicesFile;
use super::pipeline_cache::PipelineCacheFile;

/// The key of a choice: an operation and its sizes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TuningKey {
    /// Kernel and operation.
    pub operation: &'static str,
    /// Rows, columns and depth, rounded so that near sizes share a choice.
    pub sizes: [usize; 3],
}

impl std::fmt::Display for TuningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [rows, columns, depth] = self.sizes;
        write!(f, "{} {rows}x{columns}x{depth}", self.operation)
    }
}

/// Choices in memory and, with [`Autotune::OnDisk`], in files opened at the first look-up.
pub(super) struct Cache {
    autotune: Autotune,
    choices: HashMap<TuningKey, &'static str>,
    file: Option<ChoicesFile>,
    pipelines: Option<Option<PipelineCacheFile>>,
    pub(super) candidates_timed: u64,
}

impl Cache {
    pub(super) fn new(autotune: Autotune) -> Self {
        Self { autotune, choices: HashMap::new(), file: None, pipelines: None, candidates_timed: 0 }
    }

    pub(super) fn is_off(&self) -> bool {
        self.autotune == Autotune::Off
    }

    pub(super) fn pipelines(&mut self, device: &wgpu::Device) -> Option<&wgpu::PipelineCache> {
        let folder = self.autotune.folder()?;
        self.pipelines.get_or_insert_with(|| PipelineCacheFile::open(device, folder)).as_ref().map(PipelineCacheFile::cache)
    }

    pub(super) fn choice(&self, key: &TuningKey) -> Option<&'static str> {
        self.choices.get(key).copied()
    }

    pub(super) fn choose(&mut self, key: TuningKey, candidate: &'static str) {
        self.choices.insert(key, candidate);
    }

    /// The file of choices, with [`Autotune::OnDisk`].
    pub(super) fn file(&mut self, device: &wgpu::Device) -> Option<&mut ChoicesFile> {
        let folder = self.autotune.folder()?;
        Some(self.file.get_or_insert_with(|| ChoicesFile::open(folder, &device.adapter_info())))
    }
}
