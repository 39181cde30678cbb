//! The `windrow` command: a thin client of [`windrow_runtime::Engine`].
//!
//! Results go to stdout, everything else (progress, notices, errors) to stderr. The exit status
//! is 0, or [`ErrorKind::exit_code`](windrow_core::ErrorKind::exit_code) of what went wrong; a
//! reader of stdout that goes away early is no error.
#![forbid(unsafe_code)]

mod arguments;
mod completion;
mod failure;
mod interrupt;
mod output;
mod progress;
mod repl;
mod script;
mod serve;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use windrow_core::{Error, Result};
use windrow_runtime::{Engine, EngineConfig, Recovery};

use crate::arguments::{Arguments, Work};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::script::{Runner, Script};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log();
    match work(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Does what the arguments ask for.
fn work(arguments: &Arguments) -> Result<(), Failure> {
    let work = arguments.work(std::io::stdin().is_terminal())?;
    let is_repl = matches!(work, Work::Repl);
    let interrupts = Interrupts::listen(is_repl)?;
    let (limits, data_dir) = (arguments.limits(), arguments.data_dir()?);
    let engine = Engine::open(EngineConfig {
        limits,
        data_dir: data_dir.clone(),
        ..EngineConfig::default()
    })?;
    if !arguments.printing().quiet {
        tell(&engine.recovery());
    }
    // Everything heavy happens on the engine's own threads; this one waits and prints.
    let waiting = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|e| Error::internal(format!("cannot wait for results: {e}")).with_source(e))?;
    let mut runner = Runner::new(&engine, Arc::clone(&interrupts), arguments.printing(), is_repl)?;
    let done = match work {
        Work::Repl => repl::run(&waiting, &engine, &mut runner, data_dir.as_deref()),
        Work::Serve(serving) => serve::run(&engine, &serving, &interrupts),
        Work::Scripts(sources) => waiting.block_on(async {
            for source in sources {
                runner.run(&Script::read(source)?).await?;
            }
            runner.finish().await
        }),
    };
    // What went wrong first is what is told.
    let closed = waiting.block_on(engine.close());
    done.and(closed.map_err(Failure::from))
}

/// What was found in the data directory.
#[expect(clippy::print_stderr, reason = "notices go to stderr")]
fn tell(recovery: &Recovery) {
    recovery.notices.iter().for_each(|notice| eprintln!("notice: {notice}"));
    let views = |n| if n == 1 { "1 view".to_owned() } else { format!("{n} views") };
    if recovery.resumed > 0 {
        eprintln!("notice: {} resumed from checkpoints", views(recovery.resumed));
    }
    if recovery.again > 0 {
        eprintln!("notice: {} worked out again from streams", views(recovery.again));
    }
}

/// Sends the log to stderr: warnings, or what `WINDROW_LOG` asks for.
fn start_log() {
    use tracing_subscriber::filter::EnvFilter;
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match std::env::var("WINDROW_LOG") {
        Ok(filter) => log.with_env_filter(EnvFilter::new(filter)).init(),
        // Whatever the Delta library finds wrong, its caller says with the name of the file.
        Err(_) => log
            .with_env_filter(EnvFilter::new("warn,buoyant_kernel=off,buoyant_kernel_engine=off"))
            .init(),
    }
}
