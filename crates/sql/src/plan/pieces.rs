//! Computes the results of functions within bounds: of bytes, and of work that cannot be interrupted.
//!
//! The size of a result is requested from the statement's budget before it is computed. A large result is computed in
//! pieces, so that a statement that was cancelled stops between two of them, while other tasks of the thread continue
//! elsewhere. A single value is limited too, since it is computed at once.
//!
//! Invariants: splitting changes no value; a result that exceeds the statement's budget or a column is refused with the
//! number and the limit, before a library fails on it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result};
use datafusion::functions::regex::compile_regex;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl};
use windrow_core::budget::{self, Budget, Stop};
use windrow_core::{Error, ErrorKind};

use super::function_sizes::{effort, longest, result, text};
use super::functions::external;

/// The effort of one piece; see [`effort`].
const PIECE_EFFORT: usize = 16 << 20;
/// The most effort of one value: about a second.
const VALUE_EFFORT_MAX: usize = 1 << 30;
/// The length from which a text is searched in advance; see [`search`].
const SEARCHED_BYTES: u64 = 64 << 10;
/// The most bytes, or elements of lists, of a column of one batch: its offsets have 32 bits.
const COLUMN_MAX: usize = i32::MAX as usize;

/// The result of the function `works` for `args`, within the budget of the statement.
///
/// # Errors
/// Those of the function; that the result would be too large, or take too long; that the statement was cancelled.
pub(super) fn within_bounds(
    works: &dyn ScalarUDFImpl,
    args: ScalarFunctionArgs,
) -> Result<ColumnarValue> {
    let size = Size::of(works, &args)?;
    if size.effort <= PIECE_EFFORT && !searches_long(works.name(), &args) {
        return works.invoke_with_args(args);
    }
    aside(|| {
        if args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
            size.of_one_value(works, args.return_field.data_type())?;
            search(works.name(), &args)?;
            return works.invoke_with_args(args);
        }
        let mut made = Made { rows: args.number_rows, held: 0, pieces: vec![] };
        in_pieces(works, args, size, &mut made)?;
        made.together(works.name()).map(ColumnarValue::Array)
    })
}

/// The part of the result that has been computed, for a number of rows.
struct Made {
    rows: usize,
    /// See [`held_in`].
    held: usize,
    pieces: Vec<ArrayRef>,
}

impl Made {
    fn push(&mut self, name: &str, piece: ArrayRef) -> Result<()> {
        self.held = self.held.saturating_add(held_in(&piece));
        self.pieces.push(piece);
        if self.held <= COLUMN_MAX {
            return Ok(());
        }
        let rows = self.rows;
        Err(limit(
            format!(
                "the results of {name} for a batch of {rows} rows take more than {COLUMN_MAX} bytes or \
                 elements, which is what a column of one batch holds"
            ),
            "Make batches smaller (SET datafusion.execution.batch_size = 256), or ask for less.",
        ))
    }

    /// The pieces as a single column.
    fn together(self, name: &str) -> Result<ArrayRef> {
        if let [whole] = self.pieces.as_slice() {
            return Ok(Arc::clone(whole));
        }
        let bytes = self.pieces.iter().map(Array::get_array_memory_size).sum();
        budget::check(bytes).map_err(|stop| over(name, bytes, stop))?;
        let pieces: Vec<&dyn Array> = self.pieces.iter().map(AsRef::as_ref).collect();
        Ok(concat(&pieces)?)
    }
}

/// The size of a result, and the effort for it.
#[derive(Clone, Copy)]
struct Size {
    bytes: usize,
    effort: usize,
}

impl Size {
    /// The size of the result for these arguments, if the statement may hold it.
    fn of(works: &dyn ScalarUDFImpl, args: &ScalarFunctionArgs) -> Result<Self> {
        let bytes = result(works.name(), args);
        budget::check(bytes).map_err(|stop| over(works.name(), bytes, stop))?;
        // Work outside of statements has this limit only.
        if bytes > COLUMN_MAX && Budget::current().is_none() {
            let stop = Stop::Over { wanted: bytes, bytes_max: COLUMN_MAX };
            return Err(over(works.name(), bytes, stop));
        }
        Ok(Self { bytes, effort: effort(works.name(), args, bytes) })
    }

    /// Refuses what is too much for a single value of this type.
    fn of_one_value(self, works: &dyn ScalarUDFImpl, data_type: &DataType) -> Result<()> {
        let name = works.name();
        if held_by(data_type).is_some_and(|bytes_max| self.bytes > bytes_max) {
            return Err(limit(
                format!(
                    "the result of {name} for one row takes up to {} bytes, more than a value may \
                     have ({COLUMN_MAX} bytes or elements)",
                    self.bytes
                ),
                "Ask for less at once.",
            ));
        }
        // The result has a limit of its own, and its bound is for the worst case.
        let steps = self.effort - self.bytes.min(self.effort);
        if steps > VALUE_EFFORT_MAX {
            return Err(limit(
                format!(
                    "{name} would take {steps} steps for one row, more than {VALUE_EFFORT_MAX}"
                ),
                "Cut what it works on (left, array_slice), or do it in several rows (unnest).",
            ));
        }
        Ok(())
    }
}

/// The most bytes of a value of the type; `None`: no limit of its own.
fn held_by(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Utf8 | DataType::Binary | DataType::Utf8View | DataType::BinaryView => {
            Some(COLUMN_MAX)
        }
        DataType::List(element) => {
            let each = element.data_type().primitive_width();
            Some(each.map_or(COLUMN_MAX, |width| COLUMN_MAX.saturating_mul(width.max(8))))
        }
        DataType::Map(..) => Some(COLUMN_MAX),
        _ => None,
    }
}

/// Computes the result in small enough pieces, in the order of the rows.
fn in_pieces(
    works: &dyn ScalarUDFImpl,
    args: ScalarFunctionArgs,
    size: Size,
    made: &mut Made,
) -> Result<()> {
    let rows = args.number_rows;
    let large = size.effort > PIECE_EFFORT || searches_long(works.name(), &args);
    if large && rows > 1 {
        // By halves, since a single row may be nearly all of it.
        let half = rows / 2;
        for (from, count) in [(0, half), (half, rows - half)] {
            let part = |arg: &ColumnarValue| match arg {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(from, count)),
                ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
            };
            let part = ScalarFunctionArgs {
                args: args.args.iter().map(part).collect(),
                number_rows: count,
                ..args.clone()
            };
            let size = Size::of(works, &part)?;
            in_pieces(works, part, size, made)?;
        }
        return Ok(());
    }
    if rows == 1 {
        size.of_one_value(works, args.return_field.data_type())?;
        search(works.name(), &args)?;
    }
    made.push(works.name(), works.invoke_with_args(args)?.into_array(rows)?)
}

/// Whether a function searches a long text for all matches of a pattern. If each search goes to the end, that is
/// quadratic in its length.
fn searches_long(name: &str, args: &ScalarFunctionArgs) -> bool {
    ["regexp_count", "regexp_instr", "regexp_replace"].contains(&name)
        && longest(args, 0) > SEARCHED_BYTES
}

/// Searches the text of one row for all matches, if it is long, and checks at each whether to continue. The function
/// repeats the search, and takes no longer than this did.
fn search(name: &str, args: &ScalarFunctionArgs) -> Result<()> {
    if !searches_long(name, args) {
        return Ok(());
    }
    let flags = text(args, if name == "regexp_instr" { 4 } else { 3 });
    let all = name != "regexp_replace" || flags.is_some_and(|flags| flags.contains('g'));
    let (Some(searched), Some(pattern), true) = (text(args, 0), text(args, 1), all) else {
        return Ok(());
    };
    let flags = flags.map(|flags| flags.replace('g', "")).filter(|flags| !flags.is_empty());
    // The function itself reports an invalid pattern.
    let Ok(pattern) = compile_regex(pattern, flags.as_deref()) else { return Ok(()) };
    for _ in pattern.find_iter(searched) {
        budget::check(0).map_err(|stop| over(name, searched.len(), stop))?;
    }
    Ok(())
}

/// The greatest number in a column that 32-bit offsets count: of its bytes, its elements, or those inside of them.
fn held_in(column: &ArrayRef) -> usize {
    let shown = |offsets: &[i32]| match offsets {
        [first, .., last] => (
            usize::try_from(*first).unwrap_or_default(),
            usize::try_from(*last).unwrap_or_default(),
        ),
        _ => (0, 0),
    };
    match column.data_type() {
        DataType::Utf8 => {
            let (first, last) = shown(column.as_string::<i32>().value_offsets());
            last - first
        }
        DataType::Binary => {
            let (first, last) = shown(column.as_binary::<i32>().value_offsets());
            last - first
        }
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let (first, last) = shown(list.value_offsets());
            (last - first).max(held_in(&list.values().slice(first, last - first)))
        }
        DataType::Map(..) => {
            let map = column.as_map();
            let (first, last) = shown(map.value_offsets());
            let each = map.entries().columns().iter();
            let each = each.map(|column| held_in(&column.slice(first, last - first)));
            each.fold(last - first, usize::max)
        }
        DataType::Struct(_) => column.as_struct().columns().iter().map(held_in).fold(0, usize::max),
        _ => 0,
    }
}

fn limit(message: String, hint: &str) -> DataFusionError {
    external(Error::new(ErrorKind::Limit, message).with_hint(hint))
}

/// The error for a result that the statement may not hold.
fn over(name: &str, bytes: usize, stop: Stop) -> DataFusionError {
    match stop {
        Stop::Ended => external(stop.into()),
        Stop::Over { bytes_max, wanted } => limit(
            format!(
                "the result of {name} takes up to {bytes} bytes, and the statement would hold \
                 {wanted} bytes at once, more than it may (--query-memory, {bytes_max} bytes)"
            ),
            "Ask for less at once, or raise --query-memory.",
        ),
    }
}

/// Runs long work on a thread that has other tasks, which continue elsewhere.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
