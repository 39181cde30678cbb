//! What exists: streams, views and reference tables, by name.
//!
//! DataFusion's schema provider holds what the planner scans; this catalog holds what stands
//! behind it: the stream, the query of a view, the text of each definition.

pub(crate) mod guarded;
pub(crate) mod health;
pub(crate) mod schema;
pub(crate) mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::logical_expr::LogicalPlan;
use parking_lot::Mutex;
use sqlparser::ast::{ObjectName, ObjectNamePart};
use windrow_core::{Error, ErrorKind, Result};
use windrow_query::shared::Shared;
use windrow_query::start::Streams;
use windrow_sql::diagnostics::{from_datafusion, nearest};
use windrow_sql::plan::EventTime;
use windrow_storage::checkpoint::Checkpoints;
use windrow_stream::log::StreamLog;
use windrow_stream::repeated::repeated;
use windrow_stream::spill::Spiller;
use windrow_stream::{Feed, Stream};

use crate::catalog::schema::Tables;
use crate::durable::definitions::{Definition, Kind, LostRows};
use crate::engine::{CATALOG, SCHEMA};

/// All objects of an engine.
#[derive(Debug)]
pub(crate) struct Catalog {
    schema: Arc<Tables>,
    objects: Mutex<BTreeMap<String, Entry>>,
    /// Objects of the data directory that could not be opened.
    broken: Mutex<BTreeMap<String, Broken>>,
    /// Rows of streams that were lost, by the streams.
    lost: Mutex<BTreeMap<String, Vec<LostRows>>>,
    /// Materialized views that are being rebuilt beside the old ones.
    rebuilding: Mutex<BTreeSet<String>>,
}

/// A view is being rebuilt while this lives.
#[derive(Debug)]
pub(crate) struct Rebuilding {
    catalog: Arc<Catalog>,
    name: String,
}

impl Drop for Rebuilding {
    fn drop(&mut self) {
        self.catalog.rebuilding.lock().remove(&self.name);
    }
}

/// An object of the data directory that could not be opened.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    pub(crate) kind: Kind,
    /// The statement that made it.
    pub(crate) text: String,
    /// Why it could not be opened.
    pub(crate) error: Arc<Error>,
}

#[derive(Debug, Clone)]
struct Entry {
    object: Object,
    /// The statement that made it.
    text: String,
    /// The streams and views that it reads.
    reads: Vec<String>,
}

/// A named object. Reference tables are DataFusion's own and not listed here.
#[derive(Debug, Clone)]
pub(crate) enum Object {
    Stream(Arc<Stream>),
    /// A name for a query.
    View,
    Materialized(Arc<Materialized>),
}

/// A view that keeps its results.
#[derive(Debug)]
pub(crate) struct Materialized {
    pub(crate) name: String,
    pub(crate) log: Arc<StreamLog>,
    /// The view as a stream, for queries that read it.
    pub(crate) stream: Arc<Stream>,
    pub(crate) query: Arc<Shared>,
    /// What archives its finished windows, with a data directory.
    pub(crate) spiller: Option<Arc<Spiller>>,
    /// The checkpoints of its query.
    pub(crate) checkpoints: Option<Arc<Checkpoints>>,
    /// All inputs end by themselves.
    pub(crate) bounded: bool,
    /// The streams and views that it reads.
    pub(crate) reads: Vec<String>,
    /// Its query, before it became continuous: what `VERIFY VIEW` runs.
    pub(crate) plan: LogicalPlan,
    /// The column that tells which of its rows are finished.
    pub(crate) event_time: Option<EventTime>,
    /// It has no window: rows of streams pass one by one.
    pub(crate) row_by_row: bool,
    /// A view with an equal one has the same rows, whatever its text; `None`: nobody knows.
    pub(crate) same_as: Option<String>,
    /// Where it began to read the streams and views that have a log, if not at their beginning.
    pub(crate) from: BTreeMap<String, u64>,
    /// How far before the end of a window a row of it may be, in ticks: the lengths of all windows
    /// of the query together.
    pub(crate) reach_ticks: i64,
}

impl Materialized {
    /// One past the last row of a stream or view with a log that it has taken in.
    pub(crate) fn consumed(&self, stream: &str) -> u64 {
        self.query.consumed(stream).max(self.from.get(stream).copied().unwrap_or(0))
    }

    /// No checkpoint of its query is written any more: its files are about to go.
    pub(crate) async fn stop_checkpoints(&self) {
        let Some(checkpoints) = self.checkpoints.clone() else { return };
        if let Err(error) = tokio::task::spawn_blocking(move || checkpoints.stop()).await {
            tracing::error!(name = self.name, %error, "checkpoints could not be stopped");
        }
    }
}

impl Object {
    /// What people call it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Stream(_) => "stream",
            Self::View => "view",
            Self::Materialized(_) => "materialized view",
        }
    }
}

impl Catalog {
    pub(crate) fn new(schema: Arc<Tables>) -> Self {
        Self {
            schema,
            objects: Mutex::default(),
            broken: Mutex::default(),
            lost: Mutex::default(),
            rebuilding: Mutex::default(),
        }
    }

    /// Adds an object and what the planner scans for it.
    pub(crate) fn add(
        &self,
        name: &str,
        object: Object,
        provider: Arc<dyn TableProvider>,
        (text, reads): (&str, Vec<String>),
    ) -> Result<()> {
        let mut objects = self.objects.lock();
        if self.schema.table_exist(name) {
            return Err(exists(name));
        }
        self.schema.register_table(name.to_owned(), provider).map_err(from_datafusion)?;
        objects.insert(name.to_owned(), Entry { object, text: text.to_owned(), reads });
        Ok(())
    }

    /// Puts another materialized view in the place of `old`, at once. `commit` makes it durable;
    /// what it gives is given back.
    ///
    /// # Errors
    /// When the old one is gone or somebody reads it, and as `commit`; nothing has changed then.
    pub(crate) fn switch<T>(
        &self,
        old: &Arc<Materialized>,
        object: Object,
        provider: Arc<dyn TableProvider>,
        (text, reads): (&str, Vec<String>),
        commit: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let name = &old.name;
        let mut objects = self.objects.lock();
        let there = objects.get(name).is_some_and(
            |e| matches!(&e.object, Object::Materialized(view) if Arc::ptr_eq(view, old)),
        );
        if !there {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("\"{name}\" was dropped while it was rebuilt"),
            ));
        }
        if let Some((reader, _)) = objects.iter().find(|(_, e)| e.reads.contains(name)) {
            return Err(read_by(name, reader));
        }
        let committed = commit()?;
        self.schema.switch(name, provider);
        objects.insert(name.clone(), Entry { object, text: text.to_owned(), reads });
        Ok(committed)
    }

    /// An object has another text from now on.
    pub(crate) fn retext(&self, name: &str, text: &str) {
        if let Some(entry) = self.objects.lock().get_mut(name) {
            text.clone_into(&mut entry.text);
        }
    }

    /// Says that a view is being rebuilt, until what is returned is dropped.
    ///
    /// # Errors
    /// When it is being rebuilt already.
    pub(crate) fn rebuilding(self: &Arc<Self>, name: &str) -> Result<Rebuilding> {
        if !self.rebuilding.lock().insert(name.to_owned()) {
            return Err(Error::new(
                ErrorKind::Exists,
                format!("\"{name}\" is being rebuilt already"),
            )
            .with_hint("Stop the other statement, or wait for it."));
        }
        Ok(Rebuilding { catalog: Arc::clone(self), name: name.to_owned() })
    }

    /// Whether a view is being rebuilt.
    pub(crate) fn is_rebuilding(&self, name: &str) -> bool {
        self.rebuilding.lock().contains(name)
    }

    /// Whether anything has this name.
    pub(crate) fn exists(&self, name: &str) -> bool {
        self.schema.table_exist(name)
    }

    /// The object of this name, if it is one of ours.
    pub(crate) fn get(&self, name: &str) -> Option<Object> {
        self.objects.lock().get(name).map(|e| e.object.clone())
    }

    /// The statement that made an object of ours, also of one that cannot be opened.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let text = self.objects.lock().get(name).map(|e| e.text.clone());
        text.or_else(|| self.broken.lock().get(name).map(|broken| broken.text.clone()))
    }

    /// All objects of ours, by name.
    pub(crate) fn all(&self) -> Vec<Object> {
        self.objects.lock().values().map(|e| e.object.clone()).collect()
    }

    /// All objects of ours with name and defining text.
    pub(crate) fn definitions(&self) -> Vec<(String, Object, String)> {
        let objects = self.objects.lock();
        objects.iter().map(|(n, e)| (n.clone(), e.object.clone(), e.text.clone())).collect()
    }

    /// Every name, reference tables included.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = self.schema.table_names();
        names.sort_unstable();
        names
    }

    /// The stream of this name.
    pub(crate) fn stream(&self, name: &str) -> Result<Arc<Stream>> {
        match self.get(name) {
            Some(Object::Stream(stream)) => Ok(stream),
            Some(other) => {
                Err(Error::sql(format!("\"{name}\" is a {}, not a stream", other.kind())))
            }
            None if self.exists(name) => {
                Err(Error::sql(format!("\"{name}\" is a table, not a stream")))
            }
            None => Err(self.missing("stream", name)),
        }
    }

    /// The stream, or the materialized view as a stream.
    pub(crate) fn stream_to_read(&self, name: &str) -> Result<Arc<Stream>> {
        match self.get(name) {
            Some(Object::Materialized(view)) => Ok(Arc::clone(&view.stream)),
            _ => self.stream(name),
        }
    }

    /// Whether a stream or view ends but for rows that somebody may still push: it reads push
    /// streams, and no connector that is endless by itself.
    pub(crate) fn waits_for_pushes(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Object::Materialized(view)) => {
                let ends = |n: &String| self.is_bounded(n) || self.waits_for_pushes(n);
                !view.bounded && view.reads.iter().all(ends)
            }
            Some(Object::Stream(stream)) => matches!(stream.feed, Feed::Push(_)),
            Some(Object::View) | None => false,
        }
    }

    /// The materialized view of this name.
    pub(crate) fn materialized(&self, name: &str) -> Result<Arc<Materialized>> {
        match self.get(name) {
            Some(Object::Materialized(view)) => Ok(view),
            Some(other) => Err(Error::sql(format!(
                "\"{name}\" is a {}, not a materialized view",
                other.kind()
            ))),
            None if self.exists(name) => {
                Err(Error::sql(format!("\"{name}\" is a table, not a materialized view")))
            }
            None => Err(self.missing("materialized view", name)),
        }
    }

    /// The streams and views that an object reads.
    pub(crate) fn reads(&self, name: &str) -> Vec<String> {
        self.objects.lock().get(name).map(|e| e.reads.clone()).unwrap_or_default()
    }

    /// What reads an object.
    pub(crate) fn readers(&self, name: &str) -> Vec<String> {
        let objects = self.objects.lock();
        objects
            .iter()
            .filter(|(_, e)| e.reads.iter().any(|r| r == name))
            .map(|(n, _)| n.clone())
            .collect()
    }

    /// Removes an object (or a reference table); a materialized view's query is stopped. Followers of its rows
    /// get an error: those that have come are not all.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let entry = self.objects.lock().remove(name);
        self.lost.lock().remove(name);
        match entry.map(|entry| entry.object) {
            Some(Object::Materialized(view)) => {
                view.log.fail(Arc::new(dropped("view", name)));
                view.query.cancel();
            }
            Some(Object::Stream(stream)) => {
                if let Some(push) = stream.kept() {
                    push.log.fail(Arc::new(dropped("stream", name)));
                }
            }
            Some(Object::View) | None => {}
        }
        self.schema.deregister_table(name).map(|_| ()).map_err(from_datafusion)
    }

    /// Whether reading this stream or view ends by itself.
    pub(crate) fn is_bounded(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Object::Materialized(view)) => view.bounded,
            Some(Object::Stream(stream)) => match &stream.feed {
                Feed::Source(source) => source.is_bounded(),
                Feed::Push(_) | Feed::View(_) => false,
            },
            Some(Object::View) | None => true,
        }
    }

    /// Whether the rows of a stream or view are there again after a restart: all but what is only
    /// in memory.
    pub(crate) fn is_replayable(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Object::Materialized(view)) => view.reads.iter().all(|n| self.is_replayable(n)),
            Some(Object::Stream(stream)) => stream.replayable,
            Some(Object::View) | None => true,
        }
    }

    /// Remembers that an object of the data directory cannot be used.
    pub(crate) fn mark_broken(&self, definition: &Definition, error: Error) {
        let (kind, text) = (definition.kind, definition.sql.clone());
        let broken = Broken { kind, text, error: Arc::new(error) };
        self.broken.lock().insert(definition.name.clone(), broken);
    }

    /// The objects that cannot be used, by name.
    pub(crate) fn all_broken(&self) -> Vec<(String, Broken)> {
        self.broken.lock().iter().map(|(name, broken)| (name.clone(), broken.clone())).collect()
    }

    /// These rows of a stream were lost.
    pub(crate) fn note_lost(&self, stream: &str, rows: Vec<LostRows>) {
        if !rows.is_empty() {
            self.lost.lock().insert(stream.to_owned(), rows);
        }
    }

    /// Rows of streams that were lost, by the streams.
    pub(crate) fn lost(&self) -> BTreeMap<String, Vec<LostRows>> {
        self.lost.lock().clone()
    }

    /// Why an object cannot be used, if so.
    pub(crate) fn broken(&self, name: &str) -> Option<Error> {
        self.broken.lock().get(name).map(|broken| repeated(&broken.error))
    }

    /// Forgets a broken object; whether there was one.
    pub(crate) fn forget_broken(&self, name: &str) -> bool {
        self.lost.lock().remove(name);
        self.broken.lock().remove(name).is_some()
    }

    /// The error for a name that nothing has.
    pub(crate) fn missing(&self, kind: &str, name: &str) -> Error {
        if let Some(error) = self.broken(name) {
            return error;
        }
        let error = Error::new(ErrorKind::NotFound, format!("{kind} \"{name}\" does not exist"));
        let names = self.names();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        match nearest(name, known.iter().copied()) {
            Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
            None if known.is_empty() => error.with_hint("Nothing has been created yet."),
            None => error.with_hint(format!("There are: {}.", known.join(", "))),
        }
    }
}

impl Streams for Catalog {
    fn stream_to_read(&self, name: &str) -> Result<Arc<Stream>> {
        Self::stream_to_read(self, name)
    }

    fn waits_for_pushes(&self, name: &str) -> bool {
        Self::waits_for_pushes(self, name)
    }
}

/// The error of replacing what is read.
pub(crate) fn read_by(name: &str, reader: &str) -> Error {
    Error::sql(format!("\"{name}\" is read by \"{reader}\""))
        .with_hint(format!("Drop \"{reader}\" first, or give the new one another name."))
}

/// What readers are told of an object that is dropped while they read.
pub(crate) fn dropped(kind: &str, name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("{kind} \"{name}\" was dropped"))
        .with_detail("What was read of it is not all that it would have given.")
}

/// What followers of a view are told when another one takes its place.
pub(crate) fn replaced(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("view \"{name}\" was replaced"))
        .with_detail("The rows of the new one have numbers of their own.")
        .with_hint(format!("Follow the new one from its beginning: SUBSCRIBE TO {name} AFTER 0."))
}

/// The error for a name that is taken.
pub(crate) fn exists(name: &str) -> Error {
    Error::new(ErrorKind::Exists, format!("\"{name}\" exists already"))
        .with_hint("Use IF NOT EXISTS or OR REPLACE, or another name.")
}

/// The plain name that an SQL name stands for: folded to lower case unless quoted.
pub(crate) fn plain_name(name: &ObjectName) -> Result<String> {
    let mut parts = Vec::with_capacity(name.0.len());
    for part in &name.0 {
        let ObjectNamePart::Identifier(ident) = part else {
            return Err(Error::sql(format!("\"{name}\" is not a plain name")));
        };
        parts.push(match ident.quote_style {
            Some(_) => ident.value.clone(),
            None => ident.value.to_lowercase(),
        });
    }
    match parts.as_slice() {
        [name] => Ok(name.clone()),
        [schema, name] if schema == SCHEMA => Ok(name.clone()),
        [catalog, schema, name] if catalog == CATALOG && schema == SCHEMA => Ok(name.clone()),
        _ => Err(Error::sql(format!("\"{name}\" is outside the schema \"{SCHEMA}\""))
            .with_hint("Streams and views have plain names; the schema \"windrow\" is read only.")),
    }
}
