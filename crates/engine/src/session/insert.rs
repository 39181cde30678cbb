//! `INSERT INTO`: into a stream without connector, or into a reference table.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use windrow_core::{Error, Result};
use windrow_query::output::Output;
use windrow_query::start::QuerySetup;
use windrow_sql::parse::Insert;
use windrow_sql::plan::plan_values;
use windrow_stream::push::PushStream;
use windrow_stream::target::Target;
use windrow_stream::{Feed, Stream};

use crate::catalog::{Object, plain_name};
use crate::session::held::held;
use crate::session::kept_insert::NewInsert;
use crate::session::query::streams_read;
use crate::session::{Done, Outcome, Session, UnusedRows};

/// An INSERT of up to so many rows is one record of the log.
const WHOLE_ROWS_MAX: usize = 1 << 20;

impl Session {
    pub(super) async fn insert(&self, insert: Insert, text: &str) -> Result<Outcome> {
        let name = plain_name(&insert.target)?;
        let stream = match self.engine.catalog.get(&name) {
            Some(Object::Stream(stream)) => stream,
            Some(other) => {
                return Err(Error::sql(format!(
                    "\"{name}\" is a {}, rows cannot be inserted",
                    other.kind()
                )));
            }
            None if !self.engine.catalog.exists(&name) => {
                return Err(self.engine.catalog.missing("stream", &name));
            }
            None => return self.standard(insert.into_datafusion(), text).await,
        };
        let push = &fed_by_inserts(&stream)?;
        let plan = match &self.value_rows {
            Some(rows) => {
                let (state, rows) = (self.state(), rows.clone());
                let query = (*insert.query.query).clone();
                let plan = self.planning(async move { plan_values(&state, query, rows).await });
                plan.await?
                    .ok_or_else(|| Error::internal("an INSERT of VALUES has another plan"))?
            }
            None => self.plan(&insert.query.query, &[]).await?,
        };
        let target = Target::new(push, &insert, &name, plan.schema().fields().len())?;
        let target = target.in_zone(self.time_zone());
        if insert.query.tail.is_empty() {
            return self.insert_bounded(plan, &target, push).await;
        }
        let reads = streams_read(&plan)?;
        let bounded = plan.clone();
        let plan = self.continuous(plan, &insert.query.tail).await?;
        let has_late_to = insert.query.tail.late_data_to.is_some();
        if self.insert_is_kept(push, (&reads, has_late_to)) {
            let insert = NewInsert { push, target, text, reads, bounded };
            return self.keep_insert(insert, plan).await;
        }
        let late_to = self.late_to(&insert.query.tail, &reads)?;
        let shared = self.engine.parts.new_query(Some(format!("insert into {name}")));
        let id = shared.id;
        let output = Output::Stream { stream: Arc::clone(push), target: Arc::new(target) };
        let wanted = QuerySetup::new(shared, output, late_to);
        self.start_now(plan, wanted).await?;
        // After a restart nobody knows which rows it has inserted already.
        let ends = if self.engine.store.is_some() {
            "; it ends with this process, unlike one over durable streams"
        } else {
            ""
        };
        Ok(Outcome::Done(format!("INSERT (continuous, query {id}{ends})").into()))
    }

    async fn insert_bounded(
        &self,
        plan: datafusion::logical_expr::LogicalPlan,
        target: &Target,
        push: &Arc<PushStream>,
    ) -> Result<Outcome> {
        let plan = self.physical_in_order(plan).await?;
        // All rows are made before one is inserted: a statement that fails inserts nothing. They are
        // there twice when they become one batch.
        let plan = held(plan, 2);
        let counted = Arc::clone(&plan);
        let mut rows = self.execute_plan(plan).not_seeing(&self.unseen);
        let mut batches = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            batches.push(target.fit(&batch)?);
        }
        let (mut inserted, mut bad, mut in_1970) = (0, 0, true);
        for batch in &whole(batches)? {
            let pushed = push.append(batch).await?;
            inserted += pushed.rows;
            bad += pushed.bad;
            in_1970 &= pushed.in_1970;
        }
        drop(counted);
        let mut said = match bad {
            0 => format!("INSERT 0 {inserted}"),
            bad => format!("INSERT 0 {inserted} ({bad} bad, see windrow.bad_rows)"),
        };
        said += &rows.unused_rows().map(UnusedRows::aside).unwrap_or_default();
        if in_1970 && inserted > 0 {
            said.push_str(
                "\nnotice: all event times lie in 1970; a number counts the unit of the column",
            );
        }
        Ok(Outcome::Done(Done { said, rows: Some(inserted) }))
    }
}

/// What takes the rows for a stream.
///
/// # Errors
/// When it is fed by a connector.
pub(crate) fn fed_by_inserts(stream: &Stream) -> Result<Arc<PushStream>> {
    match &stream.feed {
        Feed::Push(push) => Ok(Arc::clone(push)),
        Feed::Source(_) | Feed::View(_) => Err(Error::sql(format!(
            "stream \"{}\" is fed by its connector \"{}\", rows cannot be inserted",
            stream.name, stream.connector
        ))),
    }
}

/// The rows of one statement as one batch, so that they are durable together or not at all; very
/// many rows stay as they are.
fn whole(batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    match batches.first() {
        Some(first) if batches.len() > 1 && rows <= WHOLE_ROWS_MAX => {
            Ok(vec![concat_batches(&first.schema(), &batches)?])
        }
        _ => Ok(batches),
    }
}
