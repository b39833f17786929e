//! `cargo xtask demo`: from nothing to a chat answer of a real model on a real Kubernetes.

mod chat;
mod context;
mod watch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::kube::Kube;
use crate::product::Product;
use crate::step::{seconds, step};
use crate::{cache, cluster, go};

/// How `cargo xtask demo` was called.
#[derive(Debug, Default, PartialEq)]
pub struct Options {
    /// Leave the embedded cluster running.
    pub keep: bool,
    /// A context of the user's kubeconfig to use in place of the embedded cluster.
    pub context: Option<String>,
    /// Where images are pushed for a cluster that cannot be given them directly.
    pub registry: Option<String>,
}

/// Name of the embedded cluster that the demo starts.
const CLUSTER: &str = "demo";
const DEPLOYMENT: &str = "smol-moe";
/// The port of a ModelDeployment's Service.
const SERVICE_PORT: u16 = 80;
const QUESTION: &str = "What is the capital of France?";

/// Runs the whole demo; succeeds only if every part of it worked.
pub fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    match &options.context {
        Some(name) => {
            let binaries = go::binaries()?;
            let kube = Kube::of_context(&binaries, name)?;
            let product = Product::build()?;
            let names = context::deliver(&kube, name, &product, options.registry.as_deref())?;
            deploy_and_chat(&kube, &names)?;
        }
        None => embedded(options)?,
    }
    eprintln!("\nDone in {}.", seconds(started.elapsed()));
    Ok(())
}

fn embedded(options: &Options) -> Result<()> {
    eprintln!("Preparing (kept in {}):", cache::root()?.display());
    let binaries = go::binaries()?;
    let product = Product::build()?;
    eprintln!("Starting Kubernetes {}:", binaries.kubernetes_version);
    let cluster = cluster::up(&cluster::Options { name: CLUSTER.into(), nodes: 2 })?;
    let result = chat_on(&cluster, &binaries, &product);
    if options.keep {
        println!("\nThe cluster is still running. To use it:\n");
        println!("  eval \"$(cargo xtask cluster env --name {CLUSTER})\"");
        print_next();
        println!("  cargo xtask cluster down --name {CLUSTER}        # when you are done");
    } else {
        cluster.down()?;
        if result.is_ok() {
            println!("\nThe cluster was taken down. `cargo xtask demo --keep` leaves it running, to try:\n");
            print_next();
        }
    }
    result
}

fn chat_on(cluster: &cluster::Cluster, binaries: &go::Binaries, product: &Product) -> Result<()> {
    cluster.import(&product.images())?;
    let kube = Kube::new(binaries, cluster.kubeconfig(), None);
    deploy_and_chat(&kube, &Names::local(product))
}

/// Where the cluster finds the images.
pub struct Names {
    /// The operator's image.
    pub operator: String,
    /// The runtime's image.
    pub runtime: String,
    /// The weights' image.
    pub model: String,
}

impl Names {
    /// As they were built: right where they lie on the nodes.
    pub fn local(product: &Product) -> Names {
        Names {
            operator: product.operator.name.clone(),
            runtime: product.runtime.name.clone(),
            model: product.model.name.clone(),
        }
    }
}

fn deploy_and_chat(kube: &Kube, images: &Names) -> Result<()> {
    eprintln!("Deploying:");
    step("helm install coterie charts/coterie", || {
        kube.install_chart(&[("operator", &images.operator), ("runtime", &images.runtime)], &[])
    })?;
    let applied = Instant::now();
    step(format!("kubectl apply -f examples/{DEPLOYMENT}.yaml"), || {
        let example = cache::checkout().join(format!("examples/{DEPLOYMENT}.yaml"));
        kube.apply(&with_image(&example, &images.model)?)
    })?;
    watch::until_ready(kube, DEPLOYMENT, applied, Duration::from_secs(300))?;

    println!("\n> {QUESTION}");
    let forward = kube.port_forward(&format!("service/{DEPLOYMENT}"), SERVICE_PORT)?;
    let answer = chat::ask(forward.port, DEPLOYMENT, QUESTION)?;
    drop(forward);
    println!(
        "({} tokens, first after {}, {:.0} tokens/s)\n",
        answer.tokens,
        seconds(answer.first),
        answer.rate()
    );
    ensure!(answer.text.contains("Paris"), "that is not a sensible answer: the demo failed");

    println!("$ kubectl get mdep -o wide");
    print!("{}", kube.kubectl(&["get", "mdep", "-o", "wide"])?);
    Ok(())
}

/// The example with its image reference replaced, where the image has another name in the cluster.
fn with_image(example: &PathBuf, image: &str) -> Result<String> {
    let text =
        std::fs::read_to_string(example).with_context(|| format!("cannot read {}", example.display()))?;
    ensure!(
        text.contains(crate::product::MODEL_IMAGE),
        "{} does not name the model image",
        example.display()
    );
    Ok(text.replace(crate::product::MODEL_IMAGE, image))
}

fn print_next() {
    for (command, what) in [
        (format!("kubectl describe mdep {DEPLOYMENT}"), "conditions, capacity, events"),
        (format!("kubectl scale mdep {DEPLOYMENT} --replicas 2"), "a second replica"),
        (format!("kubectl port-forward service/{DEPLOYMENT} 8080:80"), "then talk to localhost:8080/v1"),
        ("kubectl logs -n coterie-system deploy/coterie-operator".to_owned(), "what the operator did"),
    ] {
        println!("  {command:<56} # {what}");
    }
}
