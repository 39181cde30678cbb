//! `CREATE OR REPLACE MATERIALIZED VIEW` of a view that there is: the new one is made beside it,
//! and takes its name when it has caught up.
//!
//! ```text
//! old  ──────── answers SELECT, takes in rows ────────┐ stopped, its files go when nobody reads them
//! new  ─ reads history ─ … ─ where the old one stood ─┴─ has the name: catalog and definition ───►
//! ```
//! Invariants: until the switch the old view is as it was, whatever becomes of the new one, a
//! crash included; the definition on disk changes in one step, under the catalog's lock; what
//! reads the old one's rows reads them to their end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use windrow_archive::HeldFiles;
use windrow_core::{Error, Result, Watermark};
use windrow_query::start::launch;
use windrow_sql::plan::ContinuousPlan;
use windrow_stream::Feed;

use crate::catalog::{Materialized, Object, Rebuilding, replaced};
use crate::durable::definitions::{Definition, Kind};
use crate::durable::store::Store;
use crate::engine::Inner;
use crate::session::Session;
use crate::session::create_view::{Made, NewView};

/// How often it is looked whether anybody still reads the files of a replaced view.
const READERS_INTERVAL: Duration = Duration::from_secs(1);

/// How far a view has to be.
#[derive(Debug, Default)]
struct Goal {
    /// Per stream or view with a log: rows to take in.
    rows: BTreeMap<String, u64>,
    /// Per stream with a connector: the watermark of its scan.
    watermarks: BTreeMap<String, Watermark>,
}

/// A view beside another one of its name. Unless it is [kept](Self::keep), it goes again with
/// everything that was made for it.
struct Beside {
    engine: Arc<Inner>,
    /// What its archive and its retention are known by while it is there.
    key: String,
    definition: Option<Definition>,
    view: Option<Arc<Materialized>>,
    kept: bool,
    /// Shows the state; nobody else rebuilds the view meanwhile.
    _rebuilding: Rebuilding,
}

impl Beside {
    /// It has the name now.
    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Some(view) = &self.view {
            view.query.cancel();
            view.log.end();
        }
        let (engine, key, definition) =
            (Arc::clone(&self.engine), std::mem::take(&mut self.key), self.definition.take());
        let (cpu, view) = (self.engine.parts.cpu.clone(), self.view.take());
        cpu.spawn(async move {
            if let Some(view) = view {
                view.stop_checkpoints().await;
            }
            engine.release(&key).await;
            if let (Some(store), Some(definition)) = (&engine.store, definition) {
                store.delete_files(&definition);
            }
        });
    }
}

impl Session {
    /// Makes a view beside the one that has its name, waits until it has caught up, and gives it
    /// the name. Dropping the future gives the new one up.
    pub(super) async fn rebuild(
        &self,
        view: NewView,
        plan: ContinuousPlan,
        old: Arc<Materialized>,
    ) -> Result<()> {
        let (name, text) = (view.name.clone(), view.text.clone());
        let engine = &self.engine;
        engine.start_pending();
        let rebuilding = engine.catalog.rebuilding(&name)?;
        let goal = self.goal(&old, &view.reads)?;
        let reserve = |store: &Arc<Store>| store.reserve(&name, Kind::MaterializedView, &text);
        let definition = engine.store.as_ref().map(reserve);
        let mut beside = Beside {
            engine: Arc::clone(engine),
            key: beside_key(&name),
            definition: definition.clone(),
            view: None,
            kept: false,
            _rebuilding: rebuilding,
        };
        let made = self.make_view(&beside.key, view, plan, definition.clone()).await?;
        let Made { view, relation, query, .. } = made;
        beside.view = Some(Arc::clone(&view));
        engine.watch_failure(&view, definition.as_ref().map(|definition| definition.id));
        launch(&engine.parts, vec![query]);
        if view.checkpoints.is_some() {
            engine.keep_checkpoints(Arc::clone(&view.query), view.spiller.clone());
        }
        self.caught_up(&view, &goal).await?;
        let commit = || match (&engine.store, &definition) {
            (Some(store), Some(definition)) => store.commit(definition),
            _ => Ok(None),
        };
        let reads = view.reads.clone();
        let object = Object::Materialized(Arc::clone(&view));
        let before = engine.catalog.switch(&old, object, relation, (&text, reads), commit)?;
        old.log.fail(Arc::new(replaced(&name)));
        old.query.cancel();
        old.stop_checkpoints().await;
        engine.release(&name).await;
        engine.rename_kept(&beside.key, &name);
        beside.keep();
        self.delete_unread(old, before);
        Ok(())
    }

    /// Late rows of the old view may be in this stream; the new one finds them once more.
    pub(super) fn refuse_doubled(&self, late_to: &str) -> Result<()> {
        if !self.engine.catalog.exists(late_to) {
            return Ok(());
        }
        Err(Error::sql(format!("late rows would be doubled in \"{late_to}\" by the new view"))
            .with_hint(format!("DROP STREAM {late_to} first, or name another stream.")))
    }

    /// Where the old view stands now, in the streams of the new one.
    fn goal(&self, old: &Materialized, reads: &[String]) -> Result<Goal> {
        let mut goal = Goal::default();
        for name in reads {
            let rows = match &self.engine.catalog.stream_to_read(name)?.feed {
                Feed::Push(push) => push.log.state().rows,
                Feed::View(log) => log.state().rows,
                Feed::Source(source) => {
                    let watermark = match (source.is_bounded(), old.query.tap_of(name)) {
                        (true, _) => Watermark::END,
                        (false, Some(tap)) => tap.own(),
                        (false, None) => Watermark::NONE,
                    };
                    goal.watermarks.insert(name.clone(), watermark);
                    continue;
                }
            };
            goal.rows.insert(name.clone(), rows);
        }
        Ok(goal)
    }

    /// Waits until a view is as far as the goal, and its finished windows are out.
    async fn caught_up(&self, view: &Materialized, goal: &Goal) -> Result<()> {
        let mut passes = view.query.watch_passes();
        let there = || {
            // A stream that its plan does not need has no scan.
            let read = |name: &str| view.query.tap_of(name);
            let taken = |(name, rows): (&String, &u64)| {
                read(name).is_none() || view.consumed(name) >= *rows
            };
            let reached = |(name, wanted): (&String, &Watermark)| {
                read(name).is_none_or(|tap| tap.own() >= *wanted)
            };
            goal.rows.iter().all(taken) && goal.watermarks.iter().all(reached)
        };
        // Two whole passes of the coordinator after the rows are in: what they close is out.
        let mut passed = 0;
        while passed < 2 {
            if view.query.is_over() {
                return view.ended().await;
            }
            let before = there();
            if before {
                view.query.wake();
            }
            tokio::select! {
                changed = passes.changed() => if changed.is_err() { return Ok(()) },
                ended = view.ended() => return ended,
            }
            passed += u32::from(before);
        }
        Ok(())
    }

    /// Deletes the files of a replaced view as soon as nobody reads them.
    fn delete_unread(&self, old: Arc<Materialized>, definition: Option<Definition>) {
        let (Some(store), Some(definition)) = (&self.engine.store, definition) else { return };
        let log = Arc::downgrade(&old.log);
        let files = old.spiller.as_ref().map(|spiller| spiller.held());
        let (store, clock) = (Arc::clone(store), Arc::clone(&self.engine.parts.clock));
        drop(old);
        self.engine.parts.cpu.spawn(async move {
            while log.strong_count() > 0 || files.as_ref().is_some_and(HeldFiles::are_held) {
                clock.sleep(READERS_INTERVAL).await;
            }
            // Should the process end before, the next one sweeps them away.
            store.delete_files(&definition);
        });
    }
}

/// What the archive and the retention of a view are known by while it is made beside another one.
/// No object has this name: a control character is in it.
fn beside_key(name: &str) -> String {
    format!("{name}\u{1}beside")
}
