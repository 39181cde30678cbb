//! The files of `slt/`, each by its own engine, twice: with the default limits, and with micro-batches of three rows on
//! one thread. See `slt/README.md`.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use libtest_mimic::{Failed, Trial};
use sqllogictest::{AsyncDB, ColumnType, DBOutput, Runner};
use windrow_core::{Change, Limits, change};

use crate::talk::{Answer, Refusal, Talk, letter};
use crate::watch::trial;

/// The last line of a query that is run without EMIT and with `EMIT FINAL`.
const BOTH_FORMS: &str = "-- both forms";

/// The last line of a query that is run without EMIT and with `EMIT CHANGES`.
const CHANGES: &str = "-- changes";

pub(crate) fn trials() -> Vec<Trial> {
    let small = Limits { batch_rows_max: 3, threads: 1, ..Limits::default() };
    let mut trials = vec![];
    for file in files(Path::new("tests/slt"), "slt") {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (suffix, limits) in [("", Limits::default()), (" in batches of 3", small.clone())] {
            let file = file.clone();
            trials.push(trial(format!("slt/{name}{suffix}"), move || run(&file, &limits)));
        }
    }
    trials
}

/// The files below `directory` with this extension, in order of name.
pub(crate) fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn run(file: &Path, limits: &Limits) -> Result<(), Failed> {
    let mut runner = Runner::new(|| async { Ok(Slt(Talk::new(limits.clone())?)) });
    runner.with_column_validator(|actual, expected| {
        let any = |(a, e): (&Letter, &Letter)| e.0 == '?' || a == e;
        actual.len() == expected.len() && actual.iter().zip(expected).all(any)
    });
    // All that is wrong, not the first of it.
    let mut wrong = vec![];
    for record in sqllogictest::parse_file(file)? {
        if let Err(error) = runner.run(record) {
            wrong.push(error.to_string());
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n\n").into()) }
}

struct Slt(Talk);

#[async_trait]
impl AsyncDB for Slt {
    type Error = Refusal;
    type ColumnType = Letter;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<Letter>, Refusal> {
        let sql = sql.trim_end();
        let answer = match (sql.strip_suffix(BOTH_FORMS), sql.strip_suffix(CHANGES)) {
            (Some(query), _) => both_forms(&self.0, query).await?,
            (None, Some(query)) => changes(&self.0, query).await?,
            (None, None) => self.0.answer(sql).await?,
        };
        Ok(match answer {
            Answer::Done(message) => DBOutput::StatementComplete(count(&message)),
            Answer::Rows { schema, rows } => {
                let types = schema.fields().iter().map(|f| Letter(letter(f.data_type()))).collect();
                DBOutput::Rows { types, rows }
            }
        })
    }

    async fn shutdown(&mut self) {}
}

/// Runs a query bounded and continuous; the same rows must come, in any order.
async fn both_forms(talk: &Talk, query: &str) -> Result<Answer, Refusal> {
    let bounded = talk.answer(query).await.map_err(|e| Refusal(format!("without EMIT: {e}")))?;
    let Answer::Rows { rows: bounded, .. } = bounded else {
        return Err(Refusal("the bounded form gave no rows".to_owned()));
    };
    // A query without window has no window to close: its rows pass at once.
    let emit = format!("{query} EMIT FINAL");
    let Answer::Rows { schema, rows } =
        talk.answer(&emit).await.map_err(|e| Refusal(format!("with EMIT: {e}")))?
    else {
        return Err(Refusal("the continuous form gave no rows".to_owned()));
    };
    let sorted = |rows: &[Vec<String>]| {
        let mut rows: Vec<String> = rows.iter().map(|r| r.join(" ")).collect();
        rows.sort_unstable();
        rows
    };
    let (truth, continuous) = (sorted(&bounded), sorted(&rows));
    if truth == continuous {
        return Ok(Answer::Rows { schema, rows });
    }
    Err(Refusal(format!(
        "the two forms differ\nwithout EMIT:\n{}\nwith EMIT:\n{}",
        truth.join("\n"),
        continuous.join("\n")
    )))
}

/// Runs a query bounded, and continuous with its changes; these must fold to the same rows, in any order.
async fn changes(talk: &Talk, query: &str) -> Result<Answer, Refusal> {
    let bounded = talk.answer(query).await.map_err(|e| Refusal(format!("without EMIT: {e}")))?;
    let Answer::Rows { schema, rows: bounded } = bounded else {
        return Err(Refusal("the bounded form gave no rows".to_owned()));
    };
    let emit = format!("{query} EMIT CHANGES");
    let answer = talk.answer(&emit).await.map_err(|e| Refusal(format!("with EMIT: {e}")))?;
    let Answer::Rows { schema: changing, rows } = answer else {
        return Err(Refusal("the continuous form gave no rows".to_owned()));
    };
    let shown = changing.fields().first().is_some_and(|first| first.name() == change::COLUMN);
    let folded = if shown { fold(rows)? } else { rows };
    let folded = match changing.fields().last().is_some_and(|last| last.name() == "is_final") {
        true => without_final(folded)?,
        false => folded,
    };
    let sorted = |rows: &[Vec<String>]| {
        let mut rows: Vec<String> = rows.iter().map(|r| r.join(" ")).collect();
        rows.sort_unstable();
        rows
    };
    let (truth, now) = (sorted(&bounded), sorted(&folded));
    if truth == now {
        return Ok(Answer::Rows { schema, rows: folded });
    }
    Err(Refusal(format!(
        "the changes give another answer\nwithout EMIT:\n{}\nchanges, folded:\n{}",
        truth.join("\n"),
        now.join("\n")
    )))
}

/// Folds changes, whose kind is in the first column, into an answer.
pub(crate) fn fold(changes: Vec<Vec<String>>) -> Result<Vec<Vec<String>>, Refusal> {
    let (mut answer, mut before): (Vec<Vec<String>>, _) = (vec![], false);
    for mut row in changes {
        let kind = row.remove(0);
        let kind = Change::of_name(&kind).ok_or_else(|| Refusal(format!("{kind} is no change")))?;
        if before != (kind == Change::UpdateAfter) {
            return Err(Refusal(format!("half an update beside {kind} of {}", row.join(" "))));
        }
        before = kind == Change::UpdateBefore;
        if kind.adds() {
            answer.push(row);
            continue;
        }
        match answer.iter().position(|known| *known == row) {
            Some(at) => drop(answer.swap_remove(at)),
            None => {
                return Err(Refusal(format!("{kind} of {}, which is not there", row.join(" "))));
            }
        }
    }
    if before { Err(Refusal("half an update at the end".to_owned())) } else { Ok(answer) }
}

/// The rows of closed windows, without the column that says so.
fn without_final(rows: Vec<Vec<String>>) -> Result<Vec<Vec<String>>, Refusal> {
    let plain = |mut row: Vec<String>| match row.pop().as_deref() {
        Some("true") => Ok(row),
        _ => Err(Refusal(format!("{} is not final at the end", row.join(" ")))),
    };
    rows.into_iter().map(plain).collect()
}

/// The rows that a statement like "INSERT 0 3" speaks of.
fn count(message: &str) -> u64 {
    message.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// The type of a column by its letter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Letter(char);

impl ColumnType for Letter {
    fn from_char(value: char) -> Option<Self> {
        "BDIPRT?".contains(value).then_some(Self(value))
    }

    fn to_char(&self) -> char {
        self.0
    }
}
