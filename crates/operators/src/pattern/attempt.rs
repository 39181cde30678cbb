//! An attempt to match the pattern, beginning at one row.
//!
//! Threads wait at instructions that take a row, the preferred one first. Each row advances those whose condition it
//! meets; a thread that reaches the end of the program has found a match, and all less preferred ones are dropped. A
//! match that preferred ones find later replaces it. The attempt is decided when no thread is left.
//!
//! Of two threads at the same instruction only the preferred one is kept, if both see the same rows: those of variables
//! that conditions refer to. The rows so far that can be seen ([`Memory`]) are shared by all threads and numbered, so
//! that equal ones have equal numbers.
//!
//! Invariant: the rows of an attempt are numbered from 0 and taken in order.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use datafusion::scalar::ScalarValue;
use windrow_core::limits::MATCH_THREADS_MAX;
use windrow_core::{Error, ErrorKind, Result};

use super::formula::Counted;
use super::program::{Instruction, bit};
use super::rules::{Base, History, Rules, Seen, Tracked};
use super::store::{NONE, Store};
use crate::failure;
use crate::spec::AggregateCall;

/// The rows of a key, from the view of an attempt.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) store: &'a Store,
    /// The rows of the key.
    pub(super) rows: &'a VecDeque<u32>,
    /// The index in `rows` of the first row of the attempt.
    pub(super) start: usize,
    /// The number of the match.
    pub(super) number: i64,
}

impl View<'_> {
    /// The row at this distance from the start; [`NONE`] outside of the partition.
    fn row(&self, at: i64) -> u32 {
        let place = i64::try_from(self.start).ok().and_then(|start| start.checked_add(at));
        let place = place.and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.rows.get(place)).copied().unwrap_or(NONE)
    }
}

#[derive(Debug, Clone, Copy)]
struct Thread {
    at: u32,
    path: u32,
    memory: u32,
}

/// A step of a match: a row taken, and the step before it.
#[derive(Debug, Clone, Copy)]
struct Step {
    before: u32,
    label: Label,
}

/// The variable that a row of a match has been taken as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) variable: u8,
    pub(super) shown: bool,
}

/// What conditions can see of the rows so far.
#[derive(Debug, Clone)]
struct Memory {
    /// The numbers of [`Tracked`] rows.
    tracked: Box<[u32]>,
    counted: Box<[Counted]>,
}

/// The approximate bytes of an aggregate.
const COUNTED_BYTES: usize = 128;

/// Memory that attempts reuse.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    threads: Vec<Thread>,
    stack: Vec<u32>,
    visited: HashSet<(u32, u32)>,
    /// The memory that follows from a memory and a variable, for the current row.
    behind: HashMap<(u32, u8), u32>,
    /// Whether a condition holds, by variable and memory, for the current row.
    known: HashMap<(u8, u32), bool>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Attempt {
    threads: Vec<Thread>,
    steps: Vec<Step>,
    memories: Vec<Memory>,
    /// Aggregates over all rows so far.
    counted_all: Vec<Counted>,
    /// The number of rows that have been taken.
    pub(super) rows: usize,
    /// The last step of the best match.
    best: Option<u32>,
}

impl Attempt {
    pub(super) fn new(rules: &Rules) -> Result<Self> {
        let mut tracked = vec![NONE; rules.tracked.iter().map(Tracked::len).sum()];
        for row in rules.tracked.iter().filter(|row| row.first) {
            if let Some(count) = tracked.get_mut(row.place) {
                *count = 0;
            }
        }
        let nothing = rules.counted_all.iter().map(Counted::nothing);
        let counted = rules.counted.iter().map(|(_, call)| Counted::nothing(call));
        let memory = Memory {
            tracked: tracked.into(),
            counted: counted.collect::<Result<Vec<_>>>()?.into(),
        };
        let mut attempt = Self {
            threads: vec![],
            steps: vec![],
            memories: vec![memory],
            counted_all: nothing.collect::<Result<_>>()?,
            rows: 0,
            best: None,
        };
        attempt.start(rules);
        Ok(attempt)
    }

    fn start(&mut self, rules: &Rules) {
        let first = rules.program.first.iter();
        self.threads.extend(first.map(|at| Thread { at: *at, path: NONE, memory: 0 }));
    }

    /// Resets the attempt, to begin at another row.
    pub(super) fn begin(&mut self, rules: &Rules) -> Result<()> {
        self.threads.clear();
        self.steps.clear();
        self.memories.truncate(1);
        for (call, counted) in rules.counted_all.iter().zip(&mut self.counted_all) {
            *counted = Counted::nothing(call)?;
        }
        (self.rows, self.best) = (0, None);
        self.start(rules);
        Ok(())
    }

    /// Whether no other match can be found.
    pub(super) fn is_decided(&self) -> bool {
        self.threads.is_empty()
    }

    /// The variables of the rows of the best match, if there is one.
    pub(super) fn best(&self) -> Option<Vec<Label>> {
        let mut labels = vec![];
        let mut at = self.best?;
        while let Some(step) = self.steps.get(at as usize) {
            labels.push(step.label);
            at = step.before;
        }
        labels.reverse();
        Some(labels)
    }

    /// Takes the next row.
    ///
    /// # Errors
    /// When a condition fails; when there are too many threads.
    pub(super) fn take(
        &mut self,
        rules: &Rules,
        view: View<'_>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let row = self.rows;
        self.rows += 1;
        let may_be = view.store.variables(view.row(row as i64));
        let mut threads = std::mem::take(&mut self.threads);
        std::mem::swap(&mut self.threads, &mut scratch.threads);
        self.threads.clear();
        scratch.visited.clear();
        scratch.behind.clear();
        scratch.known.clear();
        for (call, counted) in rules.counted_all.iter().zip(&mut self.counted_all) {
            if let Some(values) = arguments(view, call, view.row(row as i64))? {
                *counted = counted.and(call, &values)?;
            }
        }
        for thread in threads.drain(..) {
            let Some(Instruction::Take { variable, shown }) =
                rules.program.code.get(thread.at as usize).copied()
            else {
                return Err(Error::internal("a thread is at no instruction that takes a row"));
            };
            let number = usize::from(variable);
            if may_be & bit(number) == 0 {
                continue;
            }
            let mut memory = thread.memory;
            if rules.remembered & bit(number) != 0 {
                memory = self.remember(rules, view, (memory, variable), scratch)?;
            }
            if let Some(history) = rules.of_history.get(number).and_then(Option::as_ref) {
                let holds = match scratch.known.get(&(variable, memory)) {
                    Some(known) => *known,
                    None => {
                        let holds = self.holds(rules, history, view, memory)?;
                        scratch.known.insert((variable, memory), holds);
                        holds
                    }
                };
                if !holds {
                    continue;
                }
            }
            let path = self.steps.len() as u32;
            self.steps.push(Step { before: thread.path, label: Label { variable, shown } });
            if self.go_on(rules, Thread { at: thread.at + 1, path, memory }, scratch)? {
                break;
            }
        }
        scratch.threads = threads;
        Ok(())
    }

    /// Advances a thread to the instructions that take rows; returns whether it has found a match.
    fn go_on(&mut self, rules: &Rules, thread: Thread, scratch: &mut Scratch) -> Result<bool> {
        scratch.stack.clear();
        scratch.stack.push(thread.at);
        while let Some(at) = scratch.stack.pop() {
            if !scratch.visited.insert((at, thread.memory)) {
                continue;
            }
            match rules.program.code.get(at as usize) {
                Some(Instruction::Take { .. }) => {
                    self.threads.push(Thread { at, ..thread });
                    if self.threads.len() > MATCH_THREADS_MAX {
                        return Err(too_many());
                    }
                }
                Some(Instruction::Split(preferred, other)) => {
                    scratch.stack.extend([*other, *preferred]);
                }
                Some(Instruction::Jump(to)) => scratch.stack.push(*to),
                Some(Instruction::Match) => {
                    self.best = Some(thread.path);
                    return Ok(true);
                }
                None => return Err(Error::internal("a pattern continues after its end")),
            }
        }
        Ok(false)
    }

    /// The memory that follows from another one if the current row is taken as `variable`.
    fn remember(
        &mut self,
        rules: &Rules,
        view: View<'_>,
        (before, variable): (u32, u8),
        scratch: &mut Scratch,
    ) -> Result<u32> {
        if let Some(known) = scratch.behind.get(&(before, variable)) {
            return Ok(*known);
        }
        let row = (self.rows - 1) as u32;
        let Some(memory) = self.memories.get(before as usize) else {
            return Err(Error::internal("the memory of a match is lost"));
        };
        let mut memory = memory.clone();
        let own = bit(usize::from(variable));
        for tracked in rules.tracked.iter().filter(|tracked| tracked.variables & own != 0) {
            match memory.tracked.get_mut(tracked.place..tracked.place + tracked.len()) {
                Some([count, found]) if tracked.first => {
                    if *count == tracked.offset {
                        *found = row;
                    }
                    *count = count.saturating_add(1);
                }
                Some(rows) => {
                    rows.rotate_right(1);
                    if let Some(latest) = rows.first_mut() {
                        *latest = row;
                    }
                }
                None => return Err(Error::internal("a remembered row is lost")),
            }
        }
        for ((variables, call), counted) in rules.counted.iter().zip(memory.counted.iter_mut()) {
            if variables & own != 0
                && let Some(values) = arguments(view, call, view.row(i64::from(row)))?
            {
                *counted = counted.and(call, &values)?;
            }
        }
        let number = self.memories.len() as u32;
        self.memories.push(memory);
        scratch.behind.insert((before, variable), number);
        Ok(number)
    }

    /// Whether the current row meets a condition.
    fn holds(&self, rules: &Rules, history: &History, view: View<'_>, memory: u32) -> Result<bool> {
        let current = (self.rows - 1) as i64;
        let Some(memory) = self.memories.get(memory as usize) else {
            return Err(Error::internal("the memory of a match is lost"));
        };
        let lost = || Error::internal("an aggregate of a match is lost");
        let mut values: Vec<ArrayRef> = Vec::with_capacity(history.slots.len());
        for slot in &history.slots {
            values.push(match slot {
                Seen::Value { base, shift, column } => {
                    let row = match base {
                        Base::Back(rows) => Some(current - i64::from(*rows)),
                        Base::Start(rows) => Some(i64::from(*rows)).filter(|at| *at <= current),
                        Base::Tracked(number) => {
                            let tracked = rules.tracked.get(*number).map(Tracked::found);
                            let row = tracked.and_then(|at| memory.tracked.get(at)).copied();
                            row.filter(|row| *row != NONE).map(i64::from)
                        }
                    };
                    let row = row.filter(|at| *at >= 0);
                    let row = row.map_or(NONE, |at| view.row(at + i64::from(*shift)));
                    view.store.one(*column, row)?
                }
                Seen::Counted(number) => {
                    let counted = memory.counted.get(*number).ok_or_else(lost)?;
                    one(&counted.value)?
                }
                Seen::CountedAll(number) => {
                    let counted = self.counted_all.get(*number).ok_or_else(lost)?;
                    one(&counted.value)?
                }
                Seen::Name(name) => Arc::new(StringArray::from(vec![name.as_str()])),
                Seen::Number => Arc::new(Int64Array::from(vec![view.number])),
            });
        }
        let holds = history.formula.holds(values, 1)?;
        Ok(holds.is_valid(0) && holds.value(0))
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        let memory = self
            .memories
            .first()
            .map_or(0, |memory| memory.tracked.len() * 4 + memory.counted.len() * COUNTED_BYTES);
        self.steps.capacity() * size_of::<Step>()
            + self.threads.capacity() * size_of::<Thread>()
            + self.memories.len() * (size_of::<Memory>() + memory)
            + size_of::<Self>()
    }
}

/// The values that an aggregate reads of a row; `None` if its filter excludes the row.
fn arguments(view: View<'_>, call: &AggregateCall, row: u32) -> Result<Option<Vec<ArrayRef>>> {
    if let Some(filter) = call.filter {
        let passes = view.store.one(filter, row)?;
        let passes = passes.as_boolean_opt();
        if passes.is_none_or(|passes| !passes.is_valid(0) || !passes.value(0)) {
            return Ok(None);
        }
    }
    let values = call.arguments.iter().map(|column| view.store.one(*column, row));
    values.collect::<Result<_>>().map(Some)
}

fn one(value: &ScalarValue) -> Result<ArrayRef> {
    value.to_array_of_size(1).map_err(failure::engine)
}

fn too_many() -> Error {
    let e = format!(
        "one row of the pattern can be matched in more than {MATCH_THREADS_MAX} ways, each of which has other rows so far"
    );
    Error::new(ErrorKind::Limit, e).with_hint(
        "Let DEFINE refer to fewer variables (PREV instead of LAST of another variable), write fewer alternatives under * and +, \
         or add WITHIN INTERVAL '…'.",
    )
}
