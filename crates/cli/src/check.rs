//! `windrow check`: all mistakes of files, without running anything.

use std::path::{Path, PathBuf};

use windrow_core::{Error, Result};
use windrow_engine::{Engine, SessionOptions};

use crate::command::Command;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::script::{Item, Script, Source};

/// How deep files may include one another.
const DEPTH_MAX: usize = 16;

/// Checks files in one session of `engine`, which only plans, and reports every mistake.
///
/// # Errors
/// When there was one; it has then been reported.
pub(crate) async fn run(engine: &Engine, files: &[PathBuf], quiet: bool) -> Result<(), Failure> {
    let session = engine.session(SessionOptions { push_ends: true })?;
    let connection = Connection::Embedded { engine: engine.clone(), session, is_in_memory: true };
    let mut exit_code = 0;
    for file in files {
        let mut check = Check { connection: &connection, statements: 0, failures: vec![] };
        check.file(file, 0).await;
        let name = file.display();
        let (statements, failed) = (check.statements, check.failures.len());
        let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        for failure in check.failures {
            exit_code = exit_code.max(failure.exit_code());
            tell(&failure.text().unwrap_or_default());
        }
        let errors = if failed == 0 { "no errors".to_owned() } else { plural(failed, "error") };
        if !quiet {
            tell(&format!("{name}: {}, {errors}", plural(statements, "statement")));
        }
    }
    if exit_code == 0 { Ok(()) } else { Err(Failure::Reported { exit_code }) }
}

/// The check of one file and those that it includes.
struct Check<'a> {
    connection: &'a Connection,
    statements: usize,
    failures: Vec<Failure>,
}

impl Check<'_> {
    async fn file(&mut self, path: &Path, depth: usize) {
        let script = match Script::read(Source::from_path(path)) {
            Ok(script) if depth < DEPTH_MAX => script,
            Ok(_) => {
                let message =
                    format!("\"{}\" is included more than {DEPTH_MAX} deep", path.display());
                return self.failures.push(Error::sql(message).into());
            }
            Err(error) => return self.failures.push(error.into()),
        };
        for item in script.items_apart() {
            let item = match item {
                Ok(item) => item,
                Err(failure) => {
                    self.statements += 1;
                    self.failures.push(failure);
                    continue;
                }
            };
            let checked = match &item {
                Item::Statement(statement) => {
                    self.statements += 1;
                    self.connection.execute(statement).await.map(drop)
                }
                Item::Command(text, _) => match Command::parse(text) {
                    Ok(Command::Include(path)) => {
                        Box::pin(self.file(&path, depth + 1)).await;
                        Ok(())
                    }
                    parsed => parsed.map(drop),
                },
            };
            if let Err(error) = checked {
                self.failures.push(script.failure(error, item.line()));
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "mistakes go there")]
fn tell(text: &str) {
    eprintln!("{text}");
}
