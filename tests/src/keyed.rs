//! Streams with a primary key: random inserts, updates and deletes against a model, and after each of them all views over
//! the stream hold what the bounded query returns; writers at the same time lose no update.

use std::collections::BTreeMap;

use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;
use windrow_engine::EngineConfig;

use crate::program::long;
use crate::talk::{Answer, Talk};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("keyed/views over random changes are the bounded answer", random),
        trial("keyed/writers at the same time lose no update", together),
    ]
}

/// Queries over the stream `s (id, k, v)` and the append-only `r (k, v)`.
const QUERIES: [&str; 11] = [
    "SELECT id, k, v FROM s",
    "SELECT v, id FROM s WHERE v > 3",
    "SELECT k, count(*) AS n, sum(v) AS total, min(v) AS least, max(v) AS most FROM s GROUP BY k",
    "SELECT count(*) AS n, avg(v) AS mean FROM s WHERE k IS NOT NULL",
    "SELECT DISTINCT v FROM s",
    "SELECT n, count(*) AS groups FROM (SELECT k, count(*) AS n FROM s GROUP BY k) GROUP BY n",
    "SELECT s.id, s.v, r.v AS w FROM s JOIN r ON s.k = r.k",
    "SELECT a.id, b.id AS other FROM s AS a LEFT JOIN s AS b ON a.v = b.k AND a.id < b.id",
    "SELECT id, v FROM s ORDER BY v DESC, id LIMIT 3",
    "SELECT id FROM s WHERE k NOT IN (SELECT v FROM r)",
    "SELECT k FROM s EXCEPT SELECT k FROM r",
];

/// Random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn number(&mut self, end: u64) -> Option<i64> {
        (self.below(8) > 0).then(|| self.below(end) as i64)
    }
}

/// The rows by key.
type Model = BTreeMap<i64, (Option<i64>, Option<i64>)>;

fn text(value: Option<i64>) -> String {
    value.map_or("NULL".to_owned(), |value| value.to_string())
}

/// Changes the model; returns the statement that does the same, and how many rows it changes.
fn change(rng: &mut Random, model: &mut Model) -> (String, usize) {
    let at = rng.below(6) as i64;
    match rng.below(6) {
        0..3 => {
            let rows: Vec<_> = (0..1 + rng.below(7))
                .map(|_| (rng.below(12) as i64, rng.number(6), rng.number(9)))
                .collect();
            model.extend(rows.iter().map(|(id, k, v)| (*id, (*k, *v))));
            let rows: Vec<_> = rows
                .iter()
                .map(|(id, k, v)| format!("({id}, {}, {})", text(*k), text(*v)))
                .collect();
            (format!("INSERT INTO s VALUES {}", rows.join(", ")), rows.len())
        }
        3 => {
            let before = model.len();
            model.remove(&at);
            (format!("DELETE FROM s WHERE id = {at}"), before - model.len())
        }
        4 => {
            let before = model.len();
            model.retain(|_, (k, v)| !(k.is_some_and(|k| k >= 4) || v.is_none()));
            ("DELETE FROM s WHERE k >= 4 OR v IS NULL".to_owned(), before - model.len())
        }
        _ => {
            let mut changed = 0;
            for (id, (k, v)) in model.iter_mut() {
                if *id > at && v.is_some_and(|v| v < 5) {
                    (*k, *v) = (*v, Some(id % 7));
                    changed += 1;
                }
            }
            (format!("UPDATE s SET k = v, v = id % 7 WHERE id > {at} AND v < 5"), changed)
        }
    }
}

fn random() -> Result<(), Failed> {
    let rounds = if long() { 3 } else { 1 };
    for seed in 0..rounds {
        let rng = &mut Random(seed + 11);
        let limits = Limits { threads: [2, 1, 4][seed as usize % 3], ..Limits::default() };
        let talk = Talk::following(EngineConfig { limits, ..EngineConfig::default() })?;
        talk.ask("CREATE STREAM s (id BIGINT, k BIGINT, v BIGINT, PRIMARY KEY (id)) WITH (changes = 'upsert')")?;
        talk.ask("CREATE STREAM r (k BIGINT, v BIGINT)")?;
        for (number, query) in QUERIES.iter().enumerate() {
            talk.ask(&format!("CREATE MATERIALIZED VIEW q{number} AS {query} EMIT CHANGES"))
                .map_err(|e| format!("{query}: {e}"))?;
        }
        let mut model = Model::new();
        for step in 0..12 {
            if step % 4 == 1 {
                let (k, v) = (rng.below(6), rng.below(9));
                talk.ask(&format!("INSERT INTO r VALUES ({k}, {v})"))?;
            }
            let (statement, changed) = change(rng, &mut model);
            let Answer::Done(said) = talk.ask(&statement)? else { return Err("rows".into()) };
            if !said.ends_with(&format!(" {changed}")) {
                return Err(format!("{statement}: {said} instead of {changed}").into());
            }
            let mut rows: Vec<_> =
                model.iter().map(|(id, (k, v))| vec![id.to_string(), text(*k), text(*v)]).collect();
            rows.sort_unstable();
            for (number, query) in QUERIES.iter().enumerate() {
                talk.ask(&format!("WAIT FOR q{number}"))?;
                let mut held = talk.rows(&format!("SELECT * FROM q{number}"))?;
                let mut truth = talk.rows(query)?;
                held.sort_unstable();
                truth.sort_unstable();
                if held != truth || (number == 0 && truth != rows) {
                    let text = format!(
                        "seed {seed}: {statement}, {query}\nview: {held:?}\nbounded: {truth:?}\nmodel: {rows:?}"
                    );
                    return Err(text.into());
                }
            }
        }
    }
    Ok(())
}

fn together() -> Result<(), Failed> {
    let talk = Talk::following(EngineConfig::default())?;
    talk.ask("CREATE STREAM s (id BIGINT PRIMARY KEY, n BIGINT) WITH (changes = 'upsert')")?;
    talk.ask("INSERT INTO s VALUES (1, 0), (2, 0)")?;
    let writer = |other: i64| {
        for _ in 0..20 {
            talk.ask("UPDATE s SET n = n + 1 WHERE id = 1")?;
            talk.ask(&format!("INSERT INTO s VALUES ({other}, 7)"))?;
        }
        Ok::<_, crate::talk::Refusal>(())
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (3..6).map(|other| scope.spawn(move || writer(other))).collect();
        let mut done = writers.into_iter().map(std::thread::ScopedJoinHandle::join);
        done.try_for_each(|done| done.map_err(|_| "a writer panicked".to_owned())?.map_err(|e| e.0))
    })?;
    let rows = talk.rows("SELECT id, n FROM s ORDER BY id")?;
    let expected = [("1", "60"), ("2", "0"), ("3", "7"), ("4", "7"), ("5", "7")];
    let expected: Vec<_> =
        expected.iter().map(|(id, n)| vec![(*id).to_owned(), (*n).to_owned()]).collect();
    if rows == expected { Ok(()) } else { Err(format!("{rows:?}").into()) }
}
