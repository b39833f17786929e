//! `coterie inspect`: what a model folder holds and what serving it takes.

use crate::chat_template::Rendering;
use crate::config::{InspectArgs, Output};
use crate::conversation::{Conversation, Message, Role};
use crate::machine;
use crate::model_dir;
use crate::served_model::TextSide;
use crate::termination::{failed, not_loaded, write_message};
use coterie_api::launch::{Device, Inspection, Quantization, Termination};
use coterie_engine::Description;
use std::fmt::Write;
use std::process::ExitCode;

const MIB: f64 = (1 << 20) as f64;
const GIB: f64 = (1 << 30) as f64;

/// Inspects, and prints what was found; in a pod, the operator reads it from the termination message.
pub fn run(args: &InspectArgs) -> Result<ExitCode, Termination> {
    model_dir::must_be_there(&args.model)?;
    if let Some(description) = coterie_engine::describe(&args.model).map_err(not_loaded)? {
        print!("{}", described(&description, args.output)?);
        // In a pod somebody wants to serve it: there the folder is refused all the same.
        if !args.termination_log.exists() {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let inspection = coterie_engine::inspect(&args.model).map_err(not_loaded)?;
    let text_side = TextSide::load(&args.model, &Rendering::by_this_program())?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string(&inspection).map_err(unwritable)?),
        Output::Text => {
            print!(
                "{}",
                text(&inspection, &[("chat template", chat(&text_side))], machine::available_memory())
            );
        }
    }
    write_message(&inspection, &args.termination_log).map_err(unwritable)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether conversations can be rendered.
fn chat(text_side: &TextSide) -> String {
    let Some(template) = &text_side.chat_template else {
        return "no; only /v1/completions can be used".to_owned();
    };
    let hello = Message::new(Role::User, "hello");
    match template.render(&Conversation { messages: vec![hello], ..Conversation::default() }) {
        Ok(_) => "yes".to_owned(),
        Err(why) => format!("yes, but it does not take a plain message of a user: {why}"),
    }
}

fn unwritable(error: impl std::fmt::Display) -> Termination {
    failed(format!("what was found could not be written: {error}"))
}

/// A model whose weights are not there.
fn described(found: &Description, output: Output) -> Result<String, Termination> {
    if output == Output::Json {
        return Ok(serde_json::to_string(found).map_err(unwritable)? + "\n");
    }
    let bytes = found.total_bytes.map_or("of unknown size".to_owned(), |bytes| format!("{bytes} bytes"));
    let kinds: Vec<String> =
        found.layer_kinds.iter().map(|(kind, layers)| format!("{layers} {kind}")).collect();
    let facts = [
        ("weights", "not here: described from config.json and the index, digest included".to_owned()),
        ("tensors", format!("{} in {} files, {bytes}", found.tensors, found.files)),
        ("missing", names(&found.missing)),
        ("not needed", names(&found.not_needed)),
        ("kinds", kinds.join(", ")),
    ];
    Ok(text(&found.model, &facts, machine::available_memory()))
}

/// How many, and the first few.
fn names(names: &[String]) -> String {
    const SHOWN: usize = 4;
    match names {
        [] => "none".to_owned(),
        names if names.len() <= SHOWN => format!("{}: {}", names.len(), names.join(", ")),
        names => format!("{}: {}, … (--output json names all)", names.len(), names[..SHOWN].join(", ")),
    }
}

/// For people: what was found, with other facts behind the experts. `available` is the memory that this machine has
/// free, bytes.
fn text(inspection: &Inspection, facts: &[(&str, String)], available: Option<u64>) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:<14}{value}");
    };
    line("architecture", inspection.architecture.clone());
    line(
        "parameters",
        format!(
            "{} ({} active a token)",
            billions(inspection.parameters),
            billions(inspection.active_parameters)
        ),
    );
    line("layers", format!("{}, {}", inspection.layers, inspection.mixture()));
    if let Some(experts) = inspection.expert_bytes {
        let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / GIB);
        line(
            "experts",
            format!(
                "{} of the weights as None, {} as Int8: what several ranks share",
                gib(experts.none),
                gib(experts.int8)
            ),
        );
    }
    line("context", format!("{} tokens", inspection.context_length));
    for (name, fact) in facts {
        line(name, fact.clone());
    }
    line(
        "KV cache",
        format!("{:.1} MiB for 1,000 tokens", inspection.kv_bytes_per_token as f64 * 1000.0 / MIB),
    );
    line("working", format!("{:.2} GiB beside weights and KV cache", inspection.working_bytes as f64 / GIB));
    line("devices", inspection.devices.iter().map(|device| device.flag()).collect::<Vec<_>>().join(", "));
    line("digest", inspection.digest.clone());
    for quantization in inspection.weight_bytes.best_first_on(Device::Gpu) {
        if inspection.devices.iter().any(|device| quantization.runs_on(*device)) {
            // What is free here is not what a GPU has.
            let available = available.filter(|_| quantization.runs_on(Device::Cpu));
            line(&format!("as {quantization}"), fit(inspection, quantization, available));
        }
    }
    out
}

/// What holding the weights as `quantization` takes, and what it leaves here.
fn fit(inspection: &Inspection, quantization: Quantization, available: Option<u64>) -> String {
    let weights = inspection.weight_bytes.of(quantization);
    let needed = weights.saturating_add(inspection.working_bytes);
    let mut size = format!("{:.2} GiB of weights", weights as f64 / GIB);
    if !quantization.runs_on(Device::Cpu) {
        size += ", on GPUs only";
    }
    let Some(available) = available else { return size };
    let Some(left) = available.checked_sub(needed) else {
        return format!("{size}: too much for the {:.2} GiB that are free here", available as f64 / GIB);
    };
    let tokens = left.checked_div(inspection.kv_bytes_per_token).unwrap_or(u64::MAX);
    if tokens >= inspection.context_length.into() {
        format!("{size}: fits here with the whole context")
    } else {
        format!("{size}: fits here with a context of {tokens} tokens at most (--context)")
    }
}

fn billions(number: u64) -> String {
    match number {
        100_000_000.. => format!("{:.2} B", number as f64 / 1e9),
        _ => format!("{:.2} M", number as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coterie_api::launch::WeightBytes;

    fn inspection() -> Inspection {
        Inspection {
            architecture: "MixtralForCausalLM".into(),
            parameters: 660_000_000,
            active_parameters: 214_000_000,
            layers: 30,
            expert_layers: None,
            experts: 8,
            experts_per_token: 2,
            context_length: 2048,
            weight_bytes: WeightBytes { none: 4 << 30, int8: 2 << 30, int4: Some(5 << 28) },
            expert_bytes: Some(WeightBytes { none: 3 << 30, int8: 3 << 29, int4: Some(15 << 26) }),
            kv_bytes_per_token: 1 << 20,
            state_bytes: 0,
            working_bytes: 1 << 30,
            spare_bytes: 1 << 29,
            draft_module: None,
            digest: "sha256:ab".into(),
            devices: vec![Device::Cpu],
            most_gpus: 1,
        }
    }

    #[test]
    fn the_text_says_what_fits_here() {
        let found = text(&inspection(), &[], Some(4 << 30));
        assert!(found.contains("parameters    0.66 B (0.21 B active a token)"), "{found}");
        assert!(found.contains("experts       3.00 GiB of the weights as None, 1.50 GiB as Int8"), "{found}");
        assert!(found.contains("as None       4.00 GiB of weights: too much for the 4.00 GiB"), "{found}");
        assert!(
            found.contains("as Int8       2.00 GiB of weights: fits here with a context of 1024 tokens"),
            "{found}"
        );
        assert!(text(&inspection(), &[], Some(64 << 30)).contains("fits here with the whole context"));
        assert!(found.contains("layers        30, each with 8 experts, 2 a token"), "{found}");
        assert!(!found.contains("Int4"), "{found}");
        let on_gpus = Inspection { devices: vec![Device::Cpu, Device::Gpu], ..inspection() };
        let found = text(&on_gpus, &[], Some(64 << 30));
        assert!(found.contains("as Int4       1.25 GiB of weights, on GPUs only\n"), "{found}");
        let with_dense = Inspection { expert_layers: Some(27), ..inspection() };
        let found = text(&with_dense, &[], None);
        assert!(found.contains("layers        30, 27 of them with 8 experts, 2 a token"), "{found}");
    }

    #[test]
    fn a_description_says_what_is_missing() {
        let found = Description {
            model: inspection(),
            layer_kinds: [("attention", 10), ("lightning attention", 70)].into(),
            tensors: 8243,
            files: 413,
            total_bytes: Some(912_210_767_872),
            missing: Vec::new(),
            not_needed: ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec(),
        };
        let told = described(&found, Output::Text).unwrap();
        for line in [
            "tensors       8243 in 413 files, 912210767872 bytes\n",
            "missing       none\n",
            "not needed    5: a, b, c, d, … (--output json names all)\n",
            "kinds         10 attention, 70 lightning attention\n",
        ] {
            assert!(told.contains(line), "{line:?} is not in\n{told}");
        }
        // Whoever plans from it reads it as what was inspected.
        let json = described(&found, Output::Json).unwrap();
        assert_eq!(serde_json::from_str::<Inspection>(&json).unwrap(), inspection());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["tensors"], &json["notNeeded"][4]), (&8243.into(), &"e".into()));
    }

    #[test]
    fn the_operator_can_read_what_is_written_for_it() {
        let log = tempfile::NamedTempFile::new().unwrap();
        write_message(&inspection(), log.path()).unwrap();
        let read: Inspection = serde_json::from_slice(&std::fs::read(log.path()).unwrap()).unwrap();
        assert_eq!(read, inspection());
    }
}
