//! The plan for a ModelDeployment without a cluster, by the very functions that the operator runs.

use anyhow::{Context, Result, bail};
use coterie_api::deployment::ModelDeployment;
use coterie_api::deployment::status::WeightsStatus;
use coterie_api::launch::Inspection;
use coterie_operator_core::observed::{ObservedCertificates, ObservedExperts, Settings, observe_nodes};
use coterie_operator_core::plan::inspection::source_hash;
use coterie_operator_core::{Action, Applied, Observed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde::{Deserialize, Serialize};
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

/// What status would say and the objects that would be made, as YAML documents.
///
/// `nodes` is a list or several documents; the inspection is the JSON of `coterie inspect`. Nothing runs on the nodes.
pub fn plan(spec: &Input, inspection: &Input, nodes: &Input, runtime_image: String) -> Result<String> {
    let mut object: ModelDeployment =
        serde_saphyr::from_str(&spec.text).with_context(|| spec.is_no("ModelDeployment"))?;
    // What an API server would have added.
    let metadata = &mut object.metadata;
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    metadata.uid.get_or_insert_with(|| "00000000-0000-0000-0000-000000000000".to_owned());
    metadata.generation.get_or_insert(1);
    object.status = None;
    let inspection: Inspection = serde_json::from_str(&inspection.text)
        .with_context(|| inspection.is_no("output of coterie inspect --output json"))?;
    let nodes =
        read_nodes(&nodes.text).with_context(|| nodes.is_no("output of kubectl get nodes -o yaml"))?;

    let deployment = coterie_operator_core::validate(&object).with_context(|| spec.name.clone())?;
    let mut observed = Observed {
        nodes: observe_nodes(&nodes, &[]),
        settings: Settings { runtime_image, ..Settings::default() },
        certificates: ObservedCertificates::Missing,
        ..Observed::default()
    };
    observed.status.weights = Some(WeightsStatus { source_hash: source_hash(&deployment), inspection });
    let now = Timestamp::now();
    let first = coterie_operator_core::plan(&deployment, &observed, now);
    // The ranks of a replica of several wait for the files that they share.
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
    let plan = coterie_operator_core::plan(&deployment, &observed, now);
    let status = coterie_operator_core::status(&deployment, &observed, &plan, &Applied::default(), now);

    let mut text = String::from("# What status would say at first\n");
    text += &yaml(&status)?;
    let known = |action: &Action| first.actions.iter().any(|first| first.object() == action.object());
    let later = plan.actions.iter().filter(|action| !known(action));
    for action in first.actions.iter().chain(later) {
        write!(text, "---\n# {}\n", action.object())?;
        match action {
            Action::ApplyService(service) => text += &yaml(service)?,
            Action::CreateConfigMap(map) => text += &yaml(map)?,
            Action::CreatePod(pod) => text += &yaml(pod)?,
            Action::ChangeCertificates(_) => text += "# made by the operator when it runs\n",
            other => bail!("a plan for an empty cluster changes {}", other.object()),
        }
    }
    Ok(text)
}

/// One YAML document.
pub fn yaml(value: &impl Serialize) -> Result<String> {
    Ok(serde_saphyr::to_string(value)?)
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Node>,
}

/// By kind first, and not by trial: YAML's own guesses (`n` is a boolean) only stay away when the type is known.
fn read_nodes(text: &str) -> Result<Vec<Node>> {
    let kinds: Vec<Kind> = serde_saphyr::from_multiple(text)?;
    if kinds.iter().all(|document| document.kind == "Node") {
        return Ok(serde_saphyr::from_multiple(text)?);
    }
    let lists: Vec<List> = serde_saphyr::from_multiple(text)?;
    Ok(lists.into_iter().flat_map(|list| list.items).collect())
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
        plan(
            &deployment(DEPLOYMENT),
            &inspection(INSPECTION),
            &named("nodes.yaml", nodes),
            "coterie:1".to_owned(),
        )
        .unwrap()
    }

    fn named(name: &str, text: &str) -> Input {
        Input { name: name.to_owned(), text: text.to_owned() }
    }

    fn deployment(text: &str) -> Input {
        named("smol.yaml", text)
    }

    fn inspection(text: &str) -> Input {
        named("found.json", text)
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
        assert_eq!(read_nodes(&list).unwrap(), read_nodes(&documents).unwrap());
    }

    #[test]
    fn the_file_that_is_wrong_is_named() {
        let error = |spec: &str, found: &str, nodes: &str| {
            let result =
                plan(&deployment(spec), &inspection(found), &named("nodes.yaml", nodes), String::new());
            format!("{:#}", result.unwrap_err())
        };
        let told = error("spec: {}", INSPECTION, SMALL);
        assert!(told.starts_with("smol.yaml is no ModelDeployment: "), "{told}");
        let told = error(&DEPLOYMENT.replace("replicas: 2", "replicas: -2"), INSPECTION, SMALL);
        assert!(told.starts_with("smol.yaml: replicas is -2"), "{told}");
        let told = error(DEPLOYMENT, "{}", SMALL);
        assert!(told.starts_with("found.json is no output of coterie inspect"), "{told}");
        let told = error(DEPLOYMENT, INSPECTION, "kind: Node\nmetadata: 3");
        assert!(told.starts_with("nodes.yaml is no output of kubectl get nodes"), "{told}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let told = format!("{:#}", Input::read("/nowhere/smol.yaml".into()).err().unwrap());
        assert!(told.starts_with("cannot read /nowhere/smol.yaml: "), "{told}");
    }
}
