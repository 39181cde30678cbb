//! Circuits: random queries over random rows and cuts. After every flush the changes so far, folded, are the rows that the
//! bounded form returns over the rows so far.

use std::collections::BTreeMap;

use arrow::array::Float64Array;
use windrow_core::{Change, change};
use windrow_operators::{CoordinatorPart, WorkerPart, normalised};

use super::*;

/// Random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A row of a stream: k, v and x.
type Row = (Option<i64>, Option<i64>, f64);

fn rows(random: &mut Random, count: u64) -> Vec<Row> {
    let number = |random: &mut Random, to: u64| {
        let null = random.below(10) == 0;
        (!null).then(|| i64::try_from(random.below(to)).unwrap())
    };
    let quarters =
        |random: &mut Random| f64::from(u32::try_from(random.below(16)).unwrap()) / 4.0 - 2.0;
    (0..count).map(|_| (number(random, 6), number(random, 9), quarters(random))).collect()
}

/// Streams `s` and `r` with these rows, numbered from `first` on.
fn world(streams: [(&[Row], usize); 2]) -> World {
    let config = SessionConfig::new().with_target_partitions(1);
    let state = session_state(config, Arc::new(RuntimeEnv::default())).unwrap();
    let mut world = World { state, contents: BTreeMap::new() };
    for (name, (rows, first)) in ["s", "r"].into_iter().zip(streams) {
        let ids = (first..first + rows.len()).map(|id| i64::try_from(id).unwrap());
        let x = Field::new("x", DataType::Float64, true);
        let columns: Vec<ArrayRef> = vec![
            ints(ids),
            Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| Some(row.2)).collect::<Float64Array>()),
        ];
        world.stream(name, vec![int("id"), int("k"), int("v"), x], columns, None);
    }
    world
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
const QUERIES: [&str; 25] = [
    "SELECT k, v, sum(v) OVER (PARTITION BY k ORDER BY v), count(*) OVER (PARTITION BY v % 2) FROM ({a}) AS a",
    "SELECT k, lag(v) OVER (PARTITION BY k ORDER BY v), ntile(1) OVER (ORDER BY k) FROM ({a}) AS a",
    "SELECT v, rank() OVER (ORDER BY v), max(k) OVER (ORDER BY v RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING) FROM ({a}) AS a WHERE k > 1",
    "SELECT k, array_agg(v ORDER BY v DESC), count(*), string_agg(CAST(v AS VARCHAR), '-' ORDER BY v) FILTER (WHERE v > 2) FROM ({a}) AS a GROUP BY k",
    "SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY v), first_value(k ORDER BY k, v) FROM ({a}) AS a",
    "SELECT DISTINCT ON (k) k, v FROM ({a}) AS a ORDER BY k, v DESC",
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

/// The rows so far, each with the number of its occurrences.
type Folded = BTreeMap<String, usize>;

fn fold(changes: &RecordBatch, shown: bool, into: &mut Folded) {
    let kinds = match shown {
        true => change::read(changes.column(0)).unwrap(),
        false => vec![Change::Insert; changes.num_rows()],
    };
    let first = usize::from(shown);
    for (row, kind) in kinds.into_iter().enumerate() {
        let columns: Vec<usize> = (first..changes.num_columns()).collect();
        let line = lines(&[changes.project(&columns).unwrap().slice(row, 1)]).remove(0);
        let count = into.entry(line.clone()).or_default();
        match kind.adds() {
            true => *count += 1,
            false => *count = count.checked_sub(1).unwrap_or_else(|| panic!("{line} is removed")),
        }
    }
}

/// A circuit that runs.
struct Running<'a> {
    stage: &'a Stage,
    coordinator: Box<dyn CoordinatorPart>,
    workers: Vec<Vec<Box<dyn WorkerPart>>>,
    folded: Folded,
}

impl Running<'_> {
    /// Takes the rows of `part`, and returns the changes of all that came so far.
    async fn take(&mut self, part: &World, random: &mut Random) {
        let [node] = self.stage.operators.as_slice() else { panic!("several operators") };
        for (input, workers) in node.inputs.iter().zip(&mut self.workers) {
            for batch in part.run_rows(&input.flow).await {
                let worker = usize::try_from(random.below(workers.len() as u64)).unwrap();
                workers[worker].update(&batch).unwrap();
            }
        }
        while let Some(to) = self.coordinator.flush_to(Watermark::NONE, true) {
            for (input, workers) in self.workers.iter_mut().enumerate() {
                for segment in workers.iter_mut().flat_map(|worker| worker.flush(to).unwrap()) {
                    self.coordinator.add(input, segment).unwrap();
                }
            }
            self.coordinator.flushed(to);
        }
        let shown = self.stage.changes != Some(RowChanges::AppendOnly);
        let state = micro_batch_state(&part.state);
        let finish = physical(&state, &self.stage.traced_finish().unwrap()).await.unwrap();
        let rows_max = [1, 2, 100][usize::try_from(random.below(3)).unwrap()];
        while self.coordinator.next_end(Watermark::NONE).unwrap().is_some() {
            let finished = self.coordinator.close(Watermark::NONE, rows_max).unwrap().unwrap();
            let (context, inputs) = context(&state);
            inputs.set(node.leaf, finished.rows.map(|rows| rows.unwrap()).collect());
            let rows = run(&finish, &context).await.unwrap();
            if let Some(changes) = normalised(&rows, shown).unwrap() {
                fold(&changes, shown, &mut self.folded);
            }
        }
        self.folded.retain(|_, count| *count > 0);
    }
}

/// Runs a query over random rows, and compares it after every flush.
async fn check(sql: &str, random: &mut Random) {
    let (s, r) = (rows(random, 40), rows(random, 25));
    let whole = world([(&s, 0), (&r, 0)]);
    let changes = format!("{sql} EMIT CHANGES");
    let plan =
        whole.continuous(&changes).await.unwrap_or_else(|e| panic!("{}", e.render(&changes)));
    // Some are append-only by themselves, or one aggregate.
    let Flow::Stage(stage) = &plan.root else { return };
    let [node] = stage.operators.as_slice() else { return };
    if node.operator.name() != "circuit" {
        return;
    }
    let workers = |_| (0..1 + random.below(3)).map(|_| node.operator.worker(0)).collect();
    let workers = (0..node.inputs.len()).map(workers).collect();
    let coordinator = node.operator.coordinator();
    let mut running = Running { stage, coordinator, workers, folded: Folded::new() };
    let (mut in_s, mut in_r) = (0, 0);
    while (in_s, in_r) != (s.len(), r.len()) {
        let more = |random: &mut Random, from: usize, len: usize| {
            (from + usize::try_from(random.below(30)).unwrap()).min(len)
        };
        let (to_s, to_r) = (more(random, in_s, s.len()), more(random, in_r, r.len()));
        let part = world([(&s[in_s..to_s], in_s), (&r[in_r..to_r], in_r)]);
        running.take(&part, random).await;
        (in_s, in_r) = (to_s, to_r);
        let so_far = world([(&s[..in_s], 0), (&r[..in_r], 0)]);
        let mut truth = Folded::new();
        for line in so_far.bounded_rows(sql).await {
            *truth.entry(line).or_default() += 1;
        }
        assert_eq!(running.folded, truth, "after {in_s} and {in_r} rows\n{sql}\n{plan}");
    }
}

#[tokio::test]
async fn changes_of_circuits_fold_to_the_bounded_rows() {
    for (seed, query) in (0..).zip(QUERIES) {
        let random = &mut Random(seed);
        for _ in 0..2 {
            let mut pick = || RELATIONS[usize::try_from(random.below(8)).unwrap()];
            let query = query.replace("{a}", pick()).replace("{b}", pick());
            check(&query, random).await;
        }
    }
}

#[tokio::test]
async fn a_key_is_known_through_operators() {
    let whole = world([(&[], 0), (&[], 0)]);
    let kinds = [
        (
            "SELECT v, count(*) FROM (SELECT k, count(*) AS v FROM s GROUP BY k) GROUP BY v",
            Some(vec![0]),
        ),
        ("SELECT max(v) FROM (SELECT k, count(*) AS v FROM s GROUP BY k)", Some(vec![])),
        (
            "SELECT s.id, a.v FROM s LEFT JOIN (SELECT k, count(*) AS v FROM s GROUP BY k) AS a ON a.k = s.k",
            None,
        ),
        (
            "SELECT a.v, b.k, b.v FROM (SELECT k, count(*) AS v FROM s GROUP BY k) AS a JOIN (SELECT k, sum(v) AS v FROM r GROUP BY k) AS b ON a.k = b.k",
            Some(vec![1]),
        ),
        (
            "SELECT id, k FROM (SELECT *, row_number() OVER (PARTITION BY k ORDER BY v) AS p FROM s) WHERE p = 1",
            Some(vec![1]),
        ),
        ("SELECT k, v FROM s ORDER BY v LIMIT 1", Some(vec![])),
        ("SELECT k, v FROM s ORDER BY v LIMIT 2", None),
    ];
    for (sql, key) in kinds {
        let sql = format!("{sql} EMIT CHANGES");
        let plan = whole.continuous(&sql).await.unwrap_or_else(|e| panic!("{}", e.render(&sql)));
        let wanted = key.map_or(RowChanges::Retracting, |key| RowChanges::Upsert { key });
        assert_eq!(plan.changes(), &wanted, "{sql}\n{plan}");
    }
    let sql = "SELECT s.k, r.v FROM s JOIN r ON s.k = r.k EMIT CHANGES";
    assert_eq!(whole.continuous(sql).await.unwrap().changes(), &RowChanges::AppendOnly);
}
