//! The footer of a Parquet file: its columns, its row groups, and their statistics.
//!
//! Text is decoded to views, which is fastest. INT96 is decoded to microseconds: nanoseconds in 64 bits hold the years
//! 1678 to 2261, and other times written as INT96 ("for ever" as 9999-12-31) would wrap.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::cast_with_options;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaDataReader, RowGroupMetaData};
use tokio::runtime::Handle;
use windrow_core::{Error, Result};

use super::super::feed::read_ranges;
use super::super::location::Blob;
use crate::formats::convert::{NumberRules, STRICT};
use crate::formats::typed::{self, Place};

/// Bytes at the end of a file that are read first: most footers fit.
const TAIL_BYTES: u64 = 64 << 10;

/// A Parquet file whose footer has been read.
#[derive(Debug)]
pub(in super::super) struct ParquetFile {
    pub name: String,
    pub blob: Blob,
    pub metadata: ArrowReaderMetadata,
}

/// Reads the footer of a file.
///
/// # Errors
/// When it cannot be read or is not Parquet.
pub(in super::super) async fn read_footer(
    name: &str,
    blob: &Blob,
    size: u64,
    io: &Handle,
) -> Result<ParquetFile> {
    let mut start = size.saturating_sub(TAIL_BYTES);
    let metadata = loop {
        let tail = std::iter::once(start..size).collect();
        let bytes = read_ranges(name, blob, tail, io).await?;
        let tail = bytes.into_iter().next().unwrap_or_default();
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(&tail, size) {
            Ok(()) => break reader.finish().map_err(|e| damaged(name, e))?,
            Err(ParquetError::NeedMoreData(needed)) if start > 0 => {
                start = size.saturating_sub((needed as u64).max(2 * (size - start)));
            }
            Err(e) => return Err(damaged(name, e)),
        }
    };
    let metadata = Arc::new(metadata);
    let plain = ArrowReaderMetadata::try_new(Arc::clone(&metadata), ArrowReaderOptions::new())
        .map_err(|e| damaged(name, e))?;
    let leaves: Vec<PhysicalType> =
        plain.parquet_schema().columns().iter().map(|column| column.physical_type()).collect();
    let mut next = leaves.iter().copied();
    let exact: Vec<FieldRef> =
        plain.schema().fields().iter().map(|f| without_int96(f, &mut next)).collect();
    let viewed: Vec<Field> = exact.iter().map(|f| as_view(f)).collect();
    let with = |fields: Vec<FieldRef>| {
        let schema = Schema::new_with_metadata(fields, plain.schema().metadata().clone());
        let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
        ArrowReaderMetadata::try_new(Arc::clone(&metadata), options)
    };
    let metadata = match with(viewed.into_iter().map(Arc::new).collect()) {
        Ok(viewed) => viewed,
        Err(_) if leaves.contains(&PhysicalType::INT96) => {
            with(exact).map_err(|e| damaged(name, e))?
        }
        Err(_) => plain,
    };
    Ok(ParquetFile { name: name.to_owned(), blob: blob.clone(), metadata })
}

fn as_view(field: &Field) -> Field {
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => field.clone().with_data_type(DataType::Utf8View),
        DataType::Binary | DataType::LargeBinary => {
            field.clone().with_data_type(DataType::BinaryView)
        }
        _ => field.clone(),
    }
}

/// Returns the same field with microseconds where the file has INT96; `leaves` are the file's columns from this field's
/// first on.
fn without_int96(field: &FieldRef, leaves: &mut impl Iterator<Item = PhysicalType>) -> FieldRef {
    use DataType as T;
    let data_type = match field.data_type() {
        T::List(item) => T::List(without_int96(item, leaves)),
        T::LargeList(item) => T::LargeList(without_int96(item, leaves)),
        T::ListView(item) => T::ListView(without_int96(item, leaves)),
        T::LargeListView(item) => T::LargeListView(without_int96(item, leaves)),
        T::FixedSizeList(item, size) => T::FixedSizeList(without_int96(item, leaves), *size),
        T::Struct(fields) => T::Struct(fields.iter().map(|f| without_int96(f, leaves)).collect()),
        T::Map(entries, sorted) => T::Map(without_int96(entries, leaves), *sorted),
        leaf => match (leaves.next(), leaf) {
            (Some(PhysicalType::INT96), T::Timestamp(TimeUnit::Nanosecond, zone)) => {
                T::Timestamp(TimeUnit::Microsecond, zone.clone())
            }
            _ => return Arc::clone(field),
        },
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

pub(super) fn damaged(name: &str, e: ParquetError) -> Error {
    Error::data(format!("file \"{name}\" cannot be read as Parquet: {e}"))
        .with_hint("It is damaged, or it has another format; set format.")
        .with_source(e)
}

impl ParquetFile {
    /// Finds the declared columns in the file; `None` for a missing one.
    ///
    /// # Errors
    /// When one has a type that cannot be converted to the declared one, or is missing and declared NOT NULL.
    pub(in super::super) fn find_columns(
        &self,
        declared: &Schema,
        rules: &NumberRules,
    ) -> Result<Vec<Option<Place>>> {
        let of = format!("file \"{}\"", self.name);
        typed::find_columns(self.metadata.schema().fields(), declared, rules, &of)
    }

    /// The number of rows before each row group, and after the last.
    pub(in super::super) fn row_starts(&self) -> Vec<u64> {
        let mut starts = vec![0];
        let mut rows = 0;
        for group in self.metadata.metadata().row_groups() {
            rows += u64::try_from(group.num_rows()).unwrap_or(0);
            starts.push(rows);
        }
        starts
    }

    /// The compressed bytes of a row group.
    pub(in super::super) fn group_bytes(&self, row_group: usize) -> Option<u64> {
        let group = self.metadata.metadata().row_groups().get(row_group)?;
        u64::try_from(group.compressed_size()).ok()
    }

    /// Returns the smallest and largest value of a column in a row group, in the declared type, where the statistics
    /// have them.
    pub(super) fn range(
        &self,
        row_group: usize,
        place: Place,
        to: &DataType,
    ) -> Option<(ArrayRef, ArrayRef)> {
        let group = self.metadata.metadata().row_groups().get(row_group)?;
        let schema = self.metadata.schema();
        let name = schema.fields().get(place.root)?.name();
        let parquet = self.metadata.parquet_schema();
        let statistics = StatisticsConverter::try_new(name, schema, parquet).ok()?;
        let groups: [&RowGroupMetaData; 1] = [group];
        let (min, max) =
            (statistics.row_group_mins(groups).ok()?, statistics.row_group_maxes(groups).ok()?);
        let (min, max) = (place.convert(&min, to).ok()?, place.convert(&max, to).ok()?);
        (min.is_valid(0) && max.is_valid(0)).then_some((min, max))
    }

    /// Returns the smallest and largest event time of a row group in ticks, when they are exact.
    pub(in super::super) fn event_times(
        &self,
        row_group: usize,
        place: Place,
        to: &DataType,
    ) -> Option<(i64, i64)> {
        if !matches!(to, DataType::Timestamp(..)) {
            return None;
        }
        let schema = self.metadata.schema();
        let name = schema.fields().get(place.root)?.name();
        let parquet = self.metadata.parquet_schema();
        let statistics = StatisticsConverter::try_new(name, schema, parquet).ok()?;
        let group = self.metadata.metadata().row_groups().get(row_group)?;
        let exact = |flags: BooleanArray| flags.is_valid(0) && flags.value(0);
        let is_exact = exact(statistics.row_group_is_min_value_exact([group]).ok()?)
            && exact(statistics.row_group_is_max_value_exact([group]).ok()?);
        if !is_exact {
            return None;
        }
        let (min, max) = self.range(row_group, place, to)?;
        Some((ticks(&min)?, ticks(&max)?))
    }
}

/// Returns the first value of a timestamp array.
fn ticks(array: &ArrayRef) -> Option<i64> {
    let ticks = cast_with_options(array, &DataType::Int64, &STRICT).ok()?;
    let ticks = ticks.as_primitive_opt::<arrow::datatypes::Int64Type>()?;
    ticks.is_valid(0).then(|| ticks.value(0))
}
