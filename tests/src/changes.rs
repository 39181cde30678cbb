//! Updating results while rows arrive: a client that follows the changelog, a view that holds the current rows, and a
//! subscriber to that view.

use std::collections::BTreeMap;

use futures::{StreamExt, executor::block_on};
use libtest_mimic::{Failed, Trial};
use windrow_core::Change;
use windrow_engine::{EngineConfig, Outcome, ResultStream};

use crate::crash::Chance;
use crate::program::{Home, rounds};
use crate::talk::{Talk, texts};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("changes/a client gets each change as it comes", follow),
        trial("changes/a view shows whole emissions, a subscriber all changes", view),
        trial("changes/a snapshot is followed by the changes after it", snapshot),
        trial("changes/a durable view continues, also one that has ended", durable),
        trial("changes/a subscriber resumes after kills without gap or double", kills),
    ]
}

/// Counts by key.
type Counts = BTreeMap<String, String>;

/// Folds the changes (change, k, n) of a result until the rows are `wanted`.
fn until(rows: &mut ResultStream, counts: &mut Counts, wanted: &Counts) -> Result<(), Failed> {
    while counts != wanted {
        let batch = block_on(rows.next()).ok_or("the query has ended")??;
        for row in texts(&batch)? {
            fold(&row, counts)?;
        }
    }
    Ok(())
}

/// Applies a change (change, k, n).
fn fold(row: &[String], counts: &mut Counts) -> Result<(), Failed> {
    let [kind, key, count] = row else { return Err("other columns".into()) };
    let change = Change::of_name(kind);
    let old = match change {
        Some(Change::Insert | Change::UpdateAfter) => counts.insert(key.clone(), count.clone()),
        Some(Change::UpdateBefore | Change::Delete) => counts.remove(key),
        None => return Err(format!("{kind} is no change").into()),
    };
    let expected = Some(count).filter(|_| !change.is_some_and(Change::adds));
    match old.as_ref() == expected {
        true => Ok(()),
        false => Err(format!("{kind} of {key}, {count}, which was {old:?}").into()),
    }
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

/// An engine in a data directory.
fn at(dir: &tempfile::TempDir) -> Result<Talk, Failed> {
    let data_dir = Some(dir.path().join("data"));
    Ok(Talk::following(EngineConfig { data_dir, ..EngineConfig::default() })?)
}

const VIEW: &str =
    "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n FROM s GROUP BY k EMIT CHANGES";

fn snapshot() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    for talk in [Talk::following(EngineConfig::default())?, at(&dir)?] {
        talk.ask("CREATE STREAM s (k INT)")?;
        talk.ask(VIEW)?;
        talk.ask("INSERT INTO s VALUES (1), (2), (2)")?;
        talk.ask("WAIT FOR v")?;
        talk.ask("INSERT INTO s VALUES (1)")?;
        talk.ask("WAIT FOR v")?;
        let mut found = rows(talk.begin("SUBSCRIBE TO v WITH (snapshot = true)")?)?;
        let sequence = |found: &mut ResultStream| found.position().and_then(|at| at.sequence);
        if sequence(&mut found).is_some() {
            return Err("a snapshot can be resumed before its end".into());
        }
        let first = block_on(found.next()).ok_or("no snapshot")??;
        let mut answer = Counts::new();
        texts(&first)?.iter().try_for_each(|row| fold(row, &mut answer))?;
        if answer != counts([("1", 2), ("2", 2)]) {
            return Err(format!("{answer:?} in the snapshot").into());
        }
        let before = answer.clone();
        let after = sequence(&mut found).ok_or("no sequence after the snapshot")?;
        talk.ask("INSERT INTO s VALUES (2), (3)")?;
        let wanted = counts([("1", 2), ("2", 3), ("3", 1)]);
        // Durable changes come with a checkpoint; a snapshot asks for one.
        let mut second = rows(talk.begin("SUBSCRIBE TO v WITH (snapshot = true)")?)?;
        talk.ask("WAIT FOR v")?;
        let mut third = rows(talk.begin("SUBSCRIBE TO v WITH (snapshot = true)")?)?;
        until(&mut found, &mut answer, &wanted)?;
        until(&mut second, &mut Counts::new(), &wanted)?;
        until(&mut third, &mut Counts::new(), &wanted)?;
        let mut resumed = rows(talk.begin(&format!("SUBSCRIBE TO v AFTER {after}"))?)?;
        let mut answer = before;
        until(&mut resumed, &mut answer, &wanted)?;
        if sequence(&mut resumed) != Some(after + 3) {
            return Err(format!("{:?} after {after}", sequence(&mut resumed)).into());
        }
    }
    Ok(())
}

fn durable() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let csv = dir.path().join("k.csv");
    std::fs::write(&csv, "k\n1\n1\n2\n")?;
    let talk = at(&dir)?;
    let path = csv.display();
    talk.ask("CREATE STREAM s (k INT)")?;
    talk.ask(&format!(
        "CREATE STREAM f (k INT) WITH (connector = 'file', path = '{path}', format = 'csv')"
    ))?;
    talk.ask(VIEW)?;
    let ended = "SELECT count(*) AS n, max(k) AS k FROM f GROUP BY k HAVING count(*) > 0";
    talk.ask(&format!("CREATE MATERIALIZED VIEW w AS {ended} EMIT CHANGES"))?;
    talk.ask("CREATE MATERIALIZED VIEW d AS SELECT DISTINCT k FROM s EMIT CHANGES")?;
    talk.ask("WAIT FOR w")?;
    let mut talk = talk;
    for round in 1..=3_u32 {
        talk.ask("INSERT INTO s VALUES (1), (2)")?;
        talk.ask("WAIT FOR v")?;
        talk.ask("WAIT FOR d")?;
        for restarted in [false, true] {
            let held = talk.rows("SELECT k, n FROM v ORDER BY k")?;
            let n = round.to_string();
            if held != [["1", &n], ["2", &n]] {
                return Err(format!("{held:?} in round {round}, restarted: {restarted}").into());
            }
            let held = talk.rows("SELECT k, n FROM w ORDER BY k")?;
            if held != [["1", "2"], ["2", "1"]] {
                return Err(format!("{held:?} of a file, restarted: {restarted}").into());
            }
            let held = talk.rows("SELECT k FROM d ORDER BY k")?;
            if held != [["1"], ["2"]] {
                return Err(format!("{held:?} are distinct, restarted: {restarted}").into());
            }
            for view in ["v", "w"] {
                let said = talk.rows(&format!("VERIFY VIEW {view}"))?;
                if said.len() != 1 || said[0][0] != "equal: 2 rows" {
                    return Err(format!("{said:?} of {view}, restarted: {restarted}").into());
                }
            }
            if !restarted {
                talk.close()?;
                talk = at(&dir)?;
                talk.ask("WAIT FOR v")?;
            }
        }
    }
    // All changes, from the first on.
    let mut found = rows(talk.begin("SUBSCRIBE TO v AFTER 0")?)?;
    until(&mut found, &mut Counts::new(), &counts([("1", 3), ("2", 3)]))?;
    talk.ask("DROP MATERIALIZED VIEW v")?;
    talk.close()?;
    Ok(())
}

/// Each round inserts, and reads some changes after those that were read before; then the program is killed.
fn kills() -> Result<(), Failed> {
    let (mut home, mut chance) = (Home::new()?, Chance(21));
    home.flags = ["--checkpoint-interval", "0.003"].map(str::to_owned).to_vec();
    let create = "CREATE STREAM IF NOT EXISTS s (k INT);\nCREATE MATERIALIZED VIEW IF NOT EXISTS v AS \
                  SELECT k, count(*) AS n FROM s GROUP BY k EMIT CHANGES;\n";
    let (mut answer, mut after, mut all) = (Counts::new(), 0, 0);
    for _ in 0..rounds(16) {
        let mut sql = create.to_owned();
        for _ in 0..1 + chance.below(20) {
            let (a, b) = (chance.below(5), chance.below(9));
            sql.push_str(&format!("INSERT INTO s VALUES ({a}), ({b});\n"));
            all += 2;
        }
        sql.push_str(&format!("SUBSCRIBE TO v AFTER {after};\n"));
        let mut running = home.start(&sql)?;
        // The header, and a change: each INSERT makes one at least.
        if !running.until_lines(2)? {
            return Err("the program ends".into());
        }
        let said = running.kill()?;
        said.no_bug()?;
        let whole = said.out.rsplit_once('\n').map_or("", |(whole, _)| whole);
        for line in whole.lines().skip(1) {
            let row: Vec<String> = line.split(',').map(str::to_owned).collect();
            fold(&row, &mut answer)?;
            after += 1;
        }
    }
    let queries = ["SELECT k, n FROM v", "SELECT k, count(*) FROM s GROUP BY k"];
    let [view, bounded] =
        <[_; 2]>::try_from(home.tables(&format!("{create}WAIT FOR v;\n"), &queries)?)
            .map_err(|_| "other tables")?;
    let wanted: Counts = view
        .iter()
        .filter_map(|line| line.split_once(','))
        .map(|(k, n)| (k.to_owned(), n.to_owned()))
        .collect();
    let total: u64 = wanted.values().filter_map(|n| n.parse::<u64>().ok()).sum();
    if view != bounded || total > all {
        return Err(format!("{view:?} instead of {bounded:?}").into());
    }
    let mut running = home.start(&format!("{create}SUBSCRIBE TO v AFTER {after};\n"))?;
    let mut lines = 1;
    while answer != wanted {
        lines += 1;
        if !running.until_lines(lines)? {
            return Err("the program ends".into());
        }
        let out = running.out();
        let line = out.lines().nth(lines - 1).ok_or("no line")?;
        fold(&line.split(',').map(str::to_owned).collect::<Vec<_>>(), &mut answer)?;
    }
    running.kill()?.no_bug()
}
