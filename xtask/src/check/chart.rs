//! The chart renders what it should and refuses what it does not know. Needs helm, but no cluster.

use super::{Finding, Skipped};
use crate::cache;
use anyhow::{Context, Result, bail};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Settings, and what the rendered chart then must have (or, behind a `!`, must not have).
const RENDERS: &[(&[&str], &[&str])] = &[
    (
        &[],
        &[
            "helm.sh/resource-policy: keep",
            "name: modeldeployments.coterie.dev",
            "runAsNonRoot: true",
            "readOnlyRootFilesystem: true",
            "allowPrivilegeEscalation: false",
            "drop: [ALL]",
            "type: RuntimeDefault",
            "replicas: 1",
            "readinessProbe:\n            httpGet: {path: /ready,",
            "livenessProbe:\n            httpGet: {path: /health,",
            "name: POD_UID\n              valueFrom: {fieldRef: {fieldPath: metadata.uid}}",
            "kind: Service\n",
            "name: coterie-front-door\n",
            "app.kubernetes.io/component: front-door",
            "args:\n            - --log-format=json\n            - route",
            "!- --namespace",
            "!- --keys",
            "terminationGracePeriodSeconds: 610",
            "resources: [endpointslices]\n    verbs: [list, watch]",
            "containerPort: 9090",
        ],
    ),
    (&["frontDoor.enabled=false"], &["!front-door", "!kind: PodDisruptionBudget"]),
    (
        &["frontDoor.replicas=1", "frontDoor.namespaces[0]=chat", "frontDoor.namespaces[1]=ai"],
        &[
            "replicas: 1",
            "--namespace=chat\n            - --namespace=ai",
            "kind: RoleBinding\nmetadata:\n  name: coterie-front-door\n  namespace: ai",
            "!kind: ClusterRole\nmetadata:\n  name: coterie-front-door",
            "!kind: PodDisruptionBudget",
        ],
    ),
    (
        &[
            "frontDoor.keysSecret=api-keys",
            "frontDoor.service.type=LoadBalancer",
            "frontDoor.drainSeconds=30",
        ],
        &[
            "--keys=/etc/coterie/keys",
            "secretName: api-keys",
            "type: LoadBalancer",
            "terminationGracePeriodSeconds: 40",
        ],
    ),
    (
        &["crds.install=false"],
        &[
            "!kind: CustomResourceDefinition",
            "!imagePullSecrets",
            "!nodeSelector",
            "!tolerations",
            "!affinity",
        ],
    ),
    (&["metrics.service=false", "frontDoor.enabled=false"], &["!kind: Service\n"]),
    (&["metrics.service=false"], &["!front-door-metrics", "name: coterie-front-door\n"]),
    (&["replicas=3"], &["replicas: 3", "kind: PodDisruptionBudget"]),
    (
        &[
            "images.operator.repository=example.org:5000/op",
            "images.runtime.tag=v9",
            "images.runtime.pullPolicy=Never",
        ],
        &["image: \"example.org:5000/op:", "value: \"localhost/coterie:v9\"", "value: Never"],
    ),
    (
        &[
            "imagePullSecrets[0].name=pull",
            "nodeSelector.disk=ssd",
            "tolerations[0].operator=Exists",
            "priorityClassName=high",
        ],
        &["- name: pull", "disk: ssd", "operator: Exists", "priorityClassName: high"],
    ),
    (&["affinity.nodeAffinity.x=y", "log.format=text"], &["nodeAffinity:", "value: text"]),
];

/// Settings that the schema must refuse, and the word that the refusal must have.
const REFUSED: &[(&str, &str)] = &[
    ("replica=2", "replica"),
    ("replicas=many", "replicas"),
    ("replicas=-1", "replicas"),
    ("image.tag=1", "image"),
    ("images.operator.name=x", "name"),
    ("images.operator.repository=", "repository"),
    ("images.operator.repository=a:tag", "repository"),
    ("images.runtime.pullPolicy=Sometimes", "pullPolicy"),
    ("images=null", "images"),
    ("crds.install=maybe", "install"),
    ("crds.keep=false", "keep"),
    ("log.format=xml", "format"),
    ("log.level=", "level"),
    ("metrics.service=1", "service"),
    ("frontDoor.enabled=1", "enabled"),
    ("frontDoor.keys=x", "keys"),
    ("frontDoor.namespaces=chat", "namespaces"),
    ("frontDoor.namespaces[0]=Chat", "namespaces"),
    ("frontDoor.keysSecret=A_B", "keysSecret"),
    ("frontDoor.service.type=ExternalName", "type"),
    ("frontDoor.service.port=0", "port"),
    ("frontDoor.drainSeconds=-1", "drainSeconds"),
    ("imagePullSecrets[0]=pull", "imagePullSecrets"),
    ("tolerations.operator=Exists", "tolerations"),
    ("nodeSelector.disk=1", "nodeSelector"),
    ("resources.memory=1Gi", "memory"),
    ("priorityClassName=7", "priorityClassName"),
];

/// The helm that the embedded cluster uses, or the one in PATH; nothing is built for it.
fn helm() -> Option<PathBuf> {
    let built = fs::read_dir(cache::root().ok()?.join("go")).into_iter().flatten().flatten();
    let built = built.filter(|entry| entry.file_name().to_string_lossy().starts_with("helm-"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = built.map(|entry| entry.path()).chain(std::env::split_paths(&path));
    folders.find_map(|folder| Some(folder.join("helm")).filter(|helm| helm.is_file()))
}

/// Reports what the chart in `charts/coterie` gets wrong.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let Some(helm) = helm() else {
        bail!(Skipped("helm is not built yet; `cargo xtask demo` and `cargo xtask test` build it"));
    };
    let chart = root.join("charts/coterie");
    let run = |arguments: &[&str], settings: &[&str]| -> Result<(bool, String)> {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let output = Command::new(&helm)
            .args(arguments)
            .arg(&chart)
            .args(settings)
            .output()
            .with_context(|| format!("cannot run {}", helm.display()))?;
        let printed = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&printed).into_owned()))
    };
    let template = ["template", "coterie", "--namespace", "coterie-system", "--kube-version", "1.35.0"];

    let mut findings = Vec::new();
    let mut wrong = |what: String, fix: &str| findings.push(Finding::new("charts/coterie", what, fix));
    let (passed, printed) = run(&["lint", "--strict"], &[])?;
    if !passed {
        wrong(format!("helm lint refuses it: {}", printed.trim()), "follow helm's advice");
    }
    for (settings, expected) in RENDERS {
        let (passed, printed) = run(&template, settings)?;
        if !passed {
            wrong(format!("with {settings:?} it does not render: {}", printed.trim()), "see helm's message");
            continue;
        }
        for unmet in unmet(&printed, expected) {
            wrong(format!("with {settings:?}, {unmet}"), "look at charts/coterie/templates");
        }
    }
    for (setting, word) in REFUSED {
        let (passed, printed) = run(&template, &[setting])?;
        if passed || !printed.contains(word) {
            wrong(format!("{setting} is not refused by name"), "make values.schema.json stricter");
        }
    }
    Ok(findings)
}

fn unmet(rendered: &str, expected: &[&str]) -> Vec<String> {
    expected
        .iter()
        .filter_map(|expected| match expected.strip_prefix('!') {
            Some(unwanted) => rendered.contains(unwanted).then(|| format!("there is {unwanted:?}")),
            None => (!rendered.contains(expected)).then(|| format!("{expected:?} is missing")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_unwanted_is_named() {
        assert_eq!(unmet("a: 1\nb: 2\n", &["a: 1", "!c"]), [""; 0]);
        assert_eq!(unmet("a: 1\n", &["b: 2", "!a"]), ["\"b: 2\" is missing", "there is \"a\""]);
    }
}
