//! A model that is ready to compute.
//!
//! Invariant: what was loaded computes any number of rows: it has been tried on two numbers of them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StructArray, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{Framework as _, InferenceModelExt as _, TValue, TypedRunnableModel};
use tract_onnx::tract_hir::internal::{InferenceModel, IntoRunnable as _};
use windrow_core::limits::MODEL_BYTES_MAX;
use windrow_core::{Error, ErrorKind, Result, budget};

use crate::columns::{Values, tensor};
use crate::failure::failed;
use crate::file::decoded;
use crate::ops::operators;
use crate::signature::{Input, Output, fields, listed};

/// Rows that are computed at once: enough that the work per run does not count, and few enough that what is computed in between
/// stays small.
const ROWS_AT_ONCE: usize = 4096;
/// The numbers of rows that a model is tried on when it is loaded.
const TRIED_ON: [usize; 2] = [2, 3];
/// A model: a function of columns.
pub struct Model {
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    producer: String,
    plan: Arc<TypedRunnableModel>,
}

impl Model {
    /// Loads a model from the bytes of an ONNX file.
    ///
    /// # Errors
    /// [`ErrorKind::Data`] when it is not one, has operators, types or shapes that are not supported, or does not compute;
    /// [`ErrorKind::Limit`] when it is larger than [`MODEL_BYTES_MAX`].
    pub fn load(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MODEL_BYTES_MAX {
            let message = format!(
                "the model has {} bytes, at most {MODEL_BYTES_MAX} are supported",
                bytes.len()
            );
            return Err(Error::new(ErrorKind::Limit, message)
                .with_hint("Train a smaller one: fewer trees or layers."));
        }
        caught(|| Self::loaded(bytes))
    }

    fn loaded(bytes: &[u8]) -> Result<Self> {
        // What a file says about shapes in between is often about batches of one row.
        let onnx = operators().with_ignore_output_shapes(true).with_ignore_value_info(true);
        let file = decoded(&onnx, bytes)?;
        let mut graph = onnx.model_for_proto_model(&file).map_err(|e| failed(&e))?;
        let inputs = inputs(&mut graph)?;
        let rows = graph.symbols.sym(ROWS);
        let typed = graph.into_optimized().map_err(|e| failed(&e))?;
        let mut outputs = vec![];
        for (at, output) in file.graph.iter().flat_map(|graph| &graph.output).enumerate() {
            let fact = typed.output_fact(at).map_err(|e| failed(&e))?;
            outputs.push(Output::of(&output.name, fact, &rows)?);
        }
        let plan = typed.into_runnable().map_err(|e| failed(&e))?;
        let model = Self { inputs, outputs, producer: producer(&file), plan };
        for rows in TRIED_ON {
            let columns: Vec<ArrayRef> =
                model.arguments().iter().map(|a| default_values(a.data_type(), rows)).collect();
            model.computed(&columns, rows, None)?;
        }
        Ok(model)
    }

    /// Returns the inputs, in order.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Returns the outputs, in order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Returns the program that wrote the file, and its version; empty: unknown.
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// Returns the columns that it takes: the inputs in order, an input of several columns with a number for each.
    pub fn arguments(&self) -> Vec<Field> {
        let each = |input: &Input| -> Vec<Field> {
            let field = |name: String| Field::new(name, input.data_type.clone(), true);
            match input.columns() {
                1 => vec![field(input.name.clone())],
                many => (1..=many).map(|at| field(format!("{}[{at}]", input.name))).collect(),
            }
        };
        self.inputs.iter().flat_map(each).collect()
    }

    /// Returns the type of its result: that of the output, or a struct with the names of several.
    pub fn returns(&self) -> DataType {
        match self.outputs.as_slice() {
            [output] => output.column_type(),
            outputs => DataType::Struct(fields(outputs)),
        }
    }

    /// Computes the result for each row of columns that have the types of [`arguments`](Self::arguments). A row with a NULL in
    /// any column has the result NULL.
    ///
    /// # Errors
    /// When the model cannot compute them; [`ErrorKind::Cancelled`] and [`ErrorKind::Limit`] as the budget of the statement says.
    pub fn predict(&self, columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let types = self.arguments();
        let fits = types.len() == columns.len()
            && types.iter().zip(columns).all(|(field, column)| {
                field.data_type() == column.data_type() && column.len() == rows
            });
        if !fits {
            return Err(Error::internal(format!("a model takes ({})", listed(&types))));
        }
        let nulls = columns.iter().fold(None, |nulls: Option<NullBuffer>, column| {
            NullBuffer::union(nulls.as_ref(), column.logical_nulls().as_ref())
        });
        if nulls.as_ref().is_some_and(|nulls| nulls.null_count() == rows) {
            return Ok(new_null_array(&self.returns(), rows));
        }
        caught(|| self.computed(columns, rows, nulls))
    }

    fn computed(
        &self,
        columns: &[ArrayRef],
        rows: usize,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef> {
        let mut values: Vec<Values> = self.outputs.iter().map(Values::of).collect();
        let mut start = 0;
        while start < rows {
            budget::check(0)?;
            let count = ROWS_AT_ONCE.min(rows - start);
            let mut rest = columns;
            let mut tensors: Vec<TValue> = vec![];
            for input in &self.inputs {
                let (own, others) = rest.split_at(input.columns());
                tensors.push(tensor(input, own, start, count)?);
                rest = others;
            }
            let results = self.plan.run(tensors.into()).map_err(|e| failed(&e))?;
            for ((values, output), result) in
                values.iter_mut().zip(&self.outputs).zip(results.iter())
            {
                values.add(result, count * output.list.unwrap_or(1))?;
            }
            start += count;
        }
        let several = values.len() > 1;
        let column = |(values, output): (Values, &Output)| values.column(output, nulls.clone());
        let mut columns: Vec<ArrayRef> =
            values.into_iter().zip(&self.outputs).map(column).collect::<Result<_>>()?;
        match columns.pop() {
            Some(only) if !several => Ok(only),
            last => {
                columns.extend(last);
                Ok(Arc::new(StructArray::try_new(fields(&self.outputs), columns, nulls)?))
            }
        }
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

/// The symbol of the number of rows.
const ROWS: &str = "windrow_rows";

/// Returns the inputs of a graph, and makes each take any number of rows.
fn inputs(graph: &mut InferenceModel) -> Result<Vec<Input>> {
    let rows = graph.symbols.sym(ROWS);
    let outlets = graph.input_outlets().map_err(|e| failed(&e))?.to_vec();
    let mut inputs = vec![];
    for (at, outlet) in outlets.iter().enumerate() {
        let name = graph.node(outlet.node).name.clone();
        let input = Input::of(&name, graph.input_fact(at).map_err(|e| failed(&e))?)?;
        let fact = input.fact(&rows).ok_or_else(|| Error::internal("a type has no tensor"))?;
        graph.set_input_fact(at, fact).map_err(|e| failed(&e))?;
        inputs.push(input);
    }
    match inputs.is_empty() {
        true => Err(Error::data("the model has no inputs")),
        false => Ok(inputs),
    }
}

fn producer(file: &ModelProto) -> String {
    format!("{} {}", file.producer_name, file.producer_version).trim().to_owned()
}

/// A column of zeros, empty texts or falsehood.
fn default_values(data_type: &DataType, rows: usize) -> ArrayRef {
    use arrow::array::{
        BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array, StringArray,
    };
    match data_type {
        DataType::Float32 => Arc::new(Float32Array::from(vec![0.0; rows])),
        DataType::Float64 => Arc::new(Float64Array::from(vec![0.0; rows])),
        DataType::Int32 => Arc::new(Int32Array::from(vec![0; rows])),
        DataType::Boolean => Arc::new(BooleanArray::from(vec![false; rows])),
        DataType::Utf8 => Arc::new(StringArray::from(vec![""; rows])),
        _ => Arc::new(Int64Array::from(vec![0; rows])),
    }
}

/// Makes an error of a panic of the library.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let why = Error::panicked("the model", &*panic);
        Err(Error::data("the model cannot be computed").with_detail(why.message().to_owned()))
    })
}

#[cfg(test)]
mod tests;
