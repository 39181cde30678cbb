//! Nexmark q5, q7, q8 and q11 on a million events: the continuous form equals the bounded one, row for row. Slow (about
//! a minute without optimisation), but always run: these are the only tests with many slices, groups and threads at
//! once.

use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;

use crate::talk::{Answer, Talk};
use crate::watch::trial;

/// What the files of `sql/nexmark` say, and what is run instead.
const EVENTS_IN_FILE: &str = "'events' = '20000', 'event_rate' = '100'";
const EVENTS: &str = "'events' = '1000000', 'event_rate' = '10000', 'out_of_order' = '1 second'";

pub(crate) fn trials() -> Vec<Trial> {
    ["q5", "q7", "q8", "q11"]
        .into_iter()
        .map(|name| trial(format!("nexmark/{name} on 1 M events (slow)"), move || run(name)))
        .collect()
}

fn run(name: &str) -> Result<(), Failed> {
    let text = std::fs::read_to_string(format!("sql/nexmark/{name}.sql"))?;
    if !text.contains(EVENTS_IN_FILE) || !text.contains("EMIT FINAL") {
        return Err(
            format!("sql/nexmark/{name}.sql has changed: this test rewrites its options").into()
        );
    }
    let text = text.replace(EVENTS_IN_FILE, EVENTS);
    let talk = Talk::new(Limits { threads: 2, ..Limits::default() })?;
    let mut compared = 0;
    for statement in windrow_sql::parse::parse(&text).map_err(|e| e.render(&text))? {
        if !statement.text.contains("EMIT FINAL") {
            if let Answer::Rows { .. } = talk.ask(&statement.text)? {
                return Err("a query without EMIT was not expected".into());
            }
            continue;
        }
        let truth = sorted(talk.rows(&statement.text.replace("EMIT FINAL", ""))?);
        let continuous = sorted(talk.rows(&statement.text)?);
        if truth.is_empty() {
            return Err("nothing to compare".into());
        }
        if let Some((t, c)) = truth.iter().zip(&continuous).find(|(t, c)| t != c) {
            return Err(format!("bounded: {t:?}, continuous: {c:?}").into());
        }
        if truth.len() != continuous.len() {
            return Err(
                format!("bounded: {} rows, continuous: {}", truth.len(), continuous.len()).into()
            );
        }
        compared += 1;
    }
    if compared == 1 { Ok(()) } else { Err(format!("{compared} queries compared").into()) }
}

fn sorted(mut rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    rows.sort_unstable();
    rows
}
