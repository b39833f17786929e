//! One rank: loads a model, serves the OpenAI API. And the front door before all ranks.
//!
//! `serve` is the life of the process: it listens at once, loads the model on the engine's own thread, proves that
//! the model generates, serves, drains. A request goes `server` → `tokenizer`, `chat_template` → `engine_thread` →
//! `generation` (tokens to text) → `server`. Nothing outside `server` knows OpenAI's JSON. `route` is a process of its
//! own: the front door, which passes requests on to ranks.

pub mod answer_text;
pub mod bench;
pub mod chat_output;
pub mod chat_template;
pub mod config;
pub mod content_stops;
pub mod conversation;
pub mod cubins;
pub mod detokenizer;
pub mod engine_thread;
pub mod exchange;
pub mod generation;
pub mod grammar;
pub mod inspect;
pub mod log;
pub mod machine;
pub mod metrics;
pub mod model_dir;
#[cfg(test)]
#[path = "../tests/http/model.rs"]
#[allow(dead_code)]
mod model_folder;
pub mod readiness;
pub mod reasoning;
pub mod route;
pub mod self_test;
pub mod serve;
pub mod served_model;
pub mod server;
pub mod signals;
pub mod stop_strings;
pub mod tag_finder;
pub mod telemetry;
pub mod termination;
pub mod tokenizer;
pub mod tool_calls;

use clap::Parser;
use config::{Cli, Command};
use coterie_api::launch::{Termination, TerminationReason};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs one command line, the program's name first, to its end.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(usage) => return refuse_usage(&usage, &args),
    };
    log::start(cli.log_format);
    let (result, termination_log) = match cli.command {
        Command::Serve(args) => (serve::run(&args), args.termination_log),
        Command::Route(args) => (route::run(&args), args.termination_log),
        Command::Bench(args) => (bench::run(&args), args.termination_log),
        Command::Inspect(args) => (inspect::run(&args), args.termination_log),
        // Whoever asks sees the end of the process; nobody reads what it would say.
        Command::RenderTemplate => {
            return chat_template::run_renderer().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
        }
    };
    match result {
        Ok(code) => code,
        Err(failure) => termination::report(&failure, &termination_log),
    }
}

/// `--help` and `--version` go to stdout and succeed; a wrong command line is a refused launch.
fn refuse_usage(usage: &clap::Error, args: &[OsString]) -> ExitCode {
    if !usage.use_stderr() {
        print!("{usage}");
        return ExitCode::SUCCESS;
    }
    let message =
        format!("the command line is wrong: {}", usage.to_string().trim_start_matches("error: ").trim());
    termination::report(
        &Termination { reason: TerminationReason::LaunchRejected, message },
        &termination_log_named_in(args),
    )
}

/// Where the message goes when the command line could not be parsed as a whole.
fn termination_log_named_in(args: &[OsString]) -> PathBuf {
    let after = args.iter().skip_while(|arg| *arg != "--termination-log").nth(1);
    after.map_or_else(|| Path::new(coterie_api::launch::TERMINATION_LOG).to_owned(), PathBuf::from)
}
