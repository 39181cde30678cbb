//! `windrow test`: runs SQL tests under a simulated clock and compares the rows of queries with the expected ones.
//!
//! ```text
//! file ─ case ─► steps (statements, times) ─ run ─► outcomes ─ report ─► text, JUnit
//! ```
//! Invariant: the outcome of a test depends on its files and the seed alone, never on the machine's clock.

mod case;
mod report;
mod run;
mod substitute;

use std::path::{Path, PathBuf};

use clap::Args;
use tokio::runtime::Runtime;
use windrow_core::{Error, ErrorKind, Result};

use self::case::Case;
use self::report::{Report, Verdict};
use self::run::Shaken;
use crate::failure::Failure;

/// The exit status when a test fails: a problem with the data.
const FAILED: u8 = 3;

/// The options of `windrow test`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Testing {
    /// Test files, and directories whose .sql files with expected rows are tests.
    #[arg(default_value = ".", value_name = "DIR|FILE")]
    paths: Vec<PathBuf>,
    /// Run each test this many more times (default: 5), with random batch sizes and thread counts, and restarts from a data directory.
    #[arg(long, value_name = "RUNS", num_args = 0..=1, require_equals = true, default_missing_value = "5")]
    shake: Option<u32>,
    /// The seed of the first shaken run; each further run uses the next one.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Also write the results to this file, as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

impl Testing {
    /// Runs the tests and prints their outcome.
    ///
    /// # Errors
    /// When a test has failed (which is reported first), when there are no tests, or when a file cannot be read or written.
    pub(crate) fn run(&self, waiting: &Runtime, quiet: bool) -> Result<(), Failure> {
        let mut report = Report::new(quiet);
        for path in self.files()? {
            let verdict = self.test(&path, waiting);
            report.add(&path, &verdict)?;
        }
        report.end()?;
        if let Some(junit) = &self.junit {
            let written = std::fs::write(junit, report.junit());
            written.map_err(|e| unusable("write", junit, e))?;
        }
        match report.failed() {
            0 => Ok(()),
            _ => Err(Failure::Reported { exit_code: FAILED }),
        }
    }

    /// Runs one test, and shakes it.
    fn test(&self, path: &Path, waiting: &Runtime) -> Verdict {
        let case = match Case::read(path) {
            Ok(case) => case,
            Err(failure) => return Verdict::broken(failure),
        };
        let verdict = run::run(&case, None, waiting);
        if !verdict.is_ok() {
            return verdict;
        }
        for seed in (self.seed..).take(self.shake.unwrap_or_default() as usize) {
            let shaken = run::run(&case, Some(Shaken::new(seed)), waiting);
            if !shaken.is_ok() {
                return shaken.shaken(seed);
            }
        }
        verdict
    }

    /// The files that are tests, in order.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = vec![];
        for path in &self.paths {
            if path.is_dir() {
                let mut found = vec![];
                search(path, &mut found)?;
                found.sort();
                files.extend(found);
            } else {
                files.push(path.clone());
            }
        }
        if files.is_empty() {
            let shown: Vec<String> = self.paths.iter().map(|p| p.display().to_string()).collect();
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("there are no tests in \"{}\"", shown.join("\", \"")),
            )
            .with_hint(
                "A test is a .sql file with \"-- expect\" below a query, or with a file .expected beside it.",
            ));
        }
        Ok(files)
    }
}

/// Collects the tests below a directory.
fn search(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(|e| unusable("read", folder, e))?;
    for entry in entries {
        let path = entry.map_err(|e| unusable("read", folder, e))?.path();
        if path.is_dir() {
            search(&path, found)?;
        } else if path.extension().is_some_and(|end| end == "sql") && case::is_test(&path)? {
            found.push(path);
        }
    }
    Ok(())
}

fn unusable(what: &str, path: &Path, e: std::io::Error) -> Error {
    Error::new(ErrorKind::NotFound, format!("cannot {what} \"{}\": {e}", path.display()))
        .with_source(e)
}
