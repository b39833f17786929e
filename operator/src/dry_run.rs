//! The plan for a ModelDeployment without a cluster, by the very functions that the operator runs.

mod fields;
mod nodes;
mod report;
mod table;

pub use report::Report;

use anyhow::{Context, Result, bail};
use coterie_api::deployment::status::WeightsStatus;
use coterie_api::deployment::{ModelDeployment, ModelDeploymentStatus};
use coterie_api::launch::{Device, Inspection};
use coterie_operator_core::model_config::{self, ModelSizes};
use coterie_operator_core::observed::{
    ObservedCertificates, ObservedExperts, ObservedNode, Settings, observe_nodes,
};
use coterie_operator_core::plan::capacity::choose_device;
use coterie_operator_core::plan::inspection::source_hash;
use coterie_operator_core::validate::GPUS_LIMIT;
use coterie_operator_core::{Action, Applied, Deployment, Observed, Plan};
use jiff::Timestamp;
use serde::Serialize;
use std::fmt::Write;
use std::path::PathBuf;

/// A file's text, and the name by which errors speak of it.
pub struct Input {
    name: String,
    text: String,
}

impl Input {
    /// Reads a file.
    pub fn read(path: PathBuf) -> Result<Self> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {name}"))?;
        Ok(Self { name, text })
    }

    fn is_no(&self, what: &str) -> String {
        format!("{} is no {what}", self.name)
    }
}

/// What is known of the model.
pub enum Model {
    /// What `coterie inspect --output json` printed.
    Inspection(Input),
    /// Its config.json: an estimate is made from it.
    Config(Input),
}

/// From a config alone it is told what a model would take on any device, also where the runtime cannot serve it yet.
const ANY_DEVICE: [Device; 2] = [Device::Cpu, Device::Gpu];

/// What the operator would make of a ModelDeployment on nodes where nothing runs.
pub struct Planned {
    deployment: Deployment,
    observed: Observed,
    plan: Plan,
    status: ModelDeploymentStatus,
    /// What the model's config says, if that is all that is known.
    estimate: Option<ModelSizes>,
    /// Nodes that take no pods now, with the reason: they count as if they were not there.
    left_out: Vec<(ObservedNode, String)>,
}

/// Plans; `nodes` is a list or several documents.
pub fn plan(spec: &Input, model: &Model, nodes: &Input, runtime_image: String) -> Result<Planned> {
    let mut object: ModelDeployment =
        serde_saphyr::from_str(&spec.text).with_context(|| spec.is_no("ModelDeployment"))?;
    let written = serde_saphyr::from_str(&spec.text).with_context(|| spec.is_no("ModelDeployment"))?;
    fields::check(&written).with_context(|| spec.name.clone())?;
    // What an API server would have added.
    let metadata = &mut object.metadata;
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    metadata.uid.get_or_insert_with(|| "00000000-0000-0000-0000-000000000000".to_owned());
    metadata.generation.get_or_insert(1);
    object.status = None;
    let deployment = coterie_operator_core::validate(&object).with_context(|| spec.name.clone())?;
    let nodes =
        nodes::read(&nodes.text).with_context(|| nodes.is_no("output of kubectl get nodes -o yaml"))?;
    let (mut usable, mut left_out) = (Vec::new(), Vec::new());
    for node in nodes {
        match nodes::obstacle(&node) {
            None => usable.push(node),
            Some(why) => left_out.extend(observe_nodes([&node], &[]).pop().map(|node| (node, why))),
        }
    }
    let observed = Observed {
        nodes: observe_nodes(&usable, &[]),
        settings: Settings {
            // What a cluster has is not known here; where the model cannot be served, the inspection says so.
            gpu_runtime_image: Some(format!("{runtime_image}-gpu")),
            runtime_image,
            ..Settings::default()
        },
        certificates: ObservedCertificates::Missing,
        ..Observed::default()
    };
    let (inspection, estimate) = match model {
        Model::Inspection(found) => {
            let inspection = serde_json::from_str(&found.text)
                .with_context(|| found.is_no("output of coterie inspect --output json"))?;
            (inspection, None)
        }
        Model::Config(config) => {
            let sizes = model_config::read(&config.text).with_context(|| config.name.clone())?;
            let device = choose_device(&deployment, &ANY_DEVICE, &observed.nodes);
            (on_any_device(sizes.inspection(device)), Some(sizes))
        }
    };
    Ok(Planned { left_out, ..Planned::of(deployment, observed, inspection, estimate) })
}

impl Planned {
    fn of(
        deployment: Deployment,
        mut observed: Observed,
        inspection: Inspection,
        estimate: Option<ModelSizes>,
    ) -> Self {
        let weights = WeightsStatus { source_hash: source_hash(&deployment), inspection };
        observed.status.weights = Some(weights);
        let now = Timestamp::now();
        let first = coterie_operator_core::plan(&deployment, &observed, now);
        share_files(&deployment, &mut observed, &first);
        let mut plan = coterie_operator_core::plan(&deployment, &observed, now);
        let is_new = |action: &Action| !first.actions.iter().any(|first| first.object() == action.object());
        plan.actions = first.actions.iter().cloned().chain(plan.actions.into_iter().filter(is_new)).collect();
        let status = coterie_operator_core::status(&deployment, &observed, &plan, &Applied::default(), now);
        Self { deployment, observed, plan, status, estimate, left_out: Vec::new() }
    }

    /// What status would say and the objects that would be made, as YAML documents.
    pub fn yaml(&self) -> Result<String> {
        let (mut text, report) = (String::new(), self.report()?);
        for line in [report.message, report.today].into_iter().chain(report.notes) {
            writeln!(text, "# {line}")?;
        }
        text += "# What status would say at first\n";
        text += &yaml(&self.status)?;
        for action in &self.plan.actions {
            write!(text, "---\n# {}\n", action.object())?;
            match action {
                Action::ApplyService(service) => text += &yaml(service)?,
                Action::CreateConfigMap(map) => text += &yaml(map)?,
                Action::ChangeCertificates(_) => text += "# made by the operator when it runs\n",
                Action::CreatePod(pod) => text += &yaml(pod)?,
                other => bail!("a plan for an empty cluster changes {}", other.object()),
            }
        }
        Ok(text)
    }
}

/// The same, planned for as if the runtime served it everywhere.
fn on_any_device(inspection: Inspection) -> Inspection {
    Inspection { devices: ANY_DEVICE.to_vec(), most_gpus: GPUS_LIMIT, ..inspection }
}

/// The ranks of a replica of several wait for the files that they share: lets them be there.
fn share_files(deployment: &Deployment, observed: &mut Observed, first: &Plan) {
    for action in &first.actions {
        match action {
            Action::CreateConfigMap(map) => {
                observed.experts.extend(ObservedExperts::of(map.as_ref().clone(), &deployment.uid));
            }
            Action::ChangeCertificates(_) => {
                observed.certificates = ObservedCertificates::Ours { valid: None, next: None };
            }
            _ => {}
        }
    }
}

/// One YAML document.
pub fn yaml(value: &impl Serialize) -> Result<String> {
    Ok(serde_saphyr::to_string(value)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENT: &str = "
apiVersion: coterie.dev/v1alpha1
kind: ModelDeployment
metadata: {name: smol, namespace: chat}
spec:
  replicas: 2
  model: {source: {image: {reference: 'm:1'}}, contextLength: 1000}
";
    const INSPECTION: &str = r#"{
        "architecture": "MixtralForCausalLM", "parameters": 1, "activeParameters": 1, "layers": 1, "experts": 8,
        "expertsPerToken": 2, "contextLength": 2048, "weightBytes": {"none": 2147483648, "int8": 1073741824},
        "kvBytesPerToken": 1024, "workingBytes": 1000000, "digest": "sha256:0", "devices": ["Cpu"]
    }"#;
    const SMALL: &str = "
apiVersion: v1
kind: Node
metadata: {name: n, labels: {pool: on}}
status: {allocatable: {cpu: '4', memory: 2Gi, pods: '110'}}
";

    fn planned(nodes: &str) -> String {
        let nodes = named("nodes.yaml", nodes);
        plan(&deployment(DEPLOYMENT), &inspection(INSPECTION), &nodes, "coterie:1".to_owned())
            .unwrap()
            .yaml()
            .unwrap()
    }

    fn named(name: &str, text: &str) -> Input {
        Input { name: name.to_owned(), text: text.to_owned() }
    }

    fn deployment(text: &str) -> Input {
        named("smol.yaml", text)
    }

    fn inspection(text: &str) -> Model {
        Model::Inspection(named("found.json", text))
    }

    #[test]
    fn both_replicas_and_services_are_printed_and_what_fits_is_chosen() {
        let text = planned(SMALL);
        for line in ["# Pod smol-0\n", "# Pod smol-1\n", "# Service smol\n", "# Service smol-ranks\n"] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(text.contains("quantization: Int8"), "2 GiB of weights do not fit a node of 2 GiB:\n{text}");
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(documents.len(), 5);
        let pod = documents.iter().find(|it| it["kind"] == "Pod").unwrap();
        assert_eq!(pod["spec"]["containers"][0]["image"], "coterie:1");
    }

    #[test]
    fn nodes_may_be_a_list_and_several_documents() {
        let large = SMALL.replace("name: n", "name: large").replace("2Gi", "16Gi");
        let documents = format!("{SMALL}---{large}");
        assert!(planned(&documents).contains("quantization: None"));
        let item = |node: &str| node.trim().replace('\n', "\n  ");
        let list = format!("kind: List\nitems:\n- {}\n- {}\n", item(SMALL), item(&large));
        assert_eq!(nodes::read(&list).unwrap(), nodes::read(&documents).unwrap());
    }

    #[test]
    fn a_node_that_takes_no_pods_is_not_counted_and_named() {
        let large =
            SMALL.replace("name: n", "name: large").replace("2Gi", "16Gi") + "spec: {unschedulable: true}";
        let nodes = named("nodes.yaml", &format!("{SMALL}---{large}"));
        let planned =
            plan(&deployment(DEPLOYMENT), &inspection(INSPECTION), &nodes, "coterie:1".to_owned()).unwrap();
        let report = planned.report().unwrap();
        assert_eq!(report.quantization, coterie_api::launch::Quantization::Int8, "only the small one counts");
        let told: Vec<_> =
            report.nodes.iter().map(|node| (node.name.as_str(), node.left_out.as_deref())).collect();
        assert_eq!(told, [("n", None), ("large", Some("cordoned"))]);
        assert!(report.table().contains("0: cordoned"), "{}", report.table());
    }

    #[test]
    fn where_every_node_is_cordoned_that_is_told() {
        let nodes = named("nodes.yaml", &format!("{SMALL}spec: {{unschedulable: true}}"));
        let planned = plan(&deployment(DEPLOYMENT), &inspection(INSPECTION), &nodes, String::new()).unwrap();
        let message = planned.report().unwrap().message;
        assert!(message.contains("no node that takes pods; add one, or make one schedulable"), "{message}");
        assert!(!message.contains("toleration"), "{message}");
    }

    #[test]
    fn the_file_that_is_wrong_is_named() {
        let error = |spec: &str, found: &str, nodes: &str| {
            let result =
                plan(&deployment(spec), &inspection(found), &named("nodes.yaml", nodes), String::new());
            format!("{:#}", result.err().unwrap())
        };
        let told = error("spec: {}", INSPECTION, SMALL);
        assert!(told.starts_with("smol.yaml is no ModelDeployment: "), "{told}");
        let told = error(&DEPLOYMENT.replace("replicas: 2", "replicas: -2"), INSPECTION, SMALL);
        assert!(told.starts_with("smol.yaml: replicas is -2"), "{told}");
        let told = error(&DEPLOYMENT.replace("replicas: 2", "rank: 2"), INSPECTION, SMALL);
        assert_eq!(told, "smol.yaml: spec.rank is no field; is spec.ranks meant?");
        let told = error(DEPLOYMENT, "{}", SMALL);
        assert!(told.starts_with("found.json is no output of coterie inspect"), "{told}");
        let told = error(DEPLOYMENT, INSPECTION, "kind: Node\nmetadata: 3");
        assert!(told.starts_with("nodes.yaml is no output of kubectl get nodes"), "{told}");
        let config = Model::Config(named("config.json", r#"{"architectures": ["MixtralForCausalLM"]}"#));
        let nodes = named("nodes.yaml", SMALL);
        let told = plan(&deployment(DEPLOYMENT), &config, &nodes, String::new()).err().unwrap();
        assert_eq!(format!("{told:#}"), "config.json: hidden_size is missing");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let told = format!("{:#}", Input::read("/nowhere/smol.yaml".into()).err().unwrap());
        assert!(told.starts_with("cannot read /nowhere/smol.yaml: "), "{told}");
    }
}
