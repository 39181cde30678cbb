//! Aggregates of the frequencies of values: `mode(x)`, `percentile_disc(p) WITHIN GROUP (ORDER BY x)` (alias
//! `quantile_disc(x, p)`) and `approx_top_k(x, k)`.
//!
//! NULL does not count. A group holds each distinct value once, with its frequency: the state is as large as the number
//! of distinct values, and the result is exact and does not depend on the order of rows. Of values that are equally
//! frequent, the smaller one comes first; values have the order of Arrow's row format.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, StructArray, UInt64Array,
    new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, UInt64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::utils::split_vec_min_alloc;
use datafusion::common::{HashMap, Result, ScalarValue, exec_err, internal_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::extreme::{counts, plain_type};

/// The greatest number of values that may be requested.
const TOP_MAX: i64 = 10_000;

/// The kind of aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Of {
    Mode,
    Percentile,
    Top,
}

/// The aggregate function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Counted {
    of: Of,
    aliases: Vec<String>,
    signature: Signature,
}

/// What is computed from the frequencies.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Mode,
    Percentile { fraction: f64, descending: bool },
    Top(usize),
}

impl Counted {
    pub(super) fn new(of: Of) -> Self {
        let aliases = match of {
            Of::Percentile => vec!["quantile_disc".to_owned()],
            Of::Mode | Of::Top => vec![],
        };
        Self { of, aliases, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn takes(&self) -> &'static str {
        match self.of {
            Of::Mode => "a value: mode(x)",
            Of::Percentile => {
                "a fraction and an order: percentile_disc(0.5) WITHIN GROUP (ORDER BY x), or quantile_disc(x, 0.5)"
            }
            Of::Top => "a value and a number: approx_top_k(x, 10)",
        }
    }

    fn wanted(&self, args: &AccumulatorArgs<'_>) -> Result<Wanted> {
        let literal = |to: &DataType| -> Result<ScalarValue> {
            let Some(expr) = args.exprs.get(1) else {
                return plan_err!("{} takes {}", self.name(), self.takes());
            };
            let nothing = RecordBatch::new_empty(Arc::new(args.schema.clone()));
            let value = expr.evaluate(&nothing)?.into_array(1)?;
            if value.is_empty() {
                return plan_err!("the second argument of {} must be a constant", self.name());
            }
            ScalarValue::try_from_array(&value, 0)?.cast_to(to)
        };
        Ok(match self.of {
            Of::Mode => Wanted::Mode,
            Of::Percentile => match literal(&DataType::Float64)? {
                ScalarValue::Float64(Some(fraction)) if (0.0..=1.0).contains(&fraction) => {
                    let sort = args.order_bys.first();
                    let descending = sort.is_some_and(|sort| sort.options.descending);
                    Wanted::Percentile { fraction, descending }
                }
                _ => return plan_err!("the fraction of {} is not between 0 and 1", self.name()),
            },
            Of::Top => match literal(&DataType::Int64)? {
                ScalarValue::Int64(Some(number)) if (1..=TOP_MAX).contains(&number) => {
                    Wanted::Top(usize::try_from(number).unwrap_or_default())
                }
                _ => {
                    return plan_err!(
                        "the number of {} is not between 1 and {TOP_MAX}",
                        self.name()
                    );
                }
            },
        })
    }

    fn counts(&self, args: &AccumulatorArgs<'_>) -> Result<Counts> {
        let Some(value) = args.expr_fields.first() else {
            return plan_err!("{} takes {}", self.name(), self.takes());
        };
        let rows = RowConverter::new(vec![SortField::new(value.data_type().clone())])?;
        let value_type = value.data_type().clone();
        let wanted = self.wanted(args)?;
        let distinct = args.is_distinct;
        Ok(Counts { wanted, distinct, value_type, rows, groups: vec![], bytes: 0 })
    }
}

impl AggregateUDFImpl for Counted {
    fn name(&self) -> &str {
        match self.of {
            Of::Mode => "mode",
            Of::Percentile => "percentile_disc",
            Of::Top => "approx_top_k",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.of, arg_types) {
            (Of::Mode, [value]) => Ok(vec![plain_type(value)]),
            (Of::Percentile, [value, fraction]) if fraction.is_numeric() => {
                Ok(vec![plain_type(value), DataType::Float64])
            }
            (Of::Top, [value, number]) if number.is_integer() => {
                Ok(vec![plain_type(value), DataType::Int64])
            }
            _ => plan_err!("{} takes {}", self.name(), self.takes()),
        }
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        let Some(value) = arg_types.first() else {
            return plan_err!("{} takes {}", self.name(), self.takes());
        };
        Ok(match self.of {
            Of::Mode | Of::Percentile => value.clone(),
            Of::Top => DataType::List(item(DataType::Struct(counted_fields(value)))),
        })
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let Some(value) = args.input_fields.first() else {
            return plan_err!("{} takes {}", self.name(), self.takes());
        };
        let list = DataType::List(item(DataType::Struct(counted_fields(value.data_type()))));
        Ok(vec![Arc::new(Field::new(format!("{}[counts]", args.name), list, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(self.counts(&args)?))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.counts(&args)?))
    }

    fn supports_within_group_clause(&self) -> bool {
        matches!(self.of, Of::Percentile | Of::Mode)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn item(of: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(of, true))
}

/// The fields of a value and its frequency.
fn counted_fields(value: &DataType) -> Fields {
    vec![Field::new("item", value.clone(), true), Field::new("count", DataType::UInt64, false)]
        .into()
}

/// The values of a group, as rows, and their frequencies.
type Numbers = HashMap<Box<[u8]>, u64>;

/// The frequency of each value, per group.
struct Counts {
    wanted: Wanted,
    /// Whether each value counts once.
    distinct: bool,
    value_type: DataType,
    rows: RowConverter,
    groups: Vec<Numbers>,
    /// The bytes of all values.
    bytes: usize,
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counts").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl Counts {
    /// Adds each value to its group, as many times as `times` says.
    fn add(
        &mut self,
        values: &ArrayRef,
        times: impl Fn(usize) -> u64,
        group: impl Fn(usize) -> usize,
        total: usize,
    ) -> Result<()> {
        if self.groups.len() < total {
            self.groups.resize_with(total, Numbers::default);
        }
        let nulls = values.logical_nulls();
        let rows = self.rows.convert_columns(std::slice::from_ref(values))?;
        for (at, row) in rows.iter().enumerate() {
            let times = times(at);
            if times == 0 || nulls.as_ref().is_some_and(|nulls| nulls.is_null(at)) {
                continue;
            }
            let Some(numbers) = self.groups.get_mut(group(at)) else {
                return internal_err!("a group is beyond the number of groups");
            };
            let row = row.as_ref();
            match numbers.get_mut(row) {
                Some(_) if self.distinct => {}
                Some(number) => *number = number.saturating_add(times),
                None => {
                    self.bytes += row.len();
                    numbers.insert(row.into(), times);
                }
            }
        }
        Ok(())
    }

    fn update(
        &mut self,
        values: &[ArrayRef],
        group: impl Fn(usize) -> usize,
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        let Some(values) = values.first() else { return internal_err!("no argument to count") };
        let times = |row: usize| {
            u64::from(filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row)))
        };
        self.add(values, times, group, total)
    }

    fn merge(
        &mut self,
        states: &[ArrayRef],
        group: impl Fn(usize) -> usize,
        total: usize,
    ) -> Result<()> {
        let Some(lists) = states.first().and_then(|state| state.as_list_opt::<i32>()) else {
            return internal_err!("a state of other than counts");
        };
        let mut groups = Vec::with_capacity(lists.values().len());
        for (row, offsets) in lists.value_offsets().windows(2).enumerate() {
            if let [from, to] = offsets {
                groups.extend((*from..*to).map(|_| group(row)));
            }
        }
        let first = lists.value_offsets().first().copied().unwrap_or_default();
        let counted =
            lists.values().slice(usize::try_from(first).unwrap_or_default(), groups.len());
        let (values, numbers) = match counted.as_struct().columns() {
            [values, numbers] => (values, numbers.as_primitive::<UInt64Type>()),
            _ => return internal_err!("a state of other than values and counts"),
        };
        let group = |at: usize| groups.get(at).copied().unwrap_or(usize::MAX);
        self.add(values, |at| numbers.value(at), group, total)
    }

    fn taken(&mut self, emit_to: EmitTo) -> Vec<Numbers> {
        let groups = match emit_to {
            EmitTo::All => std::mem::take(&mut self.groups),
            EmitTo::First(n) => split_vec_min_alloc(&mut self.groups, n),
        };
        self.bytes -= groups.iter().flat_map(|g| g.keys()).map(|row| row.len()).sum::<usize>();
        groups
    }

    /// The values and frequencies of each group, ascending, as lists.
    fn lists(&self, groups: &[Vec<(&[u8], u64)>]) -> Result<ArrayRef> {
        let parser = self.rows.parser();
        let rows = groups.iter().flatten().map(|(row, _)| parser.parse(row));
        let values = match self.rows.convert_rows(rows)?.pop() {
            Some(values) => values,
            None => return internal_err!("a row without a value"),
        };
        let numbers: UInt64Array = groups.iter().flatten().map(|(_, number)| *number).collect();
        let lengths = groups.iter().map(Vec::len);
        if i32::try_from(numbers.len()).is_err() {
            return exec_err!(
                "the groups of a window have more than {} different values",
                i32::MAX
            );
        }
        let fields = counted_fields(&self.value_type);
        let counted = StructArray::try_new(fields, vec![values, Arc::new(numbers)], None)?;
        let item = item(counted.data_type().clone());
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(counted), None)?))
    }

    /// The result for each group.
    fn answers(&self, groups: &[Numbers]) -> Result<ArrayRef> {
        match self.wanted {
            Wanted::Top(number) => {
                let top = groups.iter().map(|group| {
                    let mut all = ascending(group);
                    all.sort_by_key(|(_, times)| Reverse(*times));
                    all.truncate(number);
                    all
                });
                self.lists(&top.collect::<Vec<_>>())
            }
            Wanted::Mode => self.values(groups.iter().map(|group| {
                let all = ascending(group);
                all.into_iter().rev().max_by_key(|(_, times)| *times).map(|(row, _)| row)
            })),
            Wanted::Percentile { fraction, descending } => {
                self.values(groups.iter().map(|group| percentile(group, fraction, descending)))
            }
        }
    }

    /// A value for each group, or NULL.
    fn values<'a>(&self, rows: impl Iterator<Item = Option<&'a [u8]>>) -> Result<ArrayRef> {
        let none = new_null_array(&self.value_type, 1);
        let none = self.rows.convert_columns(&[none])?;
        let none = none.row(0);
        let parser = self.rows.parser();
        let rows = rows.map(|row| row.map_or(none, |row| parser.parse(row)));
        match self.rows.convert_rows(rows)?.pop() {
            Some(values) => Ok(values),
            None => internal_err!("a row without a value"),
        }
    }

    fn states(&self, groups: &[Numbers]) -> Result<ArrayRef> {
        self.lists(&groups.iter().map(ascending).collect::<Vec<_>>())
    }

    fn first(&self) -> &[Numbers] {
        self.groups.get(..1).unwrap_or_default()
    }

    fn size_bytes(&self) -> usize {
        let places: usize = self.groups.iter().map(HashMap::capacity).sum();
        self.groups.capacity() * size_of::<Numbers>()
            + places * (size_of::<(Box<[u8]>, u64)>() + 1)
            + self.bytes
            + self.rows.size()
    }
}

/// The values with their frequencies, ascending.
fn ascending(group: &Numbers) -> Vec<(&[u8], u64)> {
    let mut all: Vec<(&[u8], u64)> = group.iter().map(|(row, times)| (&**row, *times)).collect();
    all.sort_unstable();
    all
}

/// The first value up to which at least `fraction` of all values lie.
fn percentile(group: &Numbers, fraction: f64, descending: bool) -> Option<&[u8]> {
    let mut all = ascending(group);
    if descending {
        all.reverse();
    }
    let total: u64 = all.iter().map(|(_, times)| *times).sum();
    let wanted = fraction * total as f64;
    let mut passed = 0;
    let last = all.last().map(|(row, _)| *row);
    let found = all.into_iter().find(|(_, times)| {
        passed += times;
        passed as f64 >= wanted
    });
    found.map(|(row, _)| row).or(last)
}

impl GroupsAccumulator for Counts {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let group = |row: usize| group_indices.get(row).copied().unwrap_or(usize::MAX);
        self.update(values, group, opt_filter, total_num_groups)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> Result<()> {
        let group = |row: usize| group_indices.get(row).copied().unwrap_or(usize::MAX);
        self.merge(values, group, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let groups = self.taken(emit_to);
        self.answers(&groups)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.taken(emit_to);
        Ok(vec![self.states(&groups)?])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let Some(values) = values.first() else { return internal_err!("no argument to count") };
        let rows = self.rows.convert_columns(std::slice::from_ref(values))?;
        let nulls = values.logical_nulls();
        let lists: Vec<Vec<(&[u8], u64)>> = rows
            .iter()
            .enumerate()
            .map(|(at, row)| {
                if counts(nulls.as_ref(), opt_filter, at) { vec![(row.data(), 1)] } else { vec![] }
            })
            .collect();
        Ok(vec![self.lists(&lists)?])
    }

    fn size(&self) -> usize {
        self.size_bytes()
    }
}

impl Accumulator for Counts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.update(values, |_| 0, None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.merge(states, |_| 0, 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let state = match self.first() {
            [] => self.states(&[Numbers::default()])?,
            first => self.states(first)?,
        };
        Ok(vec![ScalarValue::try_from_array(&state, 0)?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let answer = match self.first() {
            [] => self.answers(&[Numbers::default()])?,
            first => self.answers(first)?,
        };
        ScalarValue::try_from_array(&answer, 0)
    }

    fn size(&self) -> usize {
        self.size_bytes()
    }
}
