//! Updating results of several operators: views over random rows, in random batches, hold after each of them the rows that
//! the bounded query returns; and what a client sees is never the answer of two different prefixes.

use futures::{StreamExt, executor::block_on};
use libtest_mimic::{Failed, Trial};
use windrow_core::{Change, Limits};
use windrow_engine::{EngineConfig, Outcome};

use crate::program::long;
use crate::slt::fold;
use crate::talk::{Answer, Talk, texts};
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("composed/views over random rows are the bounded answer", random),
        trial("composed/all ways of a stream are seen as of one row", no_glitches),
        trial("composed/updating queries of Nexmark are the bounded answer (slow)", nexmark),
    ]
}

/// Relations with the columns k, v and x, of which the first is never the key of all rows.
const RELATIONS: [&str; 8] = [
    "SELECT k, v, x FROM s",
    "SELECT k, v, x FROM r WHERE v > 2",
    "SELECT k, count(*) AS v, sum(x) AS x FROM s GROUP BY k",
    "SELECT k, max(v) AS v, avg(x) AS x FROM s GROUP BY k HAVING count(*) % 3 <> 0",
    "SELECT v AS k, min(k) AS v, max(x) AS x FROM (SELECT k, count(*) AS v, sum(x) AS x FROM s GROUP BY k) GROUP BY v",
    "SELECT k, v, x FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY x DESC, id) AS place FROM s) WHERE place <= 2",
    "SELECT s.k, r.v, s.x FROM s JOIN r ON s.k = r.k AND s.v < r.v",
    "SELECT DISTINCT k, v, CAST(v AS DOUBLE) AS x FROM s",
];

/// Queries over two of them, `{a}` and `{b}`.
const QUERIES: [&str; 19] = [
    "SELECT v, count(*), sum(k), min(k), max(k), count(DISTINCT k) FROM ({a}) AS a GROUP BY v",
    "SELECT count(*), sum(v), min(x), max(x), round(sum(x), 6), round(avg(x), 6), round(stddev(v), 6) FROM ({a}) AS a",
    "SELECT DISTINCT k % 3, v FROM ({a}) AS a",
    "SELECT a.k, a.v, b.v FROM ({a}) AS a JOIN ({b}) AS b ON a.k = b.k",
    "SELECT a.k, a.v, b.v FROM ({a}) AS a LEFT JOIN ({b}) AS b ON a.k = b.k AND a.v <> b.v",
    "SELECT a.k, a.v, b.k, b.v FROM ({a}) AS a RIGHT JOIN ({b}) AS b ON a.k = b.k AND b.v > 3",
    "SELECT a.k, a.v, b.k, b.v FROM ({a}) AS a FULL JOIN ({b}) AS b ON a.v = b.v AND a.k < b.k",
    "SELECT k, v FROM ({a}) AS a WHERE k IN (SELECT k FROM ({b}) AS b WHERE v > 4)",
    "SELECT k, v FROM ({a}) AS a WHERE k NOT IN (SELECT v FROM ({b}) AS b WHERE k < 3)",
    "SELECT k, v FROM ({a}) AS a WHERE NOT EXISTS (SELECT 1 FROM ({b}) AS b WHERE b.k = a.k AND b.v > a.v)",
    "SELECT k, v FROM ({a}) AS a WHERE v > 6 OR EXISTS (SELECT 1 FROM ({b}) AS b WHERE b.k = a.k)",
    "SELECT k, v FROM ({a}) AS a WHERE v > (SELECT avg(v) FROM ({b}) AS b)",
    "SELECT k, v, x FROM ({a}) AS a ORDER BY v DESC, k, x LIMIT 5",
    "SELECT k, v FROM ({a}) AS a ORDER BY k, v, x LIMIT 3 OFFSET 2",
    "SELECT k, v, place FROM (SELECT *, rank() OVER (PARTITION BY k ORDER BY v DESC) AS place FROM ({a}) AS a) WHERE place < 3",
    "SELECT k, v, dense_rank() OVER (PARTITION BY v ORDER BY k) AS place FROM ({a}) AS a",
    "SELECT k, v FROM ({a}) AS a UNION SELECT v, k FROM ({b}) AS b",
    "SELECT k, v FROM ({a}) AS a EXCEPT SELECT k, v FROM ({b}) AS b",
    "SELECT k, v FROM ({a}) AS a INTERSECT SELECT k, v FROM ({b}) AS b",
];

/// Random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

fn number(rng: &mut Random, to: u64) -> String {
    match rng.below(10) {
        0 => "NULL".to_owned(),
        _ => rng.below(to).to_string(),
    }
}

fn values(rng: &mut Random, id: &mut u64) -> String {
    let rows: Vec<String> = (0..1 + rng.below(19))
        .map(|_| {
            *id += 1;
            let x = rng.below(16) as f64 / 4.0 - 2.0;
            format!("({id}, {}, {}, {x})", number(rng, 6), number(rng, 9))
        })
        .collect();
    rows.join(", ")
}

fn random() -> Result<(), Failed> {
    let rounds = if long() { 2 } else { 1 };
    for seed in 0..rounds {
        let rng = &mut Random(seed);
        let limits = Limits { threads: [1, 2, 3, 8][seed as usize % 4], ..Limits::default() };
        let talk = Talk::following(EngineConfig { limits, ..EngineConfig::default() })?;
        talk.ask("CREATE STREAM s (id BIGINT, k BIGINT, v BIGINT, x DOUBLE)")?;
        talk.ask("CREATE STREAM r (id BIGINT, k BIGINT, v BIGINT, x DOUBLE)")?;
        let mut id = 0;
        let mut queries = vec![];
        for (number, query) in QUERIES.iter().enumerate() {
            let mut pick = || RELATIONS[rng.below(8) as usize];
            let query = query.replace("{a}", pick()).replace("{b}", pick());
            // A view names its columns.
            let columns = query.split(" FROM ").next().map_or(0, |list| {
                let depth = |c: char| i32::from(c == '(') - i32::from(c == ')');
                let mut open = 0;
                1 + list
                    .chars()
                    .filter(|c| {
                        open += depth(*c);
                        *c == ',' && open == 0
                    })
                    .count()
            });
            let names: Vec<String> = (0..columns).map(|at| format!("c{at}")).collect();
            talk.ask(&format!(
                "CREATE MATERIALIZED VIEW q{number} AS SELECT * FROM ({query}) AS q ({}) EMIT CHANGES",
                names.join(", ")
            ))
            .map_err(|e| format!("{query}: {e}"))?;
            queries.push(query);
        }
        for _ in 0..5 {
            let stream = if rng.below(5) < 3 { "s" } else { "r" };
            talk.ask(&format!("INSERT INTO {stream} VALUES {}", values(rng, &mut id)))?;
            for (number, query) in queries.iter().enumerate() {
                talk.ask(&format!("WAIT FOR q{number}"))?;
                let mut held = talk.rows(&format!("SELECT * FROM q{number}"))?;
                let mut truth = talk.rows(query)?;
                held.sort_unstable();
                truth.sort_unstable();
                if held != truth {
                    return Err(format!(
                        "seed {seed}: {query}\nview: {held:?}\nbounded: {truth:?}"
                    )
                    .into());
                }
            }
        }
    }
    Ok(())
}

fn nexmark() -> Result<(), Failed> {
    let text = std::fs::read_to_string("sql/nexmark/updating.sql")?;
    let talk = Talk::new(Limits { threads: 2, ..Limits::default() })?;
    let mut compared = 0;
    for statement in windrow_sql::parse::parse(&text).map_err(|e| e.render(&text))? {
        let Some((bounded, _)) = statement.text.split_once("EMIT ") else {
            talk.ask(&statement.text)?;
            continue;
        };
        let Answer::Rows { schema, rows } = talk.ask(&statement.text)? else {
            return Err("no rows".into());
        };
        let updates = schema.fields().first().is_some_and(|field| field.name() == "change");
        let mut found = if updates { fold(rows)? } else { rows };
        let mut truth = talk.rows(bounded)?;
        found.sort_unstable();
        truth.sort_unstable();
        if found != truth || truth.is_empty() {
            let (found, truth) = (found.len(), truth.len());
            return Err(format!("{found} rows instead of {truth}: {}", statement.text).into());
        }
        compared += 1;
    }
    if compared == 15 { Ok(()) } else { Err(format!("{compared} queries compared").into()) }
}

fn no_glitches() -> Result<(), Failed> {
    let limits = Limits { threads: 4, ..Limits::default() };
    let talk = Talk::following(EngineConfig { limits, ..EngineConfig::default() })?;
    talk.ask("CREATE STREAM s (k BIGINT)")?;
    let sql = "SELECT a.k, a.n, b.n FROM (SELECT k, count(*) AS n FROM s GROUP BY k) AS a FULL JOIN (SELECT k, sum(1) AS n FROM s \
               WHERE k >= 0 GROUP BY k) AS b ON a.k = b.k EMIT CHANGES";
    let Outcome::Rows(mut rows) = talk.begin(sql)? else { return Err("no rows".into()) };
    for round in 0..60 {
        talk.ask(&format!("INSERT INTO s VALUES ({}), (7), ({})", round % 5, round % 3))?;
    }
    let mut last = String::new();
    while last != "60" {
        let batch = block_on(rows.next()).ok_or("the query has ended")??;
        for row in texts(&batch)? {
            let [kind, key, left, right] = row.as_slice() else {
                return Err("other columns".into());
            };
            if left != right {
                return Err(format!("{kind} of {key}: {left} and {right} rows").into());
            }
            if key == "7" && Change::of_name(kind).is_some_and(Change::adds) {
                last.clone_from(left);
            }
        }
    }
    Ok(())
}
