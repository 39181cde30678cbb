//! Results, and files that are no models. `tests/models/make.py` makes the files.

use arrow::array::{AsArray, Float32Array, Int64Array};
use arrow::datatypes::Float32Type;

use super::*;

const LINEAR: &[u8] = include_bytes!("../../../../tests/models/linear.onnx");
const STUMP: &[u8] = include_bytes!("../../../../tests/models/stump.onnx");
const TWO: &[u8] = include_bytes!("../../../../tests/models/two.onnx");
const FIXED: &[u8] = include_bytes!("../../../../tests/models/fixed.onnx");

fn floats(values: impl IntoIterator<Item = Option<f32>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Float32Array>())
}

fn values(array: &ArrayRef) -> Vec<Option<f32>> {
    array.as_primitive::<Float32Type>().iter().collect()
}

#[test]
fn inputs_and_outputs_are_columns() {
    let two = Model::load(TWO).unwrap();
    let names: Vec<_> = two.arguments().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["x", "counts[1]", "counts[2]"]);
    let counts = |n: [i64; 2]| Arc::new(Int64Array::from(n.to_vec())) as ArrayRef;
    let columns = [floats([Some(0.5), Some(1.0)]), counts([1, 2]), counts([10, 20])];
    assert_eq!(values(&two.predict(&columns, 2).unwrap()), [Some(11.5), Some(23.0)]);
    assert_eq!(two.producer(), "make.py");

    let stump = Model::load(STUMP).unwrap();
    let result = stump.predict(&[floats([Some(5.0), Some(5.5), None, Some(f32::NAN)])], 4).unwrap();
    assert_eq!(result.data_type(), &stump.returns());
    let labels: Vec<_> = result.as_struct().column(0).as_string::<i32>().iter().collect();
    // NaN does not pass a condition.
    assert_eq!(labels, [Some("low"), Some("high"), None, Some("high")]);
}

/// More rows than are computed at once, NULL at the edges, no rows, nothing but NULL.
#[test]
fn every_row_is_computed_by_itself() {
    for bytes in [LINEAR, FIXED] {
        let model = Model::load(bytes).unwrap();
        let rows = 2 * ROWS_AT_ONCE + 3;
        let is_null = |row: usize| row % ROWS_AT_ONCE == 1;
        let a = floats((0..rows).map(|row| (!is_null(row)).then_some(row as f32)));
        let b = floats((0..rows).map(|row| (row != 5).then_some(1.0)));
        let expected =
            (0..rows).map(|row| (!is_null(row) && row != 5).then_some(2.0 * row as f32 + 4.0));
        let expected: Vec<_> = expected.collect();
        let all = model.predict(&[Arc::clone(&a), Arc::clone(&b)], rows).unwrap();
        assert_eq!(values(&all), expected);
        let part = model.predict(&[a.slice(4095, 3), b.slice(4095, 3)], 3).unwrap();
        assert_eq!(values(&part), expected[4095..4098]);
        let none = [floats([]), floats([])];
        assert_eq!(model.predict(&none, 0).unwrap().len(), 0);
        let null = [floats([None]), floats([Some(1.0)])];
        assert_eq!(values(&model.predict(&null, 1).unwrap()), [None]);
    }
}

#[test]
fn columns_of_other_types_are_a_bug_of_the_caller() {
    let model = Model::load(LINEAR).unwrap();
    let error = model.predict(&[floats([Some(1.0)])], 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

/// Whatever is in a file, the answer is a model or an error.
#[test]
fn damaged_files_are_errors() {
    for bytes in [LINEAR, STUMP, TWO] {
        for length in 0..bytes.len() {
            if let Err(error) = Model::load(&bytes[..length]) {
                assert_eq!(error.kind(), ErrorKind::Data, "{length}: {error}");
            }
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << (at % 8);
            if let Err(error) = Model::load(&damaged) {
                assert_eq!(error.kind(), ErrorKind::Data, "{at}: {error}");
            }
        }
    }
    let large = vec![0; MODEL_BYTES_MAX + 1];
    assert_eq!(Model::load(&large).unwrap_err().kind(), ErrorKind::Limit);
}
