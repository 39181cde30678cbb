//! Every file of `sql/` runs to its end, and each of its queries returns rows. Those that need a server, or the views of another file, have
//! tests of their own (`alerts`, `fields`), and so have those of `windrow test` (`sql_tests`).

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;

use crate::alerts::needs_server;
use crate::fields::is_beside;
use crate::slt::files;
use crate::talk::{Answer, Talk};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    files(Path::new("sql"), "sql")
        .into_iter()
        .filter(|file| !needs_server(file) && !is_beside(file) && !file.starts_with("sql/tests"))
        .map(|file| trial(file.display().to_string(), move || run(&file)))
        .collect()
}

fn run(file: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(file)?;
    let statements = windrow_sql::parse::parse(&text).map_err(|e| e.render(&text))?;
    let talk = Talk::new(Limits::default())?;
    for statement in statements {
        let place = format!("{}:{}", file.display(), statement.first_line);
        match talk.ask(&statement.text).map_err(|e| format!("{place}: {e}"))? {
            Answer::Rows { rows, .. } if rows.is_empty() => {
                return Err(format!("{place}: this query has no rows to show").into());
            }
            Answer::Rows { .. } | Answer::Done(_) => {}
        }
    }
    Ok(talk.drain()?)
}
