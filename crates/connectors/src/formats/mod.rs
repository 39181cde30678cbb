//! The formats in which records are written: bytes become Arrow batches with exact types, and a bad record costs
//! itself alone. A connector brings the bytes and the offsets of the records; it knows nothing of what is in them.
//!
//! [`decode`] is the way of a run of records, with the decoders [`json`] and [`csv`]; [`mod@avro`] and
//! [`protobuf`] have their own, and [`typed`] makes rows of columns that have types. [`messages`] decodes what brokers send, each message one record;
//! [`body`], what comes in one request. [`convert`] is the exact conversion of text that all share, [`records`] finds where records of running text end, and [`settings`] are the options that all connectors
//! with a format have.

pub(crate) mod avro;
pub(crate) mod body;
pub(crate) mod convert;
pub(crate) mod csv;
pub(crate) mod decode;
pub(crate) mod json;
pub(crate) mod messages;
pub(crate) mod protobuf;
pub(crate) mod records;
pub(crate) mod settings;
pub(crate) mod typed;
