//! Notices and errors when a stream over files is created: columns that no file has, times in 1970. How far a statement over
//! files is. Columns and their types are in `slt/columns.slt`.

use std::path::Path;

use futures::StreamExt;
use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;
use windrow_engine::{Outcome, ReadProgress};

use crate::talk::{Answer, Talk, texts};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    [
        ("a column that no row has is told", nowhere as fn() -> Result<(), Failed>),
        ("event times in 1970 are told", in_1970),
        ("a bounded statement knows how much it has read", reads),
    ]
    .map(|(name, test)| trial(format!("files/{name}"), test))
    .into()
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), Failed> {
    Ok(std::fs::write(dir.join(name), text)?)
}

fn reads() -> Result<(), Failed> {
    let (dir, talk) = (tempfile::tempdir()?, Talk::new(Limits::default())?);
    let (first, second) = ("id\n1\n2\n", "id\n3\nx\n");
    write(dir.path(), "1.csv", first)?;
    write(dir.path(), "2.csv", second)?;
    said(&talk, dir.path(), "(id INT)", "*.csv'")?;
    let Outcome::Rows(mut rows) = talk.begin("SELECT sum(id) FROM s")? else {
        return Err("no rows".into());
    };
    let total = futures::executor::block_on(async {
        let mut total = vec![];
        while let Some(batch) = rows.next().await {
            total.extend(texts(&batch?)?);
        }
        Ok::<_, Failed>(total)
    })?;
    assert_eq!(total, [["6"]]);
    let bytes = (first.len() + second.len()) as u64;
    let progress = rows.read_progress();
    // The bad row was read too.
    assert_eq!(progress, Some(ReadProgress { rows: 4, bytes, bytes_total: bytes }));
    Ok(())
}

/// What making a stream says.
fn said(talk: &Talk, dir: &Path, columns: &str, options: &str) -> Result<String, Failed> {
    let path = dir.display();
    let sql = format!(
        "CREATE OR REPLACE STREAM s {columns} WITH (connector = 'file', path = '{path}/{options})"
    );
    match talk.ask(&sql)? {
        Answer::Done(said) => Ok(said),
        Answer::Rows { .. } => Err("rows".into()),
    }
}

fn expect(said: &str, wanted: Option<&str>) -> Result<(), Failed> {
    match wanted {
        None if !said.contains("notice") => Ok(()),
        Some(wanted) if said.contains(wanted) => Ok(()),
        _ => Err(format!("{said:?}, not {wanted:?}").into()),
    }
}

fn nowhere() -> Result<(), Failed> {
    let (dir, talk) = (tempfile::tempdir()?, Talk::new(Limits::default())?);
    write(dir.path(), "1.json", "{\"id\":1,\"amount\":5}\n{\"id\":2}\n")?;
    write(dir.path(), "2.json", "{\"id\":3,\"extra\":null}\n")?;
    let said = |columns: &str, options: &str| said(&talk, dir.path(), columns, options);
    let none = said("(id INT, amuont INT)", "1.json'")?;
    expect(
        &none,
        Some(
            "notice: column \"amuont\" is not in the first 2 rows, it is NULL there; did you mean \"amount\"?",
        ),
    )?;
    let none = said("(id INT, zzzzzz INT)", "*.json'")?;
    expect(
        &none,
        Some("column \"zzzzzz\" is not in the first 3 rows of 2 files, it is NULL there"),
    )?;
    // One that another file has, also as NULL only; generated ones are not asked for.
    expect(&said("(id INT, amount INT, extra INT)", "*.json'")?, None)?;
    expect(&said("(id INT, twice INT GENERATED ALWAYS AS (id * 2))", "*.json'")?, None)
}

fn in_1970() -> Result<(), Failed> {
    let (dir, talk) = (tempfile::tempdir()?, Talk::new(Limits::default())?);
    write(dir.path(), "s.json", "{\"at\":1735689600}\n{\"at\":1735689601}\n")?;
    write(dir.path(), "s.csv", "at\n1735689600\n1735689601\n")?;
    let said = |columns: &str, options: &str| said(&talk, dir.path(), columns, options);
    let told = Some("notice: the event times \"at\" of the first rows lie in 1970");
    expect(&said("(at TIMESTAMP(3), WATERMARK FOR at)", "s.json'")?, told)?;
    expect(&said("(at TIMESTAMP(3), WATERMARK FOR at)", "s.csv'")?, told)?;
    expect(&said("(at TIMESTAMP, WATERMARK FOR at)", "s.json', epoch = 'ms'")?, told)?;
    expect(&said("(at TIMESTAMP, WATERMARK FOR at)", "s.json', epoch = 's'")?, None)?;
    expect(&said("(at TIMESTAMP(0), WATERMARK FOR at)", "s.csv'")?, None)?;
    // Times that are written out.
    write(
        dir.path(),
        "t.json",
        "{\"at\":\"1970-01-21T03:04:05Z\"}\n{\"at\":\"1970-01-21 03:04:06\"}\n",
    )?;
    write(dir.path(), "t.csv", "at\n1970-01-21T03:04:05\n")?;
    write(dir.path(), "u.csv", "at\n1970-01-21T03:04:05\n2026-01-21T03:04:05\n")?;
    expect(&said("(at TIMESTAMP(3), WATERMARK FOR at)", "t.json'")?, told)?;
    expect(&said("(at TIMESTAMP, WATERMARK FOR at)", "t.csv'")?, told)?;
    expect(&said("(WATERMARK FOR at)", "t.csv'")?, told)?;
    expect(&said("(at TIMESTAMP, WATERMARK FOR at)", "u.csv'")?, None)?;
    let said = |sql: &str| match talk.ask(sql)? {
        Answer::Done(said) => Ok::<_, Failed>(said),
        Answer::Rows { .. } => Err("rows".into()),
    };
    said("CREATE STREAM pushed (at TIMESTAMP(3), WATERMARK FOR at)")?;
    let told = Some("INSERT 0 2\nnotice: all event times lie in 1970");
    expect(&said("INSERT INTO pushed VALUES (1735689600), (1735689601)")?, told)?;
    expect(&said("INSERT INTO pushed VALUES (1735689600000), (1735689601)")?, None)
}
