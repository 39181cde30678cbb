//! The system tables: the schema `windrow`, computed on every read.

mod memory;
mod sinks;
mod tables;
mod windows;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{
    ArrayRef, AsArray, BooleanArray, StringArray, TimestampMicrosecondArray, UInt32Array,
    UInt64Array,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider, Session, TableProvider};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result as EngineResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use futures::future::BoxFuture;
use windrow_connectors::is_secret;
use windrow_core::{Result, Watermark};
use windrow_query::idle::QueryOutlook;
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::masked;
use windrow_stream::Stream;
use windrow_stream::intake::display_micros;
use windrow_stream::stream::table::outside;

use crate::access::{Access, Role};
use crate::catalog::{Catalog, Materialized, Object};
use crate::durable::definitions::Kind;
use crate::instance::Parts;
use crate::instance::configuration::register_schema;
use crate::names::SYSTEM_SCHEMA;

type Make = fn(&Parts, &Catalog) -> Result<RecordBatch>;

/// All system tables, with the columns that name the objects that a row is about. A row is hidden from users without the role
/// read on all of them.
const TABLES: &[(&str, Make, &[&str])] = &[
    ("streams", streams, &["name"]),
    ("views", views, &["name"]),
    ("sinks", sinks::sinks, &["name"]),
    ("rejected_rows", sinks::rejected_rows, &["sink"]),
    ("queries", queries, &["name"]),
    ("watermarks", watermarks, &["query", "stream"]),
    ("ledger", ledger, &["query"]),
    ("late_rows", late_rows, &["query", "stream"]),
    ("bad_rows", bad_rows, &["stream"]),
    ("lost_rows", lost_rows, &["stream"]),
    ("files", files, &["name"]),
    ("checkpoints", checkpoints, &["view"]),
    ("memory", memory::memory, &["name"]),
    ("tables", tables::tables, &["name"]),
    ("table_versions", tables::table_versions, &["query", "table_name"]),
];

/// Registers the schema.
///
/// # Errors
/// When it is registered already (a bug).
pub(crate) fn register(parts: &Arc<Parts>, catalog: &Arc<Catalog>) -> Result<()> {
    let schema = MemorySchemaProvider::new();
    for (name, make, about) in TABLES {
        let columns = make(parts, catalog)?.schema();
        let table = SystemTable {
            name,
            columns,
            make: *make,
            about,
            parts: Arc::downgrade(parts),
            catalog: Arc::downgrade(catalog),
        };
        schema.register_table((*name).to_owned(), Arc::new(table)).map_err(from_datafusion)?;
    }
    let open = windows::Windows::new(parts)?;
    schema.register_table("windows".to_owned(), Arc::new(open)).map_err(from_datafusion)?;
    register_schema(parts, SYSTEM_SCHEMA, Arc::new(schema))
}

struct SystemTable {
    name: &'static str,
    columns: SchemaRef,
    make: Make,
    about: &'static [&'static str],
    parts: std::sync::Weak<Parts>,
    catalog: std::sync::Weak<Catalog>,
}

impl std::fmt::Debug for SystemTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "windrow.{}", self.name)
    }
}

impl SystemTable {
    fn plan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let rows = match (self.parts.upgrade(), self.catalog.upgrade()) {
            (Some(parts), Some(catalog)) => (self.make)(&parts, &catalog).map_err(outside)?,
            _ => RecordBatch::new_empty(self.schema()),
        };
        let rows = match session.config().get_extension::<Access>() {
            Some(access) => readable(&rows, self.about, &access).map_err(outside)?,
            None => rows,
        };
        let plan =
            MemorySourceConfig::try_new_exec(&[vec![rows]], self.schema(), projection.cloned())?;
        Ok(plan)
    }
}

/// What [`TableProvider::scan`] returns.
pub(super) type Planned<'a> = BoxFuture<'a, EngineResult<Arc<dyn ExecutionPlan>>>;

/// Returns the plan of a scan. Not an `async fn`, which would capture the table with its catalog, and filters: proving for each
/// such function that all plans and expressions in them are `Send` takes the compiler many seconds.
fn planned(plan: EngineResult<Arc<dyn ExecutionPlan>>) -> Planned<'static> {
    Box::pin(std::future::ready(plan))
}

impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.columns)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn scan<'a, 'b, 'c, 'd, 'f>(
        &'a self,
        session: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        _: &'d [Expr],
        _: Option<usize>,
    ) -> Planned<'f>
    where
        'a: 'f,
        'b: 'f,
        'c: 'f,
        'd: 'f,
        Self: 'f,
    {
        planned(self.plan(session, projection))
    }
}

/// Returns the rows about objects that the user may read.
fn readable(rows: &RecordBatch, about: &[&str], access: &Access) -> Result<RecordBatch> {
    if access.is_everything(Role::Read) {
        return Ok(rows.clone());
    }
    let names: Vec<&StringArray> =
        about.iter().filter_map(|c| rows.column_by_name(c)?.as_string_opt()).collect();
    let may = |row: usize| names.iter().all(|names| access.has(Role::Read, names.value(row)));
    let kept: BooleanArray = (0..rows.num_rows()).map(|row| Some(may(row))).collect();
    Ok(filter_record_batch(rows, &kept)?)
}

fn text<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn maybe_text<S: AsRef<str>>(values: impl IntoIterator<Item = Option<S>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn count(values: impl IntoIterator<Item = u64>) -> ArrayRef {
    Arc::new(UInt64Array::from_iter_values(values))
}

fn maybe_count(values: impl IntoIterator<Item = Option<u64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<UInt64Array>())
}

fn times(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<TimestampMicrosecondArray>())
}

fn table(columns: Vec<(&str, ArrayRef, bool)>) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter_with_nullable(columns)?)
}

/// Rows that streams have lost: one line per range and view that had consumed some of it.
fn lost_rows(_: &Parts, catalog: &Catalog) -> Result<RecordBatch> {
    let mut rows = vec![];
    for (stream, lost) in catalog.lost() {
        for lost in lost {
            let had = lost.had.iter().map(|(view, to)| (view.clone(), (*to).min(lost.end)));
            let mut views: Vec<_> = had.map(Some).collect();
            if views.is_empty() {
                views.push(None);
            }
            rows.extend(views.into_iter().map(|view| (stream.clone(), lost.clone(), view)));
        }
    }
    let accepted: TimestampMicrosecondArray = rows.iter().map(|r| Some(r.1.at_micros)).collect();
    let in_view = rows.iter().map(|r| r.2.as_ref().map(|(_, to)| to.saturating_sub(r.1.start)));
    table(vec![
        ("stream", text(rows.iter().map(|r| &r.0)), false),
        ("first_row", count(rows.iter().map(|r| r.1.start)), false),
        ("rows", count(rows.iter().map(|r| r.1.end - r.1.start)), false),
        ("accepted", Arc::new(accepted), false),
        ("view", maybe_text(rows.iter().map(|r| r.2.as_ref().map(|(view, _)| view.clone()))), true),
        ("rows_in_view", Arc::new(in_view.collect::<UInt64Array>()), true),
    ])
}

/// A stream or view of the catalog; one that could not be opened has no object.
struct Listed<T> {
    name: String,
    object: Option<T>,
    text: String,
    error: Option<String>,
}

/// The objects that `pick` takes, and those of these kinds that could not be opened, by name.
fn listed<T>(
    catalog: &Catalog,
    kinds: &[Kind],
    pick: impl Fn(Object) -> Option<T>,
) -> Vec<(Listed<T>, Kind)> {
    let kind = kinds.first().copied().unwrap_or(Kind::View);
    let there = catalog.definitions().into_iter().filter_map(|(name, object, text)| {
        Some((Listed { name, object: Some(pick(object)?), text, error: None }, kind))
    });
    let broken = catalog.all_broken().into_iter().filter(|(_, b)| kinds.contains(&b.kind));
    let broken = broken.map(|(name, broken)| {
        let error = Some(broken.error.message().to_owned());
        (Listed { name, object: None, text: broken.text, error }, broken.kind)
    });
    let mut all: Vec<_> = there.chain(broken).collect();
    all.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    all
}

fn streams(parts: &Parts, catalog: &Catalog) -> Result<RecordBatch> {
    let all = listed(catalog, &[Kind::Stream], |object| match object {
        Object::Stream(stream) => Some(stream),
        Object::View
        | Object::Materialized(_)
        | Object::Sink(_)
        | Object::Function(_)
        | Object::Model(_) => None,
    });
    let all: Vec<_> = all.into_iter().map(|(listed, _)| listed).collect();
    let bounded = |s: &Listed<_>| s.object.as_ref().map(|_| catalog.is_bounded(&s.name));
    let log = |s: &Listed<Arc<Stream>>| Some(Arc::clone(&s.object.as_ref()?.kept()?.log));
    let dropped = all.iter().map(|s| Some(log(s)?.state().first));
    let health: Vec<_> = all.iter().map(|s| s.object.as_ref()?.health()).collect();
    let connected: BooleanArray = health.iter().map(|h| h.as_ref()?.connected).collect();
    let paused = parts.paused.borrow().clone();
    let paused: BooleanArray = all.iter().map(|s| Some(paused.contains(&s.name))).collect();
    table(vec![
        ("name", text(all.iter().map(|s| &s.name)), false),
        ("connector", maybe_text(all.iter().map(|s| Some(&s.object.as_ref()?.connector))), true),
        (
            "event_time",
            maybe_text(all.iter().map(|s| {
                let schema = &s.object.as_ref()?.schema;
                Some(schema.schema().field(schema.event_time()?.index).name().clone())
            })),
            true,
        ),
        ("bounded", Arc::new(all.iter().map(bounded).collect::<BooleanArray>()), true),
        ("rows", maybe_count(all.iter().map(|s| Some(log(s)?.held_rows()))), true),
        ("dropped_rows", maybe_count(dropped), true),
        ("error", maybe_text(all.iter().map(|s| s.error.clone())), true),
        ("connected", Arc::new(connected), true),
        ("paused", Arc::new(paused), false),
        ("lag_rows", maybe_count(health.iter().map(|h| h.as_ref()?.lag_rows)), true),
        ("last_error", maybe_text(health.iter().map(|h| h.as_ref()?.last_error.clone())), true),
        ("definition", text(all.iter().map(|s| masked(&s.text, is_secret))), false),
    ])
}

fn views(_: &Parts, catalog: &Catalog) -> Result<RecordBatch> {
    type View = Option<Arc<Materialized>>;
    let kinds = [Kind::View, Kind::MaterializedView, Kind::Insert];
    let all = listed(catalog, &kinds, |object| match object {
        Object::Materialized(view) => Some(Some(view)),
        Object::View => Some(None),
        Object::Stream(_) | Object::Sink(_) | Object::Function(_) | Object::Model(_) => None,
    });
    let kept = |v: &(Listed<View>, Kind)| v.0.object.clone().flatten();
    let materialized = |v: &(Listed<View>, Kind)| match &v.0.object {
        Some(view) => Some(view.is_some()),
        None => Some(v.1 != Kind::View),
    };
    let status = |v: &(Listed<View>, Kind)| {
        if v.0.object.is_none() {
            return Some("broken");
        }
        let status = kept(v)?.query.status().name();
        Some(if catalog.is_rebuilding(&v.0.name) { "rebuilding" } else { status })
    };
    let error = |v: &(Listed<View>, Kind)| v.0.error.clone().or_else(|| kept(v)?.query.failure());
    let spiller = |v: &(Listed<View>, Kind)| kept(v)?.spiller.clone();
    table(vec![
        ("name", text(all.iter().map(|v| &v.0.name)), false),
        ("materialized", Arc::new(all.iter().map(materialized).collect::<BooleanArray>()), false),
        ("status", maybe_text(all.iter().map(status)), true),
        ("error", maybe_text(all.iter().map(error)), true),
        ("rows", maybe_count(all.iter().map(|v| kept(v).map(|view| view.rows()))), true),
        ("dropped_rows", maybe_count(all.iter().map(|v| Some(kept(v)?.log.state().first))), true),
        ("archived_rows", maybe_count(all.iter().map(|v| Some(spiller(v)?.archived_rows()))), true),
        ("archive_error", maybe_text(all.iter().map(|v| spiller(v)?.error())), true),
        ("definition", text(all.iter().map(|v| &v.0.text)), false),
    ])
}

fn queries(parts: &Parts, _: &Catalog) -> Result<RecordBatch> {
    let all: Vec<_> = parts.queries.lock().values().cloned().collect();
    let state: Vec<_> = all.iter().map(|q| q.state.lock().clone()).collect();
    let watermarks = all
        .iter()
        .zip(&state)
        .map(|(query, state)| query.taps().first().and_then(|tap| tap.micros_of(state.watermark)));
    table(vec![
        ("id", count(all.iter().map(|q| q.id)), false),
        ("name", text(all.iter().map(|q| &q.name)), false),
        ("status", text(all.iter().map(|q| q.status().name())), false),
        ("batches", count(state.iter().map(|s| s.batches)), false),
        ("windows_open", count(state.iter().map(|s| s.windows_open as u64)), false),
        ("windows_closed", count(state.iter().map(|s| s.windows_closed)), false),
        ("state_bytes", count(state.iter().map(|s| s.state_bytes as u64)), false),
        ("spilled_bytes", count(all.iter().map(|q| q.spilled_bytes.load(Relaxed))), false),
        ("rows_out", count(all.iter().map(|q| q.ledger.rows_out())), false),
        ("watermark", times(watermarks), true),
        ("error", maybe_text(all.iter().map(|q| q.failure())), true),
    ])
}

fn watermarks(parts: &Parts, _: &Catalog) -> Result<RecordBatch> {
    let notes = parts.scans.lock().clone();
    let now = parts.clock.now_micros();
    let mut rows = Vec::new();
    for note in notes {
        let Some(progress) = note.progress.upgrade() else { continue };
        let at = |w: Watermark| note.time_type.as_ref().and_then(|t| display_micros(w.ticks(), t));
        for query in &note.queries {
            // Of all its inputs: a stream that is ahead of another holds nothing.
            let lowest = QueryOutlook::of(&query.taps(), now).awake;
            let progress = progress.lock();
            rows.extend(progress.status(now).into_iter().map(|p| {
                let holds = p.awake && Some(progress.nanos(p.watermark)) == lowest;
                let time = at(p.watermark);
                (query.name.clone(), note.stream.clone(), p, time, holds)
            }));
        }
    }
    table(vec![
        ("query", text(rows.iter().map(|r| &r.0)), false),
        ("stream", text(rows.iter().map(|r| &r.1)), false),
        (
            "partition",
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(|r| r.2.id.0))),
            false,
        ),
        ("partition_name", text(rows.iter().map(|r| &r.2.name)), false),
        ("state", text(rows.iter().map(|r| r.2.state)), false),
        ("watermark", times(rows.iter().map(|r| r.3)), true),
        ("holds", Arc::new(BooleanArray::from_iter(rows.iter().map(|r| Some(r.4)))), false),
    ])
}

fn ledger(parts: &Parts, _: &Catalog) -> Result<RecordBatch> {
    let all: Vec<_> = parts.queries.lock().values().cloned().collect();
    let total: Vec<_> = all.iter().map(|q| q.ledger.total()).collect();
    table(vec![
        ("query", text(all.iter().map(|q| &q.name)), false),
        ("rows_in", count(total.iter().map(|t| t.rows_in)), false),
        ("aggregated", count(total.iter().map(|t| t.aggregated)), false),
        ("filtered", count(total.iter().map(|t| t.filtered)), false),
        ("late", count(total.iter().map(|t| t.late)), false),
        ("bad", count(total.iter().map(|t| t.bad)), false),
        (
            "balanced",
            Arc::new(BooleanArray::from_iter(total.iter().map(|t| Some(t.is_balanced())))),
            false,
        ),
    ])
}

fn late_rows(parts: &Parts, _: &Catalog) -> Result<RecordBatch> {
    let mut all = parts.late_rows.all();
    all.sort_by(|a, b| {
        (&a.query, &a.stream, a.partition, a.offset).cmp(&(
            &b.query,
            &b.stream,
            b.partition,
            b.offset,
        ))
    });
    table(vec![
        ("query", text(all.iter().map(|r| &r.query)), false),
        ("stream", text(all.iter().map(|r| &r.stream)), false),
        (
            "partition",
            Arc::new(UInt32Array::from_iter_values(all.iter().map(|r| r.partition.0))),
            false,
        ),
        ("offset", count(all.iter().map(|r| r.offset)), false),
        ("event_time", times(all.iter().map(|r| Some(r.event_time_micros))), true),
        ("watermark", times(all.iter().map(|r| r.watermark_micros)), true),
        ("reason", text(all.iter().map(|_| "all windows of the row had closed")), false),
        ("row", text(all.iter().map(|r| &r.row)), false),
    ])
}

fn bad_rows(parts: &Parts, _: &Catalog) -> Result<RecordBatch> {
    let all = parts.bad_rows.all();
    table(vec![
        ("stream", text(all.iter().map(|((stream, ..), _)| stream)), false),
        (
            "partition",
            Arc::new(UInt32Array::from_iter_values(all.iter().map(|((_, p, ..), _)| p.0))),
            false,
        ),
        ("partition_name", text(all.iter().map(|(_, bad)| &bad.partition_name)), false),
        ("offset", count(all.iter().map(|((_, _, offset, _), _)| *offset)), false),
        ("reason", text(all.iter().map(|(_, bad)| &bad.reason)), false),
        ("raw", text(all.iter().map(|(_, bad)| &bad.raw)), false),
        ("query", maybe_text(all.iter().map(|(_, bad)| bad.query.clone())), true),
    ])
}

fn files(_: &Parts, catalog: &Catalog) -> Result<RecordBatch> {
    let spiller = |object: &Object| match object {
        Object::Materialized(view) => view.spiller.clone(),
        Object::Stream(stream) => stream.kept().and_then(|push| push.spiller.clone()),
        Object::View | Object::Sink(_) | Object::Function(_) | Object::Model(_) => None,
    };
    let mut all = Vec::new();
    for (name, object, _) in catalog.definitions() {
        let files = spiller(&object).map(|s| s.files()).unwrap_or_default();
        all.extend(files.into_iter().map(|file| (name.clone(), file)));
    }
    table(vec![
        ("name", text(all.iter().map(|f| &f.0)), false),
        ("path", text(all.iter().map(|f| &f.1.path)), false),
        ("first_row", count(all.iter().map(|f| f.1.first_row)), false),
        ("rows", count(all.iter().map(|f| f.1.rows)), false),
        ("bytes", count(all.iter().map(|f| f.1.bytes)), false),
    ])
}

fn checkpoints(_: &Parts, catalog: &Catalog) -> Result<RecordBatch> {
    let mut all = Vec::new();
    for (name, object, _) in catalog.definitions() {
        let Object::Materialized(view) = object else { continue };
        let shown = view.checkpoints.as_ref().map(|c| c.shown()).unwrap_or_default();
        all.extend(shown.into_iter().map(|shown| (name.clone(), shown)));
    }
    table(vec![
        ("view", text(all.iter().map(|c| &c.0)), false),
        ("id", count(all.iter().map(|c| c.1.id)), false),
        ("taken_at", times(all.iter().map(|c| Some(c.1.taken_micros))), true),
        ("state", text(all.iter().map(|c| c.1.state)), false),
        ("segments", count(all.iter().map(|c| c.1.segments)), false),
        ("bytes", count(all.iter().map(|c| c.1.bytes)), false),
        ("new_bytes", count(all.iter().map(|c| c.1.new_bytes)), false),
        ("millis", count(all.iter().map(|c| c.1.micros.unsigned_abs() / 1_000)), false),
        (
            "paused_micros",
            maybe_count(all.iter().map(|c| c.1.paused_micros.map(i64::unsigned_abs))),
            true,
        ),
    ])
}
