//! Rows that an operator keeps in the order of partition, order and row, so that the rows of a partition are neighbours, and
//! rows that are equal in the order have one order of their own.

use std::collections::BTreeMap;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use windrow_core::{Error, Result};

use super::delta::{Codec, Delta, Encoded, pick, types};
use super::kept::{Kept, check_weight};

/// Rows by partition, in an order.
#[derive(Debug)]
pub(super) struct OrderedRows {
    partition_columns: Vec<usize>,
    partition: Codec,
    order_columns: Vec<usize>,
    order: Codec,
    row: Codec,
    kept: Kept,
}

/// Rows to be added or removed, as bytes.
#[derive(Debug)]
pub(super) struct Keyed<'a> {
    partitions: Encoded,
    orders: Encoded,
    rows: Encoded,
    weights: &'a [i64],
}

/// A row that is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct OrderedRow<'a> {
    pub(super) order: &'a [u8],
    pub(super) row: &'a [u8],
    /// How often it occurs.
    pub(super) weight: i64,
}

impl Keyed<'_> {
    /// The numbers of the rows of each partition.
    pub(super) fn partitions(&self) -> BTreeMap<&[u8], Vec<usize>> {
        let mut partitions: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        for row in 0..self.weights.len() {
            partitions.entry(self.partitions.row(row)).or_default().push(row);
        }
        partitions
    }
}

impl OrderedRows {
    /// Without rows. `partition`: the columns that divide the rows; `order`: those that order them.
    ///
    /// # Errors
    /// When rows cannot be compared.
    pub(super) fn new(
        partition: &[usize],
        order: &[(usize, SortOptions)],
        input: &SchemaRef,
    ) -> Result<Self> {
        let order_columns: Vec<usize> = order.iter().map(|(column, _)| *column).collect();
        let order_types = types(input, &order_columns)?.into_iter();
        Ok(Self {
            partition: Codec::new(types(input, partition)?)?,
            partition_columns: partition.to_vec(),
            order: Codec::ordered(order_types.zip(order.iter().map(|(_, options)| *options)))?,
            order_columns,
            row: Codec::of(input)?,
            kept: Kept::default(),
        })
    }

    /// The bytes of rows.
    ///
    /// # Errors
    /// When the columns have other types.
    pub(super) fn keyed<'a>(&self, rows: &'a Delta) -> Result<Keyed<'a>> {
        let encode = |codec: &Codec, columns: &[usize]| {
            codec.encode(&pick(&rows.columns, columns)?, rows.rows())
        };
        Ok(Keyed {
            partitions: encode(&self.partition, &self.partition_columns)?,
            orders: encode(&self.order, &self.order_columns)?,
            rows: self.row.encode(&rows.columns, rows.rows())?,
            weights: &rows.weights,
        })
    }

    /// Adds or removes one of the rows, by its number.
    ///
    /// # Errors
    /// Limit when it occurs more often than can be counted.
    pub(super) fn add(&mut self, keyed: &Keyed<'_>, row: usize) -> Result<()> {
        let (partition, order) = (keyed.partitions.row(row), keyed.orders.row(row));
        let mut whole = [partition, order, keyed.rows.row(row)].concat();
        // Where the row begins, since keys may have any length.
        let begins = u32::try_from(partition.len() + order.len()).unwrap_or(u32::MAX);
        whole.extend(begins.to_be_bytes());
        self.kept.add(&whole, keyed.weights.get(row).copied().unwrap_or(0)).map(drop)
    }

    /// The rows of a partition, in order; Internal in place of one that was removed and did not exist.
    pub(super) fn of(&self, partition: &[u8]) -> impl Iterator<Item = Result<OrderedRow<'_>>> {
        let begin = partition.len();
        self.kept.of(partition).map(move |(whole, held)| {
            check_weight(held.weight)?;
            let broken = || Error::internal("a row without its place");
            let (bytes, begins) = whole.split_last_chunk::<4>().ok_or_else(broken)?;
            let begins = u32::from_be_bytes(*begins) as usize;
            let order = bytes.get(begin..begins).ok_or_else(broken)?;
            let row = bytes.get(begins..).ok_or_else(broken)?;
            Ok(OrderedRow { order, row, weight: held.weight })
        })
    }

    /// The rows of bytes.
    ///
    /// # Errors
    /// When the columns would be too long.
    pub(super) fn decode<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>> {
        self.row.decode(rows)
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.kept.size_bytes()
    }

    /// The number of different rows.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }
}
