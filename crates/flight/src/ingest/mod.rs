//! Rows that come in over DoPut.
//!
//! ```text
//! FlightData ─► decode ─► columns of the stream ─► write-ahead log ─► PutResult
//!    ▲                    └──── engine's threads ┘   (groups, fsync)      │
//!    └── the next batch is read while few wait for the log ◄──────────────┘
//! ```
//! `put.rs` answers each batch by its sequence; `bulk.rs` is `adbc_ingest`, which is answered once;
//! `declare.rs` makes the stream that it may ask for.
//!
//! Invariants: a batch is in the stream wholly or not at all; batches enter in the order in which they
//! come; behind one that is refused none is taken; a sender that is too fast waits (HTTP/2 flow
//! control).

mod bulk;
mod declare;
mod put;

pub(crate) use bulk::bulk;
pub(crate) use put::put;

use arrow_flight::FlightDescriptor;
use arrow_flight::decode::FlightDataDecoder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use futures::TryStreamExt;
use windrow_core::{Error, Result};

use crate::status::{from_status, too_long};

/// The one catalog and schema that there are.
const PLACES: [&str; 2] = ["datafusion", "public"];

/// The messages, decoded.
fn decoded(data: PeekableFlightDataStream) -> FlightDataDecoder {
    FlightDataDecoder::new(data.map_err(|status| FlightError::Tonic(Box::new(status))))
}

/// What is wrong with the messages of a sender.
fn unreadable(error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => too_long(&status).unwrap_or_else(|| from_status(&status)),
        error => Error::data(format!("the batches cannot be read: {error}")).with_source(error),
    }
}

/// The stream that a path names: `[stream]`, or with catalog and schema before it.
fn stream_of(descriptor: &FlightDescriptor) -> Result<String> {
    let [places @ .., name] = descriptor.path.as_slice() else {
        return Err(Error::data("the descriptor of a DoPut names no stream").with_hint(
            "Give it a path of one part, the stream: FlightDescriptor.for_path(\"s\").",
        ));
    };
    let wanted = PLACES.get(PLACES.len().saturating_sub(places.len())..).unwrap_or_default();
    if places == wanted {
        return Ok(name.clone());
    }
    Err(Error::data(format!("there is no place \"{}\" for streams", places.join("."))).with_hint(
        "The path is the name of the stream. The one catalog is \"datafusion\", its schema \"public\".",
    ))
}
