//! `EXPLAIN WHY NOT view`: what a view is waiting for, in words.
//!
//! Invariant: it names the partitions that hold the view's watermark and no others, by the same
//! decision that the view itself takes ([`QueryOutlook`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlparser::ast::ObjectName;
use windrow_core::Result;
use windrow_query::idle::QueryOutlook;
use windrow_query::progress::PartitionStatus;
use windrow_query::shared::{Shared, Status};
use windrow_query::tap_state::TapState;
use windrow_stream::WhenIdle;

use crate::catalog::{Object, plain_name};
use crate::session::explain::{display_time, lines};
use crate::session::{Outcome, Role, Session};

/// Partitions of one stream that are named.
const NAMED_MAX: usize = 3;

/// A partition of an input, as it stands now.
struct Input {
    partition: PartitionStatus,
    /// Its watermark in nanoseconds.
    nanos: i128,
    /// When it is idle.
    when_idle: Option<WhenIdle>,
}

impl Session {
    pub(super) async fn why_not(&self, view: &ObjectName) -> Result<Outcome> {
        let view = self.engine.catalog.materialized(&plain_name(view)?)?;
        let mut said = Vec::new();
        self.say_why_not(&view.name, &view.query, &mut said, &mut BTreeSet::new());
        lines("why_not", &said.join("\n")).await
    }

    /// What a view waits for, and what the views wait for that hold it.
    fn say_why_not(
        &self,
        name: &str,
        query: &Arc<Shared>,
        said: &mut Vec<String>,
        seen: &mut BTreeSet<String>,
    ) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        match query.status() {
            Status::Finished => said.push(format!(
                "View \"{name}\" waits for nothing: its inputs have ended and all windows are out."
            )),
            Status::Cancelled => said.push(format!("View \"{name}\" has been stopped.")),
            Status::Failed(error) => {
                said.push(format!("View \"{name}\" has failed: {}.", error.message()));
            }
            Status::Running => {
                let state = query.state.lock().clone();
                said.push(format!(
                    "View \"{name}\" has closed {} windows; {} are known to be open.",
                    state.windows_closed, state.windows_open
                ));
                for holder in self.say_what_holds(query, said) {
                    if let Some(Object::Materialized(view)) = self.engine.catalog.get(&holder)
                        && self.access().has(Role::Read, &holder)
                    {
                        self.say_why_not(&view.name, &view.query, said, seen);
                    }
                }
            }
        }
    }

    /// Which partitions hold the watermark of a query, and which are idle. Returns the streams of the former.
    fn say_what_holds(&self, query: &Shared, said: &mut Vec<String>) -> Vec<String> {
        let now = self.engine.parts.clock.now_micros();
        let taps = query.taps();
        let outlook = QueryOutlook::of(&taps, now);
        let mut holding = Vec::new();
        let mut streams = BTreeSet::new();
        for tap in taps.iter().filter(|tap| streams.insert(tap.stream.as_str())) {
            let inputs = inputs(tap, now);
            let holds = |i: &&Input| i.partition.awake && Some(i.nanos) == outlook.awake;
            let holders: Vec<_> = inputs.iter().filter(holds).collect();
            for holder in holders.iter().take(NAMED_MAX) {
                said.push(self.says_holds(&tap.stream, holder));
            }
            let more = holders.len().saturating_sub(NAMED_MAX);
            if more > 0 {
                said.push(format!("So do {more} more partitions of stream \"{}\".", tap.stream));
            }
            if !holders.is_empty() {
                holding.push(tap.stream.clone());
            }
            let idle: Vec<_> = inputs.iter().filter(|i| i.partition.state == "idle").collect();
            for input in idle.iter().take(NAMED_MAX) {
                said.push(format!(
                    "{} is idle at {}, and does not hold it.",
                    called(&tap.stream, &input.partition),
                    shown(input.nanos)
                ));
            }
            let more = idle.len().saturating_sub(NAMED_MAX);
            if more > 0 {
                said.push(format!("So are {more} more partitions of stream \"{}\".", tap.stream));
            }
        }
        if outlook.is_ahead(&taps) {
            said.push(
                "Windows that idle inputs let go are closed when a checkpoint has been written."
                    .to_owned(),
            );
        } else if let (true, Some(target)) = (outlook.all_idle(), outlook.target) {
            said.push(format!(
                "All its inputs are idle: it stays at {} until one of them has a row. when_idle = 'clock' \
                 on a stream lets it follow the clock.",
                shown(target)
            ));
        }
        holding
    }

    /// That a partition holds the watermark, and what can be done.
    fn says_holds(&self, stream: &str, input: &Input) -> String {
        let is_view = matches!(self.engine.catalog.get(stream), Some(Object::Materialized(_)));
        let way_out = match input.when_idle {
            _ if input.partition.state == "clock" => {
                "It has no rows and goes by the clock (when_idle = 'clock').".to_owned()
            }
            _ if is_view => "It moves when that view's does.".to_owned(),
            Some(WhenIdle { after_micros, .. }) => format!(
                "A later row moves it; after {:?} without a row it is idle and lets go (idle_timeout).",
                std::time::Duration::from_micros(after_micros.unsigned_abs())
            ),
            None => {
                "A later row moves it; idle_timeout = '…' lets a silent partition go.".to_owned()
            }
        };
        format!(
            "{} holds it with {}: a window closes when the watermark reaches its end. {way_out}",
            called(stream, &input.partition),
            shown(input.nanos)
        )
    }
}

/// The partitions of the stream that a leaf reads.
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
