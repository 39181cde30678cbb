//! Kill -9 while sinks write: files have each row once, requests with the same key are the same.

use std::collections::BTreeSet;

use libtest_mimic::Failed;

use super::{LAST, STREAM, VIEWS, by_key, read, rows_of, same};
use crate::hooks::Hooks;
use crate::program::{Home, failed, for_ever, rounds};

fn create_files(home: &Home) -> String {
    let path = |name: &str| home.beside(name).display().to_string();
    format!(
        "{STREAM}{VIEWS}
CREATE SINK IF NOT EXISTS fv FROM v WITH (connector = 'file', path = '{}', format = 'parquet', roll_interval = '10 ms');
CREATE SINK IF NOT EXISTS fr FROM r WITH (connector = 'file', path = '{}', format = 'ndjson', roll_size = '2 kB',
    roll_interval = '1 second', partition_by = 'k');
CREATE SINK IF NOT EXISTS fq AS SELECT id, ts FROM s WHERE k = 3 WITH (connector = 'file', path = '{}', format = 'csv',
    roll_interval = '10 ms', compression = 'gzip');
",
        path("fv"),
        path("fr"),
        path("fq")
    )
}

/// What the files have that must be in them: directory, format, columns, and the query that has the same rows.
const FILES: [(&str, &str, &str, &str); 3] = [
    ("fv", "parquet", "k, n, low, high", "SELECT k, n, low, high FROM v"),
    ("fr", "json", "id, k", "SELECT id, k FROM s WHERE k <> 3"),
    ("fq", "csv", "id", "SELECT id FROM s WHERE k = 3"),
];

pub(super) fn files_killed() -> Result<(), Failed> {
    const STATEMENTS: u64 = 30;
    let mut home = Home::new()?;
    home.traced = true;
    home.flags = ["--checkpoint-interval", "0.01", "--tail-rows", "40"].map(str::to_owned).into();
    let mut next = 0;
    for kill in 0..rounds(24) as u64 {
        let mut sql = create_files(&home);
        let statements = next..next + STATEMENTS;
        next = statements.end;
        for statement in statements {
            sql.push_str(&rows_of(statement));
            if statement % 5 == 0 {
                sql.push_str("WAIT FOR fv;\nWAIT FOR fr;\n");
            }
        }
        sql.push_str(&for_ever("v"));
        let mut running = home.start(&sql)?;
        if !running.until(usize::try_from(kill * 11 % STATEMENTS)?, "INSERT 0")? {
            return Err(failed(&running.finish()?, "the program ends"));
        }
        running.steps_more(usize::try_from(kill * 17 % 29)?)?;
        running.kill()?.no_bug()?;
        // At any moment every file can be read, and no row is there twice.
        for (dir, form, columns, _) in FILES {
            let rows = read(&home.beside(dir), form, columns)?;
            let different: BTreeSet<&String> = rows.iter().collect();
            if different.len() != rows.len() {
                return Err(
                    format!("{dir}: {} rows, {} different", rows.len(), different.len()).into()
                );
            }
        }
    }
    let last = create_files(&home) + LAST + "WAIT FOR fv;\nWAIT FOR fr;\nWAIT FOR fq;\n";
    let tables = home.tables(&last, &FILES.map(|(.., query)| query))?;
    for ((dir, form, columns, _), expected) in FILES.iter().zip(&tables) {
        same(dir, &read(&home.beside(dir), form, columns)?, expected)?;
    }
    Ok(())
}

pub(super) fn requests_killed() -> Result<(), Failed> {
    const STATEMENTS: u64 = 30;
    // Every seventh request fails, after it has come.
    let by_row = Hooks::answering(0, |number, _| if number % 7 == 3 { 503 } else { 200 })?;
    let in_batches = Hooks::answering(0, |number, _| if number % 5 == 3 { 503 } else { 204 })?;
    let mut home = Home::new()?;
    home.traced = true;
    home.flags = ["--checkpoint-interval", "0.01", "--tail-rows", "40"].map(str::to_owned).into();
    let create = format!(
        "{STREAM}{VIEWS}
CREATE SINK IF NOT EXISTS hv FROM v WITH (connector = 'webhook', url = '{}');
CREATE SINK IF NOT EXISTS hr FROM r WITH (connector = 'webhook', url = '{}', mode = 'batch', batch_rows = 25,
    batch_interval = '10 ms');
",
        by_row.url(),
        in_batches.url()
    );
    let mut next = 0;
    for kill in 0..rounds(24) as u64 {
        let mut sql = create.clone();
        let statements = next..next + STATEMENTS;
        next = statements.end;
        statements.for_each(|statement| sql.push_str(&rows_of(statement)));
        sql.push_str(&for_ever("v"));
        let sent = by_row.posts().len();
        let mut running = home.start(&sql)?;
        if !running.until(usize::try_from(kill * 7 % STATEMENTS)?, "INSERT 0")? {
            return Err(failed(&running.finish()?, "the program ends"));
        }
        // Every moment must do: here while rows come, there while they are sent.
        match kill % 2 {
            0 => drop(running.steps_more(usize::try_from(kill * 13 % 40)?)?),
            _ => running.wait_until("requests", || Ok(by_row.posts().len() > sent + 3))?,
        }
        running.kill()?.no_bug()?;
    }
    let last = create + LAST + "WAIT FOR hv;\nWAIT FOR hr;\n";
    let queries = ["SELECT low, high FROM v", "SELECT id FROM s WHERE k <> 3"];
    let tables = home.tables(&last, &queries)?;
    let field = |body: &str, name: &str| {
        let rest = body.split_once(&format!("\"{name}\":")).map_or("", |(_, rest)| rest);
        rest.split([',', '}']).next().unwrap_or_default().to_owned()
    };
    let rows = by_key(&by_row.posts())?;
    let mut found: Vec<String> =
        rows.values().map(|b| format!("{},{}", field(b, "low"), field(b, "high"))).collect();
    found.sort_unstable();
    same("rows", &found, &tables[0])?;
    let batches = by_key(&in_batches.posts())?;
    let mut found: Vec<String> = batches
        .values()
        .flat_map(|body| body.split("},{").map(|row| field(row, "id")).collect::<Vec<_>>())
        .collect();
    found.sort_unstable();
    same("batches", &found, &tables[1])
}
