//! Checkpoints: a learner's state as the bytes of a safetensors file.

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};

use super::{Learner, purpose};
use crate::backend::Backend;
use crate::error::{Error, Result};

/// Prefixes of each tensor of the network: PREFIX.NAME.
const PREFIXES: [&str; 3] = ["parameters", "m", "v"];
const ACTIVATION: &str = "activation";
const COUNTERS: [&str; 4] = ["seed", "updates", "optimizer_steps", "draws"];

impl<B: Backend> Learner<B> {
    /// The state that later updates depend on, besides configuration and rollouts. It excludes
    /// drawn noise, so take it between an update and the next rollout.
    ///
    /// The file has each of [`Network::tensors`](crate::ppo::Network::tensors) as
    /// `parameters.NAME`, and Adam's moments `m.NAME`, `v.NAME`, in double precision. The scalars
    /// `seed`, `updates`, `optimizer_steps` and `draws` (of noise) are `U64`. Metadata names the
    /// `activation`.
    ///
    /// # Errors
    /// Those of the backend's read-back.
    pub fn checkpoint(&self, backend: &mut B) -> Result<Vec<u8>> {
        let counters = [self.config.seed, self.updates, self.optimizer_steps, self.draws].map(u64::to_le_bytes);
        let state = self.state_f64(backend)?.map(|flat| flat.into_iter().flat_map(f64::to_le_bytes).collect::<Vec<_>>());
        let scalars = COUNTERS.iter().zip(&counters).map(|(name, bytes)| {
            let view = TensorView::new(Dtype::U64, Vec::new(), bytes);
            (name.to_string(), view)
        });
        let tensors = PREFIXES.iter().zip(&state).flat_map(|(prefix, bytes)| {
            self.network.tensors().iter().map(move |tensor| {
                let bytes = &bytes[tensor.offset * size_of::<f64>()..][..tensor.len() * size_of::<f64>()];
                (format!("{prefix}.{}", tensor.name), TensorView::new(Dtype::F64, tensor.shape.clone(), bytes))
            })
        });
        let views = scalars.chain(tensors).map(|(name, view)| Ok((name, view.map_err(unusable)?))).collect::<Result<Vec<_>>>()?;
        safetensors::serialize(views, Some([(ACTIVATION.to_owned(), self.activation()?)].into())).map_err(unusable)
    }

    /// The name in a configuration. Another activation gives the parameters another meaning.
    fn activation(&self) -> Result<String> {
        let name = serde_json::to_value(self.config.activation).ok().and_then(|name| name.as_str().map(str::to_owned));
        name.ok_or_else(|| Error::value("activation", "one that has a name", format!("{:?}", self.config.activation)))
    }

    /// Continues from a [checkpoint](Self::checkpoint) with its seed. With an equal configuration
    /// and number type, updates are bit-identical to an uninterrupted run.
    ///
    /// # Errors
    /// A file that is no checkpoint, belongs to another network, or has a non-finite element; the
    /// learner is then unchanged. Those of the backend.
    pub fn restore(&mut self, backend: &mut B, checkpoint: &[u8]) -> Result<()> {
        let file = SafeTensors::deserialize(checkpoint).map_err(unusable)?;
        let (_, header) = SafeTensors::read_metadata(checkpoint).map_err(unusable)?;
        let (expected, found) = (self.activation()?, header.metadata().as_ref().and_then(|metadata| metadata.get(ACTIVATION)));
        if found != Some(&expected) {
            return Err(Error::value("checkpoint", format!("activation {expected}"), found.map_or("none", String::as_str)));
        }
        let mut counters = [0; COUNTERS.len()];
        for (counter, name) in counters.iter_mut().zip(COUNTERS) {
            elements(&file, name, Dtype::U64, &[])?.iter().for_each(|bytes| *counter = u64::from_le_bytes(*bytes));
        }
        let mut state = [(); PREFIXES.len()].map(|()| Vec::with_capacity(self.network.len()));
        for (flat, prefix) in state.iter_mut().zip(PREFIXES) {
            for tensor in self.network.tensors() {
                let name = format!("{prefix}.{}", tensor.name);
                let bytes = elements(&file, &name, Dtype::F64, &tensor.shape)?;
                let first = flat.len();
                flat.extend(bytes.iter().map(|bytes| f64::from_le_bytes(*bytes)));
                if let Some(element) = flat[first..].iter().position(|value| !value.is_finite()) {
                    return Err(Error::NonFinite { tensor: name, element });
                }
            }
        }
        let expected = COUNTERS.len() + PREFIXES.len() * self.network.tensors().len();
        if file.len() != expected {
            return Err(Error::value("checkpoint", format!("{expected} tensors"), file.len()));
        }
        let [seed, updates, optimizer_steps, draws] = counters;
        // An update uses a stream for each epoch.
        let most = purpose::STREAMS / self.config.update_epochs as u64;
        for (name, count) in [("updates", updates), ("optimizer_steps", optimizer_steps), ("draws", draws)] {
            if count >= most {
                return Err(Error::value("checkpoint", format!("{name} below {most}"), count));
            }
        }

        let [parameters, m, v] = state;
        backend.write_f64(self.state.params.flat_mut(), 0, &parameters)?;
        backend.write_f64(&mut self.state.m, 0, &m)?;
        backend.write_f64(&mut self.state.v, 0, &v)?;
        self.config.seed = seed;
        (self.updates, self.optimizer_steps, self.draws) = (updates, optimizer_steps, draws);
        self.noise_is_new = false;
        Ok(())
    }
}

fn elements<'a>(file: &SafeTensors<'a>, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&'a [[u8; 8]]> {
    let refused = |actual| Error::value("checkpoint", format!("{name}: {dtype} {shape:?}"), actual);
    let tensor = file.tensor(name).map_err(|_| refused("no such tensor".to_owned()))?;
    if tensor.dtype() != dtype || tensor.shape() != shape {
        return Err(refused(format!("{} {:?}", tensor.dtype(), tensor.shape())));
    }
    Ok(tensor.data().as_chunks().0)
}

fn unusable(reason: SafeTensorError) -> Error {
    Error::value("checkpoint", "tensors in safetensors' format", reason)
}
