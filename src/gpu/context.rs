//! A device, its pipelines, and the recorded commands.

mod buffers;
mod guards;
mod open;
mod pipelines;
mod recording;

pub use open::OpenOptions;

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;

use pipelines::Pipelines;
use recording::BindGroups;

use super::adapter::CooperativeMatrix;
use super::autotune::Autotune;
use super::buffer::{Buffer, DeviceId};
use super::cache::Cache;
use super::choices::ChoicesFile;
use super::command::Command;
use super::dry_run::DryRun;
use super::timing::Timing;
use super::wait;
use crate::error::{Error, Result};

/// Errors from wgpu's callbacks, returned by the next read-back or flush.
#[derive(Default)]
struct Reported {
    lost: Option<String>,
    error: Option<String>,
}

/// A device and its recorded commands, submitted by a read-back or [`flush`](Self::flush).
pub struct Context {
    device: wgpu::Device,
    device_id: DeviceId,
    queue: wgpu::Queue,
    name: String,
    limits: wgpu::Limits,
    is_software: bool,
    cooperative_matrix: std::result::Result<CooperativeMatrix, String>,
    guards: bool,
    bounds_checks: bool,
    /// Whether shaders can be compiled with bounds checks.
    can_check_bounds: bool,
    pipelines: Pipelines,
    bind_groups: BindGroups,
    commands: Vec<Command>,
    /// Whether commands went into a caller's encoder: nothing reports when the caller submits them.
    is_encoded_elsewhere: bool,
    staging: Option<wgpu::Buffer>,
    submissions: u64,
    scratch: HashMap<&'static str, Buffer<u32>>,
    reported: Arc<Mutex<Reported>>,
    /// Detects the loss of a caller's device, whose callbacks are the caller's.
    probe: Option<wgpu::Buffer>,
    timing: Option<Timing>,
    /// Set in a dry run, which only counts bytes.
    dry_run: Option<DryRun>,
    pub(super) cache: Cache,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("name", &self.name).field("recorded", &self.commands.len()).finish()
    }
}

impl Context {
    /// Uses a caller's device and queue. The caller keeps its error callbacks; without any, wgpu
    /// panics on a device error. Contexts on one device share its buffers. Devices of different
    /// wgpu instances are not told apart: never pass a buffer of one to the other.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue, name: String) -> Self {
        Self {
            device_id: DeviceId::of_callers(&device),
            probe: Some(wait::probe(&device)),
            limits: device.limits(),
            is_software: device.adapter_info().device_type == wgpu::DeviceType::Cpu,
            cooperative_matrix: Err("the device is a caller's own".to_owned()),
            device,
            queue,
            name,
            guards: false,
            bounds_checks: cfg!(debug_assertions),
            can_check_bounds: true,
            pipelines: Pipelines::default(),
            bind_groups: BindGroups::default(),
            commands: Vec::new(),
            is_encoded_elsewhere: false,
            staging: None,
            submissions: 0,
            scratch: HashMap::new(),
            reported: Arc::default(),
            timing: None,
            dry_run: None,
            cache: Cache::new(Autotune::from_environment()),
        }
    }

    /// A context for a dry run on the same device: it only counts [bytes](Self::planned_bytes).
    pub(crate) fn planner(&self) -> Self {
        Self {
            device_id: self.device_id,
            guards: self.guards,
            bounds_checks: self.bounds_checks,
            can_check_bounds: self.can_check_bounds,
            probe: None,
            dry_run: Some(DryRun::new(&self.device)),
            cache: Cache::new(Autotune::Off),
            ..Self::from_wgpu(self.device.clone(), self.queue.clone(), self.name.clone())
        }
    }

    /// Bytes of all buffers requested from a [planner](Self::planner); 0 for other contexts.
    pub(crate) fn planned_bytes(&self) -> u64 {
        self.dry_run.as_ref().map_or(0, |dry_run| dry_run.bytes)
    }

    /// Bytes in use on the device by all its users, as wgpu's allocator counts them: with padding,
    /// without its reserve. None where the API allocates (Metal).
    pub fn allocated_bytes(&self) -> Option<u64> {
        self.device.generate_allocator_report().map(|report| report.total_allocated_bytes)
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The adapter's kind, driver and API.
    pub fn adapter_info(&self) -> wgpu::AdapterInfo {
        self.device.adapter_info()
    }

    /// Whether the adapter runs on the CPU, like llvmpipe; other variants are fastest there.
    pub fn is_software(&self) -> bool {
        self.is_software
    }

    /// The device's limits.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.limits
    }

    /// The matrices that kernels may multiply on tensor cores, or the reason why there are none.
    pub fn cooperative_matrix(&self) -> std::result::Result<CooperativeMatrix, &str> {
        self.cooperative_matrix.as_ref().copied().map_err(String::as_str)
    }

    /// Number of submissions.
    pub fn submissions(&self) -> u64 {
        self.submissions
    }

    /// Sets autotuning; the default is [`Autotune::from_environment`]. Autotuning pauses with
    /// [bounds checks](Self::set_bounds_checks) (the default with debug assertions), with [guard
    /// regions](Self::set_guards), and for a [replaced](Self::replace_shader) shader.
    ///
    /// Timing submits its own work to the queue and waits for it. Recorded commands stay recorded.
    pub fn set_autotune(&mut self, autotune: Autotune) {
        self.cache = Cache::new(autotune);
    }

    /// Candidates timed since [`set_autotune`](Self::set_autotune); choices from a file need none.
    pub fn candidates_timed(&self) -> u64 {
        self.cache.candidates_timed
    }

    /// The file of choices, with [`Autotune::OnDisk`].
    pub(super) fn choices_file(&mut self) -> Option<&mut ChoicesFile> {
        self.cache.file(&self.device)
    }

    /// Runs `act` with an empty recording, untimed and uncounted. It leaves only pipelines behind.
    pub(super) fn isolated<R>(&mut self, act: impl FnOnce(&mut Self) -> R) -> R {
        let recorded = (std::mem::take(&mut self.commands), std::mem::take(&mut self.bind_groups));
        let (staging, timing, submissions) = (self.staging.take(), self.timing.take(), self.submissions);
        let result = act(self);
        (self.commands, self.bind_groups) = recorded;
        (self.staging, self.timing, self.submissions) = (staging, timing, submissions);
        self.timing.iter_mut().for_each(Timing::resume_host);
        result
    }

    /// Starts or stops timing submissions. Without it, no timestamp is written.
    pub fn set_timing(&mut self, timing: bool) {
        if timing != self.timing.is_some() {
            self.timing = timing.then(|| Timing::new(&self.device, &self.queue));
        }
    }

    /// Seconds of device time since the last call. A submission counts from the start of its first
    /// compute pass to the end of its last, with the copies between. Waits for all submissions.
    ///
    /// None without [`set_timing`](Self::set_timing) or timestamp queries, after no compute pass or
    /// more than 256 submissions, and for an invalid pair of timestamps.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::DeviceLost`].
    pub fn take_gpu_seconds(&mut self) -> Result<Option<f64>> {
        let Self { timing, device, queue, is_software, .. } = self;
        let seconds = timing.as_mut().map_or(Ok(None), |timing| timing.take_gpu_seconds(device, queue, *is_software))?;
        self.raise_reported().map(|()| seconds)
    }

    /// Host seconds since the last call: recording and encoding, up to each submission. None
    /// without [`set_timing`](Self::set_timing) and without a submission.
    pub fn take_encode_seconds(&mut self) -> Option<f64> {
        self.timing.as_mut().and_then(Timing::take_encode_seconds)
    }

    pub(super) fn wait(&self) -> Result<()> {
        wait::until_idle(&self.device, self.is_software)
    }

    pub(super) fn has_reported(&self) -> bool {
        let reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.lost.is_some() || reported.error.is_some()
    }

    /// [`Error::DeviceLost`] after a loss.
    fn require_alive(&self) -> Result<()> {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.lost.is_none() && self.probe.as_ref().is_some_and(|probe| wait::is_lost(&self.device, probe)) {
            reported.lost = Some("the caller's device was destroyed or lost".to_owned());
        }
        reported.lost.as_ref().map_or(Ok(()), |lost| Err(Error::DeviceLost(lost.clone())))
    }

    fn raise_reported(&self) -> Result<()> {
        self.require_alive()?;
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.error.take().map_or(Ok(()), |error| Err(Error::Device(error)))
    }
}
