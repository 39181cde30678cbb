//! Updating results while rows arrive: a client that follows the changelog, a view that holds the current rows, and a
//! subscriber to that view.

use std::collections::BTreeMap;

use futures::{StreamExt, executor::block_on};
use libtest_mimic::{Failed, Trial};
use windrow_core::Change;
use windrow_engine::{EngineConfig, Outcome, ResultStream};

use crate::talk::{Talk, texts};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("changes/a client gets each change as it comes", follow),
        trial("changes/a view shows whole emissions, a subscriber all changes", view),
    ]
}

/// Counts by key.
type Counts = BTreeMap<String, String>;

/// Folds the changes (change, k, n) of a result until the rows are `wanted`.
fn until(rows: &mut ResultStream, counts: &mut Counts, wanted: &Counts) -> Result<(), Failed> {
    while counts != wanted {
        let batch = block_on(rows.next()).ok_or("the query has ended")??;
        for row in texts(&batch)? {
            let [kind, key, count] = row.as_slice() else { return Err("other columns".into()) };
            match Change::of_name(kind) {
                Some(Change::Insert | Change::UpdateAfter) => {
                    counts.insert(key.clone(), count.clone());
                }
                Some(Change::UpdateBefore | Change::Delete) => {
                    let old = counts.remove(key);
                    if old.as_ref() != Some(count) {
                        return Err(format!("{kind} of {key}, {count}, which was {old:?}").into());
                    }
                }
                None => return Err(format!("{kind} is no change").into()),
            }
        }
    }
    Ok(())
}

fn counts<const N: usize>(of: [(&str, u32); N]) -> Counts {
    of.into_iter().map(|(key, count)| (key.to_owned(), count.to_string())).collect()
}

fn rows(outcome: Outcome) -> Result<ResultStream, Failed> {
    match outcome {
        Outcome::Rows(rows) => Ok(rows),
        Outcome::Done(_) => Err("no rows".into()),
    }
}

fn follow() -> Result<(), Failed> {
    let talk = Talk::following(EngineConfig::default())?;
    talk.ask("CREATE STREAM s (k INT)")?;
    let sql =
        "SELECT k, count(*) AS n FROM s WHERE k > 0 GROUP BY k HAVING count(*) <> 2 EMIT CHANGES";
    let (mut found, mut answer) = (rows(talk.begin(sql)?)?, Counts::new());
    talk.ask("INSERT INTO s VALUES (1), (2), (0)")?;
    until(&mut found, &mut answer, &counts([("1", 1), ("2", 1)]))?;
    talk.ask("INSERT INTO s VALUES (1), (3)")?;
    until(&mut found, &mut answer, &counts([("2", 1), ("3", 1)]))?;
    talk.ask("INSERT INTO s VALUES (1), (1)")?;
    until(&mut found, &mut answer, &counts([("1", 4), ("2", 1), ("3", 1)]))?;
    Ok(())
}

fn view() -> Result<(), Failed> {
    let talk = Talk::following(EngineConfig::default())?;
    talk.ask("CREATE STREAM s (k INT)")?;
    talk.ask(
        "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n FROM s GROUP BY k EMIT CHANGES",
    )?;
    let mut found = rows(talk.begin("SUBSCRIBE TO v AFTER 0")?)?;
    for round in 1..=100 {
        // Both keys come in one INSERT, so that they are in the same emission.
        talk.ask(&format!("INSERT INTO s VALUES (-1), (-2), ({})", round % 7))?;
        let pair = talk.rows("SELECT count(*), count(DISTINCT n) FROM v WHERE k < 0")?;
        if pair != [["2", "1"]] && pair != [["0", "0"]] {
            return Err(format!("part of an emission: {pair:?}").into());
        }
        if round % 10 == 0 {
            talk.ask("WAIT FOR v")?;
            let all = talk.rows("SELECT sum(n) FROM v")?;
            if all != [[(round * 3).to_string()]] {
                return Err(format!("{all:?} after {round} rounds").into());
            }
        }
    }
    let held = talk.rows("SELECT k, n FROM v")?;
    let held: Counts = held.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    until(&mut found, &mut Counts::new(), &held)?;
    Ok(())
}
