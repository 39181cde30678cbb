//! Messages of Protobuf, byte by byte.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Int32Type, TimestampMicrosecondType};
use prost_reflect::DescriptorPool;

use super::*;
use crate::formats::messages::{
    DecodedMessages, MessageDecoder, MessageFormat, MessageSettings, Messages, Tombstones,
};

const PROTO: &str = r#"
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Kind { UNKNOWN = 0; RED = 1; }
message Other { int32 a = 1; }
message Order {
  message Item { string name = 1; repeated int32 counts = 2; }
  int32 id = 1;
  optional string note = 2;
  Kind kind = 3;
  Item item = 4;
  map<string, int64> sizes = 5;
  oneof paid { bool cash = 6; bytes card = 7; }
  google.protobuf.Timestamp at = 8;
  google.protobuf.Int64Value big = 9;
  repeated Kind kinds = 10;
}
message Node { Node next = 1; }
"#;

fn pool() -> DescriptorPool {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("shop.proto"), PROTO).unwrap();
    protox::compile(["shop.proto"], [directory.path()])
        .map(|set| DescriptorPool::from_file_descriptor_set(set).unwrap())
        .unwrap()
}

fn described(is_framed: bool) -> Arc<Described> {
    let message = pool().get_message_by_name("shop.Order").unwrap();
    Arc::new(Described::new(message, is_framed).unwrap())
}

fn decode(described: &Arc<Described>, columns: SchemaRef, values: &[&[u8]]) -> DecodedMessages {
    let all = (0..columns.fields().len()).collect();
    let settings = MessageSettings {
        format: MessageFormat::Protobuf(Arc::clone(described)),
        declared: columns,
        rules: NumberRules::default(),
        on_bad: OnBadRow::DeadLetter,
        tombstones: Tombstones::Skip,
        row_bytes_max: 1_000_000,
    };
    settings.check().unwrap();
    let mut decoder = MessageDecoder::new(&settings, all, 100).unwrap();
    let mut messages = Messages::default();
    for (value, offset) in values.iter().zip((0..).map(|n| 10 + n)) {
        decoder.push(&mut messages, offset, Some(value));
    }
    let origin = Origin { kind: "partition", name: "t-0", unit: "offset" };
    decoder.decode(&messages, origin).unwrap()
}

#[test]
fn fields_are_columns() {
    let described = described(false);
    let all = Arc::clone(described.schema());
    let full: &[&[u8]] = &[
        &[0x08, 7, 0x12, 0, 0x18, 1],
        &[0x22, 7, 0x0a, 1, b'x', 0x12, 2, 1, 2],
        &[0x2a, 5, 0x0a, 1, b'k', 0x10, 5],
        &[0x3a, 1, 0xff],
        &[0x42, 5, 0x08, 1, 0x10, 0xe8, 0x07],
        &[0x4a, 2, 0x08, 9],
        &[0x52, 2, 1, 99],
    ];
    let read = decode(&described, all, &[&full.concat(), b""]);
    assert_eq!(read.bad.iter().map(|b| b.reason.as_str()).collect::<Vec<_>>(), [""; 0]);
    let rows = &read.rows;
    assert_eq!(rows.column(0).as_primitive::<Int32Type>().values(), &[7, 0]);
    assert_eq!(rows.column(1).as_string_view().iter().collect::<Vec<_>>(), [Some(""), None]);
    assert_eq!(rows.column(2).as_string_view().value(0), "RED");
    assert_eq!(rows.column(2).as_string_view().value(1), "UNKNOWN");
    let item = rows.column(3).as_struct();
    assert_eq!((item.is_null(1), item.column(0).as_string_view().value(0)), (true, "x"));
    assert_eq!(rows.column(4).as_map().value_length(0), 1);
    assert_eq!(rows.column(5).null_count(), 2);
    assert_eq!(rows.column(6).as_binary::<i32>().value(0), b"\xff");
    let at = rows.column(7).as_primitive::<TimestampMicrosecondType>();
    assert_eq!((at.value(0), at.is_null(1)), (1_000_001, true));
    assert_eq!(rows.column(8).null_count(), 1);
    let kinds = rows.column(9).as_list::<i32>().value(0);
    assert_eq!(kinds.as_string_view().iter().collect::<Vec<_>>(), [Some("RED"), Some("99")]);
}

#[test]
fn a_bad_message_costs_itself_alone() {
    let columns = Arc::new(Schema::new(vec![Field::new("id", DataType::Int8, true)]));
    let values: &[&[u8]] = &[
        &[0x08, 0x01],
        &[0x08],
        &[0x12, 0x01, 0xff],
        &[0x08, 0x80, 0x01],
        b"{\"id\": 1}",
        &[0x42, 0x02, 0x10, 0x80],
        &[0x42, 0x06, 0x10, 0x80, 0x94, 0xeb, 0xdc, 0x03],
        &[0x08, 0x02],
    ];
    let read = decode(&described(false), columns, values);
    assert_eq!(read.offsets, [10, 17]);
    let bad: Vec<u64> = read.bad.iter().map(|bad| bad.offset).collect();
    assert_eq!(bad.len(), 6, "{:?}", read.bad);
    assert!(read.bad.iter().any(|bad| bad.reason == "column \"id\": '128' is not TINYINT"));
}

#[test]
fn what_is_before_messages_is_compared() {
    let columns = Arc::new(Schema::new(vec![Field::new("id", DataType::Int32, true)]));
    let values: &[&[u8]] = &[
        &[0, 0, 0, 0, 9, 2, 2, 0x08, 0x01],
        &[0, 0, 0, 0, 9, 0, 0x08, 0x02],
        &[1, 0, 0, 0, 9, 2, 2, 0x08, 0x03],
        &[0, 0, 0, 0, 9, 4, 2, 0, 0x08, 0x04],
        &[0, 0, 0],
        &[0, 0, 0, 0, 9, 2, 2],
    ];
    let read = decode(&described(true), columns, values);
    assert_eq!(read.offsets, [10, 15]);
    assert!(read.bad[0].reason.contains("[0]") && read.bad[0].reason.contains("[1]"));
}

#[test]
fn messages_that_contain_themselves_are_refused() {
    let node = pool().get_message_by_name("shop.Node").unwrap();
    assert!(Described::new(node, false).unwrap_err().contains("contains itself"));
}
