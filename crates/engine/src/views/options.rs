//! The options of a materialized view: `WITH (…)`.

use std::collections::BTreeMap;
use std::time::Duration;

use datafusion::logical_expr::LogicalPlan;
use windrow_core::{Error, Place, Result};
use windrow_sql::parse::OptionItem;
use windrow_sql::plan::from_event_time;

use crate::execution::context::StatementContext;
use crate::execution::options::retention;
use crate::views::wait::wait_for_pushes;

const VIEW_OPTIONS: &[&str] = &["on_error", "retention", "start"];

/// The options of a materialized view.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ViewOptions {
    start: Start,
    /// Maximum age of a row, relative to the newest row, and the place of the option in the statement.
    pub(crate) retention: Option<(Duration, Place)>,
    /// Whether a row whose expressions fail becomes a bad row, instead of failing the view.
    pub(crate) skips_rows: bool,
}

/// Where a view begins to read its streams.
#[derive(Debug, Clone, Default, PartialEq)]
enum Start {
    /// At their beginning.
    #[default]
    Earliest,
    /// After their last row.
    Latest(Place),
    /// At an event time, given as text.
    At(String, Place),
}

impl ViewOptions {
    /// Parses the options.
    ///
    /// # Errors
    /// When an option is unknown, or a value malformed.
    pub(crate) fn read(options: &[OptionItem]) -> Result<Self> {
        let mut found = Self::default();
        for OptionItem { key, value, place } in options {
            match key.as_str() {
                "retention" => found.retention = Some((retention(key, value, *place)?, *place)),
                "on_error" => {
                    found.skips_rows = match value.trim().to_ascii_lowercase().as_str() {
                        "fail" => false,
                        "skip_row" => true,
                        _ => {
                            let message = format!("on_error = '{value}' is not known");
                            return Err(Error::config(message).with_place(*place).with_hint(
                                "Write 'fail', or 'skip_row' to make rows whose expressions fail bad rows.",
                            ));
                        }
                    }
                }
                "start" => {
                    found.start = match value.trim().to_ascii_lowercase().as_str() {
                        "earliest" => Start::Earliest,
                        "latest" => Start::Latest(*place),
                        _ => Start::At(value.clone(), *place),
                    }
                }
                _ => {
                    return Err(Error::config(format!(
                        "unknown option \"{key}\" of a materialized view"
                    ))
                    .with_place(*place)
                    .with_hint(format!("Known options: {}.", VIEW_OPTIONS.join(", "))));
                }
            }
        }
        Ok(found)
    }

    /// Whether it begins after the last row of its streams.
    pub(crate) fn starts_late(&self) -> bool {
        matches!(self.start, Start::Latest(_))
    }

    /// Restricts the query of the view to the rows from `start` on.
    ///
    /// # Errors
    /// When `start` is no timestamp, or a stream has no event time.
    pub(crate) fn restrict(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let Start::At(start, place) = &self.start else { return Ok(plan) };
        from_event_time(plan, start).map_err(|e| e.with_place(*place))
    }

    /// Returns the offsets at which a view with `start = 'latest'` begins to read each log; empty for others.
    ///
    /// # Errors
    /// When a stream has no log to begin in.
    pub(crate) async fn start_offsets(
        &self,
        cx: &StatementContext,
        reads: &[String],
    ) -> Result<BTreeMap<String, u64>> {
        let mut offsets = BTreeMap::new();
        let Start::Latest(place) = self.start else { return Ok(offsets) };
        if cx.restoring.is_some() {
            // They are in the checkpoints of the view.
            return Ok(offsets);
        }
        if cx.options.push_ends {
            // No other client inserts: rows that were inserted before are not to be read.
            cx.instance.start_pending();
            wait_for_pushes(cx.catalog(), reads).await?;
        }
        for name in reads {
            let stream = cx.catalog().stream_to_read(name)?;
            let Some(log) = stream.log() else {
                let why = match stream.is_bounded() {
                    true => "ends: nothing new will come",
                    false => "is read by each query from its beginning",
                };
                return Err(Error::config(format!(
                    "start = 'latest' does not fit stream \"{name}\", whose connector {why}"
                ))
                .with_place(place)
                .with_hint("Use start = TIMESTAMP '…'."));
            };
            offsets.insert(name.clone(), log.state().rows);
        }
        Ok(offsets)
    }
}
