//! `CREATE OR REPLACE MATERIALIZED VIEW` of an existing view: the new view is built beside the old one, and takes its name when
//! it has caught up.
//!
//! ```text
//! old  ──────── answers SELECT, consumes rows ────────┐ stopped; its files are deleted once nothing reads them
//! new  ─ reads history ─ … ─ position of the old view ┴─ has the name: catalog and definition ───►
//! ```
//! Invariants: until the switch the old view is unchanged, whatever happens to the new one, a crash included; the definition
//! on disk changes in one step, under the lock of the catalog; readers of the old view read its rows to the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use windrow_archive::HeldFiles;
use windrow_core::{Error, Result, Watermark};
use windrow_query::start::launch;
use windrow_sql::plan::ContinuousPlan;

use crate::catalog::{Catalog, Materialized, Object, Rebuilding, replaced};
use crate::durable::definitions::{Definition, Kind};
use crate::durable::store::Store;
use crate::execution::context::StatementContext;
use crate::instance::Instance;
use crate::views::build::{BuiltView, NewView};

/// How often to check whether the files of a replaced view are still being read.
const READERS_INTERVAL: Duration = Duration::from_secs(1);

/// The position that the new view has to reach.
#[derive(Debug, Default)]
struct Goal {
    /// Per stream or view with a log: rows to consume.
    rows: BTreeMap<String, u64>,
    /// Per stream with a connector: the watermark of its scan.
    watermarks: BTreeMap<String, Watermark>,
}

/// A view that is built to replace another one. Dropping it removes everything that was created for it, unless it is
/// [complete](Self::complete).
struct Replacement {
    instance: Arc<Instance>,
    /// The name of its archiving and retention until the switch.
    key: String,
    definition: Option<Definition>,
    view: Option<Arc<Materialized>>,
    is_complete: bool,
    /// Shows the state, and keeps other statements from rebuilding the view.
    _rebuilding: Rebuilding,
}

impl Replacement {
    /// The view has the name now.
    fn complete(mut self) {
        self.is_complete = true;
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if self.is_complete {
            return;
        }
        if let Some(view) = &self.view {
            view.query.cancel();
            view.log.end();
        }
        let instance = Arc::clone(&self.instance);
        let (key, definition) = (std::mem::take(&mut self.key), self.definition.take());
        let (cpu, view) = (self.instance.parts.cpu.clone(), self.view.take());
        cpu.spawn(async move {
            if let Some(view) = view {
                view.stop_checkpoints().await;
            }
            instance.release(&key).await;
            if let (Some(store), Some(definition)) = (&instance.store, definition) {
                store.delete_files(&definition);
            }
        });
    }
}

/// Builds a view beside the one that has its name, waits until it has caught up, and switches the name. Dropping the future
/// abandons the new view.
///
/// # Errors
/// When the view cannot be built or fails, or the old one is dropped, read by another object or being rebuilt.
pub(crate) fn rebuild<'a>(
    cx: &'a StatementContext,
    view: NewView,
    plan: ContinuousPlan,
    old: Arc<Materialized>,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let (name, text) = (view.name.clone(), view.text.clone());
        let instance = &cx.instance;
        instance.start_pending();
        let rebuilding = instance.catalog.rebuilding(&name)?;
        let goal = goal(&instance.catalog, &old, &view.reads)?;
        let reserve = |store: &Arc<Store>| store.reserve(&name, Kind::MaterializedView, &text);
        let models = cx.versions_used(&text);
        let reserved = instance.store.as_ref().map(reserve);
        let definition = reserved.map(|reserved| Definition { models: models.clone(), ..reserved });
        let mut replacement = Replacement {
            instance: Arc::clone(instance),
            key: replacement_key(&name),
            definition: definition.clone(),
            view: None,
            is_complete: false,
            _rebuilding: rebuilding,
        };
        let built = view.build(cx, &replacement.key, plan, definition.clone()).await?;
        let BuiltView { view, relation, query, .. } = built;
        replacement.view = Some(Arc::clone(&view));
        instance.watch_failure(&view, definition.as_ref().map(|definition| definition.id));
        launch(&instance.parts, vec![query]);
        if view.checkpoints.is_some() {
            instance.start_checkpoints(Arc::clone(&view.query), view.spiller.clone());
        }
        catch_up(&view, &goal).await?;
        let commit = || match (&instance.store, &definition) {
            (Some(store), Some(definition)) => store.commit(definition),
            _ => Ok(None),
        };
        let reads = view.reads.clone();
        let object = Object::Materialized(Arc::clone(&view));
        let before = instance.catalog.switch(&old, object, relation, (&text, reads), commit)?;
        instance.catalog.pin(&name, models);
        old.log.fail(Arc::new(replaced(&name)));
        old.query.cancel();
        old.stop_checkpoints().await;
        instance.release(&name).await;
        instance.rename_log(&replacement.key, &name);
        replacement.complete();
        delete_unread(instance, old, before);
        Ok(())
    })
}

/// Checks that late rows of the old view are not in the stream `late_to`: the new view would insert them again.
///
/// # Errors
/// When the stream exists.
pub(crate) fn check_late_stream(catalog: &Catalog, late_to: &str) -> Result<()> {
    if !catalog.exists(late_to) {
        return Ok(());
    }
    Err(Error::sql(format!("late rows would be inserted twice into \"{late_to}\" by the new view"))
        .with_hint(format!("DROP STREAM {late_to} first, or name another stream.")))
}

/// Returns the position of the old view in the streams of the new one.
fn goal(catalog: &Catalog, old: &Materialized, reads: &[String]) -> Result<Goal> {
    let mut goal = Goal::default();
    for name in reads {
        let stream = catalog.stream_to_read(name)?;
        if let Some(log) = stream.log() {
            goal.rows.insert(name.clone(), log.state().rows);
            continue;
        }
        let watermark = match (stream.is_bounded(), old.query.tap_of(name)) {
            (true, _) => Watermark::END,
            (false, Some(tap)) => tap.own(),
            (false, None) => Watermark::NONE,
        };
        goal.watermarks.insert(name.clone(), watermark);
    }
    Ok(goal)
}

/// Waits until a view has reached the goal, and the windows that are final then are emitted.
async fn catch_up(view: &Materialized, goal: &Goal) -> Result<()> {
    let mut passes = view.query.watch_passes();
    let has_reached = || {
        // A stream that the plan does not need has no scan.
        let tap = |name: &str| view.query.tap_of(name);
        let consumed =
            |(name, rows): (&String, &u64)| tap(name).is_none() || view.consumed(name) >= *rows;
        let passed = |(name, watermark): (&String, &Watermark)| {
            tap(name).is_none_or(|tap| tap.own() >= *watermark)
        };
        goal.rows.iter().all(consumed) && goal.watermarks.iter().all(passed)
    };
    // Two passes of the coordinator after the rows are consumed: the windows that they close are emitted.
    let mut passed = 0;
    while passed < 2 {
        if view.query.is_over() {
            return view.ended().await;
        }
        let reached = has_reached();
        if reached {
            view.query.ask_emission();
        }
        tokio::select! {
            changed = passes.changed() => if changed.is_err() { return Ok(()) },
            ended = view.ended() => return ended,
        }
        passed += u32::from(reached);
    }
    Ok(())
}

/// Deletes the files of a replaced view once nothing reads them.
fn delete_unread(instance: &Instance, old: Arc<Materialized>, definition: Option<Definition>) {
    let (Some(store), Some(definition)) = (&instance.store, definition) else { return };
    let log = Arc::downgrade(&old.log);
    let files = old.spiller.as_ref().map(|spiller| spiller.held());
    let (store, clock) = (Arc::clone(store), Arc::clone(&instance.parts.clock));
    drop(old);
    instance.parts.cpu.spawn(async move {
        while log.strong_count() > 0 || files.as_ref().is_some_and(HeldFiles::are_held) {
            clock.sleep(READERS_INTERVAL).await;
        }
        // If the process ends before that, the next start deletes them.
        store.delete_files(&definition);
    });
}

/// Returns the name of the archiving and the retention of a view until it replaces another one. No object has this name: it
/// contains a control character.
fn replacement_key(name: &str) -> String {
    format!("{name}\u{1}replacement")
}
