//! Properties of the origin of a stream's rows, so that callers need not match on [`Feed`].

use std::sync::Arc;

use windrow_core::{Source, SourceHealth};

use crate::checks::Checks;
use crate::log::StreamLog;
use crate::push::PushStream;
use crate::stream::{Feed, Stream};

impl Stream {
    /// Returns the stream whose log has the rows, as INSERT and Flight write it, or a [receiver](Stream::receiver); `None` for other
    /// connectors, and for views.
    pub fn push(&self) -> Option<&Arc<PushStream>> {
        match &self.feed {
            Feed::Push(push) => Some(push),
            Feed::Source(_) | Feed::View(_) => None,
        }
    }

    /// Returns the source of a connector; `None` where the rows are in a log of the engine.
    pub fn external(&self) -> Option<&Arc<dyn Source>> {
        match &self.feed {
            Feed::Source(source) => Some(source),
            Feed::Push(_) | Feed::View(_) => None,
        }
    }

    /// Returns the state of the connection of its connector, if it has one.
    pub fn health(&self) -> Option<SourceHealth> {
        match &self.receiver {
            Some(receiver) => receiver.health(),
            None => self.external()?.health(),
        }
    }

    /// Returns the log that continuous queries read: pushed rows or rows of a view. `None` for connectors, which are
    /// read themselves even where their history is retained.
    pub fn log(&self) -> Option<&Arc<StreamLog>> {
        match &self.feed {
            Feed::Push(push) => Some(&push.log),
            Feed::View(log) => Some(log),
            Feed::Source(_) => None,
        }
    }

    /// The checks that its rows satisfy, in order.
    pub fn checks(&self) -> Arc<Checks> {
        match &self.feed {
            Feed::Push(push) => push.checks(),
            Feed::Source(_) | Feed::View(_) => Arc::new(self.checks.clone()),
        }
    }

    /// Whether it is the output of a materialized view.
    pub fn is_view(&self) -> bool {
        matches!(self.feed, Feed::View(_))
    }

    /// Whether reading it ends by itself.
    pub fn is_bounded(&self) -> bool {
        self.external().is_some_and(|source| source.is_bounded())
    }
}
