//! Case files that tests change.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use ppo_kernels::backend::{Backend, Cpu};
use ppo_kernels::cases::{Allowance, CaseFile, CaseReport, check};
use ppo_kernels::{Error, Result};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

pub const KINDS: [&str; 14] = [
    "activations",
    "adam",
    "advantage_normalisation",
    "categorical",
    "clipped_surrogate",
    "diag_gaussian",
    "gae",
    "kl_penalty",
    "masked_categorical",
    "mlp",
    "ppo_loss",
    "ppo_update",
    "tanh_gaussian",
    "value_loss",
];

/// Small cases, all kinds among them, and both kinds of policy.
pub const SMALL: [&str; 17] = [
    "activations",
    "adam_adamw",
    "adv_norm_B33_m5_s2",
    "categorical_B7_A2_s1",
    "clipped_surrogate_B33_c0.2_n0_dual",
    "gaussian_B7_D3_shared_std",
    "gaussian_B17_D5_state_std",
    "gae_02_T5_N3_g0.99_l0.95",
    "kl_penalty_categorical_B7_A2",
    "kl_penalty_gaussian_B17_A1",
    "masked_categorical_B7_A2",
    "mlp_tanh_B1_3x17x2",
    "ppo_loss_categorical_B33_A2",
    "ppo_loss_gaussian_B33_A6",
    "update_single_step",
    "squashed_gaussian_B7_D1_s1",
    "value_loss_B7_c0.2",
];

pub fn public() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

pub fn path_of(case: &str) -> PathBuf {
    public().join(format!("{case}.safetensors"))
}

/// A case file that can be changed.
#[derive(Clone)]
pub struct Draft {
    pub case: String,
    pub metadata: HashMap<String, String>,
    pub tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Draft {
    pub fn of(case: &str) -> Self {
        let bytes = std::fs::read(path_of(case)).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let contents = SafeTensors::deserialize(&bytes).unwrap();
        let tensor =
            |(name, view): (&str, TensorView<'_>)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        let tensors = contents.iter().map(tensor).collect();
        Self { case: case.to_owned(), metadata: header.metadata().clone().unwrap(), tensors }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let views = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, data))| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
        safetensors::serialize(views, Some(self.metadata.clone())).unwrap()
    }

    pub fn names(&self, prefixes: &[&str]) -> Vec<String> {
        self.tensors.keys().filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))).cloned().collect()
    }

    pub fn floats(&self, name: &str) -> Vec<f64> {
        let (dtype, _, data) = &self.tensors[name];
        assert_eq!(*dtype, Dtype::F64, "{name}");
        data.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect()
    }

    pub fn set_floats(&mut self, name: &str, values: &[f64]) {
        self.tensors.get_mut(name).unwrap().2 = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    }

    pub fn check_on<B: Backend>(&self, backend: &mut B) -> Result<CaseReport> {
        check_bytes(backend, &self.case, &self.bytes())
    }

    pub fn check(&self) -> Result<CaseReport> {
        self.check_on(&mut Cpu::<f64>::new())
    }

    /// The error that checking it has to give.
    #[track_caller]
    pub fn error(&self) -> Error {
        match self.check() {
            Err(error) => error,
            Ok(report) => panic!("{}: no error, passed: {}", self.case, report.passed()),
        }
    }
}

pub fn check_bytes<B: Backend>(backend: &mut B, case: &str, bytes: &[u8]) -> Result<CaseReport> {
    check(backend, &CaseFile::parse(Path::new(case), bytes)?, &Allowance::SINGLE)
}

/// The names of the tensors that failed.
pub fn failed_tensors(report: &CaseReport) -> Vec<&str> {
    report.tensors.iter().filter(|tensor| !tensor.passed).map(|tensor| tensor.name.as_str()).collect()
}
