//! The bounds of sessions as window functions over the rows of one key in order of time.
//!
//! Like [`super::bounds`], this is written independently of the session operator, which is tested against it. A
//! partition is computed in a single pass over its times.
//!
//! Invariant: rows of equal time have equal bounds, in any order.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray,
};
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    Expr, PartitionEvaluator, Signature, Volatility, WindowFrame, WindowFrameBound,
    WindowFrameUnits, WindowUDF, WindowUDFImpl,
};
use windrow_core::SessionSpec;

use super::bounds::ticks;

/// `window_start`, `window_end` and `window_time` of the sessions of each of `keys` (of all rows without keys), over
/// rows whose times are valid ([`SessionSpec::valid_times`]).
pub(crate) fn session_bounds(session: SessionSpec, time: &Expr, keys: &[Expr]) -> [Expr; 3] {
    let call = |bound| {
        let signature = Signature::any(1, Volatility::Immutable);
        let function = SessionBound { session, bound, signature };
        let call = WindowFunction {
            fun: Arc::new(WindowUDF::new_from_impl(function)).into(),
            params: WindowFunctionParams {
                args: vec![time.clone()],
                partition_by: keys.to_vec(),
                order_by: vec![time.clone().sort(true, false)],
                window_frame: WindowFrame::new_bounds(
                    WindowFrameUnits::Rows,
                    WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
                    WindowFrameBound::Following(ScalarValue::UInt64(None)),
                ),
                filter: None,
                null_treatment: None,
                distinct: false,
            },
        };
        Expr::WindowFunction(Box::new(call)).alias(bound.name())
    };
    [Bound::Start, Bound::End, Bound::Time].map(call)
}

/// The bounds of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bound {
    Start,
    End,
    Time,
}

impl Bound {
    /// The name of its column below the projection that renames it; not one that a user can write.
    fn name(self) -> &'static str {
        match self {
            Self::Start => "__session_start",
            Self::End => "__session_end",
            Self::Time => "__session_time",
        }
    }
}

/// A bound of the session of each row.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SessionBound {
    session: SessionSpec,
    bound: Bound,
    signature: Signature,
}

impl WindowUDFImpl for SessionBound {
    fn name(&self) -> &'static str {
        match self.bound {
            Bound::Start => "session_start",
            Bound::End => "session_end",
            Bound::Time => "session_time",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _args: PartitionEvaluatorArgs<'_>,
    ) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Sessions { gap: self.session.gap(), bound: self.bound }))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        match args.input_fields() {
            [time] => Ok(Arc::new(Field::new(args.name(), time.data_type().clone(), false))),
            _ => internal_err!("the bound of a session is a function of one time"),
        }
    }
}

/// Computes a bound for all rows of a key.
#[derive(Debug)]
struct Sessions {
    gap: i64,
    bound: Bound,
}

impl PartitionEvaluator for Sessions {
    fn evaluate_all(&mut self, values: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
        let [times] = values else {
            return internal_err!("the bound of a session is a function of one time");
        };
        let DataType::Timestamp(unit, zone) = times.data_type() else {
            return internal_err!("sessions go over timestamps, not {}", times.data_type());
        };
        let bounds = bounds(ticks(times, *unit).0, self.gap, self.bound);
        let zone = zone.clone();
        Ok(match unit {
            TimeUnit::Second => {
                Arc::new(TimestampSecondArray::from(bounds).with_timezone_opt(zone))
            }
            TimeUnit::Millisecond => {
                Arc::new(TimestampMillisecondArray::from(bounds).with_timezone_opt(zone))
            }
            TimeUnit::Microsecond => {
                Arc::new(TimestampMicrosecondArray::from(bounds).with_timezone_opt(zone))
            }
            TimeUnit::Nanosecond => {
                Arc::new(TimestampNanosecondArray::from(bounds).with_timezone_opt(zone))
            }
        })
    }
}

/// The bound for each of `times`, which ascend. Neighbours that are exactly one gap apart are in the same session.
fn bounds(times: &[i64], gap: i64, bound: Bound) -> Vec<i64> {
    let mut bounds = Vec::with_capacity(times.len());
    let mut rest = times;
    while let [first, ..] = rest {
        let pairs = rest.windows(2);
        let apart = |pair: &[i64]| match pair {
            [one, next] => one.saturating_add(gap) < *next,
            _ => false,
        };
        let len = pairs.map(apart).position(|apart| apart).map_or(rest.len(), |last| last + 1);
        let (session, others) = rest.split_at(len);
        let end = session.last().unwrap_or(first).saturating_add(gap);
        let value = match bound {
            Bound::Start => *first,
            Bound::End => end,
            Bound::Time => end.saturating_sub(1),
        };
        bounds.resize(bounds.len() + len, value);
        rest = others;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_one_gap_apart_are_of_one_session() {
        let times = [-7, -7, -4, 0, 3, 3, 7];
        assert_eq!(bounds(&times, 3, Bound::Start), [-7, -7, -7, 0, 0, 0, 7]);
        assert_eq!(bounds(&times, 3, Bound::End), [-1, -1, -1, 6, 6, 6, 10]);
        assert_eq!(bounds(&times, 4, Bound::Time), [10; 7]);
        assert_eq!(bounds(&[], 3, Bound::Start), [0; 0]);
    }

    #[test]
    fn the_ends_of_time_are_far_apart() {
        let session = SessionSpec::try_new(i64::MAX / 4).unwrap();
        let valid = session.valid_times();
        let times = [*valid.start(), *valid.end()];
        assert_eq!(bounds(&times, session.gap(), Bound::Start), times);
        let ends = times.map(|time| time + session.gap());
        assert_eq!(bounds(&times, session.gap(), Bound::End), ends);
    }
}
