//! `VERIFY VIEW view [FROM TIMESTAMP '…'] [TO TIMESTAMP '…']`: compares the rows of a view with those that the bounded
//! form of its query returns over the rows that its streams hold now.
//!
//! ```text
//! rows of the view ──────────────────────────► final, in range ─┐
//! streams, less late rows and rows that the                     ├─► compare ─► answer
//! view has not consumed ───► bounded plan ───► final, in range ─┘
//! ```
//! Invariants: the recomputation shares no code with the window operator; only rows are compared that can no longer change; the
//! watermark is read before the rows, and the rows before the list of late ones, so that a row that arrives meanwhile makes
//! no difference.

mod answer;
mod compare;
mod dropped;
mod range;
mod recomputation;
mod refused;
mod seen;
mod versions;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{Field, Schema, SchemaRef};
use futures::TryStreamExt;
use windrow_core::{Error, Result};
use windrow_sql::parse::Verify;

use self::answer::{answer, columns, compare};
use self::dropped::dropped_rows;
use self::range::Range;
use self::recomputation::recomputation;
use self::refused::check_comparable;
use self::seen::{Notes, look};
use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::Catalog;
use crate::execution::context::StatementContext;
use crate::execution::outcome::Outcome;
use crate::names::plain_name;

/// `VERIFY VIEW view [FROM TIMESTAMP '…'] [TO TIMESTAMP '…']`.
#[derive(Debug)]
pub(crate) struct VerifyView(pub(super) Verify);

impl Statement for VerifyView {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("VERIFY", Some(Weight::Query))
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Read, &self.0.view)
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move {
            cx.catalog().materialized(&plain_name(&self.0.view)?)?;
            Ok(Some(columns()))
        })
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move { cx.catalog().materialized(&plain_name(&self.0.view)?).map(drop) })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let (name, catalog) = (plain_name(&self.0.view)?, cx.catalog());
            let view = catalog.materialized(&name)?;
            view.check()?;
            view.check_retains()?;
            view.check_not_early("VERIFY VIEW")?;
            check_comparable(cx, &view).await?;
            let seen = look(cx, &view).await?;
            let mut range = Range::of(&cx.state(), (&view, seen.watermark), &self.0)?;
            let mut notes = Notes::default();
            let plan = recomputation(cx, &view, &seen, &mut notes)?;
            let schema = match &view.answer {
                Some(answer) => Arc::clone(answer.schema()),
                None => view.log.schema(),
            };
            let mut stored = range.of_batches(&seen.rows.batches().await?)?;
            let Outcome::Rows(mut result) = cx.executor().bounded(plan).await? else {
                return Err(Error::internal("a query returned no rows"));
            };
            let mut recomputed = vec![];
            while let Some(batch) = result.try_next().await? {
                recomputed.extend(range.of_batches(&[with_schema(&batch, &schema)?])?);
            }
            // Last: rows that retention has dropped until now are reported.
            if let Some(dropped) = dropped_rows(catalog, &view)? {
                notes.gone = Some(dropped.note());
                range = dropped.exclude_from(range, &view)?;
                stored = range.of_batches(&stored)?;
                recomputed = range.of_batches(&recomputed)?;
            }
            let compared = compare(&schema, &stored, &recomputed, range)?;
            answer(&view, range, &seen, &notes, compared).await
        })
    }
}

/// Returns a batch with exactly the columns of the view.
fn with_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| cast(column, field.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    // Whether a column may be NULL does not matter here, only whether it is.
    let nullable = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
    let fields: Vec<_> = schema.fields().iter().map(nullable).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
    use arrow::compute::cast;

    use super::*;
    use crate::{Engine, EngineConfig, Session, SessionOptions};

    const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT window_start, window_end, k, \
                        sum(x) AS total FROM TUMBLE(s, ts, INTERVAL '10 seconds') \
                        GROUP BY window_start, window_end, k";

    /// The text of the first and the third column: status, and whether there is a side.
    async fn verify(session: &Session) -> Vec<(String, String)> {
        let Outcome::Rows(rows) = session.run("VERIFY VIEW v").await.unwrap() else { panic!() };
        let batches: Vec<RecordBatch> = rows.try_collect().await.unwrap();
        let text = |batch: &RecordBatch, column: usize, row: usize| {
            let column = batch.column(column).as_string::<i32>();
            if column.is_null(row) { String::new() } else { column.value(row).to_owned() }
        };
        let lines = batches.iter().flat_map(|b| (0..b.num_rows()).map(move |row| (b, row)));
        lines.map(|(b, row)| (text(b, 0, row), text(b, 1, row) + &text(b, 3, row))).collect()
    }

    async fn session(engine: &Engine, view: &str) -> Session {
        let session = engine.session(SessionOptions { push_ends: true }).unwrap();
        for sql in [
            "CREATE STREAM s (k TEXT, x DOUBLE, ts TIMESTAMP, WATERMARK FOR ts)",
            view,
            "INSERT INTO s VALUES ('a', 0.1, '2026-01-01 00:00:01'), \
             ('a', 0.2, '2026-01-01 00:00:02'), ('b', 1, '2026-01-01 00:00:11'), \
             ('b', 5, '2026-01-01 00:00:25')",
            "WAIT FOR v",
        ] {
            session.run(sql).await.unwrap();
        }
        session
    }

    #[test]
    fn a_row_too_many_in_the_view_is_found() {
        let engine = Engine::open(EngineConfig::default()).unwrap();
        futures::executor::block_on(async {
            let session = session(&engine, VIEW).await;
            let first = verify(&session).await;
            assert_eq!(first, [("equal: 2 windows, 2 rows".to_owned(), String::new())]);
            let log = Arc::clone(&session.catalog().materialized("v").unwrap().log);
            log.append(log.contents().tail_in_memory().unwrap()[0].slice(0, 1)).unwrap();
            let [summary, row] = <[_; 2]>::try_from(verify(&session).await).unwrap();
            assert!(
                summary.0.starts_with("differs: 2 windows, 3 rows; 1 rows only in the view, 0")
            );
            assert!(row.1.starts_with("view{") && row.1.contains(r#""k":"a""#), "{row:?}");
        });
        engine.shutdown();
    }

    #[test]
    fn a_row_that_never_was_in_a_view_without_windows_is_found() {
        let engine = Engine::open(EngineConfig::default()).unwrap();
        futures::executor::block_on(async {
            let view = "CREATE MATERIALIZED VIEW v AS SELECT k, x FROM s WHERE x < 3";
            let session = session(&engine, view).await;
            let first = verify(&session).await;
            assert_eq!(first, [("equal: 3 rows".to_owned(), String::new())]);
            let log = Arc::clone(&session.catalog().materialized("v").unwrap().log);
            let other = log.contents().tail_in_memory().unwrap()[0].slice(0, 1);
            let k: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
            let k = cast(&k, other.schema().field(0).data_type()).unwrap();
            let columns = vec![k, Arc::clone(other.column(1))];
            log.append(RecordBatch::try_new(other.schema(), columns).unwrap()).unwrap();
            let [_, row] = <[_; 2]>::try_from(verify(&session).await).unwrap();
            assert_eq!(row.1, r#"view{"k":null,"x":0.1}"#);
        });
        engine.shutdown();
    }
}
