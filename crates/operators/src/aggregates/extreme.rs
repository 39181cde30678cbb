//! `max_by(value, key)`, alias `arg_max`, and `min_by`, alias `arg_min`: the value of the row with the greatest or smallest
//! key.
//!
//! Rows whose key is NULL do not count; a value may be NULL. Of rows with equal keys the greatest or smallest value is
//! returned, so that the result does not depend on the order of rows. Keys and values have the order of Arrow's row
//! format; the state of a group is its best key and value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::utils::split_vec_min_alloc;
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

/// Which row is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Extreme {
    Greatest,
    Smallest,
}

/// The aggregate function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ByExtreme {
    extreme: Extreme,
    aliases: Vec<String>,
    signature: Signature,
}

impl ByExtreme {
    pub(super) fn new(extreme: Extreme) -> Self {
        let alias = match extreme {
            Extreme::Greatest => "arg_max",
            Extreme::Smallest => "arg_min",
        };
        let signature = Signature::user_defined(Volatility::Immutable);
        Self { extreme, aliases: vec![alias.to_owned()], signature }
    }

    fn best(&self, args: &AccumulatorArgs<'_>) -> Result<Best> {
        let [value, key] = args.expr_fields else {
            return internal_err!("{} of other than two arguments", self.name());
        };
        Best::new(self.extreme, key.data_type(), value.data_type())
    }
}

impl AggregateUDFImpl for ByExtreme {
    fn name(&self) -> &str {
        match self.extreme {
            Extreme::Greatest => "max_by",
            Extreme::Smallest => "min_by",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [_, _] => Ok(arg_types.iter().map(plain_type).collect()),
            _ => plan_err!("{} takes a value and a key", self.name()),
        }
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [value, _] => Ok(value.clone()),
            _ => plan_err!("{} takes a value and a key", self.name()),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let [value, key] = args.input_fields else {
            return internal_err!("{} of other than two arguments", self.name());
        };
        let state = |name: &str, of: &FieldRef| {
            Arc::new(Field::new(format!("{}[{name}]", args.name), of.data_type().clone(), true))
        };
        Ok(vec![
            state("key", key),
            state("value", value),
            Arc::new(Field::new(format!("{}[seen]", args.name), DataType::Boolean, false)),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(self.best(&args)?))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.best(&args)?))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The type without dictionary encoding, which the row format does not have.
pub(super) fn plain_type(of: &DataType) -> DataType {
    match of {
        DataType::Dictionary(_, value) => plain_type(value),
        other => other.clone(),
    }
}

/// The best key and value of each group, as one row.
#[derive(Debug)]
struct Best {
    extreme: Extreme,
    rows: RowConverter,
    groups: Vec<Option<Box<[u8]>>>,
    bytes: usize,
}

impl Best {
    fn new(extreme: Extreme, key: &DataType, value: &DataType) -> Result<Self> {
        let fields = [key, value].map(|of| SortField::new(of.clone()));
        let rows = RowConverter::new(fields.to_vec())?;
        Ok(Self { extreme, rows, groups: vec![], bytes: 0 })
    }

    /// Considers rows of keys and values; `counts` says whether a row counts.
    fn take(
        &mut self,
        columns: &[ArrayRef; 2],
        counts: impl Fn(usize) -> bool,
        group: impl Fn(usize) -> usize,
        total: usize,
    ) -> Result<()> {
        if self.groups.len() < total {
            self.groups.resize(total, None);
        }
        let rows = self.rows.convert_columns(columns)?;
        for (at, row) in rows.iter().enumerate() {
            if !counts(at) {
                continue;
            }
            let Some(best) = self.groups.get_mut(group(at)) else {
                return internal_err!("a group is beyond the number of groups");
            };
            let row = row.as_ref();
            let better = best.as_deref().is_none_or(|best| match self.extreme {
                Extreme::Greatest => row > best,
                Extreme::Smallest => row < best,
            });
            if better {
                self.bytes += row.len();
                self.bytes -= best.as_ref().map_or(0, |old| old.len());
                *best = Some(row.into());
            }
        }
        Ok(())
    }

    /// Counts rows of values and keys.
    fn update(
        &mut self,
        values: &[ArrayRef],
        group: impl Fn(usize) -> usize,
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        let [value, key] = values else { return internal_err!("other than two arguments") };
        let nulls = key.logical_nulls();
        let counts = |row: usize| counts(nulls.as_ref(), filter, row);
        self.take(&[Arc::clone(key), Arc::clone(value)], counts, group, total)
    }

    /// Merges states.
    fn merge(
        &mut self,
        states: &[ArrayRef],
        group: impl Fn(usize) -> usize,
        total: usize,
    ) -> Result<()> {
        let [key, value, seen] = states else { return internal_err!("other than three states") };
        let Some(seen) = seen.as_any().downcast_ref::<BooleanArray>() else {
            return internal_err!("another state than whether a row was seen");
        };
        let counts = |row: usize| seen.is_valid(row) && seen.value(row);
        self.take(&[Arc::clone(key), Arc::clone(value)], counts, group, total)
    }

    /// The keys, the values, and whether each group has any.
    fn columns(&self, groups: &[Option<Box<[u8]>>]) -> Result<[ArrayRef; 3]> {
        let parser = self.rows.parser();
        let none = self.rows.convert_columns(&self.nulls(1)?)?;
        let none = none.row(0);
        let rows = groups.iter().map(|row| match row {
            Some(row) => parser.parse(row),
            None => none,
        });
        let seen: BooleanArray = groups.iter().map(|row| Some(row.is_some())).collect();
        match self.rows.convert_rows(rows)?.as_slice() {
            [key, value] => Ok([Arc::clone(key), Arc::clone(value), Arc::new(seen)]),
            _ => internal_err!("a row of other than a key and a value"),
        }
    }

    /// NULL as key and as value.
    fn nulls(&self, rows: usize) -> Result<Vec<ArrayRef>> {
        let columns = self.rows.convert_rows(std::iter::empty())?;
        Ok(columns.iter().map(|c| arrow::array::new_null_array(c.data_type(), rows)).collect())
    }

    fn taken(&mut self, emit_to: EmitTo) -> Result<[ArrayRef; 3]> {
        let groups = match emit_to {
            EmitTo::All => std::mem::take(&mut self.groups),
            EmitTo::First(n) => split_vec_min_alloc(&mut self.groups, n),
        };
        self.bytes -= groups.iter().flatten().map(|row| row.len()).sum::<usize>();
        self.columns(&groups)
    }

    fn first(&self) -> Result<[ArrayRef; 3]> {
        match self.groups.get(..1) {
            Some(first) => self.columns(first),
            None => self.columns(&[None]),
        }
    }

    fn size_bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Option<Box<[u8]>>>() + self.bytes + self.rows.size()
    }
}

/// Whether a row counts: its key is not NULL, and the filter is true.
pub(super) fn counts(
    nulls: Option<&NullBuffer>,
    filter: Option<&BooleanArray>,
    row: usize,
) -> bool {
    nulls.is_none_or(|nulls| nulls.is_valid(row))
        && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

impl GroupsAccumulator for Best {
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
        let [_, value, _] = self.taken(emit_to)?;
        Ok(value)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(self.taken(emit_to)?.to_vec())
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let [value, key] = values else { return internal_err!("other than two arguments") };
        let nulls = key.logical_nulls();
        let seen: BooleanArray =
            (0..key.len()).map(|row| Some(counts(nulls.as_ref(), opt_filter, row))).collect();
        Ok(vec![Arc::clone(key), Arc::clone(value), Arc::new(seen)])
    }

    fn size(&self) -> usize {
        self.size_bytes()
    }
}

impl Accumulator for Best {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.update(values, |_| 0, None, 1)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.merge(states, |_| 0, 1)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.first()?.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let [_, value, _] = self.first()?;
        ScalarValue::try_from_array(&value, 0)
    }

    fn size(&self) -> usize {
        self.size_bytes()
    }
}
