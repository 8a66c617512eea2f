//! One device, its pipelines, and the operations recorded but not yet submitted.

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

/// Errors that wgpu reports through callbacks, kept until the next read-back or flush.
#[derive(Default)]
struct Reported {
    lost: Option<String>,
    error: Option<String>,
}

/// A device with everything recorded on it. Nothing is submitted before a read-back or [`flush`](Self::flush).
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
    /// Whether shaders can be made with bounds checks.
    can_check_bounds: bool,
    pipelines: Pipelines,
    bind_groups: BindGroups,
    commands: Vec<Command>,
    /// Whether a caller has, or had, something recorded here to submit: nobody says when that has been done.
    is_encoded_elsewhere: bool,
    staging: Option<wgpu::Buffer>,
    submissions: u64,
    scratch: HashMap<&'static str, Buffer<u32>>,
    reported: Arc<Mutex<Reported>>,
    /// Of a caller's device, which does not report here.
    probe: Option<wgpu::Buffer>,
    timing: Option<Timing>,
    /// Where nothing is to run, and bytes are counted instead.
    dry_run: Option<DryRun>,
    pub(super) cache: Cache,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("name", &self.name).field("recorded", &self.commands.len()).finish()
    }
}

impl Context {
    /// Works on a caller's own device and queue. Their error callbacks stay the caller's: where they set none, wgpu panics at what the device reports.
    /// Contexts on one device share its buffers. Devices of several of a caller's wgpu instances are not told apart: whoever has such must not take a buffer of
    /// one to the other.
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

    /// A context on the same device for a dry run: it makes, runs and reads nothing, and only counts [bytes](Self::planned_bytes).
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

    /// Bytes of all buffers that were asked of a [planner](Self::planner), and none of anything else.
    pub(crate) fn planned_bytes(&self) -> u64 {
        self.dry_run.as_ref().map_or(0, |dry_run| dry_run.bytes)
    }

    /// Bytes of the device's memory that are in use, by anybody who shares the device, as its allocator counts them: padding included, and
    /// what it holds in reserve not. None where the API has an allocator of its own (Metal).
    pub fn allocated_bytes(&self) -> Option<u64> {
        self.device.generate_allocator_report().map(|report| report.total_allocated_bytes)
    }

    /// Name of the adapter.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Kind, driver and API of the adapter, by its own account.
    pub fn adapter_info(&self) -> wgpu::AdapterInfo {
        self.device.adapter_info()
    }

    /// Whether the adapter is a program on the CPU, such as llvmpipe, whose best variants are not a GPU's.
    pub fn is_software(&self) -> bool {
        self.is_software
    }

    /// The device's limits.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.limits
    }

    /// The matrices that kernels may multiply on tensor cores, or why there are none.
    pub fn cooperative_matrix(&self) -> std::result::Result<CooperativeMatrix, &str> {
        self.cooperative_matrix.as_ref().copied().map_err(String::as_str)
    }

    /// How often something was submitted.
    pub fn submissions(&self) -> u64 {
        self.submissions
    }

    /// Whether to time candidates, and where to cache the choices; at first, what [the environment](Autotune::from_environment) says.
    /// Nothing is timed, read or written while indices are [checked](Self::set_bounds_checks) (the default with debug assertions), with
    /// [guard regions](Self::set_guards), and for a [replaced](Self::replace_shader) shader.
    ///
    /// Timing submits work of its own to the queue and waits for it. What is recorded stays recorded.
    pub fn set_autotune(&mut self, autotune: Autotune) {
        self.cache = Cache::new(autotune);
    }

    /// How many candidates were timed since [`set_autotune`](Self::set_autotune). A choice found in the folder costs none.
    pub fn candidates_timed(&self) -> u64 {
        self.cache.candidates_timed
    }

    /// The choices of all processes, if they are on disk.
    pub(super) fn choices_file(&mut self) -> Option<&mut ChoicesFile> {
        self.cache.file(&self.device)
    }

    /// Runs `act` on the device between what was submitted and what is recorded: neither takes notice, nothing of it is timed or counted,
    /// and it leaves only pipelines behind.
    pub(super) fn isolated<R>(&mut self, act: impl FnOnce(&mut Self) -> R) -> R {
        let recorded = (std::mem::take(&mut self.commands), std::mem::take(&mut self.bind_groups));
        let (staging, timing, submissions) = (self.staging.take(), self.timing.take(), self.submissions);
        let result = act(self);
        (self.commands, self.bind_groups) = recorded;
        (self.staging, self.timing, self.submissions) = (staging, timing, submissions);
        self.timing.iter_mut().for_each(Timing::resume_host);
        result
    }

    /// From now on, times every submission, or none. Where nobody asks, nothing is written, resolved or read.
    pub fn set_timing(&mut self, timing: bool) {
        if timing != self.timing.is_some() {
            self.timing = timing.then(|| Timing::new(&self.device, &self.queue));
        }
    }

    /// Seconds the device has worked on what was submitted since the last call: of each submission, from the beginning of its first
    /// compute pass to the end of its last, with the copies between passes and without those before and after. Waits for all of it.
    ///
    /// None without [`set_timing`](Self::set_timing) or timestamp queries, where no submission had a pass or there were more than 256, and
    /// where a pair of timestamps makes no sense.
    ///
    /// # Errors
    /// [`Error::Device`] from the device.
    pub fn take_gpu_seconds(&mut self) -> Result<Option<f64>> {
        let Self { timing, device, queue, is_software, .. } = self;
        let seconds = timing.as_mut().map_or(Ok(None), |timing| timing.take_gpu_seconds(device, queue, *is_software))?;
        self.raise_reported().map(|()| seconds)
    }

    /// Seconds the host has spent since the last call on what was submitted since: recording and encoding, up to each submission, without
    /// submitting and waiting. None without [`set_timing`](Self::set_timing), and where nothing was submitted.
    pub fn take_encode_seconds(&mut self) -> Option<f64> {
        self.timing.as_mut().and_then(Timing::take_encode_seconds)
    }

    /// Waits for everything submitted.
    pub(super) fn wait(&self) -> Result<()> {
        wait::until_idle(&self.device, self.is_software)
    }

    pub(super) fn has_reported(&self) -> bool {
        let reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.lost.is_some() || reported.error.is_some()
    }

    /// [`Error::DeviceLost`] where that is known.
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
