//! A clause, prepared for the matcher: the program, the conditions, and what these can see of a match's rows so far.

use windrow_core::{Error, Result};

use super::PatternPlan;
use super::formula::{Formula, Read, RowOf, Slot};
use super::program::{Program, bit};
use crate::spec::AggregateCall;

/// See the module.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) program: Program,
    /// The conditions on rows and their neighbours, with their variables.
    pub(super) of_rows: Vec<(usize, Formula)>,
    /// The conditions on the match so far, by variable.
    pub(super) of_history: Vec<Option<History>>,
    /// The variables whose rows are remembered, as bits, because conditions of later rows can see them.
    pub(super) remembered: u64,
    pub(super) tracked: Vec<Tracked>,
    /// Aggregates over the rows of some variables, as bits.
    pub(super) counted: Vec<(u64, AggregateCall)>,
    /// Aggregates over all rows.
    pub(super) counted_all: Vec<AggregateCall>,
    /// The number of rows before a match that may be read.
    pub(super) before: usize,
    pub(super) within: Option<i64>,
}

/// A condition on the match so far.
#[derive(Debug)]
pub(super) struct History {
    pub(super) formula: Formula,
    pub(super) slots: Vec<Seen>,
}

/// A row that is remembered: the first or the last of some variables, or one at a distance from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tracked {
    pub(super) variables: u64,
    pub(super) first: bool,
    pub(super) offset: u32,
    /// The index of its first number among those that are remembered.
    pub(super) place: usize,
}

impl Tracked {
    /// The count of remembered numbers: for a first row the number of rows so far and the row itself, for a last one as
    /// many rows as needed, the latest first.
    pub(super) fn len(&self) -> usize {
        if self.first { 2 } else { (self.offset as usize).saturating_add(1) }
    }

    /// The index of the number of the row.
    pub(super) fn found(&self) -> usize {
        self.place + if self.first { 1 } else { self.offset as usize }
    }
}

/// A value that a condition sees.
#[derive(Debug)]
pub(super) enum Seen {
    Value {
        base: Base,
        shift: i32,
        column: usize,
    },
    /// The number of an aggregate over some variables.
    Counted(usize),
    /// The number of an aggregate over all rows.
    CountedAll(usize),
    Name(String),
    Number,
}

/// A row of the match so far.
#[derive(Debug, Clone, Copy)]
pub(super) enum Base {
    /// This many rows before the current one.
    Back(u32),
    /// This many rows after the first one.
    Start(u32),
    /// The number of a remembered row.
    Tracked(usize),
}

impl Rules {
    /// # Errors
    /// When the pattern has too many steps; Internal when a condition reads what it cannot see.
    pub(super) fn of(plan: &PatternPlan) -> Result<Self> {
        let mut rules = Self {
            program: Program::of(&plan.pattern)?,
            of_rows: vec![],
            of_history: vec![],
            remembered: 0,
            tracked: vec![],
            counted: vec![],
            counted_all: vec![],
            before: plan.rows_before(),
            within: plan.within,
        };
        for (variable, condition) in plan.conditions.iter().enumerate() {
            rules.of_rows.extend(condition.row.clone().map(|formula| (variable, formula)));
            let history = condition.history.as_ref();
            let history = history.map(|formula| rules.history(plan, variable, formula));
            rules.of_history.push(history.transpose()?);
        }
        Ok(rules)
    }

    fn history(
        &mut self,
        plan: &PatternPlan,
        variable: usize,
        formula: &Formula,
    ) -> Result<History> {
        let mut slots = vec![];
        for Read { slot, .. } in &formula.reads {
            slots.push(match slot {
                Slot::Value { row, column } => {
                    let base = self.base(variable, *row);
                    Seen::Value { base, shift: row.shift, column: *column }
                }
                Slot::Aggregate { variables: None, call } => {
                    self.counted_all.push(call.clone());
                    Seen::CountedAll(self.counted_all.len() - 1)
                }
                Slot::Aggregate { variables: Some(variables), call } => {
                    self.remembered |= variables;
                    self.counted.push((*variables, call.clone()));
                    Seen::Counted(self.counted.len() - 1)
                }
                Slot::Classifier(of) if of.is_none_or(|of| of & bit(variable) != 0) => {
                    Seen::Name(plan.names.get(variable).cloned().unwrap_or_default())
                }
                Slot::Classifier(_) => {
                    return Err(Error::internal("a condition reads the name of another variable"));
                }
                Slot::MatchNumber => Seen::Number,
            });
        }
        Ok(History { formula: formula.clone(), slots })
    }

    fn base(&mut self, variable: usize, row: RowOf) -> Base {
        if row.is_current(bit(variable)) {
            return Base::Back(0);
        }
        match row.variables {
            None if row.first => Base::Start(row.offset),
            None => Base::Back(row.offset),
            Some(variables) => {
                self.remembered |= variables;
                let place = self.tracked.iter().map(Tracked::len).sum();
                let wanted = Tracked { variables, first: row.first, offset: row.offset, place };
                let same = |known: &Tracked| Tracked { place, ..*known } == wanted;
                let known = self.tracked.iter().position(same);
                Base::Tracked(known.unwrap_or_else(|| {
                    self.tracked.push(wanted);
                    self.tracked.len() - 1
                }))
            }
        }
    }
}
