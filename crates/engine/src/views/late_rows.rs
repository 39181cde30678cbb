//! `LATE DATA TO name`: the stream that takes the late rows of a query.

use std::sync::Arc;

use windrow_core::{Error, Result, StreamSchema};
use windrow_sql::parse::Tail;
use windrow_stream::checks::Checks;
use windrow_stream::intake::Intake;
use windrow_stream::log::StreamLog;
use windrow_stream::push::PushStream;
use windrow_stream::{Feed, Stream};

use crate::catalog::Object;
use crate::execution::context::StatementContext;
use crate::execution::creation::start_retention;
use crate::names::plain_name;

/// Returns the push stream that takes the late rows of a query that reads `reads`; `None`: the query has no `LATE DATA TO`.
/// A stream that does not exist is created, with the columns of the stream that the query reads.
///
/// # Errors
/// When the query reads several streams, or the stream cannot take the rows.
pub(crate) fn late_stream(
    cx: &StatementContext,
    tail: &Tail,
    reads: &[String],
) -> Result<Option<Arc<PushStream>>> {
    let Some(name) = &tail.late_data_to else { return Ok(None) };
    let name = plain_name(name)?;
    let [read] = reads else {
        return Err(Error::sql("LATE DATA TO needs a query that reads exactly one stream"));
    };
    let from = cx.stream_to_read(read)?;
    let stream = if cx.catalog().exists(&name) {
        existing(&*cx.catalog().stream(&name)?, (&from, read))?
    } else {
        create(cx, &name, (&from, read))?
    };
    Ok(Some(stream))
}

/// Returns the push stream that accepts the late rows, if an existing stream can.
fn existing(to: &Stream, (from, read): (&Stream, &str)) -> Result<Arc<PushStream>> {
    let name = &to.name;
    match to.push() {
        _ if to.receiver.is_some() => Err(Error::sql(format!(
            "stream \"{name}\" is fed by its connector \"{}\", late rows cannot be inserted",
            to.connector
        ))),
        // A query that runs again after a crash would insert its late rows a second time.
        Some(push) if push.wal.is_some() => Err(Error::sql(format!(
            "\"{name}\" is a durable stream, late rows of a query would be inserted twice into it"
        ))
        .with_hint("Name a stream that does not exist yet; it is filled again at every start.")),
        Some(push) if to.schema.schema() == from.schema.schema() => Ok(Arc::clone(push)),
        _ => Err(Error::sql(format!(
            "\"{name}\" cannot take the late rows of \"{read}\": its columns differ"
        ))),
    }
}

/// Creates a stream in memory for the late rows of another one.
fn create(
    cx: &StatementContext,
    name: &str,
    (from, read): (&Stream, &str),
) -> Result<Arc<PushStream>> {
    let parts = &cx.instance.parts;
    let schema = from.schema.schema();
    let log = StreamLog::in_memory(Arc::clone(schema), name, &parts.limits, parts.memory.as_ref());
    let push = Arc::new(PushStream::new(
        name.to_owned(),
        log,
        Intake { time: None, valid: i64::MIN..=i64::MAX, max_future_skew_micros: None },
        Arc::clone(&parts.bad_rows),
        Arc::clone(&parts.clock),
        None,
    ));
    let schema = StreamSchema::try_new(Arc::clone(schema), None)?;
    let retention = start_retention(cx, (name, name), (&push.log, None), &schema, None)?;
    let stream = Arc::new(Stream {
        name: name.to_owned(),
        schema,
        key: None,
        feed: Feed::Push(Arc::clone(&push)),
        history: None,
        receiver: None,
        when_idle: None,
        max_future_skew_micros: None,
        connector: "push".to_owned(),
        replayable: false,
        checks: Checks::default(),
        retention: Some(retention),
        bad_rows: Arc::clone(&parts.bad_rows),
        clock: Arc::clone(&parts.clock),
        older: vec![],
    });
    let relation = Arc::new(stream.relation(None));
    let text = format!("-- late rows of \"{read}\"");
    cx.catalog().add(name, Object::Stream(stream), relation, (&text, vec![]))?;
    Ok(push)
}
