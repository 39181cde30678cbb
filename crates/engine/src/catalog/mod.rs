//! The catalog: streams, views and reference tables, by name.
//!
//! DataFusion's schema provider (`tables`) has the tables that the planner scans; this catalog has the objects behind
//! them: streams, the queries of views, the text of each definition. `guarded` is the catalog as one user sees it.
//!
//! Sinks, functions and models share a namespace with tables: each is represented by a table that cannot be read.
//!
//! Invariant: an object is in the catalog exactly while its table is in the schema `public`.

pub(crate) mod guarded;
mod materialized;
pub(crate) mod models;
pub(crate) mod overlaid;
mod owned;
mod reads;
mod rowless;
mod sink_text;
pub(crate) mod sinks;
pub(crate) mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::catalog::{SchemaProvider, TableProvider};
use parking_lot::Mutex;
use windrow_core::{Error, ErrorKind, Result};
use windrow_query::refreshed::{RefreshedRelation, RefreshedTable};
use windrow_query::start::Streams;
use windrow_sql::diagnostics::{from_datafusion, nearest};
use windrow_sql::parse::{called, parse_kept};
use windrow_sql::plan::UserFunction;
use windrow_stream::Stream;
use windrow_stream::repeated::repeated;

pub(crate) use self::materialized::Materialized;
use self::models::{ModelObject, ModelPins};
use self::owned::{feed_of, own_view};
pub(crate) use self::reads::streams_read;
pub(crate) use self::rowless::Rowless;
pub(crate) use self::sink_text::masked;
use self::sinks::SinkObject;
use self::tables::Tables;
use crate::durable::definitions::{Definition, Kind, LostRows};

/// All objects of an engine.
#[derive(Debug)]
pub(crate) struct Catalog {
    schema: Arc<Tables>,
    objects: Mutex<BTreeMap<String, Entry>>,
    /// Objects of the data directory that could not be opened.
    broken: Mutex<BTreeMap<String, Broken>>,
    /// Rows of streams that were lost, by the streams.
    lost: Mutex<BTreeMap<String, Vec<LostRows>>>,
    /// The versions of models that objects use, by the objects.
    pins: Mutex<BTreeMap<String, ModelPins>>,
    /// Materialized views that are being rebuilt beside the old ones.
    rebuilding: Mutex<BTreeSet<String>>,
}

/// Marks a view as being rebuilt until it is dropped.
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
    /// The statement that creates it.
    pub(crate) text: String,
    /// Why it could not be opened.
    pub(crate) error: Arc<Error>,
}

#[derive(Debug, Clone)]
struct Entry {
    object: Object,
    /// The statement that creates it.
    text: String,
    /// The streams and views that it reads.
    reads: Vec<String>,
    /// The user-defined functions and the models that its statement calls.
    calls: Vec<String>,
}

/// A named object. Reference tables are DataFusion's own and not listed here.
#[derive(Debug, Clone)]
pub(crate) enum Object {
    /// A stream.
    Stream(Arc<Stream>),
    /// A view that only names a query.
    View,
    /// A materialized view.
    Materialized(Arc<Materialized>),
    /// A sink.
    Sink(Arc<SinkObject>),
    /// A function.
    Function(Arc<UserFunction>),
    /// A model.
    Model(Arc<ModelObject>),
}

impl Object {
    /// Returns the kind of object, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Stream(_) => "stream",
            Self::View => "view",
            Self::Materialized(_) => "materialized view",
            Self::Sink(_) => "sink",
            Self::Function(_) => "function",
            Self::Model(_) => "model",
        }
    }
}

impl Catalog {
    /// Creates an empty catalog over a schema.
    pub(crate) fn new(schema: Arc<Tables>) -> Self {
        Self {
            schema,
            objects: Mutex::default(),
            broken: Mutex::default(),
            lost: Mutex::default(),
            pins: Mutex::default(),
            rebuilding: Mutex::default(),
        }
    }

    /// Adds an object with the statement that creates it, the names that it reads, and the table that the planner scans.
    ///
    /// # Errors
    /// When the name is taken.
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
        let calls = calls(&objects, text);
        objects.insert(name.to_owned(), Entry { object, text: text.to_owned(), reads, calls });
        Ok(())
    }

    /// Replaces the materialized view `old` by another one, atomically. `commit` makes the change durable; its result is
    /// returned.
    ///
    /// # Errors
    /// When the old view was dropped or is read by another object, and as `commit`; then nothing has changed.
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
        let calls = calls(&objects, text);
        objects.insert(name.clone(), Entry { object, text: text.to_owned(), reads, calls });
        Ok(committed)
    }

    /// Replaces a stream by the same one with more columns.
    ///
    /// # Errors
    /// When it was dropped.
    pub(crate) fn widen(&self, old: &Arc<Stream>, new: Arc<Stream>) -> Result<()> {
        let (name, relation) = (&old.name, Arc::new(new.relation(None)));
        let mut objects = self.objects.lock();
        match objects.get_mut(name) {
            Some(Entry { object: Object::Stream(stream), .. }) if Arc::ptr_eq(stream, old) => {
                *stream = new;
            }
            _ => return Err(dropped("stream", name)),
        }
        self.schema.switch(name, relation);
        Ok(())
    }

    /// Replaces the statement of an object.
    pub(crate) fn retext(&self, name: &str, text: &str) {
        let mut objects = self.objects.lock();
        let calls = calls(&objects, text);
        if let Some(entry) = objects.get_mut(name) {
            text.clone_into(&mut entry.text);
            entry.calls = calls;
        }
    }

    /// Marks a view as being rebuilt until the result is dropped.
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

    /// Whether the name is taken, by an object or a reference table.
    pub(crate) fn exists(&self, name: &str) -> bool {
        self.schema.table_exist(name)
    }

    /// Returns the object of this name; `None` for reference tables and unknown names.
    pub(crate) fn get(&self, name: &str) -> Option<Object> {
        self.objects.lock().get(name).map(|e| e.object.clone())
    }

    /// Returns the statement that creates an object, even of one that could not be opened.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let text = self.objects.lock().get(name).map(|e| e.text.clone());
        text.or_else(|| self.broken.lock().get(name).map(|broken| broken.text.clone()))
    }

    /// Returns all objects, in order of name.
    pub(crate) fn all(&self) -> Vec<Object> {
        self.objects.lock().values().map(|e| e.object.clone()).collect()
    }

    /// Returns all objects with their name and their statement, in order of name.
    pub(crate) fn definitions(&self) -> Vec<(String, Object, String)> {
        let objects = self.objects.lock();
        objects.iter().map(|(n, e)| (n.clone(), e.object.clone(), e.text.clone())).collect()
    }

    /// Returns all names, reference tables included, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = self.schema.table_names();
        names.sort_unstable();
        names
    }

    /// Returns the names of reference tables, in order.
    pub(crate) fn table_names(&self) -> Vec<String> {
        let objects = self.objects.lock();
        self.names().into_iter().filter(|name| !objects.contains_key(name)).collect()
    }

    /// Returns the reference tables that are refreshed, in order of name.
    pub(crate) fn refreshed_tables(&self) -> Vec<Arc<RefreshedTable>> {
        let relation = |name: &String| {
            let provider = self.provider(name)?;
            provider.downcast_ref::<RefreshedRelation>().map(|found| Arc::clone(&found.0))
        };
        self.names().iter().filter_map(relation).collect()
    }

    /// Returns what the planner scans under this name.
    pub(crate) fn provider(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.schema.get(name)
    }

    /// Replaces what the planner scans under this name.
    pub(crate) fn set_provider(&self, name: &str, table: Arc<dyn TableProvider>) {
        self.schema.switch(name, table);
    }

    /// Returns the stream of this name.
    ///
    /// # Errors
    /// When there is none.
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

    /// Returns a stream, or the output of a materialized view as one.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(crate) fn stream_to_read(&self, name: &str) -> Result<Arc<Stream>> {
        match self.get(name) {
            Some(Object::Materialized(view)) => Ok(Arc::clone(&view.stream)),
            _ => self.stream(name),
        }
    }

    /// Whether only rows that may still be inserted keep a stream or view from ending: it reads push streams, and no
    /// unbounded connector.
    pub(crate) fn waits_for_pushes(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Object::Materialized(view)) => {
                let ends = |n: &String| self.is_bounded(n) || self.waits_for_pushes(n);
                !view.bounded && view.reads.iter().all(ends)
            }
            Some(Object::Stream(stream)) => {
                let ends = |feed: &Materialized| feed.bounded || self.waits_for_pushes(&feed.name);
                stream.push().is_some()
                    && stream.receiver.is_none()
                    && self.feed_of(name).is_none_or(|feed| ends(&feed))
            }
            Some(Object::View | Object::Sink(_) | Object::Function(_) | Object::Model(_))
            | None => false,
        }
    }

    /// Returns the view whose rows feed a stream that was created AS SELECT; `None`: it is another stream.
    pub(crate) fn feed_of(&self, stream: &str) -> Option<Arc<Materialized>> {
        feed_of(&self.objects.lock(), stream)
    }

    /// Returns the materialized view of this name.
    ///
    /// # Errors
    /// When there is none.
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

    /// Returns the sink of this name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn sink(&self, name: &str) -> Result<Arc<SinkObject>> {
        match self.get(name) {
            Some(Object::Sink(sink)) => Ok(sink),
            Some(other) => Err(Error::sql(format!("\"{name}\" is a {}, not a sink", other.kind()))),
            None if self.exists(name) => {
                Err(Error::sql(format!("\"{name}\" is a table, not a sink")))
            }
            None => Err(self.missing("sink", name)),
        }
    }

    /// Returns all sinks, in order of name.
    pub(crate) fn sinks(&self) -> Vec<Arc<SinkObject>> {
        let sink = |object| match object {
            Object::Sink(sink) => Some(sink),
            Object::Stream(_)
            | Object::View
            | Object::Materialized(_)
            | Object::Function(_)
            | Object::Model(_) => None,
        };
        self.all().into_iter().filter_map(sink).collect()
    }

    /// Returns the names of the streams and views that an object reads.
    pub(crate) fn reads(&self, name: &str) -> Vec<String> {
        self.objects.lock().get(name).map(|e| e.reads.clone()).unwrap_or_default()
    }

    /// Returns the names of the objects that read an object or the view that exists for it alone, or call a function or a model.
    /// They include objects that call it and could not be opened, since their state was computed with it.
    pub(crate) fn readers(&self, name: &str) -> Vec<String> {
        let objects = self.objects.lock();
        let own = own_view(&objects, name);
        let is_read = |read: &String| read == name || own.as_ref() == Some(read);
        let readers = objects
            .iter()
            .filter(|(n, e)| n.as_str() != name && e.reads.iter().chain(&e.calls).any(is_read));
        let mut readers: Vec<String> = readers.map(|(n, _)| n.clone()).collect();
        if objects.get(name).is_some_and(is_called) {
            let broken = self.broken.lock();
            let callers = broken.iter().filter(|(_, b)| names_called(&b.text).contains(name));
            readers.extend(callers.map(|(n, _)| n.clone()));
        }
        readers
    }

    /// Returns the functions, in order of name.
    pub(crate) fn functions(&self) -> Vec<Arc<UserFunction>> {
        let objects = self.objects.lock();
        let functions = objects.values().filter_map(|e| match &e.object {
            Object::Function(function) => Some(Arc::clone(function)),
            _ => None,
        });
        functions.collect()
    }

    /// Returns the models, in order of name.
    pub(crate) fn models(&self) -> Vec<Arc<ModelObject>> {
        let objects = self.objects.lock();
        let models = objects.values().filter_map(|e| match &e.object {
            Object::Model(model) => Some(Arc::clone(model)),
            _ => None,
        });
        models.collect()
    }

    /// Returns the model of this name.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn model(&self, name: &str) -> Result<Arc<ModelObject>> {
        match self.get(name) {
            Some(Object::Model(model)) => Ok(model),
            Some(other) => {
                Err(Error::sql(format!("\"{name}\" is a {}, not a model", other.kind())))
            }
            None => Err(self.missing("model", name)),
        }
    }

    /// Notes which versions of models an object uses that is about to be added.
    pub(crate) fn pin(&self, name: &str, models: ModelPins) {
        let mut pins = self.pins.lock();
        match models.is_empty() {
            true => pins.remove(name),
            false => pins.insert(name.to_owned(), models),
        };
    }

    /// Returns the objects that use a model, with the version that each uses, in order of name.
    pub(crate) fn users_of(&self, model: &str) -> Vec<(String, u64)> {
        let users = self.readers(model);
        let pins = self.pins.lock();
        let version = |user: &String| pins.get(user).and_then(|pins| pins.get(model)).copied();
        users.into_iter().filter_map(|user| version(&user).map(|version| (user, version))).collect()
    }

    /// Removes an object or a reference table. The query of a materialized view is stopped; followers of its rows get an
    /// error, since the rows they have are incomplete.
    ///
    /// # Errors
    /// When DataFusion's schema refuses it.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let entry = self.objects.lock().remove(name);
        self.lost.lock().remove(name);
        self.pins.lock().remove(name);
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
            Some(Object::View | Object::Sink(_) | Object::Function(_) | Object::Model(_))
            | None => {}
        }
        self.schema.deregister_table(name).map(|_| ()).map_err(from_datafusion)
    }

    /// Whether reading this stream or view ends by itself.
    pub(crate) fn is_bounded(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Object::Materialized(view)) => view.bounded,
            Some(Object::Stream(stream)) => stream.is_bounded(),
            Some(Object::View | Object::Sink(_) | Object::Function(_) | Object::Model(_))
            | None => true,
        }
    }

    /// Whether a stream or view gives the same rows after a restart.
    pub(crate) fn is_replayable(&self, name: &str) -> bool {
        match self.get(name) {
            Some(Object::Materialized(view)) => view.reads.iter().all(|n| self.is_replayable(n)),
            Some(Object::Stream(stream)) => stream.replayable,
            Some(Object::View | Object::Sink(_) | Object::Function(_) | Object::Model(_))
            | None => true,
        }
    }

    /// Registers an object of the data directory that could not be opened.
    pub(crate) fn mark_broken(&self, definition: &Definition, error: Error) {
        let (kind, text) = (definition.kind, masked(&definition.sql).into_owned());
        let broken = Broken { kind, text, error: Arc::new(error) };
        self.broken.lock().insert(definition.name.clone(), broken);
    }

    /// Returns the objects that could not be opened, in order of name.
    pub(crate) fn all_broken(&self) -> Vec<(String, Broken)> {
        self.broken.lock().iter().map(|(name, broken)| (name.clone(), broken.clone())).collect()
    }

    /// Registers rows that a stream has lost.
    pub(crate) fn note_lost(&self, stream: &str, rows: Vec<LostRows>) {
        if !rows.is_empty() {
            self.lost.lock().insert(stream.to_owned(), rows);
        }
    }

    /// Returns the rows that streams have lost, by stream.
    pub(crate) fn lost(&self) -> BTreeMap<String, Vec<LostRows>> {
        self.lost.lock().clone()
    }

    /// Returns why an object could not be opened; `None`: it was, or there is none.
    pub(crate) fn broken(&self, name: &str) -> Option<Error> {
        self.broken.lock().get(name).map(|broken| repeated(&broken.error))
    }

    /// Removes an object that could not be opened. Returns whether there was one.
    pub(crate) fn forget_broken(&self, name: &str) -> bool {
        self.lost.lock().remove(name);
        self.broken.lock().remove(name).is_some()
    }

    /// Returns the error for an unknown name.
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

    /// Checks that no view among `reads` has failed, and that each retains its rows.
    ///
    /// # Errors
    /// The error of the first view that has, or does not.
    pub(crate) fn check_reads(&self, reads: &[String]) -> Result<()> {
        reads.iter().try_for_each(|name| match self.get(name) {
            Some(Object::Materialized(view)) => view.check().and_then(|()| view.check_retains()),
            Some(Object::Stream(_)) => self.feed_of(name).map_or(Ok(()), |feed| feed.check()),
            Some(Object::View | Object::Sink(_) | Object::Function(_) | Object::Model(_))
            | None => Ok(()),
        })
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

/// Whether an object is one that statements call.
fn is_called(entry: &Entry) -> bool {
    matches!(entry.object, Object::Function(_) | Object::Model(_))
}

/// Returns the user-defined functions and models that a statement calls.
fn calls(objects: &BTreeMap<String, Entry>, text: &str) -> Vec<String> {
    if !objects.values().any(is_called) {
        return vec![];
    }
    let names = names_called(text).into_iter();
    names.filter(|name| objects.get(name).is_some_and(is_called)).collect()
}

/// Returns the names of all functions and models that a statement calls.
pub(crate) fn names_called(text: &str) -> BTreeSet<String> {
    let statements = parse_kept(text).unwrap_or_default();
    statements.iter().flat_map(|parsed| called(&parsed.statement)).collect()
}

/// Returns the error of replacing an object that another one reads.
pub(crate) fn read_by(name: &str, reader: &str) -> Error {
    Error::sql(format!("\"{name}\" is read by \"{reader}\""))
        .with_hint(format!("Drop \"{reader}\" first, or give the new one another name."))
}

/// Returns the error of readers of an object that is dropped.
pub(crate) fn dropped(kind: &str, name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("{kind} \"{name}\" was dropped"))
        .with_detail("The rows that were read are not its complete result.")
}

/// Returns the error of followers of a view that is replaced.
pub(crate) fn replaced(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("view \"{name}\" was replaced"))
        .with_detail("The rows of the new one are numbered from 1.")
        .with_hint(format!("Follow the new one from its beginning: SUBSCRIBE TO {name} AFTER 0."))
}

/// Returns the error for a name that is taken.
pub(crate) fn exists(name: &str) -> Error {
    Error::new(ErrorKind::Exists, format!("\"{name}\" exists already"))
        .with_hint("Use IF NOT EXISTS or OR REPLACE, or another name.")
}
