//! `cargo xtask cluster …`

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;

use super::place::Place;
use super::{Cluster, Options, kept};
use crate::cmd;

/// What `cargo xtask cluster` without more prints.
pub const USAGE: &str = "\
usage: cargo xtask cluster COMMAND [--name NAME]
  up [--nodes N]        start it (2 nodes; 0: control plane only), or say that it runs
  down [--purge]        end it and keep each node's images, so that the next start is fast; --purge: keep nothing
  list                  every cluster: what it keeps on disk, and whether it runs
  env                   print what a shell evaluates to use it: eval \"$(cargo xtask cluster env)\"
  kubectl -- ARGS       run kubectl on it
  exec -- COMMAND       run a command inside its network, where pods and Services have their addresses
  import IMAGE.tar      load an image into every node
  forward IP:PORT       print a port on 127.0.0.1 that leads to an address inside the cluster";

/// Runs the subcommand whose words are left in `parser`.
pub fn run(mut parser: lexopt::Parser) -> Result<()> {
    let mut options = Options::default();
    let mut words: Vec<String> = Vec::new();
    let mut purge = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("name") => options.name = parser.value()?.string()?,
            Long("nodes") => options.nodes = parser.value()?.parse()?,
            Long("purge") => purge = true,
            Long("help") | Short('h') => words = vec!["help".into()],
            // From here on the words are another program's.
            Value(first) if matches!(words.as_slice(), [word] if word == "kubectl" || word == "exec") => {
                let args = std::iter::once(first).chain(parser.raw_args()?).collect();
                return Err(become_command(&words[0], args, &options.name));
            }
            Value(word) => words.push(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["down"] => down(&options.name, purge),
        _ if purge => bail!("--purge goes with `down`\n{USAGE}"),
        ["up"] => super::up(&options).map(drop),
        ["list"] => {
            kept::list()?.iter().for_each(|cluster| println!("{cluster}"));
            Ok(())
        }
        ["env"] => print_env(&running(&options.name)?),
        ["import", tar] => running(&options.name)?.import_tar(Path::new(tar)),
        ["forward", target] => {
            let target: SocketAddr = target.parse().with_context(|| format!("`{target}` is not IP:PORT"))?;
            println!("{}", running(&options.name)?.forward(target)?);
            Ok(())
        }
        ["help"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("{USAGE}"),
    }
}

fn down(name: &str, purge: bool) -> Result<()> {
    if purge {
        let freed = kept::readable(super::purge(name)?);
        eprintln!("  {freed} are free again; the next start loads the images anew");
        return Ok(());
    }
    super::down(name)?;
    let place = Place::open(name)?;
    let kept = kept::readable(kept::size(&place.keep)?);
    eprintln!(
        "  {kept} are kept in {}, for a fast start; `cluster down --purge` removes them",
        place.keep.display()
    );
    Ok(())
}

fn running(name: &str) -> Result<Cluster> {
    super::running(name)?.with_context(|| {
        format!("the cluster `{name}` is not running; start it with `cargo xtask cluster up`")
    })
}

/// Becomes kubectl, or any command inside the cluster's network; returns only if that failed.
fn become_command(how: &str, args: Vec<OsString>, name: &str) -> anyhow::Error {
    let prepare = || {
        let cluster = running(name)?;
        let mut args = args.into_iter();
        let mut command = if how == "kubectl" {
            let mut command = Command::new(cluster.kubectl_path());
            command.env("KUBECONFIG", cluster.kubeconfig());
            command
        } else {
            let mut command = Command::new(args.next().context(USAGE)?);
            cluster.enter(&mut command)?;
            command
        };
        command.args(args);
        Ok(command)
    };
    match prepare() {
        Ok(mut command) => {
            anyhow::Error::new(command.exec()).context(format!("cannot start `{}`", cmd::line(&command)))
        }
        Err(error) => error,
    }
}

fn print_env(cluster: &Cluster) -> Result<()> {
    println!("export KUBECONFIG={}", quoted(&cluster.kubeconfig().display().to_string()));
    println!("export PATH={}:\"$PATH\"", quoted(&cluster.programs()?.display().to_string()));
    Ok(())
}

/// A word as a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_survive_the_shell() {
        let path = "/tmp/it's $HOME";
        let script = format!("printf %s {}", quoted(path));
        assert_eq!(cmd::output(Command::new("sh").args(["-c", &script])).unwrap(), path);
    }
}
