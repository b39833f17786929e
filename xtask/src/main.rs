//! `cargo xtask`: demo, test, soak, gpu, check, cluster, model.

mod apt;
mod cache;
mod check;
mod cluster;
mod cmd;
mod demo;
mod go;
mod gpu;
mod image;
mod kube;
mod model;
mod product;
mod python;
mod soak;
mod step;
mod target;
mod test;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;

const USAGE: &str = "\
usage: cargo xtask COMMAND
  demo [--keep] [--context NAME [--registry HOST/PATH]]   from nothing to a chat answer on a real Kubernetes
  test [--long]           every test of the project; --long: with every case of the failures' matrices, and a day's traffic end to end
  test --e2e [NAME…]      only the end-to-end tests, or those of them with NAME in theirs
  soak [--minutes 10]     a rank among random clients: nothing may be left behind
  gpu                     check and measure the CUDA kernels and the engine on this machine's GPU; writes docs/bench/gpu.md
  gpu --pack FOLDER       make a folder whose program `run` does so on a machine without cargo and network
  check                   format, clippy, generated files, architecture rules: fast, before every commit
  generate                write the generated files
  model DIR               write the talking model as a HuggingFace folder
  image NAME PATH         make an image of a binary or of a folder of weights; prints the OCI tar's path
  cluster …               the embedded cluster: up, down, list, env, kubectl, exec, import, forward (cluster --help)";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut parser = lexopt::Parser::from_env();
    let command = match parser.next()? {
        Some(Value(command)) => command.string()?,
        Some(Long("help") | Short('h')) => "help".into(),
        Some(other) => return Err(other.unexpected().into()),
        None => bail!("{USAGE}"),
    };
    match command.as_str() {
        "demo" => demo::run(&demo_options(parser)?),
        "test" => test::run(&test_options(parser)?),
        "soak" => soak::run(soak_time(parser)?),
        "gpu" => gpu::run(&gpu_task(parser)?),
        "check" => words::<0>(parser).and_then(|[]| check::run()),
        "generate" => words::<0>(parser).and_then(|[]| check::generate()),
        "model" => words(parser).and_then(|[folder]| model::write(Path::new(&folder))),
        "image" => words(parser).and_then(|[name, path]| make_image(&name, Path::new(&path))),
        "cluster" => cluster::cli::run(parser),
        cluster::forward::SUBCOMMAND => {
            let fd = parser.value()?.parse()?;
            let target = parser.value()?.string()?;
            cluster::forward::serve(fd, target.parse().with_context(|| format!("`{target}` is not IP:PORT"))?)
        }
        "help" => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("`{other}` is no command\n{USAGE}"),
    }
}

fn demo_options(mut parser: lexopt::Parser) -> Result<demo::Options> {
    let mut options = demo::Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("keep") => options.keep = true,
            Long("context") => options.context = Some(parser.value()?.string()?),
            Long("registry") => options.registry = Some(parser.value()?.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(options)
}

fn test_options(mut parser: lexopt::Parser) -> Result<test::Options> {
    let mut options = test::Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("long") => options.long = true,
            Long("e2e") => options.end_to_end = Some(Vec::new()),
            Value(name) if options.end_to_end.is_some() => {
                options.end_to_end.get_or_insert_default().push(name.string()?);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(options)
}

fn gpu_task(mut parser: lexopt::Parser) -> Result<gpu::Task> {
    let mut task = gpu::Task::Here;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("pack") => task = gpu::Task::Pack(parser.value()?.into()),
            Long("report") => task = gpu::Task::Report(parser.value()?.into(), parser.value()?.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(task)
}

fn soak_time(mut parser: lexopt::Parser) -> Result<Duration> {
    let mut minutes = 10;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("minutes") => minutes = parser.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Duration::from_mins(minutes))
}

fn make_image(name: &str, path: &Path) -> Result<()> {
    let made = if path.is_dir() {
        image::from_folder(name, path)?
    } else {
        let Some(program) = path.file_name().and_then(|program| program.to_str()) else {
            bail!("{} is neither a binary nor a folder", path.display());
        };
        image::from_binary(name, path, &format!("/usr/local/bin/{program}"))?
    };
    eprintln!("  {} is {}", made.name, made.digest);
    println!("{}", made.tar.display());
    Ok(())
}

/// Exactly `N` words, no options.
fn words<const N: usize>(mut parser: lexopt::Parser) -> Result<[String; N]> {
    let mut words = Vec::new();
    while let Some(arg) = parser.next()? {
        match arg {
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    match words.try_into() {
        Ok(words) => Ok(words),
        Err(_) => bail!("{USAGE}"),
    }
}
