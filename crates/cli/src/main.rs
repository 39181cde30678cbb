//! The `windrow` command: a thin client of [`windrow_engine::Engine`]. Flags, prompts, rendering and exit codes belong
//! here; what SQL can express must not be decided here, since clients of a server would not have it.
//!
//! Results go to stdout, everything else (progress, notices, errors) to stderr. The exit status is 0, or
//! [`ErrorKind::exit_code`](windrow_core::ErrorKind::exit_code) of the error; a reader that closes stdout early is not
//! an error.
#![forbid(unsafe_code)]

mod accounts;
mod arguments;
mod chart;
mod check;
mod clock;
mod command;
mod connecting;
mod connection;
mod definition;
mod failure;
mod interrupt;
mod output;
mod panics;
mod progress;
mod rc;
mod repl;
mod runner;
mod script;
mod serve;
mod style;
mod syntax;
mod testing;
mod values;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::runtime::Runtime;
use windrow_core::{Error, Result};
use windrow_engine::{Engine, EngineConfig, Recovery};

use crate::arguments::{Arguments, Work};
use crate::connection::Connection;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::runner::{Flow, Runner};
use crate::script::{Script, Source};

#[global_allocator]
static ALLOCATOR: windrow_metered::Metered<mimalloc::MiMalloc> =
    windrow_metered::Metered(mimalloc::MiMalloc);

fn main() -> ExitCode {
    let arguments = Arguments::read();
    start_log(&arguments);
    panics::to_log();
    match work(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Performs the requested work.
fn work(arguments: &Arguments) -> Result<(), Failure> {
    let work = arguments.work(std::io::stdin().is_terminal());
    match &work {
        Work::Completions(shell) => return definition::completions(*shell),
        Work::Man => return definition::man(),
        Work::User(command) => return command.run(),
        Work::Token(command) => return command.run(),
        Work::Test(testing) => return testing.run(&waiting()?, arguments.printing().quiet),
        Work::Repl | Work::Scripts(_) | Work::Serve(_) | Work::Check(_) => {}
    }
    let interrupts = Interrupts::listen()?;
    let accept_lost_rows = arguments.accepts_lost_rows()?;
    if arguments.connecting().is_remote() {
        return remote(arguments, work, &interrupts);
    }
    let plan_only = matches!(work, Work::Check(_));
    let (limits, mut data_dir) = (arguments.limits(), arguments.data_dir()?);
    if plan_only {
        // A check needs no data directory.
        data_dir = None;
    }
    let files = match &work {
        Work::Serve(serving) => Some(serving.files(data_dir.as_deref())?),
        _ => None,
    };
    let engine = Engine::open(EngineConfig {
        limits,
        data_dir: data_dir.clone(),
        files,
        plan_only,
        accept_lost_rows,
        give_back: Some(windrow_metered::give_back),
        ..EngineConfig::default()
    })?;
    if !arguments.printing().quiet {
        tell(&engine.recovery());
    }
    // All heavy work happens on the engine's own threads; this one waits and prints.
    let waiting = waiting()?;
    let done = match work {
        Work::Serve(serving) => serve::run(&engine, &serving, &interrupts),
        Work::Check(files) => {
            waiting.block_on(check::run(&engine, &files, arguments.printing().quiet))
        }
        work => {
            let is_in_memory = data_dir.is_none();
            let kept = data_dir.map_or("in memory".to_owned(), |d| format!("in {}", d.display()));
            let place = format!("everything is kept {kept}");
            let connection =
                Connection::embedded(&engine, matches!(work, Work::Repl), is_in_memory)?;
            statements(arguments, work, connection, &interrupts, &waiting, &place)
        }
    };
    // The first error is the one reported.
    let closed = waiting.block_on(engine.close());
    done.and(closed.map_err(Failure::from))
}

/// Returns the runtime of the thread that waits and prints.
fn waiting() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|e| Error::internal(format!("cannot wait for results: {e}")).with_source(e))
}

/// Performs the requested work on a server.
fn remote(arguments: &Arguments, work: Work, interrupts: &Arc<Interrupts>) -> Result<(), Failure> {
    // A separate thread keeps the connection alive while the user is typing.
    let waiting = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("connection")
        .enable_all()
        .build()
        .map_err(|e| Error::internal(format!("cannot wait for results: {e}")).with_source(e))?;
    let client = waiting.block_on(arguments.connecting().connect())?;
    let place = format!("connected to {}", client.target());
    let connection = Connection::Remote(client);
    statements(arguments, work, connection, interrupts, &waiting, &place)
}

/// Runs statements, from scripts or from the terminal. `place` describes the target, for people.
fn statements(
    arguments: &Arguments,
    work: Work,
    connection: Connection,
    interrupts: &Arc<Interrupts>,
    waiting: &Runtime,
    place: &str,
) -> Result<(), Failure> {
    let is_repl = matches!(work, Work::Repl);
    let printing = arguments.printing();
    let mut runner = Runner::new(connection, Arc::clone(interrupts), printing, is_repl);
    match work {
        Work::Scripts(sources) => {
            waiting.block_on(run_scripts(&mut runner, sources, arguments.detach()))
        }
        Work::Repl
            if arguments.wants_rc() && waiting.block_on(rc::run(&mut runner)) == Flow::Leave =>
        {
            Ok(())
        }
        Work::Repl => repl::run(waiting, &mut runner, place),
        Work::Serve(_)
        | Work::Check(_)
        | Work::Test(_)
        | Work::Completions(_)
        | Work::Man
        | Work::User(_)
        | Work::Token(_) => Ok(()),
    }
}

/// Runs scripts one after the other, and waits for what they have started.
async fn run_scripts(
    runner: &mut Runner,
    sources: Vec<Source>,
    detach: bool,
) -> Result<(), Failure> {
    for source in sources {
        if runner.run(&Script::read(source)?).await? != Flow::On {
            break;
        }
    }
    if detach { Ok(()) } else { runner.finish().await }
}

/// Reports what was found in the data directory.
#[expect(clippy::print_stderr, reason = "notices go to stderr")]
fn tell(recovery: &Recovery) {
    recovery.notices.iter().for_each(|notice| eprintln!("notice: {notice}"));
    let views = |n| if n == 1 { "1 view".to_owned() } else { format!("{n} views") };
    if recovery.resumed > 0 {
        eprintln!("notice: {} resumed from checkpoints", views(recovery.resumed));
    }
    if recovery.recomputed > 0 {
        eprintln!("notice: {} recomputed from streams", views(recovery.recomputed));
    }
}

/// The caller reports what the Delta library finds wrong, with the name of the file; the library of models warns of versions of files
/// that work.
const NOT_OURS: &str = "buoyant_kernel=off,buoyant_kernel_engine=off,tract_onnx=error";

/// Sends the log to stderr: filtered by `--log-level` or `WINDROW_LOG`; by default warnings, and in a server the
/// outcome of each statement.
fn start_log(arguments: &Arguments) {
    use tracing_subscriber::filter::EnvFilter;
    let (level, json) = arguments.log();
    let wanted = level.map(str::to_owned).or_else(|| std::env::var("WINDROW_LOG").ok());
    // At a terminal, a failed view is reported by a notice.
    let usual = if arguments.is_server() {
        "warn,windrow_stream=info,windrow_query=info,windrow_engine=info"
    } else {
        "warn,windrow_failures=off"
    };
    let filter = wanted.unwrap_or_else(|| format!("{usual},{NOT_OURS}"));
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(EnvFilter::new(filter));
    if json { log.json().flatten_event(true).init() } else { log.init() }
}
