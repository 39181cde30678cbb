//! Typed input (Parquet, Avro, Protobuf) as columns of a stream: [`columns`] maps and converts columns, [`unfit`] finds rows
//! with values that do not fit, [`rows`] combines both, and [`messages`] decodes messages to rows.
//!
//! Invariant: all declared columns are converted, so whether a row is bad does not depend on the columns that a query reads.

mod columns;
mod messages;
mod rows;
mod unfit;

pub(crate) use self::columns::{Place, Union, find_columns};
pub(crate) use self::messages::{DecodeRecords, Same, Wrong, decode_messages, refuse_all};
pub(crate) use self::rows::Typed;
pub(crate) use self::unfit::{Fitting, fitting, misfits, shown};
