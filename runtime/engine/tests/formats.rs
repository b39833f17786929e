//! The same model in every form that a folder may have: number formats, fused experts, odd alignment, shards.

#![allow(clippy::unwrap_used, clippy::panic)]

mod tiny_families;
mod tiny_mixtral;

use coterie_api::launch::{Device, Quantization, WeightBytes};
use coterie_engine::simple::Simple;
use coterie_engine::{Engine, EngineOptions, Event, Request, Sampling, TokenLogprobs, inspect};
use half::{bf16, f16};
use serde_json::json;
use std::cell::RefCell;
use std::path::Path;
use tempfile::TempDir;
use tiny_mixtral::{Tensor, config, tensors, write};

/// All log probabilities of a prompt.
fn scores(dir: &Path, quantization: Quantization) -> Vec<TokenLogprobs> {
    let options = EngineOptions { quantization, threads: 1, max_running: 1, ..EngineOptions::default() };
    let mut engine = Engine::load(dir, &options, &|_| {}).unwrap();
    let prompt = (0..40).map(|i| i * 7 % 61).collect();
    engine.submit(Request { prompt_logprobs: Some(61), ..Request::new(prompt, 0) }).unwrap();
    let mut events = Vec::new();
    while !engine.is_idle() {
        engine.step(&mut events);
    }
    match events.remove(1) {
        Event::Prompt { logprobs, .. } => logprobs.into_iter().flatten().collect(),
        other => panic!("{other:?}"),
    }
}

fn folder(change: impl FnOnce(&mut Vec<Tensor>)) -> TempDir {
    let (dir, mut tensors) = (tempfile::tempdir().unwrap(), tensors(&config(), 9));
    change(&mut tensors);
    write(dir.path(), &config(), &tensors);
    dir
}

/// Rewrites every tensor's values.
fn convert<const N: usize>(tensors: &mut [Tensor], dtype: &'static str, to: impl Fn(f32) -> [u8; N]) {
    for tensor in tensors {
        let values = tensor.bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32());
        tensor.bytes = values.flat_map(&to).collect();
        tensor.dtype = dtype;
    }
}

fn assert_near(a: &[TokenLogprobs], b: &[TokenLogprobs], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.token, b.token);
        assert!((a.logprob - b.logprob).abs() < tolerance, "{} {}", a.logprob, b.logprob);
    }
}

/// MiniMax's vocabulary is rounded up with rows of zeros, whose logit of 0 would often be the best.
#[test]
fn rows_of_the_head_that_stand_for_no_token_are_never_chosen() {
    let dir = folder(|tensors| {
        let head = tensors.iter_mut().find(|tensor| tensor.name == "lm_head.weight").unwrap();
        let row = head.bytes.len() / 61;
        head.bytes[57 * row..].fill(0);
        // A token whose row is zero before others is one all the same.
        head.bytes[30 * row..31 * row].fill(0);
    });
    let wished = |token| Sampling { logit_bias: vec![(token, 90.0)], ..Sampling::greedy() };
    let simple = Simple::load(dir.path()).unwrap();
    for (token, chosen) in [(30, true), (56, true), (57, false), (60, false)] {
        let request =
            Request { sampling: wished(token), top_logprobs: Some(61), ..Request::new(vec![5, 6, 7], 3) };
        let mut engine = Engine::load(dir.path(), &EngineOptions::default(), &|_| {}).unwrap();
        engine.submit(request.clone()).unwrap();
        let mut events = Vec::new();
        while !engine.is_idle() {
            engine.step(&mut events);
        }
        let told = events.into_iter().filter_map(|event| match event {
            Event::Token { token, logprobs, .. } => Some((token, logprobs.unwrap())),
            _ => None,
        });
        let (tokens, logprobs): (Vec<u32>, Vec<TokenLogprobs>) = told.unzip();
        let answer = simple.run(&request).unwrap();
        assert_eq!((tokens[0] == token, &tokens), (chosen, &answer.tokens), "token {token}");
        assert_near(&logprobs, &answer.logprobs, 1e-4);
        assert!(
            logprobs.iter().all(|row| row.top[57..].iter().all(|(_, logprob)| *logprob == f32::NEG_INFINITY))
        );
    }
}

#[test]
fn f32_and_f16_checkpoints_hold_the_same_model() {
    let plain = scores(folder(|_| {}).path(), Quantization::None);
    let f32s = folder(|t| convert(t, "F32", f32::to_le_bytes));
    assert_near(&plain, &scores(f32s.path(), Quantization::None), 1e-5);
    // These values lie within f16's range, where it has more digits than bf16: they go there and back unchanged,
    // but for the subnormal ones.
    let f16s = folder(|t| convert(t, "F16", |v| f16::from_f32(v).to_le_bytes()));
    assert_near(&plain, &scores(f16s.path(), Quantization::None), 1e-3);
}

#[test]
fn int8_from_any_format_is_the_same_int8() {
    let plain = scores(folder(|_| {}).path(), Quantization::Int8);
    let f32s = folder(|t| convert(t, "F32", f32::to_le_bytes));
    assert_near(&plain, &scores(f32s.path(), Quantization::Int8), 1e-4);
    assert!(plain.iter().zip(scores(f32s.path(), Quantization::None)).any(|(a, b)| a.logprob != b.logprob));
}

/// A tensor of odd length in front puts all others on odd addresses.
#[test]
fn unaligned_weights_are_copied() {
    let plain = folder(|_| {});
    for dtype in ["BF16", "F32"] {
        let shifted = folder(|t| {
            if dtype == "F32" {
                convert(t, "F32", f32::to_le_bytes);
            }
            t.insert(0, Tensor { name: "odd".into(), dtype: "U8", shape: vec![3], bytes: vec![0; 3] });
        });
        for &quantization in Quantization::best_first_on(Device::Cpu) {
            let same = scores(shifted.path(), quantization);
            assert_near(&scores(plain.path(), quantization), &same, 1e-4);
        }
    }
}

/// The value of an e4m3 code.
fn e4m3(code: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7) / 8.0);
    let sign = if code < 128 { 1.0 } else { -1.0 };
    sign * if exponent == 0 { mantissa / 64.0 } else { (1.0 + mantissa) * 2f32.powi(exponent - 7) }
}

/// Attention and experts in fp8 with a scale for each block of 9 × 7, which divides nothing; and beside it the same
/// model in bf16.
fn fp8_and_its_twin() -> [TempDir; 2] {
    let mut config = config();
    let (mut twin, mut state) = (tensors(&config, 9), 5);
    let mut fp8 = Vec::new();
    for tensor in &mut twin {
        if !tensor.name.contains("proj") && !tensor.name.contains("experts") {
            fp8.push(tensor.clone());
            continue;
        }
        let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
        let codes = (0..rows * columns).map(|_| (tiny_mixtral::random(&mut state) * 256.0) as u8);
        let codes: Vec<u8> = codes.map(|code| if code & 0x7f == 0x7f { 0 } else { code }).collect(); // no NaN
        let across = columns.div_ceil(7);
        let scales: Vec<f32> =
            (0..rows.div_ceil(9) * across).map(|_| 1e-3 * (1.0 + tiny_mixtral::random(&mut state))).collect();
        let value = |(at, code): (usize, &u8)| {
            let scale = scales[at / columns / 9 * across + at % columns / 7];
            bf16::from_f32(e4m3(*code) * scale).to_le_bytes()
        };
        tensor.bytes = codes.iter().enumerate().flat_map(value).collect();
        fp8.push(Tensor {
            name: format!("{}_scale_inv", tensor.name),
            dtype: "F32",
            shape: vec![rows.div_ceil(9), across],
            bytes: scales.iter().flat_map(|scale| scale.to_le_bytes()).collect(),
        });
        fp8.push(Tensor { dtype: "F8_E4M3", bytes: codes, ..tensor.clone() });
    }
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    write(dirs[1].path(), &config, &twin);
    config["quantization_config"] = json!({
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [9, 7]
    });
    write(dirs[0].path(), &config, &fp8);
    dirs
}

#[test]
fn fp8_is_code_times_scale_in_bf16() {
    let [fp8, twin] = fp8_and_its_twin();
    for &quantization in Quantization::best_first_on(Device::Cpu) {
        assert_eq!(scores(fp8.path(), quantization), scores(twin.path(), quantization));
    }
    let prompt: Vec<u32> = (0..40).map(|i| i * 7 % 61).collect();
    let simple = [&fp8, &twin].map(|dir| Simple::load(dir.path()).unwrap().logits(&prompt).0);
    assert_eq!(simple[0], simple[1]);
    let inspected = [&fp8, &twin].map(|dir| inspect(dir.path()).unwrap());
    assert_eq!(inspected[0].parameters, inspected[1].parameters, "scales are no parameters");
    assert_eq!(inspected[0].weight_bytes, inspected[1].weight_bytes);
}

/// w1 above w3 of all experts in one tensor, w2 in another, as newer code writes them if asked to.
#[test]
fn fused_experts_equal_separate_ones() {
    let fused = folder(|tensors| {
        for l in 0..2 {
            let take = |e: usize, w: &str| {
                let name = format!("model.layers.{l}.block_sparse_moe.experts.{e}.{w}.weight");
                tensors.iter().find(|t| t.name == name).unwrap().bytes.clone()
            };
            let both: Vec<u8> = (0..4).flat_map(|e| [take(e, "w1"), take(e, "w3")].concat()).collect();
            let down: Vec<u8> = (0..4).flat_map(|e| take(e, "w2")).collect();
            let experts = format!("model.layers.{l}.mlp.experts");
            let tensor = |name: &str, shape: &[usize], bytes| Tensor {
                name: format!("{experts}.{name}"),
                dtype: "BF16",
                shape: shape.to_vec(),
                bytes,
            };
            tensors.push(tensor("gate_up_proj", &[4, 40, 24], both));
            tensors.push(tensor("down_proj", &[4, 24, 20], down));
        }
        tensors.retain(|t| !t.name.contains("block_sparse_moe.experts"));
        tensors.iter_mut().for_each(|t| t.name = t.name.replace("block_sparse_moe", "mlp"));
    });
    for &quantization in Quantization::best_first_on(Device::Cpu) {
        assert_eq!(scores(fused.path(), quantization), scores(folder(|_| {}).path(), quantization));
    }
}

#[test]
fn a_tied_head_is_the_embedding() {
    let tied = tempfile::tempdir().unwrap();
    let mut config = config();
    config["tie_word_embeddings"] = true.into();
    let mut all = tensors(&config, 9);
    let embedding = all[0].bytes.clone();
    all.retain(|t| t.name != "lm_head.weight");
    write(tied.path(), &config, &all);
    let copied = folder(|t| {
        t.iter_mut().filter(|t| t.name == "lm_head.weight").for_each(|t| t.bytes.clone_from(&embedding))
    });
    let none = Quantization::None;
    assert_eq!(scores(tied.path(), none), scores(copied.path(), none));
}

#[test]
fn inspect_counts_what_is_held() {
    let inspected = inspect(folder(|_| {}).path()).unwrap();
    let values: usize =
        tiny_mixtral::shapes(&config()).iter().map(|(_, s)| s.iter().product::<usize>()).sum();
    let experts = 2 * 4 * 3 * 24 * 20;
    assert_eq!(inspected.parameters, values as u64);
    assert_eq!(inspected.active_parameters, (values - experts / 2) as u64);
    // Keys and values of 2 layers × 2 heads × 6, in f32.
    assert_eq!(inspected.kv_bytes_per_token, 2 * 2 * 2 * 6 * 4);
    let norms = 5 * 24;
    assert_eq!(inspected.weight_bytes.none, (2 * values + 2 * norms) as u64);
    assert!(inspected.weight_bytes.int8 < inspected.weight_bytes.none);
    // Int8 has a byte for each value and four for each row of at most 64 of them, int4 twenty for each of at most 32.
    let rows = 2 * 4 * (2 * 20 + 24);
    let (int8, int4) = ((experts + 4 * rows) as u64, Some(20 * rows as u64));
    let split = WeightBytes { none: 2 * experts as u64, int8, int4 };
    assert_eq!(inspected.expert_bytes, Some(split));
    let f32s = inspect(folder(|t| convert(t, "F32", f32::to_le_bytes)).path()).unwrap();
    assert_eq!(f32s.weight_bytes.none, 4 * values as u64);
    assert_ne!(f32s.digest, inspected.digest);
}

#[test]
fn progress_goes_from_0_to_1() {
    let seen = RefCell::new(Vec::new());
    let options = EngineOptions {
        quantization: Quantization::Int8,
        threads: 1,
        max_running: 1,
        ..EngineOptions::default()
    };
    let dir = folder(|_| {});
    Engine::load(dir.path(), &options, &|share| seen.borrow_mut().push(share)).unwrap();
    let seen = seen.into_inner();
    assert!(seen.len() > 10 && seen.is_sorted());
    assert_eq!((seen[0], seen[seen.len() - 1]), (0.0, 1.0));
}

/// A GPT-OSS whose experts are in bf16 and the same in MXFP4, of whatever values the bytes have.
fn gpt_oss(hidden: usize, change: impl FnOnce(&mut Vec<Tensor>)) -> [TempDir; 2] {
    let mut configs = tiny_families::configs().into_iter();
    let (_, mut config) = configs.find(|(name, _)| *name == "GPT-OSS").unwrap();
    config["hidden_size"] = hidden.into();
    config["intermediate_size"] = 32.into();
    let plain = tiny_families::tensors(&config, 4);
    let (mut packed, mut unpacked, mut state) = (Vec::new(), Vec::new(), 5);
    for tensor in plain {
        if !tensor.name.ends_with("experts.gate_up_proj") && !tensor.name.ends_with("experts.down_proj") {
            packed.push(tensor.clone());
            unpacked.push(tensor);
            continue;
        }
        let [experts, inputs, outputs] = tensor.shape[..] else { panic!("three dimensions") };
        let groups = inputs.div_ceil(32);
        let bytes = |count: usize, state: &mut u64, to: fn(f32) -> u8| {
            (0..count).map(|_| to(tiny_mixtral::random(state))).collect::<Vec<u8>>()
        };
        let blocks = bytes(experts * outputs * groups * 16, &mut state, |random| (random * 256.0) as u8);
        // Scales from 2^-4 to 1/4.
        let scales = bytes(experts * outputs * groups, &mut state, |random| 123 + (random * 3.0) as u8);
        let value = |row: usize, input: usize| {
            let group = row * groups + input / 32;
            let byte = blocks[group * 16 + input % 32 / 2];
            let bits = if input.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
            let sizes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
            let sign = if bits < 8 { 1.0 } else { -1.0 };
            sign * sizes[usize::from(bits % 8)] * 2f32.powi(i32::from(scales[group]) - 127)
        };
        let mut values = Vec::new();
        for e in 0..experts {
            for input in 0..inputs {
                values.extend(
                    (0..outputs).flat_map(|o| bf16::from_f32(value(e * outputs + o, input)).to_le_bytes()),
                );
            }
        }
        let part = |suffix: &str, shape: Vec<usize>, bytes: Vec<u8>| Tensor {
            name: format!("{}_{suffix}", tensor.name),
            dtype: "U8",
            shape,
            bytes,
        };
        unpacked.push(Tensor { bytes: values, ..tensor.clone() });
        packed.push(part("blocks", vec![experts, outputs, groups, 16], blocks.clone()));
        packed.push(part("scales", vec![experts, outputs, groups], scales.clone()));
    }
    change(&mut packed);
    [unpacked, packed].map(|tensors| {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &config, &tensors);
        dir
    })
}

#[test]
fn experts_in_mxfp4_have_the_values_that_they_say() {
    let [plain, packed] = gpt_oss(64, |_| {});
    for &quantization in Quantization::best_first_on(Device::Cpu) {
        assert_eq!(scores(packed.path(), quantization), scores(plain.path(), quantization), "{quantization}");
    }
    let (plain, packed) = (inspect(plain.path()).unwrap(), inspect(packed.path()).unwrap());
    assert_eq!(plain.parameters, packed.parameters);
    // 3 layers of 4 experts of 3 · 64 · 32 values: 16 bits each, or 4 and a share of a scale
    let values = 3 * 4 * 3 * 64 * 32;
    assert_eq!(plain.weight_bytes.none - packed.weight_bytes.none, 2 * values - values * 17 / 32);
    assert_eq!(plain.weight_bytes.int8, packed.weight_bytes.int8);
}

#[test]
fn mxfp4_that_does_not_fit_is_refused() {
    let refused = |hidden, change: fn(&mut Vec<Tensor>)| {
        let [_, packed] = gpt_oss(hidden, change);
        inspect(packed.path()).unwrap_err().to_string()
    };
    fn find<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
        tensors.iter_mut().find(|tensor| tensor.name.ends_with(name)).unwrap()
    }
    let told = refused(64, |tensors| find(tensors, "gate_up_proj_scales").shape = vec![4, 32, 4]);
    assert!(told.contains("gate_up_proj_scales") && told.contains("[4, 32, 4]"), "{told}");
    let told = refused(64, |tensors| find(tensors, "down_proj_blocks").dtype = "F8_E4M3");
    assert!(told.contains("down_proj_blocks") && told.contains("F8_E4M3, but it must be U8"), "{told}");
    let told = refused(64, |tensors| tensors.retain(|tensor| !tensor.name.ends_with("down_proj_scales")));
    assert!(told.contains("down_proj_scales\" is missing"), "{told}");
    // 40 inputs are no whole groups of 32.
    let told = refused(40, |_| {});
    assert!(told.contains("gate_up_proj\" is missing"), "{told}");
}
