//! A matcher that tries one way after another, and the rows that its matches return: the oracle of MATCH_RECOGNIZE.

use windrow_operators::{Output, Pattern, PatternPlan, Read, Slot};

/// The column of ids.
pub(crate) const ID: usize = 1;

/// A row.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) time: i64,
    pub(crate) id: i64,
    pub(crate) number: i64,
    pub(crate) text: Option<String>,
}

/// The condition of a variable.
#[derive(Debug, Clone)]
pub(crate) enum Rule {
    Always,
    /// `number < n`
    Below(i64),
    /// `number >= PREV(number, n)`, or there is no such row.
    NotBelowBefore(i32),
    /// `number > LAST(v.number, n)`, or there is no such row.
    AboveLast(u64, u32),
    /// `number > FIRST(v.number, n)`, or there is no such row.
    AboveFirst(u64, u32),
    /// `sum(v.number) < n`
    SumBelow(u64, i64),
    /// `count(*) <= n`
    CountBelow(i64),
    /// Both are true.
    And(Box<Rule>, Box<Rule>),
}

/// A matcher that tries one way after another.
pub(crate) struct Naive<'a> {
    pub(crate) plan: &'a PatternPlan,
    pub(crate) rules: &'a [Rule],
    pub(crate) rows: &'a [Row],
    pub(crate) start: usize,
    pub(crate) steps: usize,
}

/// Variables of the rows so far, and whether they are shown.
pub(crate) type Labels = Vec<(usize, bool)>;

/// The maximum number of steps, after which it gives up.
pub(crate) const STEPS_MAX: usize = 200_000;

impl Naive<'_> {
    fn holds(&self, rule: &Rule, labels: &Labels) -> bool {
        let at = self.start + labels.len() - 1;
        let row = &self.rows[at];
        let of = |variables: u64| -> Vec<i64> {
            let of = labels.iter().enumerate().filter(|(_, (v, _))| variables >> v & 1 == 1);
            of.map(|(i, _)| self.rows[self.start + i].number).collect()
        };
        match rule {
            Rule::Always => true,
            Rule::Below(n) => row.number < *n,
            Rule::NotBelowBefore(rows) => {
                let before = at.checked_sub(*rows as usize).map(|at| self.rows[at].number);
                before.is_none_or(|before| row.number >= before)
            }
            Rule::AboveLast(v, n) => {
                of(*v).iter().rev().nth(*n as usize).is_none_or(|last| row.number > *last)
            }
            Rule::AboveFirst(v, n) => {
                of(*v).get(*n as usize).is_none_or(|first| row.number > *first)
            }
            Rule::SumBelow(v, n) => {
                let rows = of(*v);
                rows.is_empty() || rows.iter().sum::<i64>() < *n
            }
            Rule::CountBelow(n) => labels.len() as i64 <= *n,
            Rule::And(a, b) => self.holds(a, labels) && self.holds(b, labels),
        }
    }

    /// Matches a pattern, then what follows it; `labels` has the first way that works.
    pub(crate) fn follow(
        &mut self,
        pattern: &Pattern,
        labels: &mut Labels,
        then: &mut dyn FnMut(&mut Self, &mut Labels) -> bool,
    ) -> bool {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return false;
        }
        match pattern {
            Pattern::Variable { variable, shown } => {
                let at = self.start + labels.len();
                let Some(row) = self.rows.get(at) else { return false };
                let first = self.rows[self.start].time;
                if self.plan.within.is_some_and(|within| row.time - first >= within) {
                    return false;
                }
                labels.push((*variable, *shown));
                if self.holds(&self.rules[*variable].clone(), labels) && then(self, labels) {
                    return true;
                }
                labels.pop();
                false
            }
            Pattern::Sequence(parts) => self.all(parts, labels, then),
            Pattern::Choice(parts) => parts.iter().any(|part| self.follow(part, labels, then)),
            Pattern::Repeat { .. } => self.again(pattern, 0, labels, then),
        }
    }

    fn all(
        &mut self,
        parts: &[Pattern],
        labels: &mut Labels,
        then: &mut dyn FnMut(&mut Self, &mut Labels) -> bool,
    ) -> bool {
        match parts {
            [] => then(self, labels),
            [first, rest @ ..] => {
                self.follow(first, labels, &mut |naive, labels| naive.all(rest, labels, then))
            }
        }
    }

    fn again(
        &mut self,
        repeat: &Pattern,
        done: u32,
        labels: &mut Labels,
        then: &mut dyn FnMut(&mut Self, &mut Labels) -> bool,
    ) -> bool {
        let Pattern::Repeat { pattern, least, most, greedy } = repeat else { return false };
        let enough = done >= *least;
        let may = most.is_none_or(|most| done < most);
        if enough && !greedy && then(self, labels) {
            return true;
        }
        let before = labels.len();
        let once_more = may
            && self.follow(pattern, labels, &mut |naive, labels| {
                // Without rows, repetitions would never end.
                if enough && most.is_none() && labels.len() == before {
                    return false;
                }
                naive.again(repeat, done + 1, labels, then)
            });
        once_more || enough && *greedy && then(self, labels)
    }
}

/// The result of a row of a match.
pub(crate) fn line(
    plan: &PatternPlan,
    rows: &[Row],
    (start, at): (usize, usize),
    labels: &Labels,
    number: i64,
) -> String {
    let row = &rows[start + at];
    let text = row.text.clone().unwrap_or_else(|| "NULL".to_owned());
    let mut cells = vec![row.id.to_string(), text];
    // The measures, by what they read.
    for (measure, read) in reads(plan).into_iter().enumerate() {
        let seen = if read.is_final { labels.len() } else { at + 1 };
        let places = |variables: Option<u64>| -> Vec<usize> {
            let of = |v: usize| variables.is_none_or(|variables| variables >> v & 1 == 1);
            (0..seen).filter(|at| of(labels[*at].0)).collect()
        };
        let null = || "NULL".to_owned();
        cells.push(match &read.slot {
            Slot::Value { row, column } => {
                let places = places(row.variables);
                let at = match row.first {
                    true => places.get(row.offset as usize),
                    false => places.iter().rev().nth(row.offset as usize),
                };
                let found = at.map(|at| (start + at) as i64 + i64::from(row.shift));
                let found =
                    found.and_then(|at| usize::try_from(at).ok()).and_then(|at| rows.get(at));
                let of = |row: &Row| if *column == ID { row.id } else { row.number };
                found.map_or_else(null, |row| of(row).to_string())
            }
            Slot::Aggregate { variables, call } => {
                let places = places(*variables);
                let sum: i64 = places.iter().map(|at| rows[start + at].number).sum();
                match call.function.fun().name() {
                    "count" => places.len().to_string(),
                    _ if places.is_empty() => null(),
                    _ => sum.to_string(),
                }
            }
            Slot::Classifier(variables) => {
                let last = places(*variables).last().copied();
                last.map_or_else(null, |at| plan.names[labels[at].0].clone())
            }
            Slot::MatchNumber => number.to_string(),
        });
        assert!(measure < 6);
    }
    cells.join("|")
}

fn reads(plan: &PatternPlan) -> Vec<Read> {
    let measures = plan.outputs.iter().filter_map(|output| match output {
        Output::Measure(formula) => Some(formula.reads()[0].clone()),
        Output::Column(_) => None,
    });
    measures.collect()
}
