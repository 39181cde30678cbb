//! What a running query keeps, for `windrow.windows`: whatever asks puts itself on a list, and the coordinator answers between
//! two of its steps, or while it waits for its output.
//!
//! The workers return all of their state first, as for a checkpoint, so that each row is in one place: the answer is
//! exact for the moment at which the coordinator answers. A query that has not begun or is over keeps nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::TimeUnit;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use windrow_core::Result;
pub use windrow_operators::{OpenState, Survey};

/// What one operator keeps.
#[derive(Debug, Clone)]
pub struct OperatorSurvey {
    /// The operator, as EXPLAIN describes it.
    pub operator: Arc<str>,
    /// The unit of its times.
    pub time_unit: TimeUnit,
    /// What it keeps.
    pub survey: Survey,
}

/// How much one operator keeps, as metrics show it.
#[derive(Debug, Clone)]
pub struct OperatorSize {
    /// What the operator is, and the leaf that reads it, as EXPLAIN shows them.
    pub operator: Arc<str>,
    /// Bytes of memory.
    pub bytes: usize,
    /// Open windows, sessions, or rows of operators that keep rows.
    pub open: usize,
    /// Rows, alone or as part of an aggregate.
    pub rows: u64,
}

/// The requests for a survey that have not been answered.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    list: Mutex<Vec<Question>>,
    wake: Notify,
    /// The coordinator runs, and answers.
    begun: AtomicBool,
}

#[derive(Debug)]
struct Question {
    entries_max: usize,
    answer: oneshot::Sender<Vec<OperatorSurvey>>,
}

impl Asked {
    /// Asks; `None` when nothing has begun. The receiver gets nothing when the query ends before it answers.
    pub(crate) fn ask(&self, entries_max: usize) -> Option<oneshot::Receiver<Vec<OperatorSurvey>>> {
        if !self.begun.load(Ordering::Acquire) {
            return None;
        }
        let (answer, receiver) = oneshot::channel();
        let mut list = self.list.lock();
        // Some may have gone away.
        list.retain(|question| !question.answer.is_closed());
        list.push(Question { entries_max, answer });
        drop(list);
        self.wake.notify_one();
        Some(receiver)
    }

    /// Questions are answered from now on.
    pub(crate) fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Completes when there is a question.
    pub(crate) async fn asked(&self) {
        self.wake.notified().await;
    }

    /// Answers all questions.
    ///
    /// # Errors
    /// When the state cannot be described.
    pub(crate) fn answer(
        &self,
        mut survey: impl FnMut(usize) -> Result<Vec<OperatorSurvey>>,
    ) -> Result<()> {
        let questions = std::mem::take(&mut *self.list.lock());
        for question in questions.into_iter().filter(|question| !question.answer.is_closed()) {
            // It may have gone away meanwhile.
            drop(question.answer.send(survey(question.entries_max)?));
        }
        Ok(())
    }
}
