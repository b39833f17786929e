//! `cargo xtask test`: every test of the project, from a bare machine on.

mod tally;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::kube::{Kube, SYSTEM, chart};
use crate::product::{self, Product};
use crate::step::{seconds, step};
use crate::{apt, cache, check, cluster, go, gpu, model, python};
use tally::Tally;

/// Name of the embedded cluster that the end-to-end tests run on.
const CLUSTER: &str = "test";

/// Which tests to run.
#[derive(Debug, Default)]
pub struct Options {
    /// Every case of the matrices of failures, not only those that differ most, and the day's traffic.
    pub long: bool,
    /// Only the end-to-end tests with one of these in their names; all of them, if there is none.
    pub end_to_end: Option<Vec<String>>,
}

/// Runs the checks, then the tests of every crate, then the end-to-end tests on the embedded cluster. Goes on after
/// a failed part, so that one run shows all that is wrong, and fails at the end.
pub fn run(options: &Options) -> Result<()> {
    let started = Instant::now();
    let mut tally = Tally::default();

    heading("Kubernetes");
    let binaries = go::binaries()?;
    if options.end_to_end.is_none() {
        crates(&binaries, options, &mut tally)?;
    }
    heading("End to end");
    let product = Product::build()?;
    let cluster = cluster::up(&cluster::Options { name: CLUSTER.into(), nodes: 3 })?;
    let result = end_to_end(&cluster, &binaries, &product, options, &mut tally);
    tally.part("end to end", result);
    if tally.has_failed() {
        report(&Kube::new(&binaries, cluster.kubeconfig(), None));
    }
    tally.part("cluster down", cluster.down());

    heading(&format!("All of it took {}", seconds(started.elapsed())));
    tally.print();
    if tally.has_failed() {
        bail!("not everything passed");
    }
    Ok(())
}

/// All that needs no cluster.
fn crates(binaries: &go::Binaries, options: &Options, tally: &mut Tally) -> Result<()> {
    heading("Checks");
    tally.part("check", check::run());
    heading("Tests of the crates");
    // CUDA kernels are compiled for the CPU, too.
    apt::ensure(&["g++"])?;
    let mut cargo = product::cargo()?;
    // Always the whole workspace: with other packages selected, cargo would build most crates again. The end-to-end
    // tests are no default target.
    cargo.args(["test", "--release", "--locked", "--no-fail-fast", "--workspace"]);
    cargo.env("COTERIE_KUBE_BIN", search_path(&[&binaries.etcd, &binaries.kube_apiserver, &binaries.helm])?);
    if options.long {
        cargo.env("COTERIE_LONG", "1");
    }
    tally.cargo_test("crates", &mut cargo)?;

    heading("CUDA kernels for every architecture");
    cubins(tally)?;

    heading("The talking model beside its reference");
    let mut cargo = product::cargo()?;
    cargo.args(["test", "--release", "--locked", "--workspace", "--test", "talking", "--", "--ignored"]);
    cargo.env("COTERIE_TALKING_MODEL", model::cached()?);
    tally.cargo_test("talking model", &mut cargo)?;

    heading("The API beside its document and others' clients");
    clients(tally)
}

/// Compiles the kernels to machine code, which takes no GPU.
fn cubins(tally: &mut Tally) -> Result<()> {
    match gpu::nvrtc()? {
        Some(nvrtc) => tally.cargo_test("cubins", &mut gpu::compile(&nvrtc)?),
        None => {
            tally.skip(
                "cubins",
                "NVRTC, the Python package in kernels/cu/requirements.txt, cannot be fetched",
            );
            Ok(())
        }
    }
}

/// The tests that drive `coterie serve` with programs that others wrote.
fn clients(tally: &mut Tally) -> Result<()> {
    let requirements = cache::checkout().join("tests/clients/requirements.txt");
    let Some(interpreter) = python::environment("clients", &requirements)? else {
        tally.skip("clients", "the Python packages in tests/clients/requirements.txt cannot be fetched");
        return Ok(());
    };
    let mut cargo = product::cargo()?;
    cargo.args(["test", "--release", "--locked", "--workspace", "--test", "process", "clients", "--"]);
    cargo.args(["--ignored", "--nocapture", "--test-threads=1"]);
    cargo.env("COTERIE_CLIENTS_PYTHON", interpreter).env("COTERIE_TALKING_MODEL", model::cached()?);
    tally.cargo_test("clients", &mut cargo)
}

fn end_to_end(
    cluster: &cluster::Cluster,
    binaries: &go::Binaries,
    product: &Product,
    options: &Options,
    tally: &mut Tally,
) -> Result<()> {
    cluster.import(&product.images())?;
    let kube = Kube::new(binaries, cluster.kubeconfig(), None);
    step("helm install coterie charts/coterie", || {
        // Short enough that both happen while a test looks.
        let values = ["experts.windowSeconds=20", "exchange.certificateSeconds=90"];
        let (operator, runtime) = (&*product.operator.name, &*product.runtime.name);
        // On GPUs the same program, which has no machine code for them with it; there is no GPU either.
        let images = [("operator", operator), ("runtime", runtime), ("gpuRuntime", runtime)];
        kube.install_chart(&images, &values)
    })?;
    let e2e = ["test", "--release", "--locked", "--workspace", "--test", "e2e"];
    product::shown("cargo test --no-run: e2e", product::cargo()?.args(e2e).arg("--no-run"))?;
    let mut cargo = product::cargo()?;
    cargo.args(e2e).args(["--offline", "--", "--test-threads=1", "--nocapture"]);
    cargo.args(options.end_to_end.iter().flatten());
    if options.long {
        cargo.arg("--include-ignored");
    }
    // Inside the cluster's network, where Services have their addresses.
    cluster.enter(&mut cargo)?;
    let tools = search_path(&[&binaries.kubectl, &binaries.helm])?;
    let path = std::env::var("PATH").context("PATH is not set")?;
    cargo.env("PATH", format!("{tools}:{path}")).env("COTERIE_CHART", chart());
    cargo.env("COTERIE_KUBELETS", cluster.kubelets()?);
    tally.cargo_test("e2e", &mut cargo)
}

/// What a person would look at first after a failure.
fn report(kube: &Kube) {
    for args in [
        &["get", "pods,mdep", "-A", "-o", "wide"][..],
        &["get", "events", "-A", "--sort-by=.lastTimestamp"],
        &["describe", "mdep", "-A"],
        &["logs", "-n", SYSTEM, "-l", "app.kubernetes.io/name=coterie", "--tail", "200"],
    ] {
        heading(&format!("kubectl {}", args.join(" ")));
        match kube.kubectl(args) {
            Ok(text) => println!("{text}"),
            Err(error) => println!("{error:#}"),
        }
    }
}

/// The folders that these programs are in, as a search path.
fn search_path(programs: &[&Path]) -> Result<String> {
    let folders = programs.iter().filter_map(|program| program.parent());
    let joined = std::env::join_paths(folders)?;
    joined.into_string().ok().context("the cache folder's path is not UTF-8")
}

fn heading(text: &str) {
    println!("\n== {text}");
}
