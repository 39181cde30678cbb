//! Retention: drops old rows of a log while it changes, up to what queries and views still need.

use std::sync::Arc;
use std::time::Duration;
use windrow_query::shared::Status;
use windrow_stream::caught::caught;
use windrow_stream::retention::{Needed, Pass, Retention};

use super::parts::Parts;
use crate::catalog::{Catalog, Object};

/// Minimum time between two passes, and until a pass is repeated that a reader held up.
const INTERVAL: Duration = Duration::from_secs(1);

/// Drops the old rows of a log until its retention is stopped.
pub(super) async fn run(retention: Arc<Retention>, parts: Arc<Parts>, catalog: Arc<Catalog>) {
    let mut changed = retention.watch();
    let mut last = Pass::Held;
    loop {
        let wait = async {
            if last == Pass::Done && changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if !retention.is_idle() {
                parts.clock.sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            () = retention.stopped() => return,
            () = wait => {}
        }
        changed.mark_unchanged();
        last = pass_now(&retention, &parts, &catalog).await;
    }
}

/// Drops the rows that are past their retention now. Rows that cannot be dropped stay until the next pass.
pub(crate) async fn pass_now(retention: &Retention, parts: &Parts, catalog: &Catalog) -> Pass {
    if retention.is_idle() {
        return Pass::Done;
    }
    // Views that are not open yet may resume from these rows.
    if !parts.is_restored() {
        return Pass::Held;
    }
    let name = retention.name();
    let pass = async { retention.pass(needed(retention, parts, catalog)).await };
    match caught(|| format!("retention of \"{name}\""), pass).await {
        Ok(pass) => pass,
        Err(error) => {
            tracing::warn!(name, %error, "old rows cannot be dropped");
            Pass::Held
        }
    }
}

/// Returns the rows that the readers of the log still need.
fn needed(retention: &Retention, parts: &Parts, catalog: &Catalog) -> Needed {
    let name = retention.name();
    // Continuous queries read the connector; its history is for bounded ones.
    if matches!(catalog.get(name), Some(Object::Stream(s)) if s.history.is_some()) {
        return Needed { offset: u64::MAX, ticks: i64::MAX };
    }
    // Without a data directory no row is read a second time.
    let ticks = if retention.is_archived() { open_from(catalog, name, 0) } else { i64::MAX };
    let mut needed = Needed { offset: u64::MAX, ticks };
    for query in parts.queries.lock().values().filter(|q| !q.is_over()) {
        if query.reads(name) {
            needed.offset = needed.offset.min(query.consumed(name));
        }
    }
    for sink in catalog.sinks().iter().filter(|sink| sink.view == name) {
        needed.offset = needed.offset.min(sink.state().committed);
    }
    for object in catalog.all() {
        let Object::Materialized(view) = object else { continue };
        if !view.reads.iter().any(|read| read == name) || view.query.is_over() {
            continue;
        }
        needed.offset = needed.offset.min(view.consumed(name));
        // A restart resumes from one of these.
        if let Some(checkpoints) = &view.checkpoints {
            needed.offset = needed.offset.min(checkpoints.needs(name));
        }
    }
    needed
}

/// Returns the event time from which a restart reads a log again for views without checkpoints: the start of the earliest
/// window over it that is not final. `reach`: by how many ticks rows of the log may precede the event time of a result.
fn open_from(catalog: &Catalog, name: &str, reach: i64) -> i64 {
    let mut open = i64::MAX;
    for object in catalog.all() {
        let Object::Materialized(view) = object else { continue };
        // A finished view reads nothing any more, and one with checkpoints resumes from them.
        if !view.reads.iter().any(|read| read == name)
            || matches!(view.query.status(), Status::Finished)
            || view.checkpoints.is_some()
        {
            continue;
        }
        let reach = reach.saturating_add(view.reach_ticks);
        let from = match &view.spiller {
            Some(spiller) => spiller.frontier().watermark().delayed(reach).ticks(),
            // A restart recomputes it for the queries that read it.
            None => open_from(catalog, &view.name, reach),
        };
        open = open.min(from);
    }
    open
}
