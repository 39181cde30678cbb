//! The commands that every REPL runs first: `$WINDROWRC`, or `.windrowrc` in the home directory.

use std::path::PathBuf;

use crate::runner::{Flow, Runner};

/// Runs them. Errors are reported, and the REPL starts nevertheless.
#[expect(clippy::print_stderr, reason = "what is no result goes there")]
pub(crate) async fn run(runner: &mut Runner) -> Flow {
    let Some(path) = path() else { return Flow::On };
    match runner.include(&path).await {
        Ok(Flow::Leave) => Flow::Leave,
        Ok(_) => Flow::On,
        Err(failure) => {
            if let Some(text) = failure.text() {
                eprintln!("{text}");
            }
            Flow::On
        }
    }
}

/// The path of the file. A file named by `$WINDROWRC` must exist.
fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("WINDROWRC").or_else(|| Some(set("HOME")?.join(".windrowrc")).filter(|path| path.exists()))
}
