//! Nexmark q0 to q22 on a million events: the continuous form equals the bounded one, row for row. Slow (minutes without
//! optimisation), but always run: these are the only tests with many slices, groups and threads at once. Queries other than
//! q5, q7, q8 and q11 see fewer events, unless the long rounds are asked for.

use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;

use crate::program::long;
use crate::talk::{Answer, Talk};
use crate::watch::trial;

/// What the files of `sql/nexmark` say, and what is run instead.
const EVENTS_IN_FILES: [&str; 2] =
    ["'events' = '20000', 'event_rate' = '100'", "'events' = '500', 'event_rate' = '100'"];

/// Those that always see a million events.
const LARGE: [u32; 4] = [5, 7, 8, 11];

pub(crate) fn trials() -> Vec<Trial> {
    (0..=22)
        .map(|number| {
            let (events, shown) = match LARGE.contains(&number) || long() {
                true => (1_000_000, "1 M"),
                false => (100_000, "100 k"),
            };
            trial(format!("nexmark/q{number} on {shown} events (slow)"), move || {
                run(number, events)
            })
        })
        .collect()
}

fn run(number: u32, events: u64) -> Result<(), Failed> {
    let file = format!("sql/nexmark/q{number}.sql");
    let mut text = std::fs::read_to_string(&file)?;
    if !EVENTS_IN_FILES.iter().any(|options| text.contains(options)) {
        return Err(format!("{file} has changed: this test rewrites its options").into());
    }
    // A hundred seconds, whatever the number of events.
    let rate = events / 100;
    let options =
        format!("'events' = '{events}', 'event_rate' = '{rate}', 'out_of_order' = '1 second'");
    for given in EVENTS_IN_FILES {
        text = text.replace(given, &options);
    }
    let talk = Talk::new(Limits { threads: 2, ..Limits::default() })?;
    let mut compared = 0;
    for statement in windrow_sql::parse::parse(&text).map_err(|e| e.render(&text))? {
        let Some((bounded, _)) = statement.text.split_once("EMIT ") else {
            if let Answer::Rows { .. } = talk.ask(&statement.text)? {
                return Err("a query without EMIT was not expected".into());
            }
            continue;
        };
        let truth = sorted(talk.rows(bounded)?);
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
