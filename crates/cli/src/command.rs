//! Backslash commands, which may appear beside SQL, in a file or at the prompt, on a line of their own.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use windrow_core::{Error, Result};
use windrow_sql::diagnostics::nearest;

use crate::values::Format;

/// All commands: name, arguments, description. Help, completion and near matches come from this list.
pub(crate) const COMMANDS: &[(&str, &str, &str)] = &[
    ("\\?", "", "this help"),
    ("\\!", "[command]", "run a command of the shell, or a shell"),
    ("\\chart", "[column]", "draw the last result as a chart"),
    ("\\d", "[name]", "list objects, or the columns of one"),
    ("\\df", "", "list functions"),
    ("\\dm", "", "list materialized views"),
    ("\\dn", "", "list schemas"),
    ("\\ds", "", "list streams"),
    ("\\dt", "", "list streams, views and tables"),
    ("\\dv", "", "list views"),
    ("\\e", "", "edit the last statement in $VISUAL or $EDITOR"),
    ("\\format", "[table|csv|ndjson]", "how results are written"),
    ("\\g", "", "run the statement so far, or repeat the last one"),
    ("\\gx", "", "the same, one line per value"),
    ("\\h", "[statement]", "show the syntax of a statement"),
    ("\\i", "file", "run the statements of a file"),
    ("\\l", "", "list databases"),
    ("\\o", "[file]", "write results to a file, or to the terminal again"),
    ("\\pset", "[null text | pager on|off | rows n|all]", "how results are shown"),
    ("\\q", "", "leave (as do exit, quit and Ctrl-D)"),
    ("\\r", "", "clear the statement so far (as does Ctrl-C)"),
    ("\\schema", "[name]", "show definitions"),
    ("\\timing", "[on|off]", "show how long each statement took"),
    ("\\watch", "[seconds]", "run the last statement repeatedly, until Ctrl-C"),
    ("\\x", "[on|off|auto]", "one line per value; auto: where a table does not fit"),
];

/// Other names of commands.
const ALIASES: &[(&str, &str)] = &[
    (".quit", "\\q"),
    (".exit", "\\q"),
    ("exit", "\\q"),
    ("quit", "\\q"),
    ("\\quit", "\\q"),
    (".help", "\\?"),
    ("help", "\\?"),
    ("\\help", "\\h"),
    (".format", "\\format"),
    (".mode", "\\format"),
    ("\\include", "\\i"),
    ("\\ir", "\\i"),
    (".read", "\\i"),
    ("\\edit", "\\e"),
    (".edit", "\\e"),
    ("\\out", "\\o"),
    (".output", "\\o"),
    (".tables", "\\dt"),
    (".databases", "\\l"),
    ("\\list", "\\l"),
    (".schema", "\\schema"),
    ("\\sv", "\\schema"),
    (".timer", "\\timing"),
    (".shell", "\\!"),
    (".system", "\\!"),
    ("\\reset", "\\r"),
];

/// Commands of other programs, and the alternatives to them.
const ELSEWHERE: &[(&str, &str)] = &[
    ("\\a", "\\format csv writes results for programs."),
    ("\\c", "\"windrow --connect grpc://host:port\" is the prompt on a server."),
    ("\\conninfo", "SHOW DATABASES, SHOW SCHEMAS and SHOW TABLES list what exists."),
    ("\\connect", "\"windrow --connect grpc://host:port\" is the prompt on a server."),
    ("\\copy", "COPY name TO 'file' and COPY name FROM 'file' are statements."),
    ("\\dp", "The roles of users are in the accounts file of a server: docs/security.md."),
    ("\\du", "\"windrow user list\" lists the users of a server."),
    ("\\echo", "SELECT 'text' prints a text."),
    ("\\set", "SET name = value; sets an option of the session."),
    ("\\t", "\\format csv writes results for programs."),
    ("\\z", "The roles of users are in the accounts file of a server: docs/security.md."),
    (".dump", "\\schema shows all definitions; COPY name TO 'file' writes rows."),
    (".headers", "\\format csv writes a header, \\format ndjson has names in each row."),
    (".import", "COPY name FROM 'file.csv' reads a file into a stream."),
    (".maxrows", "\\pset rows 1000 sets how many rows are shown."),
    (".nullvalue", "\\pset null text sets what NULL is shown as."),
    (".open", "\"windrow DIR\" keeps everything in a directory."),
    (".separator", "\\format csv separates values by commas."),
];

/// The default interval of `\watch`.
const WATCH: Duration = Duration::from_secs(2);
/// The shortest interval of `\watch`; the longest is a day.
const WATCH_MIN: Duration = Duration::from_millis(100);
const WATCH_MAX: Duration = Duration::from_secs(86_400);

/// When a result is written with one value per line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Expanded {
    /// Never: as a table.
    #[default]
    Off,
    /// Always.
    On,
    /// Where the table would not fit into the terminal.
    Auto,
}

/// How results are to be shown: an argument of `\\pset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// NULL as this text.
    Null(String),
    /// Long results through a pager, or not.
    Pager(bool),
    /// Maximum number of rows of a result; `None`: all.
    Rows(Option<u64>),
}

/// A parsed command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// Leave.
    Quit,
    /// List the commands.
    Help,
    /// Show the syntax of a statement; `None`: list the statements.
    Syntax(Option<String>),
    /// Run a statement that lists something.
    List(&'static str),
    /// Show the definition of an object; `None`: of all.
    Definition(Option<String>),
    /// Run the last statement again; `true`: with one line per value.
    Again(bool),
    /// Run a command of the shell; `None`: a shell.
    Shell(Option<String>),
    /// Set how results are shown; `None`: show that.
    Show(Option<Shown>),
    /// Clear the statement so far; executed only where there is none.
    Forget,
    /// List objects, or the columns of one.
    Describe(Option<String>),
    /// Show times or not; `None`: toggle.
    Timing(Option<bool>),
    /// Write one value per line or not; `None`: toggle.
    Expanded(Option<Expanded>),
    /// Set the output format; `None`: show it.
    Format(Option<Format>),
    /// Write results to this file; `None`: to stdout.
    Output(Option<PathBuf>),
    /// Run a file.
    Include(PathBuf),
    /// Edit the last statement.
    Edit,
    /// Run the last statement at this interval.
    Watch(Duration),
    /// Draw the last result, or one column of it.
    Chart(Option<String>),
}

/// Whether `line`, which is where a statement may begin, is a command.
pub(crate) fn is_command(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('\\')
        || line.strip_prefix('.').is_some_and(|l| l.starts_with(|c: char| c.is_ascii_alphabetic()))
        || matches!(line.trim_end_matches(';'), "exit" | "quit" | "help")
}

impl Command {
    /// Parses a command.
    ///
    /// # Errors
    /// For an unknown one (the hint names the nearest), and arguments that it does not accept.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        let line = line.trim().trim_end_matches(';').trim_end();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let name = ALIASES.iter().find(|(alias, _)| *alias == word).map_or(word, |(_, name)| name);
        // psql's forms with more detail.
        let name = name.strip_suffix('+').filter(|n| n.starts_with("\\d")).unwrap_or(name);
        let argument = Some(unquoted(rest.trim())).filter(|a| !a.is_empty());
        let none = |command| match &argument {
            None => Ok(command),
            Some(_) => Err(usage(name)),
        };
        match name {
            "\\q" => none(Self::Quit),
            "\\?" => none(Self::Help),
            "\\e" => none(Self::Edit),
            "\\g" => none(Self::Again(false)),
            "\\gx" => none(Self::Again(true)),
            "\\r" => none(Self::Forget),
            "\\d" => Ok(Self::Describe(argument)),
            "\\df" => none(Self::List("SHOW FUNCTIONS")),
            "\\dm" => none(Self::List("SHOW MATERIALIZED VIEWS")),
            "\\dn" => none(Self::List("SHOW SCHEMAS")),
            "\\ds" => none(Self::List("SHOW STREAMS")),
            "\\dt" => Ok(argument.map_or(Self::List("SHOW TABLES"), |a| Self::Describe(Some(a)))),
            "\\dv" => Ok(argument.map_or(Self::List("SHOW VIEWS"), |a| Self::Describe(Some(a)))),
            "\\l" => none(Self::List("SHOW DATABASES")),
            "\\schema" => Ok(Self::Definition(argument)),
            "\\h" => Ok(Self::Syntax(argument)),
            "\\!" => Ok(Self::Shell(Some(rest.trim().to_owned()).filter(|a| !a.is_empty()))),
            "\\pset" => Ok(Self::Show(argument.map(|a| shown(&a)).transpose()?)),
            "\\chart" => Ok(Self::Chart(argument)),
            "\\o" => Ok(Self::Output(argument.map(PathBuf::from))),
            "\\i" => argument.map(|a| Self::Include(a.into())).ok_or_else(|| usage(name)),
            "\\timing" => Ok(Self::Timing(argument.map(|a| switch(name, &a)).transpose()?)),
            "\\x" => {
                let expanded = |a: String| -> Result<Expanded> {
                    match a.as_str() {
                        "auto" => Ok(Expanded::Auto),
                        a => Ok(if switch(name, a)? { Expanded::On } else { Expanded::Off }),
                    }
                };
                Ok(Self::Expanded(argument.map(expanded).transpose()?))
            }
            "\\format" => {
                let format = |a: String| Format::from_str(&a, true).map_err(|_unknown| usage(name));
                Ok(Self::Format(argument.map(format).transpose()?))
            }
            "\\watch" => Ok(Self::Watch(argument.map_or(Ok(WATCH), |a| every(&a))?)),
            _ => Err(unknown(word)),
        }
    }
}

/// The width of commands with their arguments in the help.
const HELP_WIDTH: usize = 28;

/// Returns the help text.
pub(crate) fn help() -> String {
    let mut text = "Statements end with a semicolon and may go over several lines.\n".to_owned();
    for (name, arguments, doc) in COMMANDS {
        let (used, width) = (format!("{name} {arguments}"), HELP_WIDTH);
        let gap = if used.len() > width { format!("\n  {:width$}", "") } else { String::new() };
        text.push_str(&format!("  {used:<width$}{gap} {doc}\n"));
    }
    text.push_str(
        "Keys: Tab completes, Right takes the grey hint, Ctrl-R searches the history,\n\
         Ctrl-C cancels what runs or clears the line (twice: leaves), Ctrl-D leaves.\n\
         Try: SHOW TABLES;  DESCRIBE name;  EXPLAIN SELECT …;  SELECT * FROM 'file.csv';  \\h SELECT",
    );
    text
}

/// Removes quotes around `text`.
fn unquoted(text: &str) -> String {
    let inner = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('\'').or_else(|| inner('"')).unwrap_or(text).to_owned()
}

fn switch(name: &str, word: &str) -> Result<bool> {
    match word {
        "on" | "true" | "1" => Ok(true),
        "off" | "false" | "0" => Ok(false),
        _ => Err(usage(name)),
    }
}

/// Reads what `\\pset` is to set.
fn shown(setting: &str) -> Result<Shown> {
    let (name, value) = setting.split_once(char::is_whitespace).unwrap_or((setting, ""));
    let value = unquoted(value.trim());
    match (name, value.as_str()) {
        ("null", _) => Ok(Shown::Null(value)),
        ("pager", "always") => Ok(Shown::Pager(true)),
        ("pager", word) => switch("\\pset", word).map(Shown::Pager),
        ("rows", "all") => Ok(Shown::Rows(None)),
        ("rows", count) => count.parse().map(|n| Shown::Rows(Some(n))).map_err(|_| usage("\\pset")),
        ("format" | "expanded" | "x", _) => Err(Error::sql(format!("\\pset has no \"{name}\""))
            .with_hint(
                "\\format sets how results are written, \\x whether one value is on a line.",
            )),
        _ => Err(usage("\\pset")),
    }
}

fn every(seconds: &str) -> Result<Duration> {
    let every = seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    every.filter(|every| (WATCH_MIN..=WATCH_MAX).contains(every)).ok_or_else(|| {
        Error::sql(format!("\"{seconds}\" is not a time to wait"))
            .with_hint("Write a number of seconds from 0.1 to 86400, such as \\watch 5.")
    })
}

/// Returns the error for arguments that a command does not accept.
fn usage(name: &str) -> Error {
    let arguments = COMMANDS.iter().find(|(n, ..)| *n == name).map_or("", |(_, a, _)| a);
    Error::sql(format!("wrong arguments for command \"{name}\""))
        .with_hint(format!("Write it as: {}", format!("{name} {arguments}").trim_end()))
}

fn unknown(word: &str) -> Error {
    let error = Error::sql(format!("unknown command \"{word}\""));
    if let Some((_, instead)) = ELSEWHERE.iter().find(|(name, _)| *name == word) {
        return error.with_hint(*instead);
    }
    let typed = word.trim_start_matches(['\\', '.']);
    let names = COMMANDS.iter().map(|(n, ..)| n.trim_start_matches('\\'));
    match nearest(typed, names) {
        Some(near) => error.with_hint(format!("Did you mean \"\\{near}\"?")),
        None => error.with_hint("\\? lists the commands."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Command {
        Command::parse(line).unwrap()
    }

    #[test]
    fn commands_and_their_arguments() {
        assert_eq!(parse("\\q"), Command::Quit);
        assert_eq!(parse("quit;"), Command::Quit);
        assert_eq!(parse(" help "), Command::Help);
        assert_eq!(parse(".format csv"), Command::Format(Some(Format::Csv)));
        assert_eq!(parse("\\format json"), Command::Format(Some(Format::Ndjson)));
        assert_eq!(parse("\\d  flights;"), Command::Describe(Some("flights".into())));
        assert_eq!(parse("\\x auto"), Command::Expanded(Some(Expanded::Auto)));
        assert_eq!(parse("\\x"), Command::Expanded(None));
        assert_eq!(parse("\\timing off"), Command::Timing(Some(false)));
        assert_eq!(parse("\\o 'a b.csv'"), Command::Output(Some("a b.csv".into())));
        assert_eq!(parse("\\watch 0.5"), Command::Watch(Duration::from_millis(500)));
        assert_eq!(parse("\\! ls -l 'x y'"), Command::Shell(Some("ls -l 'x y'".into())));
        assert_eq!(parse("\\h create stream"), Command::Syntax(Some("create stream".into())));
        assert_eq!(parse("\\pset null 'n/a'"), Command::Show(Some(Shown::Null("n/a".into()))));
        assert_eq!(parse("\\pset rows all"), Command::Show(Some(Shown::Rows(None))));
        assert_eq!(parse("\\pset pager off"), Command::Show(Some(Shown::Pager(false))));
    }

    #[test]
    fn habits_of_other_programs() {
        assert_eq!(parse("\\dt"), Command::List("SHOW TABLES"));
        assert_eq!(parse(".tables"), Command::List("SHOW TABLES"));
        assert_eq!(parse("\\d+ flights"), Command::Describe(Some("flights".into())));
        assert_eq!(parse(".schema flights"), Command::Definition(Some("flights".into())));
        assert_eq!(parse(".mode json"), Command::Format(Some(Format::Ndjson)));
        let hint = |line: &str| Command::parse(line).unwrap_err().hints().to_vec();
        for (name, instead) in ELSEWHERE {
            assert_eq!(hint(name), [*instead]);
        }
    }

    #[test]
    fn mistakes_are_told_with_a_way_out() {
        let hint = |line: &str| Command::parse(line).unwrap_err().hints().to_vec();
        assert_eq!(hint("\\timin"), ["Did you mean \"\\timing\"?"]);
        assert_eq!(hint(".wacth 3"), ["Did you mean \"\\watch\"?"]);
        assert_eq!(hint("\\nothing_near"), ["\\? lists the commands."]);
        assert_eq!(hint("\\i"), ["Write it as: \\i file"]);
        assert_eq!(hint("\\q now"), ["Write it as: \\q"]);
        assert_eq!(hint("\\x maybe"), ["Write it as: \\x [on|off|auto]"]);
        for wrong in ["\\watch soon", "\\watch -1", "\\watch 1e99", "\\watch NaN"] {
            assert!(Command::parse(wrong).unwrap_err().message().contains("not a time to wait"));
        }
    }

    #[test]
    fn commands_are_no_sql() {
        for command in ["exit", " quit ", ".help", "\\q", "\\d x"] {
            assert!(is_command(command), "{command}");
        }
        for sql in ["SELECT 1", ".5", "exited", ""] {
            assert!(!is_command(sql), "{sql}");
        }
    }

    #[test]
    fn every_command_is_known_and_helped() {
        let help = help();
        for (name, ..) in COMMANDS {
            let unknown =
                Command::parse(name).err().is_some_and(|e| e.message().contains("unknown"));
            assert!(!unknown, "{name}");
            assert!(help.contains(name), "{name}");
        }
    }
}
