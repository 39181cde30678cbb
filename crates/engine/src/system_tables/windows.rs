//! `windrow.windows`: what running queries keep. Each query is asked, and answers between two of its steps.
//!
//! Queries are asked when the statement runs, not when it is planned, one after the other and only those that the user may
//! read; a condition `query = '…'` asks that one alone.

use std::sync::{Arc, Weak};

use arrow::array::{BooleanArray, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::Result as EngineResult;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use windrow_core::{Result, time};
use windrow_query::shared::Shared;
use windrow_query::survey::{OpenState, OperatorSurvey};
use windrow_stream::stream::table::outside;

use super::{Planned, count, maybe_text, planned, table, text, times};
use crate::access::{Access, Role};
use crate::instance::Parts;

/// Rows that the table shows at most.
const ROWS_MAX: usize = 10_000;
/// The column with the name of the query.
const QUERY: &str = "query";

/// The table.
pub(super) struct Windows {
    columns: SchemaRef,
    parts: Weak<Parts>,
}

impl Windows {
    pub(super) fn new(parts: &Arc<Parts>) -> Result<Self> {
        Ok(Self { columns: batch(&[], false)?.schema(), parts: Arc::downgrade(parts) })
    }
}

impl std::fmt::Debug for Windows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("windrow.windows")
    }
}

impl Windows {
    fn plan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let question = Question {
            columns: self.schema(),
            parts: Weak::clone(&self.parts),
            access: session.config().get_extension::<Access>(),
            names: filters.iter().filter_map(named).map(str::to_owned).collect(),
        };
        let schema = self.schema();
        Ok(Arc::new(StreamingTableExec::try_new(
            schema,
            vec![Arc::new(question)],
            projection,
            vec![],
            false,
            None,
        )?))
    }
}

impl TableProvider for Windows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> EngineResult<Vec<TableProviderFilterPushDown>> {
        let how = |filter: &&Expr| match named(filter) {
            Some(_) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(how).collect())
    }

    fn scan<'a, 'b, 'c, 'd, 'f>(
        &'a self,
        session: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        _: Option<usize>,
    ) -> Planned<'f>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
        'd: 'f,
        Self: 'f,
    {
        planned(self.plan(session, projection, filters))
    }
}

/// The name that a condition asks for.
fn named(filter: &Expr) -> Option<&str> {
    let Expr::BinaryExpr(comparison) = filter else { return None };
    let name = match (comparison.left.as_ref(), comparison.right.as_ref()) {
        (Expr::Column(column), Expr::Literal(name, _))
        | (Expr::Literal(name, _), Expr::Column(column))
            if column.name == QUERY =>
        {
            name
        }
        _ => return None,
    };
    match name {
        ScalarValue::Utf8(Some(name))
        | ScalarValue::LargeUtf8(Some(name))
        | ScalarValue::Utf8View(Some(name)) => Some(name).filter(|_| comparison.op == Operator::Eq),
        _ => None,
    }
    .map(String::as_str)
}

/// What a statement asks.
struct Question {
    columns: SchemaRef,
    parts: Weak<Parts>,
    access: Option<Arc<Access>>,
    /// The query must have all of these names.
    names: Vec<String>,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("windrow.windows")
    }
}

impl PartitionStream for Question {
    fn schema(&self) -> &SchemaRef {
        &self.columns
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let queries = self.queries();
        let rows = async move { answers(queries).await.map_err(outside) };
        let rows = futures::stream::once(rows);
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.columns), rows))
    }
}

impl Question {
    /// The queries to be asked.
    fn queries(&self) -> Vec<Arc<Shared>> {
        let Some(parts) = self.parts.upgrade() else { return vec![] };
        let readable = |name: &str| match &self.access {
            Some(access) => access.is_everything(Role::Read) || access.has(Role::Read, name),
            None => true,
        };
        let asked = |query: &Shared| {
            !query.is_over()
                && self.names.iter().all(|name| *name == query.name)
                && readable(&query.name)
        };
        let queries = parts.queries.lock();
        queries.values().filter(|query| asked(query)).map(Arc::clone).collect()
    }
}

/// An entry with its query and operator.
type Entry = (String, Arc<str>, OpenState);

async fn answers(queries: Vec<Arc<Shared>>) -> Result<RecordBatch> {
    let mut entries: Vec<Entry> = vec![];
    let mut truncated = false;
    for query in queries {
        for told in query.survey(ROWS_MAX - entries.len()).await {
            let OperatorSurvey { operator, time_unit, survey } = told;
            truncated |= survey.truncated;
            let micros =
                |(a, b)| (time::ticks_to_micros(a, time_unit), time::ticks_to_micros(b, time_unit));
            entries.extend(survey.states.into_iter().map(|state| {
                let (bounds, times) = (state.bounds.map(micros), state.times.map(micros));
                (query.name.clone(), Arc::clone(&operator), OpenState { bounds, times, ..state })
            }));
        }
    }
    batch(&entries, truncated)
}

/// The rows of the table; times are in µs.
fn batch(entries: &[Entry], truncated: bool) -> Result<RecordBatch> {
    let states = || entries.iter().map(|(_, _, state)| state);
    let input = states().map(|s| s.input.and_then(|input| u32::try_from(input).ok()));
    let input: UInt32Array = input.collect();
    let truncated: BooleanArray = states().map(|_| Some(truncated)).collect();
    table(vec![
        (QUERY, text(entries.iter().map(|(query, ..)| query)), false),
        ("operator", text(entries.iter().map(|(_, operator, _)| operator)), false),
        ("input", Arc::new(input), true),
        ("key", maybe_text(states().map(|s| s.key.clone())), true),
        ("window_start", times(states().map(|s| s.bounds.map(|b| b.0))), true),
        ("window_end", times(states().map(|s| s.bounds.map(|b| b.1))), true),
        ("rows", count(states().map(|s| s.rows)), false),
        ("bytes", count(states().map(|s| s.bytes)), false),
        ("first_time", times(states().map(|s| s.times.map(|t| t.0))), true),
        ("last_time", times(states().map(|s| s.times.map(|t| t.1))), true),
        ("truncated", Arc::new(truncated), false),
    ])
}
