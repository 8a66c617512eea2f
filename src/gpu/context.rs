//! One device, its pipelines, and the operations recorded but not yet submitted.

mod guards;
mod open;
mod read;

pub use open::OpenOptions;

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::{Equivalent, HashMap};
use smallvec::SmallVec;

use guards::{GUARD_ELEMENTS, GUARD_WORD, POISON, POISON_WORD};

use super::adapter::CooperativeMatrix;
use super::autotune::Autotune;
use super::buffer::{Bound, Buffer, DeviceId, let_go};
use super::command::{Command, encode};
use super::planning::Planning;
use super::shader::{Grid, Indices, Shader, ShaderParams};
use super::timing::Timing;
use super::tuning::Tuner;
use crate::error::{Error, Result};

/// Bind groups kept for reuse: one for each step of a rollout, three for each minibatch step of small networks. Some come but once.
const BIND_GROUPS_KEPT: usize = 1 << 14;

#[derive(Clone, PartialEq, Eq, Hash)]
struct PipelineKey {
    shader: &'static str,
    checked: bool,
    entry: &'static str,
    constants: SmallVec<[(&'static str, u64); 8]>,
}

#[derive(PartialEq, Eq, Hash)]
struct BindGroupKey {
    pipeline: usize,
    params: Vec<u8>,
    buffers: Vec<(u32, Bound)>,
}

/// A [`BindGroupKey`] that owns nothing, to look for one: thousands of dispatches of one update are recorded while the device waits.
#[derive(Hash)]
struct BindGroupQuery<'a> {
    pipeline: usize,
    params: &'a [u8],
    buffers: &'a [(u32, Buffer<u32>)],
}

impl Equivalent<BindGroupKey> for BindGroupQuery<'_> {
    fn equivalent(&self, key: &BindGroupKey) -> bool {
        let same = |((at, buffer), (key_at, bound)): (&(u32, Buffer<u32>), &(u32, Bound))| at == key_at && buffer.is(bound);
        (self.pipeline, self.params, self.buffers.len()) == (key.pipeline, key.params.as_slice(), key.buffers.len())
            && self.buffers.iter().zip(&key.buffers).all(same)
    }
}

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
    sources: HashMap<&'static str, String>,
    /// By name, and whether with bounds checks.
    modules: HashMap<(&'static str, bool), wgpu::ShaderModule>,
    pipeline_ids: HashMap<PipelineKey, usize>,
    pipelines: Vec<wgpu::ComputePipeline>,
    bind_groups: HashMap<BindGroupKey, wgpu::BindGroup>,
    /// [`let_go`], when bind groups of buffers that nobody has any more were last looked for.
    let_go: u64,
    commands: Vec<Command>,
    /// Whether a caller has, or had, something recorded here to submit: nobody says when that has been done.
    is_encoded_elsewhere: bool,
    staging: Option<wgpu::Buffer>,
    submissions: u64,
    scratch: HashMap<&'static str, Buffer<u32>>,
    reported: Arc<Mutex<Reported>>,
    timing: Option<Timing>,
    /// Where nothing is to run, and bytes are counted instead.
    planning: Option<Planning>,
    pub(super) tuner: Tuner,
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
            limits: device.limits(),
            is_software: device.adapter_info().device_type == wgpu::DeviceType::Cpu,
            cooperative_matrix: Err("the device is a caller's own".to_owned()),
            device,
            queue,
            name,
            guards: false,
            bounds_checks: cfg!(debug_assertions),
            can_check_bounds: true,
            sources: HashMap::new(),
            modules: HashMap::new(),
            pipeline_ids: HashMap::new(),
            pipelines: Vec::new(),
            bind_groups: HashMap::new(),
            let_go: let_go(),
            commands: Vec::new(),
            is_encoded_elsewhere: false,
            staging: None,
            submissions: 0,
            scratch: HashMap::new(),
            reported: Arc::default(),
            timing: None,
            planning: None,
            tuner: Tuner::new(Autotune::from_environment()),
        }
    }

    /// A context on the same device that makes, runs and reads nothing: it only counts the [bytes](Self::planned_bytes) asked of it.
    pub(crate) fn planner(&self) -> Self {
        Self {
            device_id: self.device_id,
            guards: self.guards,
            bounds_checks: self.bounds_checks,
            can_check_bounds: self.can_check_bounds,
            planning: Some(Planning::new(&self.device)),
            tuner: Tuner::new(Autotune::Off),
            ..Self::from_wgpu(self.device.clone(), self.queue.clone(), self.name.clone())
        }
    }

    /// Bytes of all buffers that were asked of a [planner](Self::planner), and none of anything else.
    pub(crate) fn planned_bytes(&self) -> u64 {
        self.planning.as_ref().map_or(0, |planning| planning.bytes)
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

    /// What the adapter says of itself: kind, driver, API.
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

    /// Whether shaders recorded from now on check their indices even where those are [proven](Indices::Proven) to be in bounds. A context that was
    /// [opened](OpenOptions) without bounds checks refuses to record shaders with them.
    pub fn set_bounds_checks(&mut self, bounds_checks: bool) {
        self.bounds_checks = bounds_checks;
    }

    /// Whether `shader` would now be compiled with bounds checks: unless its indices are proven and checks are off. A text that replaced
    /// the shader's has no proof, and a fault that guard regions are there to find would be undefined behaviour without checks.
    pub fn checks_bounds(&self, shader: &Shader) -> bool {
        let is_proven = shader.indices == Indices::Proven && !self.sources.contains_key(shader.name);
        self.bounds_checks || self.guards || !is_proven
    }

    /// Whether what is found out about a shader may be used, kept and read back: not where faults are looked for.
    pub(super) fn may_keep(&self, shader: &'static str) -> bool {
        !(self.bounds_checks || self.guards || self.sources.contains_key(shader) || self.tuner.is_off())
    }

    /// Runs `act` on the device between what was submitted and what is recorded: neither takes notice, nothing of it is timed or counted,
    /// and it leaves only pipelines behind.
    pub(super) fn aside<R>(&mut self, act: impl FnOnce(&mut Self) -> R) -> R {
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
        let seconds = self.timing.as_mut().map_or(Ok(None), |timing| timing.take_gpu_seconds(&self.device, &self.queue))?;
        self.raise_reported().map(|()| seconds)
    }

    /// Seconds the host has spent since the last call on what was submitted since: recording and encoding, up to each submission, without
    /// submitting and waiting. None without [`set_timing`](Self::set_timing), and where nothing was submitted.
    pub fn take_encode_seconds(&mut self) -> Option<f64> {
        self.timing.as_mut().and_then(Timing::take_encode_seconds)
    }

    /// Replaces the text of the shader called `name`, for experiments and for tests that plant a fault.
    pub fn replace_shader(&mut self, name: &'static str, source: String) {
        self.sources.insert(name, source);
        self.modules.retain(|&(shader, _), _| shader != name);
        self.pipeline_ids.retain(|key, _| key.shader != name);
    }

    /// A new buffer of `len` zeros (NaN in guarded mode).
    ///
    /// # Errors
    /// [`Error::Shape`] for zero elements, [`Error::LimitExceeded`] beyond the adapter's limits, [`Error::OutOfMemory`].
    pub fn alloc<T>(&mut self, len: usize) -> Result<Buffer<T>> {
        if len == 0 {
            return Err(Error::shape("len", "at least 1 element", len));
        }
        let (guard, size) = self.size_of_buffer(len)?;
        let raw = self.create(size, Buffer::<T>::USAGES | wgpu::BufferUsages::UNIFORM, "storage")?;
        if self.guards {
            let mut words = vec![GUARD_WORD; len + 2 * GUARD_ELEMENTS];
            words[GUARD_ELEMENTS..GUARD_ELEMENTS + len].fill(POISON_WORD);
            self.write_bytes(&raw, 0, bytemuck::cast_slice(&words))?;
        }
        Ok(Buffer::guarded(raw, Some(self.device_id), len, guard, guard))
    }

    /// Bytes of a guard region, and of a buffer of `len` elements with its two, if the adapter allows as many.
    fn size_of_buffer(&self, len: usize) -> Result<(u64, u64)> {
        let guard = if self.guards { 4 * GUARD_ELEMENTS as u64 } else { 0 };
        let size = (len as u64).saturating_mul(4).saturating_add(2 * guard);
        for (limit, available) in [
            ("max_storage_buffer_binding_size", self.limits.max_storage_buffer_binding_size),
            ("max_buffer_size", self.limits.max_buffer_size),
        ] {
            if size > available {
                return Err(Error::LimitExceeded { limit, needed: size, available });
            }
        }
        Ok((guard, size))
    }

    /// Whether the adapter allows buffers of `len` elements.
    pub(crate) fn allows(&self, len: usize) -> bool {
        self.size_of_buffer(len).is_ok()
    }

    /// At least `len` elements that carry numbers from one dispatch of an operation to the next, kept under `name` because an allocation
    /// an operation costs more than the operation. Outgrown ones live on in the commands that were recorded with them.
    pub(crate) fn scratch<T>(&mut self, name: &'static str, len: usize) -> Result<Buffer<T>> {
        if let Some(kept) = self.scratch.get(name).filter(|kept| kept.len() >= len) {
            return Ok(kept.cast());
        }
        let made: Buffer<u32> = self.alloc(len)?;
        self.scratch.insert(name, made.clone());
        Ok(made.cast())
    }

    /// Lets go of bind groups, scratch and read-back buffers kept for reuse, and so of the buffers that only they hold.
    pub fn release(&mut self) {
        self.staging = None;
        self.bind_groups.clear();
        self.scratch.clear();
    }

    /// Lets go of the bind groups of buffers that nobody has any more, which would keep their memory.
    fn drop_orphans(&mut self) {
        let now = let_go();
        if std::mem::replace(&mut self.let_go, now) != now {
            self.bind_groups.retain(|key, _| key.buffers.iter().all(|(_, buffer)| buffer.is_alive()));
        }
    }

    /// Every buffer that this context makes is made here.
    fn create(&mut self, size: u64, usage: wgpu::BufferUsages, what: &str) -> Result<wgpu::Buffer> {
        self.drop_orphans();
        let size = self.planning.as_mut().map_or(size, |planning| planning.count(size));
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let raw =
            self.device.create_buffer(&wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation: false });
        match pollster::block_on(scope.pop()) {
            None => Ok(raw),
            Some(_) => Err(Error::OutOfMemory { what: what.to_owned(), needed: size }),
        }
    }

    /// Writes `data` from element `offset` on. It takes effect in order with what is already recorded.
    ///
    /// # Errors
    /// [`Error::Shape`] when it would run past the end.
    pub fn write<T: bytemuck::Pod>(&mut self, target: &Buffer<T>, offset: usize, data: &[T]) -> Result<()> {
        self.require_own("target", target)?;
        check_range("write", target.len(), offset, data.len())?;
        self.write_bytes(target.raw(), target.head + 4 * offset as u64, bytemuck::cast_slice(data))
    }

    fn write_bytes(&mut self, target: &wgpu::Buffer, offset: u64, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // A queue write runs before the next submission: before everything recorded, which may still need the old contents.
        if self.commands.is_empty() && !self.is_encoded_elsewhere {
            self.write_now(target, offset, bytes);
            return Ok(());
        }
        let staging = self.create(bytes.len() as u64, wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST, "upload")?;
        self.write_now(&staging, 0, bytes);
        self.commands.push(Command::Copy {
            source: staging,
            source_offset: 0,
            target: target.clone(),
            target_offset: offset,
            size: bytes.len() as u64,
        });
        Ok(())
    }

    fn write_now(&self, target: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        if self.planning.is_none() {
            self.queue.write_buffer(target, offset, bytes);
        }
    }

    fn require_own<T>(&self, argument: &str, buffer: &Buffer<T>) -> Result<()> {
        if buffer.is_of(self.device_id) {
            Ok(())
        } else {
            Err(Error::value(argument, "a buffer of this device", "one of another"))
        }
    }

    /// Records a copy of `len` elements.
    ///
    /// # Errors
    /// [`Error::Shape`] when either range is outside its buffer, or both buffers are the same.
    pub fn copy<T>(
        &mut self,
        source: &Buffer<T>,
        source_offset: usize,
        target: &Buffer<T>,
        target_offset: usize,
        len: usize,
    ) -> Result<()> {
        self.require_own("source", source)?;
        self.require_own("target", target)?;
        check_range("source", source.len(), source_offset, len)?;
        check_range("target", target.len(), target_offset, len)?;
        if source.raw() == target.raw() {
            return Err(Error::shape("target", "another buffer than the source", "the same"));
        }
        self.commands.push(Command::Copy {
            source: source.raw().clone(),
            source_offset: source.head + 4 * source_offset as u64,
            target: target.raw().clone(),
            target_offset: target.head + 4 * target_offset as u64,
            size: 4 * len as u64,
        });
        Ok(())
    }

    /// Records one dispatch. `buffers` are (binding, buffer) of group 0; `params` is the uniform at binding 0. Within the crate only: a
    /// shader with proven indices relies on its kernel having checked the buffers' lengths.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] for a grid beyond the adapter's limits, [`Error::Device`] when the shader does not compile,
    /// [`Error::InvalidValue`] where it needs bounds checks and the context was opened without.
    pub(crate) fn dispatch<P: ShaderParams>(
        &mut self,
        shader: Shader,
        entry: &'static str,
        constants: &[(&'static str, f64)],
        params: &P,
        buffers: &[(u32, Buffer<u32>)],
        grid: Grid,
    ) -> Result<()> {
        if self.guards && shader.name != POISON {
            self.poison_workgroup_memory()?;
        }
        let groups = self.fold(grid)?;
        let pipeline = self.pipeline(shader, entry, constants)?;
        let params = bytemuck::bytes_of(params);
        let bind_group = match self.bind_groups.get(&BindGroupQuery { pipeline, params, buffers }) {
            Some(known) => known.clone(),
            None => {
                for (binding, buffer) in buffers {
                    self.require_own(&format!("binding {binding} of {}::{entry}", shader.name), buffer)?;
                }
                let made = self.bind(pipeline, params, buffers)?;
                if self.bind_groups.len() >= BIND_GROUPS_KEPT {
                    self.bind_groups.clear();
                }
                let bound = buffers.iter().map(|(at, buffer)| (*at, buffer.bound())).collect();
                let key = BindGroupKey { pipeline, params: params.to_vec(), buffers: bound };
                self.bind_groups.insert(key, made.clone());
                made
            }
        };
        self.commands.push(Command::Dispatch { pipeline, bind_group, groups });
        Ok(())
    }

    fn bind(&mut self, pipeline: usize, params: &[u8], buffers: &[(u32, Buffer<u32>)]) -> Result<wgpu::BindGroup> {
        let size = params.len().next_multiple_of(16) as u64;
        if let Some(planning) = &mut self.planning {
            planning.count(size);
            return Ok(planning.bind_group.clone());
        }
        let uniform = self.create(size, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST, "params")?;
        self.write_now(&uniform, 0, params);
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() }];
        entries.extend(buffers.iter().map(|(binding, b)| wgpu::BindGroupEntry { binding: *binding, resource: b.binding() }));
        Ok(self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.pipelines[pipeline].get_bind_group_layout(0),
            entries: &entries,
        }))
    }

    fn pipeline(&mut self, shader: Shader, entry: &'static str, constants: &[(&'static str, f64)]) -> Result<usize> {
        let checked = self.checks_bounds(&shader);
        let key = PipelineKey {
            shader: shader.name,
            checked,
            entry,
            constants: constants.iter().map(|(name, value)| (*name, value.to_bits())).collect(),
        };
        if let Some(&id) = self.pipeline_ids.get(&key) {
            return Ok(id);
        }
        if checked && !self.can_check_bounds {
            let wanted = "proven indices, its own text and no guard regions, or a context opened with bounds checks";
            return Err(Error::value(format!("shader {}", shader.name), wanted, "a context opened without"));
        }
        if self.planning.is_some() {
            let id = self.pipeline_ids.len();
            self.pipeline_ids.insert(key, id);
            return Ok(id);
        }
        let may_keep = self.may_keep(shader.name);
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = self.modules.entry((shader.name, checked)).or_insert_with(|| {
            let source = self.sources.get(shader.name).map_or(shader.source, String::as_str);
            compile(&self.device, shader.name, source, checked)
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(entry),
            layout: None,
            module,
            entry_point: Some(entry),
            // Kernels write what they read.
            compilation_options: wgpu::PipelineCompilationOptions { constants, zero_initialize_workgroup_memory: false },
            cache: may_keep.then(|| self.tuner.pipeline_cache(&self.device)).flatten(),
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            self.modules.remove(&(shader.name, checked));
            return Err(Error::Device(format!("{}::{entry}: {error}", shader.name)));
        }
        self.pipelines.push(pipeline);
        self.pipeline_ids.insert(key, self.pipelines.len() - 1);
        Ok(self.pipelines.len() - 1)
    }

    fn fold(&self, grid: Grid) -> Result<[u32; 3]> {
        let most = self.limits.max_compute_workgroups_per_dimension as usize;
        let groups = match grid {
            Grid::Linear(n) if n <= most => [n, 1, 1],
            Grid::Linear(n) => [n.div_ceil(n.div_ceil(most)), n.div_ceil(most), 1],
            Grid::Xyz(x, y, z) => [x, y, z],
        };
        if let Some(&needed) = groups.iter().find(|&&g| g > most) {
            return Err(Error::LimitExceeded {
                limit: "max_compute_workgroups_per_dimension",
                needed: needed as u64,
                available: most as u64,
            });
        }
        Ok(groups.map(|g| g as u32))
    }

    /// Moves everything recorded into a caller's encoder. The caller submits it, before anything is read back or flushed that was recorded
    /// afterwards; it is not timed.
    pub fn encode_into(&mut self, encoder: &mut wgpu::CommandEncoder) {
        self.is_encoded_elsewhere = true;
        encode(&std::mem::take(&mut self.commands), &self.pipelines, encoder, None);
    }

    /// Submits everything recorded, without waiting for it.
    ///
    /// # Errors
    /// Whatever the device reported since the last call.
    pub fn flush(&mut self) -> Result<()> {
        if self.planning.is_some() {
            self.commands.clear();
        }
        self.drop_orphans();
        if !self.commands.is_empty() {
            let commands = std::mem::take(&mut self.commands);
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let queries = self.timing.as_ref().and_then(Timing::queries);
            encode(&commands, &self.pipelines, &mut encoder, queries);
            if let Some(timing) = &mut self.timing
                && commands.iter().any(Command::is_dispatch)
            {
                timing.keep(&mut encoder);
            }
            let encoded = encoder.finish();
            self.timing.iter_mut().for_each(Timing::stop_host);
            self.queue.submit([encoded]);
            self.timing.iter_mut().for_each(Timing::resume_host);
            self.submissions += 1;
        }
        self.raise_reported()
    }

    pub(super) fn has_reported(&self) -> bool {
        let reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        reported.lost.is_some() || reported.error.is_some()
    }

    fn raise_reported(&self) -> Result<()> {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lost) = &reported.lost {
            return Err(Error::DeviceLost(lost.clone()));
        }
        reported.error.take().map_or(Ok(()), |error| Err(Error::Device(error)))
    }
}

fn check_range(argument: &str, available: usize, offset: usize, len: usize) -> Result<()> {
    if len > 0 && offset.checked_add(len).is_some_and(|end| end <= available) {
        return Ok(());
    }
    Err(Error::shape(argument, format!("a non-empty range within {available} elements"), format!("{len} from {offset}")))
}

/// Compiles without naga's loop counters: every loop of ours counts up to a number the host has set, and the counters once made a kernel
/// a hundred times slower. Bounds checks are left out only where [`Context::checks_bounds`] says so. A divisor of zero stays checked.
#[allow(unsafe_code)]
fn compile(device: &wgpu::Device, label: &str, source: &str, bounds_checks: bool) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(source.into()) };
    let checks = wgpu::ShaderRuntimeChecks { bounds_checks, force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    // SAFETY: loop bounding guards against endless loops, and no loop of ours is one. Bounds checks guard against indices beyond an array;
    // where they are left out, the text is our own, its header says why there are none, and only our kernels dispatch it, each after it
    // has checked the lengths of its buffers.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}
