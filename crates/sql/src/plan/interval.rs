//! Interval joins: joins of two streams whose event times are within a fixed interval of each other.
//!
//! `a JOIN b ON a.k = b.k AND a.ts BETWEEN b.ts - i AND b.ts + j` keeps only the rows that can still match. Both bounds
//! are needed, in any form: `a.ts >= b.ts - i`, `b.ts <= a.ts + i`, `a.ts - b.ts <= i`, `a.ts = b.ts`. They may also
//! follow from the bounds of a window, which are a fixed length apart
//! (`a.ts >= w.window_start AND a.ts < w.window_end`), and the second one from constants
//! (`a.ts >= b.ts AND a.ts < TIMESTAMP '…' AND b.ts >= TIMESTAMP '…'`).
//!
//! The bounded form is the ordinary join; the continuous form is an operator with two inputs
//! ([`windrow_operators::IntervalJoinSpec`]). Conditions that are neither bounds nor equal keys are checked when pairs
//! are finished, or, if it matters whether a row has matched, by the operator.
//!
//! Invariant: a bound is used only if it is exact in ticks of the time columns.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Column, JoinType, ScalarValue};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Join, LogicalPlan, Operator};
use windrow_core::{Error, time};
use windrow_operators::JoinKind;

use super::known::{Known, of_expr};
use super::relation::ToEnd;
use super::{is_streaming, ranges};

/// The indexes of the inputs in [`Sides::plans`].
const LEFT: usize = 0;
const RIGHT: usize = 1;

/// A join as an interval join: `lower <= left - right <= upper`, in ticks.
#[derive(Debug, Clone)]
pub(crate) struct Interval {
    /// The event time of the left side.
    pub(crate) left: Time,
    /// The event time of the right side.
    pub(crate) right: Time,
    /// The smallest difference.
    pub(crate) lower: i64,
    /// The greatest difference.
    pub(crate) upper: i64,
    /// Unit of both times.
    pub(crate) unit: TimeUnit,
    /// The conditions that are not bounds, over the columns of the join.
    pub(crate) filter: Option<Expr>,
}

/// The event time of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) column: Column,
    /// Its index among the columns of the side.
    pub(crate) index: usize,
    /// How far it may lie behind the watermark of the side.
    pub(crate) lag_ticks: i64,
}

/// Why a join of streams is not an interval join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Event times have no bounds.
    Both,
    /// The first of these times, the left one, has no lower bound relative to the other.
    Lower(Box<[Column; 2]>),
    /// The first of these times, the left one, has no upper bound relative to the other.
    Upper(Box<[Column; 2]>),
}

/// A condition `left - right >= at` or `<= at`.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub(crate) left: Time,
    pub(crate) right: Time,
    pub(crate) lower: Option<i64>,
    pub(crate) upper: Option<i64>,
}

/// The join as an interval join, given the event times among the columns of both sides; `None` if it is not one.
pub(crate) fn among(join: &Join, left: &[Known], right: &[Known]) -> Option<Interval> {
    if join_kind(join).is_none() || !joins_streams(join) || same_window(join, left, right) {
        return None;
    }
    bounded(join, left, right).ok()
}

/// The kind of an interval join; `None` for joins that cannot be one: those with a column that says whether a row has
/// matched, and NOT IN of a column that may be NULL, where a single row decides for all.
pub(crate) fn join_kind(join: &Join) -> Option<JoinKind> {
    Some(match join.join_type {
        _ if join.null_aware => return None,
        JoinType::Inner => JoinKind::Inner,
        JoinType::Left => JoinKind::Left,
        JoinType::Right => JoinKind::Right,
        JoinType::Full => JoinKind::Full,
        JoinType::LeftSemi => JoinKind::LeftSemi,
        JoinType::RightSemi => JoinKind::RightSemi,
        JoinType::LeftAnti => JoinKind::LeftAnti,
        JoinType::RightAnti => JoinKind::RightAnti,
        JoinType::LeftMark | JoinType::RightMark => return None,
    })
}

/// Whether both sides read streams.
pub(crate) fn joins_streams(join: &Join) -> bool {
    is_streaming(&join.left) && is_streaming(&join.right)
}

/// Whether the join is within windows: each side has windows, and the keys identify them.
pub(crate) fn same_window(join: &Join, left: &[Known], right: &[Known]) -> bool {
    join.on.iter().any(|(a, b)| {
        let a = of_expr(left, &join.left, a).to_end;
        a.is_some() && a == of_expr(right, &join.right, b).to_end
    })
}

/// The bounds of the event times, for any kind of join.
///
/// # Errors
/// What is missing.
pub(crate) fn bounded(join: &Join, left: &[Known], right: &[Known]) -> Result<Interval, Missing> {
    let sides = Sides { plans: [&join.left, &join.right], left, right };
    let equal = join.on.iter().filter_map(|(a, b)| sides.bound(a, Operator::Eq, b));
    let mut bounds: Vec<Bound> = equal.collect();
    let conditions = join.filter.as_ref().map(split_conjunction).unwrap_or_default();
    let conditions: Vec<(&Expr, Vec<Bound>)> =
        conditions.into_iter().map(|condition| (condition, sides.bounds(condition))).collect();
    bounds.extend(conditions.iter().flat_map(|(_, bounds)| bounds.iter().cloned()));
    let mut missing = Missing::Both;
    let mut pairs: Vec<(Time, Time)> = vec![];
    for bound in &bounds {
        let pair = (bound.left.clone(), bound.right.clone());
        if !pairs.contains(&pair) {
            pairs.push(pair);
        }
    }
    for (left, right) in pairs {
        let of_pair = |bound: &&Bound| bound.left == left && bound.right == right;
        let lower = bounds.iter().filter(of_pair).filter_map(|bound| bound.lower).max();
        let upper = bounds.iter().filter(of_pair).filter_map(|bound| bound.upper).min();
        let (follows_lower, follows_upper) = sides.following(&left, &right);
        let (lower, upper) = (lower.or(follows_lower), upper.or(follows_upper));
        let (Some(lower), Some(upper), Some(unit)) =
            (lower, upper, sides.unit(&left).map(|clock| clock.unit))
        else {
            if missing == Missing::Both {
                let times = Box::new([left.column, right.column]);
                missing = match lower {
                    None => Missing::Lower(times),
                    Some(_) => Missing::Upper(times),
                };
            }
            continue;
        };
        // A condition whose bounds are all of this pair has been used.
        let used = |bounds: &[Bound]| !bounds.is_empty() && bounds.iter().all(|b| of_pair(&b));
        let rest = conditions.iter().filter(|(_, bounds)| !used(bounds));
        let filter = conjunction(rest.map(|(condition, _)| (*condition).clone()));
        return Ok(Interval { left, right, lower, upper, unit, filter });
    }
    Err(missing)
}

/// Why the join cannot run, with a hint on the missing condition.
pub(crate) fn missing_bound(missing: &Missing, sides: (&str, &str)) -> Error {
    let (left, right) = sides;
    match missing {
        Missing::Both => Error::sql(format!(
            "a join of {left} and {right} without a window and without bounds of their event times would keep all rows \
             for ever"
        ))
        .with_hint(
            "Bound the event times in both directions: … AND a.ts BETWEEN b.ts - INTERVAL '1 minute' AND b.ts + INTERVAL '1 \
             minute'; or join windows: FROM TUMBLE(a, …) AS a JOIN TUMBLE(b, …) AS b ON a.window_start = \
             b.window_start AND a.window_end = b.window_end AND ….",
        ),
        Missing::Lower(times) => one_missing(sides, times, ("lower", ">=", "-")),
        Missing::Upper(times) => one_missing(sides, times, ("upper", "<=", "+")),
    }
}

fn one_missing(
    (left, right): (&str, &str),
    [time, other]: &[Column; 2],
    (which, op, sign): (&str, &str, &str),
) -> Error {
    Error::sql(format!(
        "the join of {left} and {right} has no {which} bound of \"{time}\", so it would keep all rows for ever"
    ))
    .with_hint(format!(
        "Add it: … AND {time} {op} {other} {sign} INTERVAL '1 minute'. The interval is a fixed length of time: no months. Or \
         end both streams with constants: … AND {time} {op} TIMESTAMP '…' AND {other} {} TIMESTAMP '…'.",
        if op == ">=" { "<=" } else { ">=" }
    ))
}

/// The event times of an interval join: its two times lie behind the greater of them by the bounds at most. A row
/// without a partner is returned when no partner can come any more, which is no later than for the last possible one,
/// so the same holds for its own time. Times that may be NULL are no event times. Bounds of a window are event times
/// together.
pub(crate) fn known(join: &Join, interval: &Interval, sides: [&[Known]; 2]) -> Vec<Known> {
    let mut known = vec![Known::default(); join.schema.fields().len()];
    let (left, right) = match join.join_type {
        JoinType::Inner => (Some(0), Some(join.left.schema().fields().len())),
        JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => (Some(0), None),
        JoinType::Right => (None, Some(join.left.schema().fields().len())),
        JoinType::RightSemi | JoinType::RightAnti => (None, Some(0)),
        _ => (None, None),
    };
    let places = [
        (left, &interval.left, interval.lower.saturating_neg()),
        (right, &interval.right, interval.upper),
    ];
    for ((columns_before, time, lag), side) in places.into_iter().zip(sides) {
        let Some(columns_before) = columns_before else { continue };
        let to_end = |index: usize| side.get(index).and_then(ticks_to_end);
        for (index, slot) in known.iter_mut().skip(columns_before).take(side.len()).enumerate() {
            // How much further the column is behind.
            let further = match to_end(index).zip(to_end(time.index)) {
                _ if index == time.index => 0,
                Some((own, of_time)) => own.saturating_sub(of_time),
                None => continue,
            };
            slot.lag = Some(lag.saturating_add(further).max(0));
        }
    }
    known
}

/// The bounds in a condition: none, one or two.
pub(crate) fn bounds_of(
    condition: &Expr,
    (left, left_known): (&LogicalPlan, &[Known]),
    (right, right_known): (&LogicalPlan, &[Known]),
) -> Vec<Bound> {
    Sides { plans: [left, right], left: left_known, right: right_known }.bounds(condition)
}

/// The unit of a time column.
pub(crate) fn unit_of(plan: &LogicalPlan, time: &Time) -> Option<TimeUnit> {
    Some(clock(plan.schema().field(time.index).data_type())?.unit)
}

/// Two inputs with the event times among their columns.
struct Sides<'a> {
    plans: [&'a LogicalPlan; 2],
    left: &'a [Known],
    right: &'a [Known],
}

/// An event time plus a constant, or a constant.
enum Term {
    Left(Time, i64),
    Right(Time, i64),
    /// `left - right`, plus a constant.
    Difference(Time, Time, i64),
    Constant(i64),
}

impl Sides<'_> {
    fn time(of: &LogicalPlan, known: &[Known], column: &Column) -> Option<Time> {
        let index = of.schema().maybe_index_of_column(column)?;
        let lag_ticks = known.get(index)?.lag?;
        Some(Time { column: column.clone(), index, lag_ticks })
    }

    fn left(&self, column: &Column) -> Option<Time> {
        Self::time(self.plans[LEFT], self.left, column)
    }

    fn right(&self, column: &Column) -> Option<Time> {
        Self::time(self.plans[RIGHT], self.right, column)
    }

    /// The unit of a time of the left side.
    fn unit(&self, time: &Time) -> Option<Clock> {
        clock(self.plans[LEFT].schema().field(time.index).data_type())
    }

    /// The smallest and the greatest value of `left - right` that follow from constants on both sides.
    fn following(&self, left: &Time, right: &Time) -> (Option<i64>, Option<i64>) {
        let left = ranges::of_column(self.plans[LEFT], &left.column);
        let right = ranges::of_column(self.plans[RIGHT], &right.column);
        let difference =
            |a: Option<i64>, b: Option<i64>| a.zip(b).and_then(|(a, b)| a.checked_sub(b));
        (difference(left.first, right.last), difference(left.last, right.first))
    }

    /// A time of a side as another one of that side and an offset: the bounds of a window are a fixed length apart, so
    /// all of them are expressed by the one that lies least behind the watermark.
    fn by_window(of: &LogicalPlan, known: &[Known], time: Time) -> (Time, i64) {
        let ends = known.iter().enumerate();
        let ends = ends.filter_map(|(i, known)| Some((i, ticks_to_end(known)?)));
        let first = ends.min_by_key(|(i, _)| known.get(*i).and_then(|known| known.lag));
        let own = known.get(time.index).and_then(ticks_to_end);
        let (Some((index, first)), Some(own)) = (first, own) else { return (time, 0) };
        let column = Column::from(of.schema().qualified_field(index));
        // Both have the same window end.
        match Self::time(of, known, &column).zip(first.checked_sub(own)) {
            Some(found) if clock_at(of, index) == clock_at(of, time.index) => found,
            _ => (time, 0),
        }
    }

    /// The bounds in a condition; a BETWEEN has two.
    fn bounds(&self, condition: &Expr) -> Vec<Bound> {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                self.bound(left, *op, right).into_iter().collect()
            }
            Expr::Between(between) if !between.negated => {
                let low = self.bound(&between.expr, Operator::GtEq, &between.low);
                let high = self.bound(&between.expr, Operator::LtEq, &between.high);
                // Both must be bounds, or the condition is kept as it is.
                low.zip(high).map_or(vec![], |(low, high)| vec![low, high])
            }
            _ => vec![],
        }
    }

    /// `a op b` as a bound of `left - right`.
    fn bound(&self, a: &Expr, op: Operator, b: &Expr) -> Option<Bound> {
        let unit = self.clock(a).or_else(|| self.clock(b))?;
        let (left, right, at, op) = match (self.term(a, unit)?, self.term(b, unit)?) {
            // left + x op right + y: left - right op y - x
            (Term::Left(left, x), Term::Right(right, y)) => (left, right, y.checked_sub(x)?, op),
            (Term::Right(right, y), Term::Left(left, x)) => {
                (left, right, y.checked_sub(x)?, op.swap()?)
            }
            (Term::Difference(left, right, x), Term::Constant(y)) => {
                (left, right, y.checked_sub(x)?, op)
            }
            (Term::Constant(y), Term::Difference(left, right, x)) => {
                (left, right, y.checked_sub(x)?, op.swap()?)
            }
            _ => return None,
        };
        let (lower, upper) = match op {
            Operator::Eq => (Some(at), Some(at)),
            Operator::GtEq => (Some(at), None),
            Operator::Gt => (Some(at.checked_add(1)?), None),
            Operator::LtEq => (None, Some(at)),
            Operator::Lt => (None, Some(at.checked_sub(1)?)),
            _ => return None,
        };
        // Types with another time zone are compared as instants, and so are their ticks.
        Some(Bound { left, right, lower, upper })
    }

    /// The unit of the first event time in an expression.
    fn clock(&self, expr: &Expr) -> Option<Clock> {
        let column = *expr.column_refs().iter().next()?;
        let (side, time) = match self.left(column) {
            Some(time) => (self.plans[LEFT], time),
            None => (self.plans[RIGHT], self.right(column)?),
        };
        clock(side.schema().field(time.index).data_type())
    }

    fn term(&self, expr: &Expr, unit: Clock) -> Option<Term> {
        match expr {
            Expr::Alias(alias) => self.term(&alias.expr, unit),
            Expr::Column(column) => {
                let (plan, term) = match self.left(column) {
                    Some(time) => {
                        let (time, ticks) = Self::by_window(self.plans[LEFT], self.left, time);
                        (self.plans[LEFT], Term::Left(time, ticks))
                    }
                    None => {
                        let (plan, time) = (self.plans[RIGHT], self.right(column)?);
                        let (time, ticks) = Self::by_window(plan, self.right, time);
                        (plan, Term::Right(time, ticks))
                    }
                };
                let field = plan.schema().maybe_index_of_column(column);
                let own = clock(plan.schema().field(field?).data_type());
                (own == Some(unit)).then_some(term)
            }
            Expr::Literal(value, _) => constant(value, unit).map(Term::Constant),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (a, b) = (self.term(left, unit)?, self.term(right, unit)?);
                combined(a, *op, b)
            }
            _ => None,
        }
    }
}

fn combined(a: Term, op: Operator, b: Term) -> Option<Term> {
    Some(match (a, op, b) {
        (Term::Left(time, x), Operator::Plus, Term::Constant(y))
        | (Term::Constant(y), Operator::Plus, Term::Left(time, x)) => {
            Term::Left(time, x.checked_add(y)?)
        }
        (Term::Left(time, x), Operator::Minus, Term::Constant(y)) => {
            Term::Left(time, x.checked_sub(y)?)
        }
        (Term::Right(time, x), Operator::Plus, Term::Constant(y))
        | (Term::Constant(y), Operator::Plus, Term::Right(time, x)) => {
            Term::Right(time, x.checked_add(y)?)
        }
        (Term::Right(time, x), Operator::Minus, Term::Constant(y)) => {
            Term::Right(time, x.checked_sub(y)?)
        }
        (Term::Left(left, x), Operator::Minus, Term::Right(right, y)) => {
            Term::Difference(left, right, x.checked_sub(y)?)
        }
        _ => return None,
    })
}

/// The distance of an event time from the end of its row's window, if that is constant.
fn ticks_to_end(known: &Known) -> Option<i64> {
    match known.to_end {
        Some(ToEnd::Ticks(ticks)) if known.lag.is_some() => Some(ticks),
        _ => None,
    }
}

fn clock_at(plan: &LogicalPlan, index: usize) -> Option<Clock> {
    clock(plan.schema().field(index).data_type())
}

/// The unit of a column's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) unit: TimeUnit,
    /// Whether each day has 24 hours, which is not so in a time zone with daylight saving time.
    even_days: bool,
}

pub(crate) fn clock(of: &DataType) -> Option<Clock> {
    let DataType::Timestamp(unit, zone) = of else { return None };
    let even_days =
        zone.as_deref().is_none_or(|zone| zone == "UTC" || zone.starts_with(['+', '-']));
    Some(Clock { unit: *unit, even_days })
}

/// A length of time in ticks, if it is a whole number of them and the same at any time.
pub(crate) fn constant(value: &ScalarValue, Clock { unit, even_days }: Clock) -> Option<i64> {
    const DAY_NANOS: i128 = 86_400 * 1_000_000_000;
    let nanos = match value {
        ScalarValue::IntervalMonthDayNano(Some(length))
            if length.months == 0 && (even_days || length.days == 0) =>
        {
            i128::from(length.days) * DAY_NANOS + i128::from(length.nanoseconds)
        }
        ScalarValue::IntervalDayTime(Some(length)) if even_days || length.days == 0 => {
            i128::from(length.days) * DAY_NANOS + i128::from(length.milliseconds) * 1_000_000
        }
        ScalarValue::DurationSecond(Some(n)) => i128::from(*n) * 1_000_000_000,
        ScalarValue::DurationMillisecond(Some(n)) => i128::from(*n) * 1_000_000,
        ScalarValue::DurationMicrosecond(Some(n)) => i128::from(*n) * 1_000,
        ScalarValue::DurationNanosecond(Some(n)) => i128::from(*n),
        _ => return None,
    };
    let per_tick = 1_000_000_000 / i128::from(time::ticks_per_second(unit));
    (nanos % per_tick == 0).then(|| i64::try_from(nanos / per_tick).ok()).flatten()
}
