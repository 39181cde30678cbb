//! Upper bounds of the size of a function's result, computed from its arguments.
//!
//! Invariant: for functions whose result can be much larger than their arguments, the bound is not less than the size
//! of the result, except for what arrays need besides their values; computing it costs little compared with the
//! function.

use std::cell::OnceCell;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, OffsetSizeTrait};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalMonthDayNanoType, IntervalUnit, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

/// The least size of an element of a list, in bytes.
const ELEMENT_BYTES: u64 = 8;
/// Functions that read their arguments many times, or need much time per byte.
pub(super) const SLOW: [&str; 19] = [
    "array_distinct",
    "array_except",
    "array_intersect",
    "array_sort",
    "array_union",
    "digest",
    "initcap",
    "levenshtein",
    "md5",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "translate",
];
/// The cost of a byte of their arguments.
const SLOWNESS: usize = 16;
const DAY_NANOS: i128 = 86_400_000_000_000;

/// The cost of a result of `bytes`, as the number of bytes that could be copied in the same time, about a billion per
/// second.
pub(super) fn effort(name: &str, args: &ScalarFunctionArgs, bytes: usize) -> usize {
    let slowness = if SLOW.contains(&name) { SLOWNESS } else { 1 };
    let given = Given::of(args);
    let compared = match name {
        "levenshtein" => given.sum(|row| given.len(0, row).saturating_mul(given.len(1, row))),
        // Each element of one is searched for in the other.
        "array_has_all" | "array_has_any" => {
            let count = |arg, row| given.bytes(arg, row) / ELEMENT_BYTES;
            given.sum(|row| count(0, row).saturating_mul(count(1, row)))
        }
        _ => 0,
    };
    let compared = usize::try_from(compared).unwrap_or(usize::MAX);
    held(name, &given).saturating_mul(slowness).saturating_add(bytes).saturating_add(compared)
}

/// The bytes that a function reads. An argument that is the same in all rows is a pattern, read once, except for lists.
fn held(name: &str, given: &Given<'_>) -> usize {
    let each = given.args.iter().map(|arg| match arg {
        ColumnarValue::Scalar(_) if !given.constant && !name.starts_with("array_") => 0,
        arg => bytes_of(arg, given.rows),
    });
    each.fold(0, usize::saturating_add)
}

fn bytes_of(arg: &ColumnarValue, rows: usize) -> usize {
    match arg {
        ColumnarValue::Array(array) => shown(array),
        ColumnarValue::Scalar(value) => value.size().saturating_mul(rows),
    }
}

/// The bytes of the values of an array. A slice shares buffers with others; only its own part counts.
fn shown(array: &ArrayRef) -> usize {
    let beside = array.len().saturating_mul(size_of::<u128>());
    let bytes = match array.data_type() {
        DataType::Utf8View => array.as_string_view().total_buffer_bytes_used(),
        DataType::BinaryView => array.as_binary_view().total_buffer_bytes_used(),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            shown_by(list.value_offsets(), list.values())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            shown_by(list.value_offsets(), list.values())
        }
        DataType::Map(..) => {
            let map = array.as_map();
            let columns = map.entries().columns().iter();
            columns
                .map(|column| shown_by(map.value_offsets(), column))
                .fold(0, usize::saturating_add)
        }
        DataType::Struct(_) => {
            let columns = array.as_struct().columns().iter();
            columns.map(shown).fold(0, usize::saturating_add)
        }
        _ => {
            return match array.to_data().get_slice_memory_size() {
                Ok(bytes) => bytes,
                Err(_) => array.get_array_memory_size(),
            };
        }
    };
    bytes.saturating_add(beside)
}

fn shown_by<O: OffsetSizeTrait>(offsets: &[O], values: &ArrayRef) -> usize {
    match offsets {
        [first, .., last] => {
            shown(&values.slice(first.as_usize(), last.as_usize() - first.as_usize()))
        }
        _ => 0,
    }
}

/// The bytes of the longest text of the argument `arg`.
pub(super) fn longest(args: &ScalarFunctionArgs, arg: usize) -> u64 {
    let given = Given::of(args);
    (0..given.rows).map(|row| given.len(arg, row)).max().unwrap_or_default()
}

/// The text of an argument of a single row.
pub(super) fn text(args: &ScalarFunctionArgs, arg: usize) -> Option<&str> {
    match args.args.get(arg)? {
        ColumnarValue::Scalar(value) => value.try_as_str().flatten(),
        ColumnarValue::Array(array) if array.is_empty() || array.is_null(0) => None,
        ColumnarValue::Array(array) => match array.data_type() {
            DataType::Utf8 => Some(array.as_string::<i32>().value(0)),
            DataType::LargeUtf8 => Some(array.as_string::<i64>().value(0)),
            DataType::Utf8View => Some(array.as_string_view().value(0)),
            _ => None,
        },
    }
}

/// The most bytes that the result of the function `name` takes.
pub(super) fn result(name: &str, args: &ScalarFunctionArgs) -> usize {
    let given = Given::of(args);
    let rows = given.rows;
    let texts = || given.total(0);
    let bytes = match name {
        "repeat" => match given.constant_count(1) {
            Some(times) => texts().saturating_mul(times),
            None => given.sum(|row| given.len(0, row).saturating_mul(given.count(1, row))),
        },
        "lpad" | "rpad" => {
            // Characters of the fill may take up to four bytes.
            let width = if given.is_ascii(2) { 1 } else { 4 };
            let counts = match given.constant_count(1) {
                Some(count) => count.saturating_mul(rows as u64),
                None => given.sum(|row| given.count(1, row)),
            };
            texts().saturating_add(counts.saturating_mul(width))
        }
        "replace" => {
            let grown = |text: u64, from: u64, to: u64| {
                let times = text / from.max(1) + 1;
                text.saturating_add(times.saturating_mul(to.saturating_sub(from)))
            };
            match (given.constant_len(1), given.constant_len(2)) {
                (Some(from), Some(to)) => {
                    grown(texts(), from, to).saturating_add((rows as u64).saturating_mul(to))
                }
                _ => {
                    given.sum(|row| grown(given.len(0, row), given.len(1, row), given.len(2, row)))
                }
            }
        }
        "regexp_replace" => {
            // With the flag g, each character may be replaced, and a group may be the whole text.
            let all = given.args.len() > 3;
            let grown = |text: u64, to: u64, rows: u64| {
                let times = if all { text.saturating_add(rows) } else { rows };
                let groups = text.saturating_mul((to / 2).min(8));
                text.saturating_add(times.saturating_mul(to)).saturating_add(groups)
            };
            match given.constant_len(2) {
                Some(to) => grown(texts(), to, rows as u64),
                None => given.sum(|row| grown(given.len(0, row), given.len(2, row), 1)),
            }
        }
        "range" | "generate_series" => {
            given.sum(|row| given.steps(row).saturating_add(1).saturating_mul(ELEMENT_BYTES))
        }
        "array_repeat" => given
            .sum(|row| given.bytes(0, row).max(ELEMENT_BYTES).saturating_mul(given.count(1, row))),
        "array_resize" => given.sum(|row| {
            let each = given.bytes(2, row).max(ELEMENT_BYTES);
            given.bytes(0, row).saturating_add(each.saturating_mul(given.count(1, row)))
        }),
        "array_to_string" => given.sum(|row| {
            let list = given.bytes(0, row);
            list.saturating_mul(3).saturating_add((list / 4 + 1).saturating_mul(given.len(1, row)))
        }),
        "string_to_array" => given.sum(|row| (given.len(0, row) + 1).saturating_mul(5)),
        "array_has_all" | "array_has_any" | "levenshtein" | "regexp_count" | "regexp_instr"
        | "regexp_like" | "strpos" => given.rows as u64 * ELEMENT_BYTES,
        _ => {
            let all = args.args.iter().map(|arg| bytes_of(arg, rows) as u64);
            all.fold(0, u64::saturating_add)
        }
    };
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The arguments of a call.
struct Given<'a> {
    args: &'a [ColumnarValue],
    /// Whether all of them are the same in all rows.
    constant: bool,
    rows: usize,
    /// Those that are read as numbers, computed on demand.
    numbers: Vec<OnceCell<Option<Int64Array>>>,
}

impl<'a> Given<'a> {
    fn of(args: &'a ScalarFunctionArgs) -> Self {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let numbers = args.args.iter().map(|_| OnceCell::new()).collect();
        Given { args: &args.args, constant, rows, numbers }
    }

    fn sum(&self, each: impl Fn(usize) -> u64) -> u64 {
        (0..self.rows).map(each).fold(0, u64::saturating_add)
    }

    /// The bytes of all texts of an argument.
    fn total(&self, arg: usize) -> u64 {
        match self.args.get(arg) {
            Some(ColumnarValue::Array(array)) if *array.data_type() == DataType::Utf8 => {
                match array.as_string::<i32>().value_offsets() {
                    [first, .., last] => (last - first).unsigned_abs().into(),
                    _ => 0,
                }
            }
            Some(ColumnarValue::Array(_)) => self.sum(|row| self.len(arg, row)),
            Some(ColumnarValue::Scalar(_)) => self.len(arg, 0).saturating_mul(self.rows as u64),
            None => 0,
        }
    }

    /// The bytes of a text that is the same in all rows.
    fn constant_len(&self, arg: usize) -> Option<u64> {
        matches!(self.args.get(arg), Some(ColumnarValue::Scalar(_))).then(|| self.len(arg, 0))
    }

    /// A count that is the same in all rows.
    fn constant_count(&self, arg: usize) -> Option<u64> {
        matches!(self.args.get(arg), Some(ColumnarValue::Scalar(_))).then(|| self.count(arg, 0))
    }

    /// The bytes of a text.
    fn len(&self, arg: usize, row: usize) -> u64 {
        match self.args.get(arg) {
            Some(ColumnarValue::Array(array)) if array.is_valid(row) => match array.data_type() {
                DataType::Utf8 => array.as_string::<i32>().value_length(row).unsigned_abs().into(),
                DataType::LargeUtf8 => usize::try_from(array.as_string::<i64>().value_length(row))
                    .unwrap_or_default() as u64,
                DataType::Utf8View => array.as_string_view().value(row).len() as u64,
                _ => self.bytes(arg, row),
            },
            Some(ColumnarValue::Scalar(value)) => match value.try_as_str() {
                Some(text) => text.map_or(0, str::len) as u64,
                None => value.size() as u64,
            },
            _ => 0,
        }
    }

    /// The bytes of a value of any type.
    fn bytes(&self, arg: usize, row: usize) -> u64 {
        match self.args.get(arg) {
            Some(ColumnarValue::Array(array)) => shown(&array.slice(row, 1)) as u64,
            Some(ColumnarValue::Scalar(value)) => match value.data_type().primitive_width() {
                Some(width) => width as u64,
                None => value.size() as u64,
            },
            None => 0,
        }
    }

    fn is_ascii(&self, arg: usize) -> bool {
        match self.args.get(arg) {
            None => true,
            Some(ColumnarValue::Scalar(value)) => {
                value.try_as_str().flatten().is_none_or(str::is_ascii)
            }
            Some(ColumnarValue::Array(_)) => false,
        }
    }

    fn number(&self, arg: usize, row: usize) -> Option<i64> {
        match self.args.get(arg)? {
            ColumnarValue::Array(array) => {
                let numbers = self.numbers.get(arg)?.get_or_init(|| numbers_of(array)).as_ref()?;
                numbers.is_valid(row).then(|| numbers.value(row))
            }
            ColumnarValue::Scalar(ScalarValue::Int64(number)) => *number,
            ColumnarValue::Scalar(value) => {
                let numbers = numbers_of(&value.to_array().ok()?)?;
                numbers.is_valid(0).then(|| numbers.value(0))
            }
        }
    }

    /// An argument that is a count.
    fn count(&self, arg: usize, row: usize) -> u64 {
        // The function itself reports an invalid count.
        self.number(arg, row).map_or(0, |n| u64::try_from(n).unwrap_or_default())
    }

    /// The number of steps from the first to the last value.
    fn steps(&self, row: usize) -> u64 {
        let (first, last) = match self.args.len() {
            1 => (Some(0), self.ticks(0, row)),
            _ => (self.ticks(0, row), self.ticks(1, row)),
        };
        let (Some(first), Some(last)) = (first, last) else { return 0 };
        let step = match self.args.get(2) {
            None => 1,
            Some(step) if step.data_type() == DataType::Interval(IntervalUnit::MonthDayNano) => {
                match self.interval(row) {
                    Some(nanos) => nanos,
                    None => return 0,
                }
            }
            Some(_) => i128::from(self.number(2, row).unwrap_or(1)),
        };
        let steps = (last - first).checked_div(step).unwrap_or_default().max(0);
        u64::try_from(steps).unwrap_or(u64::MAX)
    }

    /// A number, or a time in nanoseconds.
    fn ticks(&self, arg: usize, row: usize) -> Option<i128> {
        let number = i128::from(self.number(arg, row)?);
        Some(match self.args.get(arg)?.data_type() {
            DataType::Date32 => number * DAY_NANOS,
            DataType::Timestamp(TimeUnit::Second, _) => number * 1_000_000_000,
            DataType::Timestamp(TimeUnit::Millisecond, _) | DataType::Date64 => number * 1_000_000,
            DataType::Timestamp(TimeUnit::Microsecond, _) => number * 1_000,
            _ => number,
        })
    }

    /// The third argument, an interval, in nanoseconds; months count as the shortest ones.
    fn interval(&self, row: usize) -> Option<i128> {
        let array = match self.args.get(2)? {
            ColumnarValue::Array(array) => array.slice(row, 1),
            ColumnarValue::Scalar(value) => value.to_array().ok()?,
        };
        let array = array.as_primitive_opt::<IntervalMonthDayNanoType>()?;
        let value = array.is_valid(0).then(|| array.value(0))?;
        let days = i128::from(value.months) * 28 + i128::from(value.days);
        Some(days * DAY_NANOS + i128::from(value.nanoseconds))
    }
}

/// An array as numbers, if it has numbers or times.
fn numbers_of(array: &ArrayRef) -> Option<Int64Array> {
    cast(array, &DataType::Int64).ok()?.as_primitive_opt().cloned()
}
