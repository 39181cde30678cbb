//! Execution of commands.

use std::path::Path;
use std::time::Duration;

use windrow_core::{Clock, Error, ErrorKind};

use super::{Flow, Runner, Timing, parse_one};
use crate::chart;
use crate::clock::clock;
use crate::command::{self, Command, Expanded};
use crate::failure::Failure;
use crate::script::{Script, Source};
use crate::syntax;
use crate::values::Format;

/// The maximum nesting depth of included files.
const DEPTH_MAX: usize = 16;

/// The default width of a chart where there is no terminal.
const CHART_WIDTH: usize = 80;

/// The statement of `\schema`: the definitions of all objects.
const DEFINITIONS: &str = "SELECT name, definition FROM windrow.streams \
    UNION ALL SELECT name, definition FROM windrow.views ORDER BY name";

/// Returns the error for a statement that does not exist.
fn no_form(words: &str) -> Error {
    Error::sql(format!("there is no statement \"{words}\"")).with_hint("\\h lists the statements.")
}

impl Runner {
    /// Executes a command.
    pub(super) async fn command(&mut self, command: Command) -> Result<Flow, Failure> {
        match command {
            Command::Quit => return Ok(Flow::Leave),
            Command::Help => self.notice(&command::help()),
            Command::Syntax(None) => self.notice(&syntax::statements()),
            Command::Syntax(Some(words)) => match syntax::forms(&words) {
                Some(forms) => self.notice(&forms),
                None => return Err(no_form(&words).into()),
            },
            Command::List(sql) => self.aside(sql).await?,
            Command::Definition(name) => self.definition(name.as_deref()).await?,
            Command::Again(expanded) => {
                let Some(sql) = self.last_statement.clone() else {
                    return Err(Error::sql("there is no statement to run again").into());
                };
                self.showing.expanded_once = expanded;
                self.statement(&parse_one(&sql)?).await?;
            }
            Command::Shell(command) => self.shell(command.as_deref())?,
            Command::Show(shown) => {
                let said = self.showing.set(shown);
                self.notice(&said);
            }
            // Executed only where no statement has begun.
            Command::Forget => self.notice("there is no statement to clear"),
            Command::Describe(name) => self.describe(name.as_deref()).await?,
            Command::Timing(on) => {
                let on = on.unwrap_or(self.timing != Timing::All);
                self.timing = if on { Timing::All } else { Timing::Off };
                self.notice(&format!("timing is {}", if on { "on" } else { "off" }));
            }
            Command::Expanded(expanded) => {
                let other = match self.expanded {
                    Expanded::Off => Expanded::On,
                    Expanded::On | Expanded::Auto => Expanded::Off,
                };
                self.expanded = expanded.unwrap_or(other);
                let word = match self.expanded {
                    Expanded::Off => "off",
                    Expanded::On => "on",
                    Expanded::Auto => "auto",
                };
                self.notice(&format!("expanded display is {word}"));
            }
            Command::Format(None) => {
                let word = match self.printing.format {
                    Format::Table => "table",
                    Format::Csv => "csv",
                    Format::Ndjson => "ndjson",
                };
                self.notice(&format!("format is {word}"));
            }
            Command::Format(Some(format)) => self.printing.format = format,
            Command::Output(path) => self.set_output(path.as_deref())?,
            Command::Include(path) => return self.include(&path).await,
            Command::Edit => return self.edit(),
            Command::Watch(every) => {
                self.showing.watching = true;
                let done = self.again_and_again(every).await;
                self.showing.watching = false;
                done?;
            }
            Command::Chart(column) => {
                let width = self.layout(false).width_max.unwrap_or(CHART_WIDTH);
                let chart = chart::draw(&self.last, column.as_deref(), width)?;
                std::io::Write::write_all(&mut self.out, chart.as_bytes())?;
                std::io::Write::flush(&mut self.out)?;
            }
        }
        Ok(Flow::On)
    }

    /// Runs the statements of the user's rc file.
    pub(crate) async fn include(&mut self, path: &Path) -> Result<Flow, Failure> {
        if self.depth >= DEPTH_MAX {
            let message = format!("\"{}\" is included more than {DEPTH_MAX} deep", path.display());
            return Err(Error::sql(message).with_hint("Does a file include itself?").into());
        }
        let script = Script::read(Source::from_path(path))?;
        self.depth += 1;
        let done = Box::pin(self.run(&script)).await;
        self.depth -= 1;
        done
    }

    async fn describe(&mut self, name: Option<&str>) -> Result<(), Failure> {
        match name {
            None => self.aside("SHOW TABLES").await,
            Some(name) => self.aside_with("DESCRIBE", name).await,
        }
    }

    async fn definition(&mut self, name: Option<&str>) -> Result<(), Failure> {
        match name {
            None => self.aside(DEFINITIONS).await,
            Some(name) => self.aside_with("SHOW CREATE", name).await,
        }
    }

    /// Runs a statement about the object called `name`.
    async fn aside_with(&mut self, words: &str, name: &str) -> Result<(), Failure> {
        match parse_one(&format!("{words} {name}")) {
            Ok(_) => self.aside(&format!("{words} {name}")).await,
            Err(_) => Err(Error::sql(format!("\"{name}\" is not a name"))
                .with_hint(
                    "Write a name, in double quotes if it has other characters than letters.",
                )
                .into()),
        }
    }

    /// Runs a statement that the user did not write: it does not become the last one.
    async fn aside(&mut self, sql: &str) -> Result<(), Failure> {
        let last = self.last_statement.take();
        let done = match parse_one(sql) {
            Ok(statement) => self.statement(&statement).await,
            Err(error) => Err(error.into()),
        };
        self.last_statement = last;
        // Places refer to a text that the user did not write.
        done.map_err(|failure| match failure {
            Failure::Error { error, .. } => {
                let told = Error::new(error.kind(), error.message().to_owned());
                error.hints().iter().fold(told, |told, hint| told.with_hint(hint.clone())).into()
            }
            other => other,
        })
    }

    /// Runs a command of the shell, or a shell.
    fn shell(&mut self, command: Option<&str>) -> Result<(), Failure> {
        if !self.is_repl {
            return Err(Error::sql("\\! needs an interactive terminal").into());
        }
        let shell = std::env::var("SHELL").ok().filter(|shell| !shell.trim().is_empty());
        let shell = shell.unwrap_or_else(|| "sh".to_owned());
        let mut process = std::process::Command::new(&shell);
        if let Some(command) = command {
            process.arg("-c").arg(command);
        }
        let status = self.interrupts.of_another(|| process.status()).map_err(|e| {
            Error::new(ErrorKind::Unavailable, format!("cannot start the shell \"{shell}\": {e}"))
                .with_hint("Set SHELL to a shell that is installed.")
        })?;
        if !status.success() {
            self.notice(&format!("notice: the command ended with {status}"));
        }
        Ok(())
    }

    /// Runs the last statement once per `every`, until Ctrl-C.
    async fn again_and_again(&mut self, every: Duration) -> Result<(), Failure> {
        let Some(sql) = self.last_statement.clone() else {
            return Err(Error::sql("there is no statement to watch")
                .with_hint("Run a statement first; \\watch repeats it.")
                .into());
        };
        let statement = parse_one(&sql)?;
        loop {
            let done = match self.statement(&statement).await {
                Ok(()) => self.watch().until(clock().sleep(every)).await.map_err(Failure::from),
                failed => failed,
            };
            match done {
                Ok(()) => {}
                // Ctrl-C is the normal end.
                Err(Failure::Error { error, .. })
                    if error.kind() == ErrorKind::Cancelled && self.is_repl =>
                {
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Opens the last statement in the user's editor.
    fn edit(&mut self) -> Result<Flow, Failure> {
        if !self.is_repl {
            return Err(Error::sql("\\e needs an interactive terminal").into());
        }
        let cannot = |what: String| Error::new(ErrorKind::Unavailable, what);
        let file = tempfile::Builder::new()
            .prefix("windrow-")
            .suffix(".sql")
            .tempfile()
            .map_err(|e| cannot(format!("cannot create a file to edit: {e}")))?;
        let text = self.last_statement.clone().unwrap_or_default();
        std::fs::write(file.path(), format!("{text}\n"))
            .map_err(|e| cannot(format!("cannot write the file to edit: {e}")))?;
        let editor = ["VISUAL", "EDITOR"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok().filter(|v| !v.trim().is_empty()))
            .unwrap_or_else(|| "vi".to_owned());
        // Editors come with arguments, such as "code --wait".
        let mut words = editor.split_whitespace();
        let mut process = std::process::Command::new(words.next().unwrap_or("vi"));
        process.args(words).arg(file.path());
        let status = self.interrupts.of_another(|| process.status()).map_err(|e| {
            cannot(format!("cannot start the editor \"{editor}\": {e}"))
                .with_hint("Set VISUAL or EDITOR to an editor that is installed.")
        })?;
        if !status.success() {
            self.notice(&format!(
                "notice: the editor ended with {status}, the statement is unchanged"
            ));
            return Ok(Flow::On);
        }
        let edited = std::fs::read_to_string(file.path())
            .map_err(|e| cannot(format!("cannot read the edited file: {e}")))?;
        Ok(Flow::Edit(edited.trim().to_owned()))
    }
}
