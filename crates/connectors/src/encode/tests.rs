//! Tests of the formats in which sinks write: what is written is read back by other readers.

use std::io::Read;

use arrow::array::{ArrayRef, DictionaryArray, Float64Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, IntervalUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn rows() -> RecordBatch {
    let words: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
    RecordBatch::try_from_iter_with_nullable(vec![
        (
            "n",
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])) as ArrayRef,
            true,
        ),
        ("s", Arc::new(StringArray::from(vec![Some("ä,\"\n"), Some(""), None])), true),
        ("x", Arc::new(Float64Array::from(vec![Some(0.1), Some(-0.0), None])), true),
        ("w", Arc::new(words), true),
    ])
    .unwrap()
}

fn encoded(encoding: &Encoding, batches: &[RecordBatch]) -> Bytes {
    let mut encoder = encoding.begin(&rows().schema()).unwrap();
    for batch in batches {
        encoder.write(batch).unwrap();
    }
    encoder.finish().unwrap()
}

fn csv() -> CsvStyle {
    CsvStyle { delimiter: b',', header: true, null: "NULL".into() }
}

#[test]
fn json_has_all_keys_and_limits() {
    let text = encoded(&Encoding::Json(Packing::Plain), &[rows().slice(0, 1), rows().slice(1, 2)]);
    let expected = "{\"n\":-9223372036854775808,\"s\":\"ä,\\\"\\n\",\"x\":0.1,\"w\":\"a\"}\n\
                    {\"n\":null,\"s\":\"\",\"x\":-0.0,\"w\":null}\n\
                    {\"n\":9223372036854775807,\"s\":null,\"x\":null,\"w\":\"a\"}\n";
    assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
    let lines = json_lines(&rows()).unwrap();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1], "{\"n\":null,\"s\":\"\",\"x\":-0.0,\"w\":null}");
}

#[test]
fn csv_has_one_header_in_a_file() {
    let batches = [rows().slice(0, 1), rows().slice(1, 2)];
    let text = encoded(&Encoding::Csv(csv(), Packing::Plain), &batches);
    let expected = "n,s,x,w\n-9223372036854775808,\"ä,\"\"\n\",0.1,a\nNULL,,-0.0,NULL\n9223372036854775807,NULL,NULL,a\n";
    assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
}

#[test]
fn compressed_text_is_the_same_text() {
    let batches = [rows(), rows()];
    let plain = encoded(&Encoding::Json(Packing::Plain), &batches);
    let gzip = encoded(&Encoding::Json(Packing::Gzip), &batches);
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain);
    let zstd = encoded(&Encoding::Json(Packing::Zstd), &batches);
    assert_eq!(zstd::decode_all(&zstd[..]).unwrap(), plain);
}

#[test]
fn parquet_has_the_same_rows() {
    for (_, packing) in ParquetPacking::WORDS {
        let file = encoded(&Encoding::Parquet(*packing), &[rows(), rows()]);
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let read: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        assert_eq!(
            read,
            [arrow::compute::concat_batches(&rows().schema(), &[rows(), rows()]).unwrap()]
        );
    }
}

#[test]
fn a_type_that_a_format_lacks_is_refused_at_once() {
    let list = DataType::new_list(DataType::Int64, true);
    let schema =
        Schema::new(vec![Field::new("a", DataType::Int64, false), Field::new("l", list, false)]);
    let error = Encoding::Csv(csv(), Packing::Plain).check(&schema).unwrap_err();
    assert!(error.message().starts_with("column \"l\" has the type"), "{error}");
    Encoding::Json(Packing::Plain).check(&schema).unwrap();
    Encoding::Parquet(ParquetPacking::Zstd).check(&schema).unwrap();
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    let schema = Schema::new(vec![Field::new("i", interval, true)]);
    assert!(Encoding::Parquet(ParquetPacking::Zstd).check(&schema).is_err());
    let avro = Encoding::Avro(AvroPacking::Deflate);
    assert!(avro.check(&schema).unwrap_err().message().contains("INTERVAL"));
    let schema = Schema::new(vec![Field::new("n of it", DataType::Int64, true)]);
    let error = avro.check(&schema).unwrap_err();
    assert_eq!(error.message(), "column \"n of it\" has a name that Avro does not allow");
}

#[test]
fn avro_has_the_same_rows() {
    let columns: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("s", DataType::Utf8View, true),
        Field::new("x", DataType::Float64, true),
        Field::new("w", DataType::Utf8View, true),
    ]));
    for (word, packing) in AvroPacking::WORDS {
        let file = encoded(&Encoding::Avro(*packing), &[rows(), rows().slice(0, 0), rows()]);
        let read = crate::decode_records(&file, crate::RecordFormat::Avro, &columns).unwrap();
        let both = arrow::compute::concat_batches(&rows().schema(), &[rows(), rows()]).unwrap();
        assert_eq!((read.rows.num_rows(), read.bad.len()), (6, 0), "{word}");
        for (read, written) in read.rows.columns().iter().zip(both.columns()) {
            let written = arrow::compute::cast(written, read.data_type()).unwrap();
            assert_eq!(read, &written);
        }
    }
}
