//! What a message of Kafka carries besides its value.

use std::borrow::Cow;

use arrow::datatypes::TimeUnit;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};

use crate::broker::columns::{Carried, Carries, Metadata, Names, headers_json};

/// The names of it.
pub(super) const NAMES: Names = &[
    ("key", Metadata::Key),
    ("headers", Metadata::Headers),
    ("partition", Metadata::Partition),
    ("offset", Metadata::Offset),
    ("timestamp", Metadata::Timestamp),
    ("topic", Metadata::Topic),
];

impl Carries for BorrowedMessage<'_> {
    fn carried(&self, what: Metadata) -> Carried<'_> {
        match what {
            Metadata::Key => self.key().map_or(Carried::Nothing, Carried::Bytes),
            Metadata::Headers => self.headers().map_or(Carried::Nothing, |headers| {
                let all = headers.iter().map(|header| (header.key, header.value));
                Carried::Text(Cow::Owned(headers_json(all)))
            }),
            Metadata::Partition => Carried::Number(self.partition().into()),
            Metadata::Offset => Carried::Number(self.offset()),
            Metadata::Timestamp => {
                let millis = self.timestamp().to_millis();
                millis.map_or(Carried::Nothing, |t| Carried::Time(t, TimeUnit::Millisecond))
            }
            Metadata::Topic => Carried::Text(Cow::Borrowed(self.topic())),
            Metadata::Id => Carried::Nothing,
        }
    }
}
