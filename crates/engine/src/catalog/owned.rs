//! The views that exist for other objects alone: that of a stream AS SELECT, and that of a sink with a query.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Entry, Materialized, Object};

/// Returns the view whose rows feed a stream that was created AS SELECT; `None`: it is another object.
pub(super) fn feed_of(
    objects: &BTreeMap<String, Entry>,
    stream: &str,
) -> Option<Arc<Materialized>> {
    let entry = objects.get(stream)?;
    let Object::Stream(stream) = &entry.object else { return None };
    stream.push()?;
    entry.reads.iter().find_map(|read| match &objects.get(read)?.object {
        Object::Materialized(view) => Some(Arc::clone(view)),
        _ => None,
    })
}

/// Returns the view that exists for an object alone, and is dropped with it.
pub(super) fn own_view(objects: &BTreeMap<String, Entry>, name: &str) -> Option<String> {
    match &objects.get(name)?.object {
        Object::Sink(sink) => sink.owns_view.then(|| sink.view.clone()),
        _ => feed_of(objects, name).map(|view| view.name.clone()),
    }
}
