//! The command line and its interpretation.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use windrow_core::{Error, Limits, Result};
use windrow_sql::diagnostics::nearest;

use crate::accounts::{TokenCommand, UserCommand};
use crate::connecting::Connecting;
use crate::script::Source;
use crate::serve::Serving;
use crate::testing::Testing;
use crate::values::{Format, parse_size, seconds};

/// Streaming SQL: continuous queries over files, generators and pushed rows.
///
/// Without a command, reads statements from the terminal. Statements end with a semicolon.
#[derive(Debug, Parser)]
#[command(name = "windrow", version, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, subcommand_precedence_over_arg = true)]
#[command(after_help = "\
Examples:
  windrow                                   read statements from the terminal
  windrow run sql/quickstart.sql            run a file
  windrow -c \"SELECT 1\" --format csv        run a statement
  windrow < statements.sql                  run what comes from a pipe

Results go to stdout, everything else to stderr. Exit status: 0 success, 2 a mistake in the SQL or
the options, 3 a problem with the data, 4 a service cannot be reached, 70 a bug in Windrow, 130
interrupted. WINDROW_LOG=debug logs to stderr.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    direct: Direct,
}

/// What `windrow` does without a command.
#[derive(Debug, Args)]
struct Direct {
    /// Store everything durably in this directory or object-store prefix (s3://bucket/prefix).
    /// Without it, everything is kept in memory.
    #[arg(conflicts_with = "connect")]
    dir: Option<String>,
    /// Run these statements and exit. May be repeated.
    #[arg(short = 'c', long = "command", value_name = "SQL", allow_hyphen_values = true)]
    command_text: Vec<String>,
    /// Run the statements in this file and exit ("-" reads stdin). May be repeated.
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    connecting: Connecting,
    /// Do not run the commands of ~/.windrowrc (or $WINDROWRC) first.
    #[arg(long)]
    no_rc: bool,
    #[command(flatten)]
    common: Common,
}

/// Options with and without a command.
#[derive(Debug, Args)]
struct Common {
    /// How results are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Threads that read and aggregate (default: one per core).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Suppress progress, notices and timings: only errors go to stderr.
    #[arg(short, long)]
    quiet: bool,
    /// Store everything durably in this directory or object-store prefix (s3://bucket/prefix).
    /// Without it, everything is kept in memory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Continue even if a stream in the data directory has lost the end of its log. The missing rows
    /// are listed in windrow.lost_rows from then on.
    #[arg(long)]
    accept_lost_rows: bool,
    /// Memory limit for window state, sorts, joins and groupings, such as 256MB or 4GiB. Anything
    /// above it spills to disk (default: no limit).
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory_limit: Option<usize>,
    /// Rows of a stream or view held in memory before they are archived [default: 1048576].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    tail_rows: Option<u64>,
    /// Bytes of a stream or view held in memory before they are archived [default: 64MiB].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    tail_bytes: Option<usize>,
    /// Memory limit for the rows of each stream fed by INSERT and each view that is kept in memory
    /// only. Exceeding it is an error (default: no limit).
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    stream_limit: Option<usize>,
    /// Batches buffered between two steps of a query [default: 16].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    queue_batches: Option<u16>,
    /// Seconds between two checkpoints of a query [default: 10].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    checkpoint_interval: Option<Duration>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the statements in files, in order, and exit when their bounded queries are done.
    Run {
        /// The files ("-": stdin).
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// With --connect: return as soon as the server has accepted all statements, without waiting
        /// for its bounded views to finish.
        #[arg(long, requires = "connect")]
        detach: bool,
        #[command(flatten)]
        connecting: Connecting,
        #[command(flatten)]
        common: Common,
    },
    /// Check the statements in files without running them, and report every mistake.
    ///
    /// Objects that a file creates are known to its later statements. Sources are read only as far
    /// as needed to infer their columns; nothing is written.
    Check {
        /// The files ("-": stdin).
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
    /// Run SQL tests: files with the expected rows of their queries.
    ///
    /// The clock of a test stands still, and advances by comments "-- at 00:01:00". Streams with a
    /// connector to another system take INSERT instead, and sinks write to a temporary directory.
    Test {
        #[command(flatten)]
        testing: Testing,
        /// Print failures only.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Print shell completions.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual page.
    Man,
    /// Serve Flight SQL until SIGTERM or Ctrl-C.
    Serve {
        #[command(flatten)]
        serving: Box<Serving>,
        #[command(flatten)]
        common: Common,
    },
    /// Users of a server, in a file that `serve --users` reads.
    #[command(subcommand)]
    User(UserCommand),
    /// Tokens of a server, in a file that `serve --tokens` reads.
    #[command(subcommand)]
    Token(TokenCommand),
}

/// How to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printing {
    pub(crate) format: Format,
    pub(crate) quiet: bool,
}

/// What the command line requests.
#[derive(Debug)]
pub(crate) enum Work {
    /// Read statements from the terminal.
    Repl,
    /// Run these and exit.
    Scripts(Vec<Source>),
    /// Serve until told to stop.
    Serve(Box<Serving>),
    /// Change or list users.
    User(UserCommand),
    /// Change or list tokens.
    Token(TokenCommand),
    /// Check these.
    Check(Vec<PathBuf>),
    /// Run these tests.
    Test(Testing),
    /// Write the completions of a shell.
    Completions(Shell),
    /// Write the manual page.
    Man,
}

/// Commands that accept the options that are possible without a command.
const WITH_OPTIONS: [&str; 3] = ["run", "check", "serve"];

impl Arguments {
    /// Parses the arguments of the program. Options may precede their command: `windrow --format csv run x.sql`. Ends
    /// the process with a message when the arguments are wrong.
    pub(crate) fn read() -> Self {
        let given: Vec<OsString> = std::env::args_os().collect();
        match Self::try_parse_from(&given) {
            Ok(arguments) => arguments,
            Err(error) => Self::command_first(&given).unwrap_or_else(|| error.exit()),
        }
    }

    /// The same arguments with the command before all options, if that has a meaning.
    fn command_first(given: &[OsString]) -> Option<Self> {
        let at = given.iter().skip(2).position(|a| WITH_OPTIONS.iter().any(|c| a == c))? + 2;
        let mut moved = given.to_vec();
        moved.get_mut(1..=at)?.rotate_right(1);
        Self::try_parse_from(moved).ok()
    }

    fn common(&self) -> &Common {
        match &self.command {
            Some(
                Command::Run { common, .. }
                | Command::Serve { common, .. }
                | Command::Check { common, .. },
            ) => common,
            Some(
                Command::Test { .. }
                | Command::Completions { .. }
                | Command::Man
                | Command::User(_)
                | Command::Token(_),
            )
            | None => &self.direct.common,
        }
    }

    /// The requested data directory.
    ///
    /// # Errors
    /// When it is a file, or there is none of that name and it looks like the name of a file or a command.
    pub(crate) fn data_dir(&self) -> Result<Option<PathBuf>> {
        let Some(dir) = self.common().data_dir.as_ref().or(self.direct.dir.as_ref()) else {
            return Ok(None);
        };
        let path = PathBuf::from(dir);
        if path.is_file() {
            return Err(Error::config(format!("\"{dir}\" is a file, not a data directory"))
                .with_hint(format!("To run that file: windrow run {dir}")));
        }
        if self.direct.dir.as_ref() == Some(dir) && !path.exists() {
            check_new(dir)?;
        }
        Ok(Some(path))
    }

    /// Whether streams that have lost rows are resumed without them.
    ///
    /// # Errors
    /// When there is no data directory.
    pub(crate) fn accepts_lost_rows(&self) -> Result<bool> {
        let accepts = self.common().accept_lost_rows;
        if accepts && (self.data_dir()?.is_none() || self.connecting().is_remote()) {
            return Err(Error::config(
                "--accept-lost-rows needs a data directory, and none is named",
            )
            .with_hint("Name it: windrow DIR --accept-lost-rows."));
        }
        Ok(accepts)
    }

    /// Whether it is a server, which runs long and unattended.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self.command, Some(Command::Serve { .. }))
    }

    /// The log filter, and whether the log is JSON.
    pub(crate) fn log(&self) -> (Option<&str>, bool) {
        match &self.command {
            Some(Command::Serve { serving, .. }) => serving.log(),
            _ => (None, false),
        }
    }

    /// The limits, with those that were given.
    pub(crate) fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        if let Some(threads) = self.common().threads {
            limits.threads = usize::from(threads);
        }
        limits.memory_bytes_max = self.common().memory_limit;
        if let Some(rows) = self.common().tail_rows {
            limits.tail_rows_max = rows;
        }
        if let Some(bytes) = self.common().tail_bytes {
            limits.tail_bytes_max = bytes;
        }
        limits.stream_bytes_max = self.common().stream_limit;
        if let Some(Command::Serve { serving, .. }) = &self.command {
            limits.query_bytes_max = serving.query_memory();
        }
        if let Some(batches) = self.common().queue_batches {
            limits.queue_batches_max = usize::from(batches);
        }
        if let Some(interval) = self.common().checkpoint_interval {
            limits.checkpoint_interval = interval;
        }
        limits
    }

    /// How to print.
    pub(crate) fn printing(&self) -> Printing {
        let common = self.common();
        let quiet = matches!(self.command, Some(Command::Test { quiet: true, .. }));
        Printing { format: common.format, quiet: quiet || common.quiet }
    }

    /// The server to connect to, if any.
    pub(crate) fn connecting(&self) -> &Connecting {
        match &self.command {
            Some(Command::Run { connecting, .. }) => connecting,
            _ => &self.direct.connecting,
        }
    }

    /// Whether to return without waiting for the remaining work of a server.
    pub(crate) fn detach(&self) -> bool {
        matches!(&self.command, Some(Command::Run { detach: true, .. }))
    }

    /// Whether the user's rc file is run first.
    pub(crate) fn wants_rc(&self) -> bool {
        !self.direct.no_rc
    }

    /// The requested work; `stdin_is_terminal` tells whether the session is interactive.
    pub(crate) fn work(&self, stdin_is_terminal: bool) -> Work {
        let files = |files: &[PathBuf]| files.iter().map(|path| Source::from_path(path)).collect();
        match &self.command {
            Some(Command::Serve { serving, .. }) => Work::Serve(serving.clone()),
            Some(Command::User(command)) => Work::User(command.clone()),
            Some(Command::Token(command)) => Work::Token(command.clone()),
            Some(Command::Check { files, .. }) => Work::Check(files.clone()),
            Some(Command::Test { testing, .. }) => Work::Test(testing.clone()),
            Some(Command::Completions { shell }) => Work::Completions(*shell),
            Some(Command::Man) => Work::Man,
            Some(Command::Run { files: paths, .. }) => Work::Scripts(files(paths)),
            None => {
                let texts = self.direct.command_text.iter().cloned().map(Source::Text);
                let of_files: Vec<Source> = files(&self.direct.file);
                let sources: Vec<Source> = texts.chain(of_files).collect();
                match (sources.is_empty(), stdin_is_terminal) {
                    (false, _) => Work::Scripts(sources),
                    (true, true) => Work::Repl,
                    (true, false) => Work::Scripts(vec![Source::Stdin]),
                }
            }
        }
    }
}

/// Refuses to create a data directory where something else was probably meant.
fn check_new(dir: &str) -> Result<()> {
    let to_make = format!("To create a data directory of that name: windrow ./{dir}");
    if Path::new(dir).extension().is_some_and(|end| end.eq_ignore_ascii_case("sql"))
        && !dir.contains('/')
    {
        return Err(Error::config(format!("there is no file \"{dir}\""))
            .with_hint(format!("To run an existing file: windrow run {dir}"))
            .with_hint(to_make));
    }
    let commands = Arguments::command();
    let names = commands.get_subcommands().map(clap::Command::get_name);
    match nearest(dir, names) {
        Some(command) => Err(Error::config(format!("unknown command \"{dir}\""))
            .with_hint(format!("Did you mean \"{command}\"?"))
            .with_hint(to_make)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Work {
        Arguments::try_parse_from(line.split(' ')).unwrap().work(true)
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_to_do() {
        assert!(matches!(parse("windrow"), Work::Repl));
        let piped = Arguments::try_parse_from(["windrow"]).unwrap().work(false);
        assert!(matches!(piped, Work::Scripts(s) if matches!(s[..], [Source::Stdin])));
        let run = parse("windrow run a.sql b.sql --format csv");
        assert!(matches!(run, Work::Scripts(s) if s.len() == 2));
        let text = parse("windrow -c SELECT;");
        assert!(
            matches!(text, Work::Scripts(s) if matches!(&s[..], [Source::Text(t)] if t == "SELECT;"))
        );
    }

    #[test]
    fn formats_and_threads() {
        let arguments = Arguments::try_parse_from([
            "windrow",
            "run",
            "x.sql",
            "--format",
            "ndjson",
            "--threads",
            "3",
        ])
        .unwrap();
        assert_eq!(arguments.printing().format, Format::Ndjson);
        assert_eq!(arguments.limits().threads, 3);
        let memory = |size: &str| {
            let arguments = Arguments::try_parse_from(["windrow", "--memory-limit", size]);
            arguments.ok().and_then(|a| a.limits().memory_bytes_max)
        };
        assert_eq!(memory("256MB"), Some(256_000_000));
        assert_eq!(memory("4 GiB"), Some(4 << 30));
        for wrong in ["256", "1kB", "-1MB", "MB", "99999999999TB", "1.5GB"] {
            assert_eq!(memory(wrong), None, "{wrong}");
        }
        assert!(Arguments::try_parse_from(["windrow", "--threads", "0"]).is_err());
        assert!(Arguments::try_parse_from(["windrow", "--format", "xml"]).is_err());
    }

    #[test]
    fn servers() {
        let arguments = |line: &str| Arguments::try_parse_from(line.split(' '));
        assert!(arguments("windrow --connect grpc://h:1").unwrap().connecting().is_remote());
        let run = arguments("windrow run a.sql --connect grpc://h:1 --detach").unwrap();
        assert!(run.connecting().is_remote() && run.detach());
        for wrong in [
            "windrow --user ada",
            "windrow data --connect grpc://h:1",
            "windrow run a.sql --detach",
            "windrow --connect grpc://h:1 --tls-cert a.pem",
            "windrow --connect grpc://h:1 --user a --token-file t",
        ] {
            assert!(arguments(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn data_directories() {
        let dir = |line: &str| Arguments::try_parse_from(line.split(' ')).unwrap().data_dir();
        assert_eq!(dir("windrow").unwrap(), None);
        assert_eq!(dir("windrow data").unwrap(), Some("data".into()));
        assert_eq!(dir("windrow run a.sql --data-dir d").unwrap(), Some("d".into()));
        assert_eq!(dir("windrow s3://b/data").unwrap(), Some("s3://b/data".into()));
        let file = dir("windrow Cargo.toml").unwrap_err();
        assert_eq!(file.hints(), ["To run that file: windrow run Cargo.toml"]);
        for (line, message, hint) in [
            ("windrow nosuch.sql", "there is no file \"nosuch.sql\"", "windrow run nosuch.sql"),
            ("windrow sevre", "unknown command \"sevre\"", "Did you mean \"serve\"?"),
        ] {
            let error = dir(line).unwrap_err();
            assert_eq!(error.message(), message);
            assert!(error.hints().iter().any(|h| h.contains(hint)), "{error:?}");
            assert!(error.hints().iter().any(|h| h.contains("windrow ./")), "{error:?}");
        }
        assert_eq!(dir("windrow ./sevre").unwrap(), Some("./sevre".into()));
        assert_eq!(dir("windrow ./x.sql").unwrap(), Some("./x.sql".into()));
    }

    #[test]
    fn options_may_stand_before_their_command() {
        let first = |line: &str| {
            let given: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            Arguments::command_first(&given)
        };
        let run = first("windrow --format csv --threads 2 run x.sql --quiet").unwrap();
        assert_eq!((run.printing().format, run.limits().threads), (Format::Csv, 2));
        assert!(matches!(run.work(true), Work::Scripts(s) if s.len() == 1));
        assert!(first("windrow --format csv x.sql").is_none());
        assert!(first("windrow --nonsense run x.sql").is_none());
        let comment = Arguments::try_parse_from(["windrow", "-c", "-- one\nSELECT 1"]).unwrap();
        assert!(matches!(comment.work(true), Work::Scripts(s) if s.len() == 1));
    }
}
