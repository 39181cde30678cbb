//! Rows received over DoPut.
//!
//! ```text
//! FlightData ─► decode ─► columns of the stream ─► write-ahead log ─► PutResult
//!    ▲                    └──── engine's threads ┘   (groups, fsync)      │
//!    └── the next batch is read while few wait for the log ◄──────────────┘
//! ```
//! `put.rs` answers each batch by its sequence; `bulk.rs` is `adbc_ingest`, which is answered once; `declare.rs`
//! creates the stream that it may request.
//!
//! Invariants: a batch is in the stream wholly or not at all; batches enter in the order in which they arrive; none is
//! accepted after one that is refused; a sender that is too fast waits (HTTP/2 flow control).

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

/// The only catalog and schema.
const PLACES: [&str; 2] = ["datafusion", "public"];

/// Decodes the messages.
fn decoded(data: PeekableFlightDataStream) -> FlightDataDecoder {
    FlightDataDecoder::new(data.map_err(|status| FlightError::Tonic(Box::new(status))))
}

/// Returns the error for messages that cannot be decoded.
fn unreadable(error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => too_long(&status).unwrap_or_else(|| from_status(&status)),
        error => Error::data(format!("the batches cannot be read: {error}")).with_source(error),
    }
}

/// Returns the stream that a path names: `[stream]`, or with catalog and schema before it.
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
