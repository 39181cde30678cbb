//! `CREATE STREAM … WITH (connector = 'replay', of = '…')`.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use windrow_connectors::replay::ReplayOptions;
use windrow_core::time::with_seconds;
use windrow_core::{Error, EventTimeColumn, Result, StreamSchema};
use windrow_sql::parse::CreateStream;
use windrow_stream::intake::ticks;
use windrow_stream::replay::ReplaySource;

use super::create_stream::at_option;
use super::declared_columns::event_time;
use super::keyed_stream::append_only;
use crate::access::Role;
use crate::execution::context::StatementContext;

/// The connector's name.
pub(super) const REPLAY: &str = "replay";

/// Returns the source of a replay, its columns, and the name of the stream or view that it replays.
///
/// # Errors
/// When an option is malformed, or there is nothing to replay.
pub(super) fn replay(
    cx: &StatementContext,
    create: &CreateStream,
    options: &[(String, String)],
) -> Result<(ReplaySource, StreamSchema, String)> {
    open(cx, create, options).map_err(|e| at_option(e, &create.options))
}

fn open(
    cx: &StatementContext,
    create: &CreateStream,
    options: &[(String, String)],
) -> Result<(ReplaySource, StreamSchema, String)> {
    if !create.columns.is_empty() {
        return Err(Error::sql("a replay has the columns of the stream or view that it replays")
            .with_hint("Omit the columns; WATERMARK FOR may remain."));
    }
    let options = ReplayOptions::try_new(options)?;
    let catalog = cx.catalog();
    let name = match catalog.exists(&options.of) {
        true => options.of.clone(),
        false => options.of.to_lowercase(),
    };
    cx.access.need(Role::Read, &name)?;
    let of = cx.stream_to_read(&name)?;
    append_only(&of, "a replay", "Leave it out: a query over {} begins with its first change.")?;
    if of.external().is_some_and(|source| !source.is_bounded()) && of.history.is_none() {
        return Err(Error::sql(format!(
            "option \"of\": stream \"{name}\" has no history, its connector never ends"
        ))
        .with_hint("Give it a retention, or replay a materialized view over it."));
    }
    let time = match &create.watermark {
        Some(clause) => event_time(&cx.state(), of.schema.schema(), clause)?,
        // Rows come in order, whatever delay the original was declared with.
        None => {
            let of = of.schema.event_time().map(|e| EventTimeColumn { delay_ticks: 0, ..e });
            of.ok_or_else(|| {
                Error::sql(format!(
                    "option \"of\": \"{name}\" has no event time by which to order it"
                ))
                .with_hint("Name the column: CREATE STREAM … (WATERMARK FOR column) WITH (…).")
            })?
        }
    };
    let schema = StreamSchema::try_new(Arc::clone(of.schema.schema()), Some(time)).map_err(
        |e| match &create.watermark {
            Some(clause) => e.with_place(clause.place),
            None => e,
        },
    )?;
    let time_type = schema.schema().field(time.index).data_type();
    let ticks_of = |name: &str, text: &Option<String>| match text {
        Some(text) => timestamp(name, text, time_type).map(Some),
        None => Ok(None),
    };
    let (from, to) = (ticks_of("from", &options.from)?, ticks_of("to", &options.to)?);
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(Error::config("option \"to\" is not after option \"from\"").with_hint(
            "from is the first event time that is replayed, to the first that is not.",
        ));
    }
    let parts = &cx.instance.parts;
    let source = ReplaySource {
        of,
        time: time.index,
        from,
        to,
        speed: options.speed,
        clock: Arc::clone(&parts.clock),
        sort_bytes_max: parts.limits.replay_bytes_max,
    };
    Ok((source, schema, name))
}

/// Parses a timestamp into ticks of a time column.
fn timestamp(option: &str, text: &str, time_type: &DataType) -> Result<i64> {
    let wrong = || {
        Error::config(format!("option \"{option}\" is not a timestamp: '{text}'"))
            .with_hint(format!("Write {option} = TIMESTAMP '2026-01-01 00:00:00'."))
    };
    let whole = with_seconds(text).unwrap_or_else(|| text.to_owned());
    let value = ScalarValue::try_from_string(whole, time_type)
        .and_then(|value| value.to_array())
        .map_err(|e| wrong().with_source(e))?;
    ticks(&value)?.first().copied().ok_or_else(wrong)
}
