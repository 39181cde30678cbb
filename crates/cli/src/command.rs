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
    ("\\chart", "[column]", "draw the last result as a chart"),
    ("\\d", "[name]", "list what there is, or the columns of one"),
    ("\\e", "", "edit the last statement in $VISUAL or $EDITOR"),
    ("\\format", "[table|csv|ndjson]", "how results are written"),
    ("\\i", "file", "run the statements of a file"),
    ("\\o", "[file]", "write results to a file, or to the terminal again"),
    ("\\q", "", "leave (as do exit, quit and Ctrl-D)"),
    ("\\timing", "[on|off]", "tell how long each statement took"),
    ("\\watch", "[seconds]", "run the last statement again and again, until Ctrl-C"),
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
    ("\\h", "\\?"),
    ("\\help", "\\?"),
    (".format", "\\format"),
    ("\\include", "\\i"),
    ("\\edit", "\\e"),
    ("\\out", "\\o"),
];

/// The default interval of `\watch`.
const WATCH: Duration = Duration::from_secs(2);
/// The shortest interval of `\watch`; the longest is a day.
const WATCH_MIN: Duration = Duration::from_millis(100);
const WATCH_MAX: Duration = Duration::from_secs(86_400);

/// When a result is written one value per line.
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

/// A parsed command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    /// Leave.
    Quit,
    /// List the commands.
    Help,
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
        let argument = Some(unquoted(rest.trim())).filter(|a| !a.is_empty());
        let none = |command| match &argument {
            None => Ok(command),
            Some(_) => Err(usage(name)),
        };
        match name {
            "\\q" => none(Self::Quit),
            "\\?" => none(Self::Help),
            "\\e" => none(Self::Edit),
            "\\d" => Ok(Self::Describe(argument)),
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

/// Describes all commands, for people.
pub(crate) fn help() -> String {
    let mut text = "Statements end with a semicolon and may go over several lines.\n".to_owned();
    for (name, arguments, doc) in COMMANDS {
        text.push_str(&format!("  {:<28} {doc}\n", format!("{name} {arguments}")));
    }
    text.push_str(
        "Keys: Tab completes, Right takes the grey hint, Ctrl-R searches the history,\n\
         Ctrl-C ends what runs (twice: leaves), Ctrl-D leaves.\n\
         Try: SHOW TABLES;  DESCRIBE name;  EXPLAIN SELECT …;  SELECT * FROM windrow.queries;",
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

fn every(seconds: &str) -> Result<Duration> {
    let every = seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    every.filter(|every| (WATCH_MIN..=WATCH_MAX).contains(every)).ok_or_else(|| {
        Error::sql(format!("\"{seconds}\" is no time to wait"))
            .with_hint("Write a number of seconds from 0.1 to 86400, such as \\watch 5.")
    })
}

/// Returns the error for arguments that a command does not accept.
fn usage(name: &str) -> Error {
    let arguments = COMMANDS.iter().find(|(n, ..)| *n == name).map_or("", |(_, a, _)| a);
    Error::sql(format!("command \"{name}\" is not used so"))
        .with_hint(format!("Write it as: {}", format!("{name} {arguments}").trim_end()))
}

fn unknown(word: &str) -> Error {
    let error = Error::sql(format!("unknown command \"{word}\""));
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
            assert!(Command::parse(wrong).unwrap_err().message().contains("no time to wait"));
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
