//! Files that are wrong: every one has to end in an error or a failure, none in a panic.

use std::path::Path;

use ppo_kernels::Error;
use ppo_kernels::backend::Cpu;
use ppo_kernels::cases::CaseFile;
use proptest::prelude::*;
use safetensors::tensor::Dtype;

use crate::draft::{Draft, SMALL, check_bytes, failed_tensors, path_of};

#[test]
fn an_unknown_kind_is_an_error() {
    let mut draft = Draft::of("activations");
    draft.metadata.insert("kind".to_owned(), "telepathy".to_owned());
    assert!(matches!(draft.error(), Error::File { reason, .. } if reason.contains("telepathy")));
    draft.metadata.remove("kind");
    assert!(matches!(draft.error(), Error::File { reason, .. } if reason.contains("no kind")));
}

#[test]
fn an_output_that_cannot_be_computed_fails() {
    for case in SMALL {
        let mut draft = Draft::of(case);
        draft.tensors.insert("out.wisdom".to_owned(), (Dtype::F64, vec![1], vec![0; 8]));
        let report = draft.check().unwrap();
        assert_eq!(failed_tensors(&report), ["out.wisdom"]);
        assert!(!report.outputs.contains_key("out.wisdom"));
        let worst = report.worst().unwrap();
        assert_eq!((worst.name.as_str(), worst.error), ("out.wisdom", f64::INFINITY));
        let missing = worst.missing.as_ref().unwrap();
        assert!(missing.contains(&report.kind) && missing.contains("no result"), "{missing}");
        assert_eq!(report.tensors.last().unwrap().name, "out.wisdom");
    }
}

#[test]
fn an_output_of_another_size_fails() {
    let mut draft = Draft::of("activations");
    draft.tensors.insert("out.tanh".to_owned(), (Dtype::F64, vec![0], Vec::new()));
    draft.tensors.insert("out.relu".to_owned(), (Dtype::F64, vec![2], vec![0; 16]));
    let report = draft.check().unwrap();
    assert_eq!(failed_tensors(&report), ["out.tanh", "out.relu"]);
    let missing = |name: &str| report.tensors.iter().find(|tensor| tensor.name == name).unwrap().missing.clone();
    assert_eq!(missing("out.relu").unwrap(), "256 elements computed, the file has [2]");
}

#[test]
fn a_file_without_solutions_does_not_pass() {
    for case in SMALL {
        let mut draft = Draft::of(case);
        draft.tensors.retain(|name, _| name.starts_with("in."));
        assert!(matches!(draft.error(), Error::File { reason, .. } if reason.contains("nothing") || reason.contains("no out.")));
    }
}

/// The inputs that a program computes from: single precision, indices, flags.
fn inputs(draft: &Draft) -> Vec<String> {
    let names = draft.names(&["in."]);
    names.into_iter().filter(|name| draft.tensors[name].0 != Dtype::F64).collect()
}

#[test]
fn a_missing_input_is_named() {
    for case in SMALL {
        let draft = Draft::of(case);
        for name in inputs(&draft) {
            let mut without = draft.clone();
            without.tensors.remove(&name);
            match without.check() {
                Err(Error::File { reason, .. }) => assert!(reason.contains(&name), "{case} without {name}: {reason}"),
                // Adam's tensors are as many as there are; those of a solution without them cannot be computed.
                Ok(report) => assert!(case.starts_with("adam") && !report.passed(), "{case} without {name}"),
                Err(other) => panic!("{case} without {name}: {other}"),
            }
        }
    }
}

#[test]
fn an_input_of_another_type_or_shape_is_named() {
    for case in SMALL {
        let draft = Draft::of(case);
        for name in inputs(&draft) {
            let (dtype, shape, data) = draft.tensors[&name].clone();
            let other = if dtype == Dtype::U8 { Dtype::F32 } else { Dtype::U8 };
            let elements: usize = shape.iter().product();
            let mut wrong = draft.clone();
            wrong.tensors.insert(name.clone(), (other, shape.clone(), vec![0; elements * other.bitsize() / 8]));
            let error = wrong.error().to_string();
            assert!(error.contains(&name) && error.contains("type"), "{case}: {error}");

            if case == "activations" {
                continue; // takes any shape
            }
            let mut wrong = draft.clone();
            wrong.tensors.insert(name.clone(), (dtype, [&[1], &shape[..]].concat(), data));
            // The first tensor of Adam's says how many elements there are, so it is its gradient that does not fit.
            let error = wrong.error();
            assert!(
                matches!(&error, Error::Shape { argument, .. } if *argument == name || case.starts_with("adam")),
                "{case}: {error}"
            );
        }
    }
}

#[test]
fn types_that_no_case_has_are_refused() {
    let mut draft = Draft::of("activations");
    draft.tensors.insert("in.half".to_owned(), (Dtype::F16, vec![2], vec![0; 4]));
    assert!(matches!(draft.error(), Error::File { reason, .. } if reason.contains("in.half")));
}

#[test]
fn indices_and_flags_out_of_range_are_refused() {
    for (case, name, values) in [
        ("categorical_B7_A2_s1", "in.action", vec![2i64, -1, i64::MAX, i64::MIN, 1 << 32]),
        ("kl_penalty_categorical_B7_A2", "in.action", vec![2, -1]),
        ("ppo_loss_categorical_B33_A2", "in.action", vec![2, -1]),
        ("update_single_step", "in.actions", vec![2, -1]),
        ("update_single_step", "in.perms", vec![24, -1]),
    ] {
        for value in values {
            let mut draft = Draft::of(case);
            draft.tensors.get_mut(name).unwrap().2[8..16].copy_from_slice(&value.to_le_bytes());
            let error = draft.error();
            let expected = (format!("{name}[1]"), value.to_string());
            assert!(
                matches!(&error, Error::InvalidValue { argument, actual, .. } if (argument, actual) == (&expected.0, &expected.1)),
                "{error}"
            );
        }
    }
    for (case, name) in [("gae_02_T5_N3_g0.99_l0.95", "in.terminated"), ("masked_categorical_B7_A2", "in.mask")] {
        let mut draft = Draft::of(case);
        draft.tensors.get_mut(name).unwrap().2[0] = 2;
        assert!(matches!(draft.error(), Error::InvalidValue { argument, .. } if argument == format!("{name}[0]")));
    }
}

/// Metadata that is not a hyper-parameter.
const DESCRIPTIVE: [&str; 10] =
    ["attempt", "flags", "formula", "generator", "kind", "logit_scale", "scalar", "seed", "torch", "lr_schedule"];

fn hyper_parameters(draft: &Draft) -> Vec<String> {
    let hyper = |name: &&String| !name.starts_with("f32") && !DESCRIPTIVE.contains(&name.as_str());
    draft.metadata.keys().filter(hyper).cloned().collect()
}

#[test]
fn a_hyper_parameter_that_is_missing_or_does_not_parse_is_named() {
    for case in SMALL {
        let draft = Draft::of(case);
        for name in hyper_parameters(&draft) {
            let mut without = draft.clone();
            without.metadata.remove(&name);
            let error = without.error();
            assert!(matches!(&error, Error::File { reason, .. } if reason.contains(&name)), "{case} without {name}: {error}");
            for text in ["", "x", "1e", "0x10", "NaN", "inf", "-inf"] {
                if (case, name.as_str(), text) == ("update_single_step", "hidden", "") {
                    continue; // no hidden layers, for which the tensors do not fit
                }
                if text == "inf"
                    && ["clip", "max_norm", "max_grad_norm"].contains(&name.as_str())
                    && !case.starts_with("value_loss")
                {
                    continue; // not clipped
                }
                let mut wrong = draft.clone();
                wrong.metadata.insert(name.clone(), text.to_owned());
                let error = wrong.error();
                assert!(
                    matches!(&error, Error::InvalidValue { argument, .. } if *argument == name),
                    "{case}, {name}={text}: {error}"
                );
            }
        }
    }
}

#[test]
fn absurd_hyper_parameters_give_errors_or_failures() {
    for case in SMALL {
        let draft = Draft::of(case);
        for name in hyper_parameters(&draft) {
            for text in ["0", "1", "-1", "4294967295", "18446744073709551615", "1e308", "-1e308", "1e-320", "1,1,1,1,1,1", "0,0"]
            {
                let mut wrong = draft.clone();
                wrong.metadata.insert(name.clone(), text.to_owned());
                // Whatever comes of it, it has to be said, not survived by luck; a pass is right only where the value changes nothing.
                if let Ok(report) = wrong.check() {
                    assert_eq!(report.passed(), failed_tensors(&report).is_empty());
                }
            }
        }
    }
}

#[test]
fn a_schedule_that_nobody_knows_is_refused() {
    let mut draft = Draft::of("adam_lr_anneal");
    assert!(draft.check().unwrap().passed());
    draft.metadata.insert("lr_schedule".to_owned(), "lr*cos(k)".to_owned());
    assert!(matches!(draft.error(), Error::InvalidValue { argument, .. } if argument == "lr_schedule"));
}

#[test]
fn a_yardstick_lets_nothing_pass_that_is_not_a_number() {
    for text in ["inf", "NaN", "-1", "much"] {
        let mut draft = Draft::of("activations");
        draft.metadata.insert("f32err:out.tanh".to_owned(), text.to_owned());
        assert!(matches!(draft.error(), Error::InvalidValue { argument, .. } if argument == "f32err:out.tanh"), "{text}");
    }
}

#[test]
fn an_input_that_is_no_number_is_named() {
    for case in SMALL {
        let draft = Draft::of(case);
        for name in inputs(&draft).into_iter().filter(|name| draft.tensors[name].0 == Dtype::F32) {
            let mut wrong = draft.clone();
            // Which would differ from it.
            wrong.tensors.remove(name.trim_end_matches(".f32"));
            let elements = wrong.tensors.get_mut(&name).unwrap().2.as_chunks_mut().0;
            *elements.last_mut().unwrap() = f32::NAN.to_le_bytes();
            let argument = format!("{name}[{}]", elements.len() - 1);
            let error = wrong.error();
            assert!(
                matches!(&error, Error::InvalidValue { argument: a, expected, .. } if *a == argument && expected == "a number"),
                "{case}: {error}"
            );
        }
    }
}

#[test]
fn inputs_that_are_infinite_fail() {
    for case in SMALL {
        let draft = Draft::of(case);
        for name in inputs(&draft).into_iter().filter(|name| draft.tensors[name].0 == Dtype::F32) {
            let mut wrong = draft.clone();
            // All of it: a value behind the end of an episode is rightly not looked at.
            wrong.tensors.get_mut(&name).unwrap().2.as_chunks_mut().0.fill(f32::INFINITY.to_le_bytes());
            wrong.tensors.remove(name.trim_end_matches(".f32"));
            assert!(!wrong.check().is_ok_and(|report| report.passed()), "{case} with infinities in {name}");
        }
    }
}

#[test]
fn both_precisions_of_an_input_have_to_be_the_same_numbers() {
    let mut draft = Draft::of("activations");
    let mut values = draft.floats("in.x");
    values[3] += 1e-12;
    draft.set_floats("in.x", &values);
    assert!(matches!(draft.error(), Error::InvalidValue { argument, .. } if argument == "in.x.f32[3]"));
    draft.tensors.insert("in.x".to_owned(), (Dtype::F64, vec![1], values[0].to_le_bytes().to_vec()));
    assert!(matches!(draft.error(), Error::Shape { argument, .. } if argument == "in.x"));
    draft.tensors.insert("in.x".to_owned(), (Dtype::I64, vec![256], vec![0; 8 * 256]));
    assert!(draft.error().to_string().contains("in.x: type I64, expected F64"));
    draft.tensors.remove("in.x");
    assert!(draft.check().unwrap().passed(), "double precision may be left out");
}

#[test]
fn a_tensor_that_is_neither_input_nor_result_is_refused() {
    let mut draft = Draft::of("activations");
    draft.tensors.insert("output.tanh".to_owned(), (Dtype::F64, vec![1], vec![0; 8]));
    assert!(matches!(draft.error(), Error::File { reason, .. } if reason.contains("output.tanh")));
}

#[test]
fn what_was_not_looked_at_is_named() {
    let mut draft = Draft::of("gae_02_T5_N3_g0.99_l0.95");
    assert_eq!(draft.check().unwrap().unused, ["flags"]);
    draft.tensors.insert("in.speed.f32".to_owned(), (Dtype::F32, vec![1], vec![0; 4]));
    draft.metadata.insert("lambda".to_owned(), "0.5".to_owned());
    assert_eq!(draft.check().unwrap().unused, ["in.speed.f32", "flags", "lambda"]);
}

#[test]
fn a_config_that_is_out_of_range_or_of_other_sizes_is_an_error() {
    for (case, config, argument) in [
        ("ppo_loss_categorical_B33_A2", r#"{"huber_delta": 1.0}"#, "huber_delta"),
        ("clipped_surrogate_B33_c0.2_n0_dual", r#"{"gamma": 2.0}"#, "gamma"),
        ("update_single_step", r#"{"num_steps": 9223372036854775807, "num_envs": 3}"#, "num_steps"),
        ("update_single_step", r#"{"update_epochs": 2}"#, "config"),
        ("update_single_step", r#"{"hidden": [3]}"#, "config"),
        ("update_single_step", r#"{"num_envs": 1}"#, "config"),
    ] {
        let mut draft = Draft::of(case);
        draft.metadata.insert("config".to_owned(), config.to_owned());
        let error = draft.error();
        let (Error::InvalidValue { argument: named, .. }
        | Error::Shape { argument: named, .. }
        | Error::Conflict { argument: named, .. }) = &error
        else {
            panic!("{config}: {error}")
        };
        assert_eq!(named, argument, "{config}: {error}");
    }
}

#[test]
fn a_config_that_does_not_parse_or_has_an_unknown_name_is_an_error() {
    for config in ["", "[]", "{", r#"{"norm_adv_dof": 0}"#, r#"{"norm_adv_ddof": "none"}"#] {
        for case in ["ppo_loss_categorical_B33_A2", "clipped_surrogate_B33_c0.2_n0_dual", "update_single_step"] {
            let mut draft = Draft::of(case);
            draft.metadata.insert("config".to_owned(), config.to_owned());
            assert!(matches!(draft.error(), Error::InvalidValue { argument, .. } if argument == "config"), "{config}");
        }
    }
}

#[test]
fn truncated_files_are_errors() {
    for case in ["activations", "gae_00_T1_N1_g0.99_l0.95"] {
        let bytes = std::fs::read(path_of(case)).unwrap();
        let step = bytes.len() / 200 + 1;
        for len in (0..64).chain((64..bytes.len()).step_by(step)).chain([bytes.len() - 1]) {
            let error = CaseFile::parse(Path::new(case), &bytes[..len]).unwrap_err();
            assert!(matches!(error, Error::File { .. }), "{len}: {error}");
        }
    }
}

/// A safetensors file with this header.
fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn headers_that_lie_are_errors() {
    let metadata = r#""__metadata__":{"kind":"activations"}"#;
    let one = |shape: &str, offsets: &str| {
        format!(r#"{{{metadata},"in.x.f32":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let overlapping = format!(
        r#"{{{metadata},"in.x.f32":{{"dtype":"F32","shape":[2],"data_offsets":[0,8]}},"out.tanh":{{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}}}"#
    );
    let data = [0; 12];
    for header in [
        one("[3]", "[0,8]"),
        one("[3]", "[0,13]"),
        one("[3]", "[12,0]"),
        one("[3]", "[1,13]"),
        one("[4611686018427387904]", "[0,12]"),
        one("[18446744073709551615]", "[0,12]"),
        one("[4294967296,4294967296]", "[0,12]"),
        one("[18446744073709551616]", "[0,12]"),
        one("[-3]", "[0,12]"),
        one("[3]", "[0,18446744073709551615]"),
        one("3", "[0,12]"),
        overlapping,
        "{}".to_owned(),
        "[]".to_owned(),
        String::new(),
        "{".repeat(100_000),
        format!("{{{metadata}"),
        format!(r#"{{{metadata},"in.x.f32":{{"dtype":"F31","shape":[3],"data_offsets":[0,12]}}}}"#),
        r#"{"__metadata__":{"kind":7}}"#.to_owned(),
    ] {
        let error = CaseFile::parse(Path::new("lying"), &with_header(&header, &data)).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{header}: {error}");
    }
    let mut bytes = with_header(&one("[3]", "[0,12]"), &data);
    CaseFile::parse(Path::new("honest"), &bytes).unwrap();
    for len in [0, 1, bytes.len() as u64, 1 << 32, 1 << 63, u64::MAX - 7, u64::MAX] {
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        let error = CaseFile::parse(Path::new("lying"), &bytes).unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{len}: {error}");
    }
}

#[test]
fn empty_tensors_are_errors() {
    let tensor = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let header = &format!(r#"{{"__metadata__":{{"kind":"activations"}},"in.x.f32":{tensor},"out.tanh":{tensor}}}"#);
    let error = check_bytes(&mut Cpu::<f32>::new(), "empty", &with_header(header, &[])).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn flipped_bits_never_panic(case in 0..SMALL.len(), flips in prop::collection::vec((0.0..1.0f64, 0..8u32), 1..6), anywhere: bool) {
        let mut bytes = std::fs::read(path_of(SMALL[case])).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let reach = if anywhere { bytes.len() } else { header };
        for (place, bit) in flips {
            bytes[(place * reach as f64) as usize] ^= 1 << bit;
        }
        // Whatever it says: an error, a failure, or a pass where the flips hit what nobody reads.
        let _ = check_bytes(&mut Cpu::<f32>::new(), SMALL[case], &bytes);
    }
}
