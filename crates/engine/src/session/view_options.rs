//! What stands in `WITH (…)` of a materialized view.

use std::collections::BTreeMap;
use std::time::Duration;

use datafusion::logical_expr::LogicalPlan;
use windrow_core::{Error, Place, Result};
use windrow_sql::parse::OptionItem;
use windrow_sql::plan::from_event_time;
use windrow_stream::Feed;

use crate::session::Session;
use crate::session::stream_options::retention;

const VIEW_OPTIONS: &[&str] = &["on_error", "retention", "start"];

/// The options of a materialized view.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ViewOptions {
    start: Start,
    /// How much older than the newest row a row of the view may be.
    pub(super) retention: Option<(Duration, Place)>,
    /// A row whose expressions fail is a bad row, and does not fail the view.
    pub(super) skips_rows: bool,
}

/// Where a view begins in its streams.
#[derive(Debug, Clone, Default, PartialEq)]
enum Start {
    /// With what they hold.
    #[default]
    Earliest,
    /// Behind what they hold.
    Latest(Place),
    /// At an event time, given as text.
    At(String, Place),
}

impl ViewOptions {
    /// Reads the options.
    ///
    /// # Errors
    /// For an unknown one.
    pub(super) fn read(options: &[OptionItem]) -> Result<Self> {
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

    /// Whether it begins behind what its streams hold.
    pub(super) fn starts_late(&self) -> bool {
        matches!(self.start, Start::Latest(_))
    }

    /// The view's query over the rows that the start leaves.
    ///
    /// # Errors
    /// When the start is no timestamp, or a stream has no event time.
    pub(super) fn begin(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let Start::At(start, place) = &self.start else { return Ok(plan) };
        from_event_time(plan, start).map_err(|e| e.with_place(*place))
    }
}

impl Session {
    /// Where a view that starts at the latest begins to read each log; empty for others.
    pub(super) async fn start_offsets(
        &self,
        options: &ViewOptions,
        reads: &[String],
    ) -> Result<BTreeMap<String, u64>> {
        let mut offsets = BTreeMap::new();
        let Start::Latest(place) = options.start else { return Ok(offsets) };
        if self.restoring.is_some() {
            // The view's checkpoints know.
            return Ok(offsets);
        }
        if self.options.push_ends {
            // Nobody else inserts: what was inserted before belongs to what is left out.
            self.engine.start_pending();
            self.catch_up(reads).await?;
        }
        for name in reads {
            let rows = match &self.engine.catalog.stream_to_read(name)?.feed {
                Feed::Push(push) => push.log.state().rows,
                Feed::View(log) => log.state().rows,
                Feed::Source(source) => {
                    let why = match source.is_bounded() {
                        true => "ends: nothing new will come",
                        false => "is read by each query from its beginning",
                    };
                    return Err(Error::config(format!(
                        "start = 'latest' does not fit stream \"{name}\", whose connector {why}"
                    ))
                    .with_place(place)
                    .with_hint("Use start = TIMESTAMP '…'."));
                }
            };
            offsets.insert(name.clone(), rows);
        }
        Ok(offsets)
    }
}
