//! Columns that have types already (Parquet, Avro, Protobuf) as those of a stream: [`columns`] maps and converts them,
//! [`unfit`] finds the rows that have values which do not fit, [`rows`] has both together, and [`messages`] is the way from
//! messages to rows.

mod columns;
mod messages;
mod rows;
mod unfit;

pub(crate) use self::columns::{Place, Union, find_columns};
pub(crate) use self::messages::{DecodeRecords, Same, Wrong, decode_messages, refuse_all};
pub(crate) use self::rows::Typed;
pub(crate) use self::unfit::{Fitting, fitting, misfits, shown};
