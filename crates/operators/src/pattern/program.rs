//! A row pattern, and its program: instructions between which threads move, the preferred one first.
//!
//! Invariant: a pattern matches at least one row. A program has at most [`PATTERN_STEPS_MAX`] instructions.

use std::fmt;

use windrow_core::limits::PATTERN_STEPS_MAX;
use windrow_core::{Error, ErrorKind, Result};

/// A pattern of rows, each of which is mapped to a variable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub enum Pattern {
    /// One row.
    Variable {
        /// The number of the variable.
        variable: usize,
        /// Whether ALL ROWS PER MATCH returns the row.
        shown: bool,
    },
    /// One after another.
    Sequence(Vec<Pattern>),
    /// One of them, the first if possible.
    Choice(Vec<Pattern>),
    /// A repetition.
    Repeat {
        /// The repeated pattern.
        pattern: Box<Pattern>,
        /// The least number of repetitions.
        least: u32,
        /// The greatest number; `None`: unlimited.
        most: Option<u32>,
        /// Whether to repeat as often as possible; otherwise as rarely as possible.
        greedy: bool,
    },
}

/// An instruction.
#[derive(Debug, Clone, Copy)]
pub(super) enum Instruction {
    /// Takes a row as this variable, and continues with the next instruction.
    Take {
        variable: u8,
        shown: bool,
    },
    /// Continues at two instructions, the first of which is preferred.
    Split(u32, u32),
    Jump(u32),
    /// The rows so far are a match.
    Match,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) code: Vec<Instruction>,
    /// The instructions that may take the first row, the preferred one first.
    pub(super) first: Vec<u32>,
    /// The variables that the first row may be mapped to, as bits.
    pub(super) first_variables: u64,
}

impl Pattern {
    /// The least and the greatest number of rows; `None`: any number.
    pub fn lengths(&self) -> (u64, Option<u64>) {
        match self {
            Self::Variable { .. } => (1, Some(1)),
            Self::Sequence(parts) => {
                parts.iter().map(Self::lengths).fold((0, Some(0)), |(least, most), (l, m)| {
                    let most = most.zip(m).map(|(a, b): (u64, u64)| a.saturating_add(b));
                    (least.saturating_add(l), most)
                })
            }
            Self::Choice(parts) => {
                let all = parts.iter().map(Self::lengths);
                let both = all.reduce(|(l, m), (least, most)| {
                    (l.min(least), m.zip(most).map(|(a, b)| a.max(b)))
                });
                both.unwrap_or((0, Some(0)))
            }
            Self::Repeat { pattern, least, most, .. } => {
                let (l, m) = pattern.lengths();
                let most = match (m, most) {
                    (Some(0), _) => Some(0),
                    (Some(m), Some(times)) => Some(m.saturating_mul(u64::from(*times))),
                    (_, Some(0)) => Some(0),
                    _ => None,
                };
                (l.saturating_mul(u64::from(*least)), most)
            }
        }
    }

    /// Whether all matches have the same number of rows.
    pub fn is_fixed(&self) -> bool {
        let (least, most) = self.lengths();
        most == Some(least)
    }

    /// Whether a match is final with its last row: no preferred match could then still be longer.
    ///
    /// Unless all matches have the same length, a match may be found long after its last row, when an attempt from an
    /// earlier row has failed; but not if conditions depend on rows and their neighbours alone, since that attempt
    /// would then have found the same end.
    pub fn is_prompt(&self) -> bool {
        match self {
            pattern if pattern.is_fixed() => true,
            Self::Repeat { pattern, greedy: false, .. } => pattern.is_fixed(),
            Self::Sequence(parts) => {
                let mut others = parts.iter().filter(|part| !part.is_fixed());
                others.next().is_none_or(Self::is_prompt) && others.next().is_none()
            }
            _ => false,
        }
    }

    /// Writes the pattern as in a query.
    ///
    /// # Errors
    /// Those of the formatter.
    pub fn describe(&self, f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
        let several = |f: &mut fmt::Formatter<'_>, parts: &[Self], between: &str| {
            write!(f, "(")?;
            for (i, part) in parts.iter().enumerate() {
                write!(f, "{}", if i > 0 { between } else { "" })?;
                part.describe(f, names)?;
            }
            write!(f, ")")
        };
        match self {
            Self::Variable { variable, shown } => {
                let name = names.get(*variable).map_or("?", String::as_str);
                if *shown { write!(f, "{name}") } else { write!(f, "{{- {name} -}}") }
            }
            Self::Sequence(parts) => several(f, parts, " "),
            Self::Choice(parts) => several(f, parts, " | "),
            Self::Repeat { pattern, least, most, greedy } => {
                pattern.describe(f, names)?;
                match (least, most) {
                    (0, None) => write!(f, "*")?,
                    (1, None) => write!(f, "+")?,
                    (0, Some(1)) => write!(f, "?")?,
                    (least, None) => write!(f, "{{{least},}}")?,
                    (least, Some(most)) if least == most => write!(f, "{{{least}}}")?,
                    (least, Some(most)) => write!(f, "{{{least},{most}}}")?,
                }
                if *greedy { Ok(()) } else { write!(f, "?") }
            }
        }
    }

    /// The variables in it, as bits.
    pub fn variables(&self) -> u64 {
        match self {
            Self::Variable { variable, .. } => bit(*variable),
            Self::Sequence(parts) | Self::Choice(parts) => {
                parts.iter().map(Self::variables).fold(0, |all, part| all | part)
            }
            Self::Repeat { pattern, .. } => pattern.variables(),
        }
    }
}

/// The bit of a variable.
pub(super) fn bit(variable: usize) -> u64 {
    u32::try_from(variable).ok().and_then(|shift| 1_u64.checked_shl(shift)).unwrap_or(0)
}

impl Program {
    /// # Errors
    /// When the pattern may match no rows, or has too many steps.
    pub(super) fn of(pattern: &Pattern) -> Result<Self> {
        if pattern.lengths().0 == 0 {
            return Err(Error::internal("a pattern that matches no rows"));
        }
        let mut program = Self { code: vec![], first: vec![], first_variables: 0 };
        program.emit(pattern)?;
        program.push(Instruction::Match)?;
        let mut seen = vec![false; program.code.len()];
        let mut open = vec![0_u32];
        while let Some(at) = open.pop() {
            let Some(is_known) = seen.get_mut(at as usize) else { continue };
            if std::mem::replace(is_known, true) {
                continue;
            }
            match program.code.get(at as usize) {
                Some(Instruction::Take { variable, .. }) => {
                    program.first.push(at);
                    program.first_variables |= bit(usize::from(*variable));
                }
                Some(Instruction::Split(preferred, other)) => open.extend([*other, *preferred]),
                Some(Instruction::Jump(to)) => open.push(*to),
                Some(Instruction::Match) | None => {}
            }
        }
        Ok(program)
    }

    fn here(&self) -> u32 {
        u32::try_from(self.code.len()).unwrap_or(u32::MAX)
    }

    fn push(&mut self, instruction: Instruction) -> Result<usize> {
        if self.code.len() >= PATTERN_STEPS_MAX {
            return Err(Error::new(
                ErrorKind::Limit,
                format!("the pattern has more than {PATTERN_STEPS_MAX} steps"),
            )
            .with_hint(
                "Use smaller numbers in { }: A{100} is a hundred steps; or +, which is one.",
            ));
        }
        self.code.push(instruction);
        Ok(self.code.len() - 1)
    }

    fn set(&mut self, at: usize, instruction: Instruction) {
        if let Some(slot) = self.code.get_mut(at) {
            *slot = instruction;
        }
    }

    fn emit(&mut self, pattern: &Pattern) -> Result<()> {
        match pattern {
            Pattern::Variable { variable, shown } => {
                let variable = u8::try_from(*variable);
                let variable =
                    variable.map_err(|_| Error::internal("a variable beyond their number"))?;
                self.push(Instruction::Take { variable, shown: *shown }).map(drop)
            }
            Pattern::Sequence(parts) => parts.iter().try_for_each(|part| self.emit(part)),
            Pattern::Choice(parts) => self.choice(parts),
            Pattern::Repeat { pattern, least, most, greedy } => {
                for _ in 0..*least {
                    self.emit(pattern)?;
                }
                match most {
                    None => {
                        let split = self.push(Instruction::Jump(0))?;
                        self.emit(pattern)?;
                        self.push(Instruction::Jump(u32::try_from(split).unwrap_or(u32::MAX)))?;
                        self.split(split, *greedy);
                    }
                    Some(most) => {
                        let mut splits = vec![];
                        for _ in *least..*most {
                            splits.push(self.push(Instruction::Jump(0))?);
                            self.emit(pattern)?;
                        }
                        splits.into_iter().for_each(|split| self.split(split, *greedy));
                    }
                }
                Ok(())
            }
        }
    }

    /// Completes a split at `at`, which continues after it or at the end of the program so far.
    fn split(&mut self, at: usize, greedy: bool) {
        let body = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let end = self.here();
        let split =
            if greedy { Instruction::Split(body, end) } else { Instruction::Split(end, body) };
        self.set(at, split);
    }

    fn choice(&mut self, parts: &[Pattern]) -> Result<()> {
        let mut ends = vec![];
        let Some((last, others)) = parts.split_last() else { return Ok(()) };
        for part in others {
            let split = self.push(Instruction::Jump(0))?;
            self.emit(part)?;
            ends.push(self.push(Instruction::Jump(0))?);
            self.split(split, true);
        }
        self.emit(last)?;
        let end = self.here();
        ends.into_iter().for_each(|at| self.set(at, Instruction::Jump(end)));
        Ok(())
    }
}
