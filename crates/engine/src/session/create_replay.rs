//! `CREATE STREAM … WITH (connector = 'replay', of = '…')`.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use windrow_connectors::replay::ReplayOptions;
use windrow_core::time::with_seconds;
use windrow_core::{Error, EventTimeColumn, Result, StreamSchema};
use windrow_sql::parse::CreateStream;
use windrow_stream::Feed;
use windrow_stream::intake::ticks;
use windrow_stream::replay::ReplaySource;

use crate::session::create::place_of_option;
use crate::session::{Role, Session};

/// The connector's name.
pub(super) const REPLAY: &str = "replay";

impl Session {
    /// What a replay reads, its columns, and the stream or view that it is a replay of.
    pub(super) fn replay(
        &self,
        create: &CreateStream,
        options: &[(String, String)],
    ) -> Result<(ReplaySource, StreamSchema, String)> {
        let made = self.replay_of(create, options);
        made.map_err(|e| match e.place() {
            None => place_of_option(e, &create.options),
            Some(_) => e,
        })
    }

    fn replay_of(
        &self,
        create: &CreateStream,
        options: &[(String, String)],
    ) -> Result<(ReplaySource, StreamSchema, String)> {
        if !create.columns.is_empty() {
            return Err(Error::sql("a replay has the columns of what it replays")
                .with_hint("Leave the columns out; WATERMARK FOR may stay."));
        }
        let options = ReplayOptions::try_new(options)?;
        let catalog = &self.engine.catalog;
        let name = match catalog.exists(&options.of) {
            true => options.of.clone(),
            false => options.of.to_lowercase(),
        };
        self.access().need(Role::Read, &name)?;
        let of = catalog.stream_to_read(&name)?;
        if let Feed::Source(source) = &of.feed
            && !source.is_bounded()
            && of.history.is_none()
        {
            return Err(Error::sql(format!(
                "option \"of\": stream \"{name}\" has no history, its connector never ends"
            ))
            .with_hint("Give it a retention, or replay a materialized view over it."));
        }
        let event_time = match &create.watermark {
            Some(clause) => self.event_time(of.schema.schema(), clause)?,
            // Rows come in order, whatever delay the history was declared with.
            None => {
                let of = of.schema.event_time().map(|e| EventTimeColumn { delay_ticks: 0, ..e });
                of.ok_or_else(|| {
                    Error::sql(format!(
                        "option \"of\": \"{name}\" has no event time to be in order of"
                    ))
                    .with_hint("Name the column: CREATE STREAM … (WATERMARK FOR column) WITH (…).")
                })?
            }
        };
        let schema = StreamSchema::try_new(Arc::clone(of.schema.schema()), Some(event_time))
            .map_err(|e| match &create.watermark {
                Some(clause) => e.with_place(clause.place),
                None => e,
            })?;
        let time_type = schema.schema().field(event_time.index).data_type();
        let time = |name: &str, text: &Option<String>| match text {
            Some(text) => timestamp(name, text, time_type).map(Some),
            None => Ok(None),
        };
        let (from, to) = (time("from", &options.from)?, time("to", &options.to)?);
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            return Err(Error::config("option \"to\" is not after option \"from\"").with_hint(
                "from is the first event time that is replayed, to the first that is not.",
            ));
        }
        let parts = &self.engine.parts;
        let source = ReplaySource {
            of,
            time: event_time.index,
            from,
            to,
            speed: options.speed,
            clock: Arc::clone(&parts.clock),
            sort_bytes_max: parts.limits.replay_bytes_max,
        };
        Ok((source, schema, name))
    }
}

/// The text of a timestamp in ticks of a time column.
pub(super) fn timestamp(option: &str, text: &str, time_type: &DataType) -> Result<i64> {
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
