//! Plans of all shapes: their text, and that both forms return the same rows.

mod bounded;
mod circuits;
mod continuous;
mod explain;
mod functions;
mod intervals;
mod overs;
mod refusals;
mod sessions;
mod slices;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit, UInt64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use datafusion::datasource::{MemTable, ViewTable};
use datafusion::execution::context::SessionContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::prelude::SessionConfig;
use futures::future::BoxFuture;
use windrow_core::{Result, Watermark};
use windrow_operators::StatefulOperator;

use super::*;
use crate::leaf::LeafInputs;
use crate::parse::{ContinuousQuery, Statement, parse};

/// Streams `bid`, `person`, `auction`, `log` (no event time) and tables `channels`, `wide`.
pub(super) struct World {
    state: SessionState,
    contents: BTreeMap<String, RecordBatch>,
}

fn ts(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, None), true)
}

fn int(name: &str) -> Field {
    Field::new(name, DataType::Int64, true)
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

fn times(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(values))
}

fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn texts<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

impl World {
    pub(super) fn new() -> Self {
        let config = SessionConfig::new().with_target_partitions(1);
        let state = session_state(config, Arc::new(RuntimeEnv::default())).unwrap();
        let mut world = Self { state, contents: BTreeMap::new() };
        // Deterministic disorder, including negative times.
        let n = 0..200_i64;
        let time = |i: i64| (i * 173 + (i * i * 37) % 900) - 6_000;
        let channel = |i: i64| [Some("web"), Some("app"), None][usize::try_from(i % 3).unwrap()];
        world.stream(
            "bid",
            vec![int("auction"), int("bidder"), int("price"), text("channel"), ts("ts")],
            vec![
                ints(n.clone().map(|i| i * 7 % 5)),
                ints(n.clone().map(|i| i * 11 % 13)),
                ints(n.clone().map(|i| i * i % 97)),
                texts(n.clone().map(channel)),
                times(n.clone().map(time)),
            ],
            Some(4),
        );
        world.stream(
            "person",
            vec![int("id"), text("name"), ts("ts")],
            vec![
                ints(n.clone().map(|i| i % 17)),
                texts(n.clone().map(channel)),
                times(n.clone().map(time)),
            ],
            Some(2),
        );
        world.stream(
            "auction",
            vec![int("id"), int("seller"), ts("ts"), ts("expires")],
            vec![
                ints(n.clone()),
                ints(n.clone().map(|i| i * 3 % 17)),
                times(n.clone().map(|i| time(i) + 50)),
                times(n.clone().map(|i| time(i) + 5_000)),
            ],
            Some(2),
        );
        world.stream("log", vec![int("level"), ts("at")], vec![ints(0..3), times(0..3)], None);
        world.table(
            "channels",
            vec![text("code"), text("title")],
            vec![texts([Some("web"), Some("tv")]), texts([Some("The Web"), Some("Television")])],
        );
        world
    }

    fn stream(
        &mut self,
        name: &str,
        fields: Vec<Field>,
        columns: Vec<ArrayRef>,
        time: Option<usize>,
    ) {
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let table = MemTable::try_new(Arc::clone(&schema), vec![vec![batch.clone()]]).unwrap();
        let event_times =
            time.map(|column| EventTime { column, lag_ticks: 0, closes: false, to_end: None });
        self.contents.insert(name.to_owned(), batch);
        let relation = StreamRelation::new(
            name.to_owned(),
            schema,
            event_times.into_iter().collect(),
            Arc::new(table),
        );
        self.register(name, Arc::new(relation));
    }

    fn table(&mut self, name: &str, fields: Vec<Field>, columns: Vec<ArrayRef>) {
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        self.register(name, Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap()));
    }

    fn register(&self, name: &str, table: Arc<dyn TableProvider>) {
        SessionContext::new_with_state(self.state.clone()).register_table(name, table).unwrap();
    }

    /// `CREATE VIEW name AS sql`.
    async fn view(&self, name: &str, sql: &str) {
        let plan = plan_query(&self.state, *Self::query(sql).query, &[], &[]).await.unwrap();
        self.register(name, Arc::new(ViewTable::new(plan, None)));
    }

    /// The first column (an integer) of a flow over `bid`, with the row each came from.
    async fn traced_rows(&self, sql: &str) -> Vec<(i64, i64)> {
        let plan = self.continuous(sql).await.unwrap();
        let Flow::Rows(flow) = &plan.root else { panic!("{plan}") };
        let flow = flow.traced().unwrap();
        let LeafSource::Stream { projection, .. } = &flow.leaves[0].from else { panic!("{plan}") };
        let all = self.contents["bid"].project(projection).unwrap();
        let numbers = UInt64Array::from_iter_values(0..all.num_rows() as u64);
        let mut columns = all.columns().to_vec();
        columns.push(Arc::new(numbers));
        let batch = RecordBatch::try_new(Arc::clone(&flow.leaves[0].schema), columns).unwrap();
        let state = micro_batch_state(&self.state);
        let (context, inputs) = context(&state);
        inputs.set(flow.leaves[0].id, vec![batch]);
        let plan = physical(&state, &flow.plan).await.unwrap();
        let mut rows = vec![];
        for batch in run(&plan, &context).await.unwrap() {
            let first = batch.column(0).as_primitive::<Int64Type>();
            let numbers = batch.columns().last().unwrap().as_primitive::<UInt64Type>();
            let numbers = numbers.values().iter().map(|n| i64::try_from(*n).unwrap());
            rows.extend(first.values().iter().copied().zip(numbers));
        }
        rows
    }

    /// Parses `sql`, a single query.
    fn query(sql: &str) -> ContinuousQuery {
        Self::parsed(sql).unwrap_or_else(|e| panic!("{}\n{sql}", e.render(sql)))
    }

    fn parsed(sql: &str) -> Result<ContinuousQuery> {
        match parse(sql)?.into_iter().next().unwrap().statement {
            Statement::Query(query) => Ok(query),
            other => panic!("not a query: {other:?}"),
        }
    }

    pub(super) async fn continuous(&self, sql: &str) -> Result<ContinuousPlan> {
        let query = Self::parsed(sql)?;
        let plan = plan_query(&self.state, *query.query, &[], &[]).await?;
        continuous(&self.state, plan, &query.tail)
    }

    /// The rows of the bounded form, sorted.
    pub(super) async fn bounded_rows(&self, sql: &str) -> Vec<String> {
        let query = Self::query(sql);
        let plan = plan_query(&self.state, *query.query, &[], &[]).await.unwrap();
        let context = SessionContext::new_with_state(self.state.clone());
        let frame = context.execute_logical_plan(bounded(plan).unwrap()).await.unwrap();
        lines(&frame.collect().await.unwrap())
    }

    /// The rows of the continuous form, sorted: a runtime in 60 lines.
    pub(super) async fn continuous_rows(&self, sql: &str) -> Vec<String> {
        let plan = self.continuous(sql).await.unwrap_or_else(|e| panic!("{}", e.render(sql)));
        let batches = match &plan.root {
            Flow::Rows(flow) => self.run_rows(flow).await,
            Flow::Stage(stage) => self.run_stage(stage).await,
        };
        for batch in &batches {
            let types = |schema: &Schema| -> Vec<(String, DataType)> {
                schema.fields().iter().map(|f| (f.name().clone(), f.data_type().clone())).collect()
            };
            assert_eq!(types(&batch.schema()), types(&plan.schema), "{sql}");
        }
        lines(&batches)
    }

    fn run_rows<'a>(&'a self, flow: &'a RowsFlow) -> BoxFuture<'a, Vec<RecordBatch>> {
        Box::pin(async move {
            let state = micro_batch_state(&self.state);
            let plan = physical(&state, &flow.plan).await.unwrap();
            let mut out = vec![];
            for leaf in &flow.leaves {
                let batches = match &leaf.from {
                    LeafSource::Stage(stage) => self.run_stage(stage).await,
                    LeafSource::Stream { relation, projection, .. } => {
                        let all = self.contents[relation.name()].project(projection).unwrap();
                        (0..all.num_rows().div_ceil(9))
                            .map(|i| all.slice(i * 9, 9.min(all.num_rows() - i * 9)))
                            .collect()
                    }
                };
                for batch in batches {
                    assert_eq!(batch.schema().fields().len(), leaf.schema.fields().len());
                    let (context, inputs) = context(&state);
                    inputs.set(leaf.id, vec![batch]);
                    out.extend(run(&plan, &context).await.unwrap());
                }
            }
            out
        })
    }

    fn run_stage<'a>(&'a self, stage: &'a Stage) -> BoxFuture<'a, Vec<RecordBatch>> {
        Box::pin(async move {
            let mut closed: BTreeMap<i64, Vec<(crate::leaf::LeafId, RecordBatch)>> =
                BTreeMap::new();
            for node in &stage.operators {
                let mut rows = vec![];
                for input in &node.inputs {
                    rows.push(self.run_rows(&input.flow).await);
                }
                for (end, batch) in finished(node.operator.as_ref(), &rows) {
                    closed.entry(end).or_default().push((node.leaf, batch));
                }
            }
            let state = micro_batch_state(&self.state);
            let plan = physical(&state, &stage.finish).await.unwrap();
            let mut out = vec![];
            for (_, windows) in closed {
                let (context, inputs) = context(&state);
                let mut by_leaf: BTreeMap<_, Vec<RecordBatch>> = BTreeMap::new();
                for (leaf, batch) in windows {
                    by_leaf.entry(leaf).or_default().push(batch);
                }
                for (leaf, batches) in by_leaf {
                    inputs.set(leaf, batches);
                }
                out.extend(run(&plan, &context).await.unwrap());
            }
            out
        })
    }

    /// Checks that both forms return the same rows, and some.
    pub(super) async fn agree(&self, sql: &str) {
        let bounded = self.bounded_rows(sql).await;
        assert!(!bounded.is_empty(), "no rows: {sql}");
        let continuous = self.continuous_rows(sql).await;
        assert_eq!(bounded, continuous, "{sql}\n{}", self.continuous(sql).await.unwrap());
    }
}

/// The finished rows of an operator over all rows of its inputs, with their ends.
fn finished(
    operator: &dyn StatefulOperator,
    inputs: &[Vec<RecordBatch>],
) -> Vec<(i64, RecordBatch)> {
    let mut coordinator = operator.coordinator();
    for (number, batches) in inputs.iter().enumerate() {
        let mut worker = operator.worker(number);
        for batch in batches {
            worker.update(batch).unwrap();
        }
        for segment in worker.flush(Watermark::END).unwrap() {
            coordinator.add(number, segment).unwrap();
        }
    }
    coordinator.flushed(Watermark::END);
    let mut closed = vec![];
    while let Some(end) = coordinator.next_end(Watermark::END).unwrap() {
        let finished = coordinator.close(Watermark::at(end), 1).unwrap().unwrap();
        closed.extend(finished.rows.map(|batch| (end, batch.unwrap())));
    }
    closed
}

fn context(state: &SessionState) -> (Arc<datafusion::execution::TaskContext>, Arc<LeafInputs>) {
    let inputs = Arc::new(LeafInputs::new());
    let config = state.config().clone().with_extension(Arc::clone(&inputs));
    let context = datafusion::execution::TaskContext::default()
        .with_session_config(config)
        .with_runtime(Arc::clone(state.runtime_env()));
    (Arc::new(context), inputs)
}

/// Rows as text, sorted.
pub(super) fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = vec![];
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).unwrap())
            .collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<_> = columns.iter().map(|c| c.value(row).to_string()).collect();
            lines.push(cells.join(" | "));
        }
    }
    lines.sort();
    lines
}
