//! `EXPLAIN WHY NOT view`: explains what a view is waiting for, in sentences.
//!
//! Invariant: it names exactly the partitions that hold the watermark of the view, by the same decision that the view itself
//! uses ([`QueryOutlook`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use sqlparser::ast::ObjectName;
use windrow_core::Result;
use windrow_query::idle::QueryOutlook;
use windrow_query::progress::PartitionStatus;
use windrow_query::shared::{Shared, Status};
use windrow_query::tap_state::TapState;
use windrow_stream::WhenIdle;

use super::show::lines;
use super::timestamp::display_time;
use super::{Answer, Statement, columns_of, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::{Catalog, Object};
use crate::execution::context::StatementContext;
use crate::execution::outcome::Outcome;
use crate::names::plain_name;

/// Maximum number of partitions of one stream that are named.
const NAMED_MAX: usize = 3;

/// A partition of an input at this moment.
struct Input {
    partition: PartitionStatus,
    /// Its watermark in nanoseconds.
    nanos: i128,
    /// When it is idle.
    when_idle: Option<WhenIdle>,
}

/// `EXPLAIN WHY NOT view`.
#[derive(Debug)]
pub(crate) struct ExplainWhyNot {
    pub(super) view: ObjectName,
}

impl Statement for ExplainWhyNot {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("EXPLAIN", None)
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Read, &self.view)
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move { Ok(columns_of(&self.execute(cx).await?)) })
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move { cx.catalog().materialized(&plain_name(&self.view)?).map(drop) })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let view = cx.catalog().materialized(&plain_name(&self.view)?)?;
            let mut explanation = Explanation { cx, lines: vec![], seen: BTreeSet::new() };
            explanation.view(&view.name, &view.query);
            lines("why_not", &explanation.lines.join("\n")).await
        })
    }
}

/// An explanation in the making.
struct Explanation<'a> {
    cx: &'a StatementContext,
    lines: Vec<String>,
    /// The views that are explained already.
    seen: BTreeSet<String>,
}

impl Explanation<'_> {
    /// Explains what a view is waiting for, and what the views are waiting for that hold it.
    fn view(&mut self, name: &str, query: &Arc<Shared>) {
        if !self.seen.insert(name.to_owned()) {
            return;
        }
        match query.status() {
            Status::Finished => self.lines.push(format!(
                "View \"{name}\" waits for nothing: its inputs have ended and all windows are emitted."
            )),
            Status::Cancelled => self.lines.push(format!("View \"{name}\" has been stopped.")),
            Status::Failed(error) => {
                self.lines.push(format!("View \"{name}\" has failed: {}.", error.message()));
            }
            Status::Running => {
                let state = query.state.lock().clone();
                self.lines.push(format!(
                    "View \"{name}\" has closed {} windows; {} are known to be open.",
                    state.windows_closed, state.windows_open
                ));
                for holder in self.holders(query) {
                    if let Some(Object::Materialized(view)) = self.cx.catalog().get(&holder)
                        && self.cx.access.has(Role::Read, &holder)
                    {
                        self.view(&view.name, &view.query);
                    }
                }
            }
        }
    }

    /// Explains which partitions hold the watermark of a query, and which are idle. Returns the streams of the former.
    fn holders(&mut self, query: &Shared) -> Vec<String> {
        let now = self.cx.instance.parts.clock.now_micros();
        let taps = query.taps();
        let outlook = QueryOutlook::of(&taps, now);
        let mut holding = Vec::new();
        let mut streams = BTreeSet::new();
        for tap in taps.iter().filter(|tap| streams.insert(tap.stream.as_str())) {
            if self.cx.instance.parts.paused.borrow().contains(&tap.stream) {
                let stream = &tap.stream;
                self.lines.push(format!(
                    "Stream \"{stream}\" is paused: its rows are taken after RESUME STREAM {stream}."
                ));
            }
            let inputs = inputs(tap, now);
            let holds = |i: &&Input| i.partition.awake && Some(i.nanos) == outlook.awake;
            let holders: Vec<_> = inputs.iter().filter(holds).collect();
            for holder in holders.iter().take(NAMED_MAX) {
                let line = self.holder(&tap.stream, holder);
                self.lines.push(line);
            }
            let more = holders.len().saturating_sub(NAMED_MAX);
            if more > 0 {
                self.lines
                    .push(format!("So do {more} more partitions of stream \"{}\".", tap.stream));
            }
            if !holders.is_empty() {
                holding.push(tap.stream.clone());
            }
            let idle: Vec<_> = inputs.iter().filter(|i| i.partition.state == "idle").collect();
            for input in idle.iter().take(NAMED_MAX) {
                self.lines.push(format!(
                    "{} is idle at {}, and does not hold it.",
                    called(&tap.stream, &input.partition),
                    shown(input.nanos)
                ));
            }
            let more = idle.len().saturating_sub(NAMED_MAX);
            if more > 0 {
                self.lines
                    .push(format!("So are {more} more partitions of stream \"{}\".", tap.stream));
            }
        }
        if outlook.is_ahead(&taps) {
            self.lines.push(
                "Windows that idle inputs no longer hold are closed once a checkpoint has been written."
                    .to_owned(),
            );
        } else if let (true, Some(target)) = (outlook.all_idle(), outlook.target) {
            self.lines.push(format!(
                "All its inputs are idle: it stays at {} until one of them has a row. when_idle = 'clock' \
                 on a stream lets it follow the clock.",
                shown(target)
            ));
        }
        holding
    }

    /// Explains that a partition holds the watermark, and what moves it.
    fn holder(&self, stream: &str, input: &Input) -> String {
        let is_view = matches!(self.cx.catalog().get(stream), Some(Object::Materialized(_)));
        let way_out = match input.when_idle {
            _ if input.partition.state == "clock" => {
                "It has no rows and goes by the clock (when_idle = 'clock').".to_owned()
            }
            _ if is_view => "It moves when that view's does.".to_owned(),
            Some(WhenIdle { after_micros, .. }) => format!(
                "A later row moves it; after {:?} without a row it is idle and stops holding it (idle_timeout).",
                std::time::Duration::from_micros(after_micros.unsigned_abs())
            ),
            None => {
                "A later row moves it; with idle_timeout = '…' a silent partition stops holding it."
                    .to_owned()
            }
        };
        format!(
            "{} holds it with {}: a window closes when the watermark reaches its end. {way_out}",
            called(stream, &input.partition),
            shown(input.nanos)
        )
    }
}

/// Returns the partitions of the stream that a leaf reads.
fn inputs(tap: &TapState, now_micros: i64) -> Vec<Input> {
    let Some(progress) = tap.progress() else { return vec![] };
    let progress = progress.lock();
    let when_idle = progress.when_idle();
    let partitions = progress.status(now_micros).into_iter();
    let input = |partition: PartitionStatus| Input {
        nanos: progress.nanos(partition.watermark),
        partition,
        when_idle,
    };
    partitions.map(input).collect()
}

fn called(stream: &str, partition: &PartitionStatus) -> String {
    let PartitionStatus { id, name, state, .. } = partition;
    format!("Partition {id} (\"{name}\", {state}) of stream \"{stream}\"")
}

fn shown(nanos: i128) -> String {
    match i64::try_from(nanos.div_euclid(1_000)) {
        Ok(micros) => format!("the watermark {}", display_time(micros)),
        Err(_) => "no watermark yet".to_owned(),
    }
}
