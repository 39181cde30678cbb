//! The specification of a window operator: the contract between the planner, the workers and the merger.
//!
//! Invariant: an [`OperatorSpec`] or a [`SessionOperatorSpec`] exists only when its columns exist, its time column is a
//! timestamp and its aggregates can be built.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::logical_expr::GroupsAccumulator;
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::Column;
use windrow_core::{Error, Result, SessionSpec, WindowKind, WindowSpec, time};

use crate::failure;
use crate::row_ends::RowEnds;
use crate::slicing::Slicing;

/// An operator of aligned windows: which windows, over which column, and what is computed from the rows.
///
/// All expressions have been evaluated by the prepare plan: the columns named here are plain columns of the prepared
/// batch.
#[derive(Debug, Clone)]
pub struct OperatorSpec {
    window: WindowSpec,
    slicing: Slicing,
    columns: Arc<Columns>,
    row_ends: Option<RowEnds>,
}

/// An operator of sessions: like [`OperatorSpec`], with the columns of the session keys.
///
/// Its watermark is one tick behind that of its input, since a row that is exactly one gap after the last one still
/// joins: a session closes when the watermark of its input is *after* its end. A row is late if and only if its time is
/// before the watermark; no row is partly late.
#[derive(Debug, Clone)]
pub struct SessionOperatorSpec {
    session: SessionSpec,
    keys: Vec<usize>,
    slicing: Slicing,
    columns: Arc<Columns>,
}

/// The columns that an operator reads, holds and returns, for tables of groups.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    time: usize,
    input_schema: SchemaRef,
    mode: Mode,
    layout: Layout,
    key_schema: SchemaRef,
    /// The aggregates that are held per group.
    calls: Vec<AggregateCall>,
    /// Whether it is an operator of sessions: groups hold their first and last time, and rows are held per group too.
    session: bool,
    output_schema: SchemaRef,
    time_type: (TimeUnit, Option<Arc<str>>),
}

/// The columns that aggregates read, without the others, so that only these are copied.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    /// Columns of the prepared batch, each once.
    pub(crate) columns: Vec<usize>,
    /// Positions of the keys in `columns`.
    pub(crate) keys: Vec<usize>,
    /// Per aggregate: positions of the arguments in `columns`.
    pub(crate) arguments: Vec<Vec<usize>>,
    /// Per aggregate: position of the filter in `columns`.
    pub(crate) filters: Vec<Option<usize>>,
    /// Position of the event time in `columns`, if groups hold their first and last one.
    pub(crate) time: Option<usize>,
    /// The arguments of the only aggregate are packed into a struct of these fields: whole rows.
    pub(crate) packed: Option<Fields>,
}

impl Layout {
    fn new(keys: &[usize], calls: &[AggregateCall]) -> Self {
        let mut layout = Self::default();
        layout.keys = keys.iter().map(|c| layout.place(*c)).collect();
        for call in calls {
            let arguments = call.arguments.iter().map(|c| layout.place(*c)).collect();
            layout.arguments.push(arguments);
            let filter = call.filter.map(|c| layout.place(c));
            layout.filters.push(filter);
        }
        layout
    }

    fn place(&mut self, column: usize) -> usize {
        self.columns.iter().position(|c| *c == column).unwrap_or_else(|| {
            self.columns.push(column);
            self.columns.len() - 1
        })
    }
}

/// What is computed from the rows of a window.
#[derive(Debug, Clone)]
pub enum Mode {
    /// One row per group.
    Aggregate {
        /// Columns of the user's keys; may be empty (one group).
        keys: Vec<usize>,
        /// GROUPING SETS, CUBE, ROLLUP over `keys`.
        grouping_sets: Option<GroupingSets>,
        /// The aggregates, in order of output.
        aggregates: Vec<AggregateCall>,
    },
    /// All rows, unchanged.
    Rows,
}

/// One aggregate call over plain columns.
#[derive(Debug, Clone)]
pub struct AggregateCall {
    /// The function, built over the *coerced* argument types. Its name is the output column's.
    pub function: Arc<AggregateFunctionExpr>,
    /// Columns of the arguments, then of the ORDER BY inside the call if the function depends on the order. `count(*)`
    /// needs a column that is never NULL; the time column is one, and costs nothing.
    pub arguments: Vec<usize>,
    /// A boolean column: only rows where it is true count (FILTER).
    pub filter: Option<usize>,
}

/// GROUPING SETS: each row counts once in every set.
#[derive(Debug, Clone)]
pub struct GroupingSets {
    masks: Vec<Vec<bool>>,
    ids: Vec<u64>,
    id_field: FieldRef,
}

impl GroupingSets {
    /// Creates the sets from masks over the keys: `true` means that the key is NULL in that set. The grouping id is
    /// DataFusion's `__grouping_id`, with the same values and type.
    ///
    /// # Errors
    /// When the id does not fit into 64 bits.
    pub fn try_new(masks: Vec<Vec<bool>>) -> Result<Self> {
        let keys = masks.first().map_or(0, Vec::len);
        if masks.is_empty() || masks.iter().any(|m| m.len() != keys) {
            return Err(Error::internal("grouping sets of different lengths"));
        }
        let ordinals: Vec<usize> = masks
            .iter()
            .enumerate()
            .map(|(i, mask)| masks.iter().take(i).filter(|m| *m == mask).count())
            .collect();
        let ordinal_max = ordinals.iter().copied().max().unwrap_or(0);
        let bits = keys + (usize::BITS - ordinal_max.leading_zeros()) as usize;
        let id_type = match bits {
            0..=8 => DataType::UInt8,
            9..=16 => DataType::UInt16,
            17..=32 => DataType::UInt32,
            33..=64 => DataType::UInt64,
            _ => {
                return Err(Error::sql("the grouping sets have more than 64 columns")
                    .with_hint("Group by fewer columns."));
            }
        };
        let ids = masks
            .iter()
            .zip(&ordinals)
            .map(|(mask, ordinal)| {
                let nulls = mask.iter().fold(0_u64, |id, null| (id << 1) | u64::from(*null));
                nulls
                    | (*ordinal as u64).checked_shl(u32::try_from(keys).unwrap_or(64)).unwrap_or(0)
            })
            .collect();
        let id_field = Arc::new(Field::new(
            datafusion::logical_expr::Aggregate::INTERNAL_GROUPING_ID,
            id_type,
            false,
        ));
        Ok(Self { masks, ids, id_field })
    }

    /// Per set: which keys are NULL.
    pub fn masks(&self) -> &[Vec<bool>] {
        &self.masks
    }

    /// Per set: its grouping id.
    pub(crate) fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Name and type of the grouping id.
    pub fn id_field(&self) -> &FieldRef {
        &self.id_field
    }
}

impl Columns {
    fn try_new(time: usize, input_schema: SchemaRef, mode: Mode) -> Result<Self> {
        let time_type = match field(&input_schema, time)?.data_type() {
            DataType::Timestamp(unit, zone) => (*unit, zone.clone()),
            other => {
                return Err(Error::internal(format!(
                    "the time column \"{}\" of a window is {other}",
                    input_schema.field(time).name()
                )));
            }
        };
        let mut fields = match &mode {
            Mode::Rows => input_schema.fields().to_vec(),
            Mode::Aggregate { keys, grouping_sets, aggregates } => {
                check_aggregates(&input_schema, aggregates)?;
                let mut fields = key_fields(&input_schema, keys, grouping_sets.as_ref())?;
                fields.extend(aggregates.iter().map(|call| call.function.field()));
                fields
            }
        };
        let bound = DataType::Timestamp(time_type.0, time_type.1.clone());
        for name in ["window_start", "window_end", "window_time"] {
            fields.push(Arc::new(Field::new(name, bound.clone(), false)));
        }
        let (keys, calls) = match &mode {
            Mode::Rows => (&[][..], vec![]),
            Mode::Aggregate { keys, aggregates, .. } => (&keys[..], aggregates.clone()),
        };
        let keys_len = match &mode {
            Mode::Rows => 0,
            Mode::Aggregate { .. } => fields.len() - 3 - calls.len(),
        };
        let key_schema = Arc::new(Schema::new(fields[..keys_len].to_vec()));
        Ok(Self {
            time,
            layout: Layout::new(keys, &calls),
            key_schema,
            calls,
            session: false,
            input_schema,
            mode,
            output_schema: Arc::new(Schema::new(fields)),
            time_type,
        })
    }

    /// Groups over all rows, without windows and times. `count(*)` reads column 0, which is never NULL.
    pub(crate) fn of_all_rows(
        input_schema: SchemaRef,
        keys: Vec<usize>,
        grouping_sets: Option<GroupingSets>,
        aggregates: Vec<AggregateCall>,
    ) -> Result<Self> {
        check_aggregates(&input_schema, &aggregates)?;
        let mut fields = key_fields(&input_schema, &keys, grouping_sets.as_ref())?;
        let key_schema = Arc::new(Schema::new(fields.clone()));
        fields.extend(aggregates.iter().map(|call| call.function.field()));
        Ok(Self {
            time: 0,
            layout: Layout::new(&keys, &aggregates),
            key_schema,
            calls: aggregates.clone(),
            session: false,
            input_schema,
            mode: Mode::Aggregate { keys, grouping_sets, aggregates },
            output_schema: Arc::new(Schema::new(fields)),
            time_type: (TimeUnit::Microsecond, None),
        })
    }

    /// Converts to sessions of `keys`: groups also hold their first and last time, and their rows if slices hold rows.
    fn of_sessions(mut self, keys: &[usize]) -> Result<Self> {
        if matches!(self.mode, Mode::Rows) {
            let fields = key_fields(&self.input_schema, keys, None)?;
            self.key_schema = Arc::new(Schema::new(fields));
            self.calls = vec![row_call(&self.input_schema)?];
            self.layout = Layout::new(keys, &self.calls);
            self.layout.packed = Some(self.input_schema.fields().clone());
        }
        self.layout.time = Some(self.layout.place(self.time));
        self.session = true;
        Ok(self)
    }

    /// The time column: a timestamp, never NULL.
    pub(crate) fn time(&self) -> usize {
        self.time
    }

    /// Unit and zone of the bounds.
    pub(crate) fn time_type(&self) -> &(TimeUnit, Option<Arc<str>>) {
        &self.time_type
    }

    /// What is computed from the rows.
    pub(crate) fn mode(&self) -> &Mode {
        &self.mode
    }

    /// The columns of a prepared batch.
    pub(crate) fn input_schema(&self) -> &SchemaRef {
        &self.input_schema
    }

    /// As [`OperatorSpec::output_schema`].
    pub(crate) fn output_schema(&self) -> &SchemaRef {
        &self.output_schema
    }

    /// The columns that the aggregates read.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The aggregates that are held per group; none if rows are held unchanged.
    pub(crate) fn calls(&self) -> &[AggregateCall] {
        &self.calls
    }

    /// Whether slices hold rows unchanged, without groups.
    pub(crate) fn holds_rows(&self) -> bool {
        matches!(self.mode, Mode::Rows) && !self.session
    }

    /// Whether groups hold their first and last time.
    pub(crate) fn holds_extents(&self) -> bool {
        self.session
    }

    /// The grouping sets, if any.
    pub(crate) fn grouping_sets(&self) -> Option<&GroupingSets> {
        match &self.mode {
            Mode::Aggregate { grouping_sets, .. } => grouping_sets.as_ref(),
            Mode::Rows => None,
        }
    }

    /// Names and types of the keys, including the grouping id.
    pub(crate) fn key_schema(&self) -> &SchemaRef {
        &self.key_schema
    }
}

/// Returns whole rows as an aggregate: a list of structs.
fn row_call(schema: &SchemaRef) -> Result<AggregateCall> {
    let row = Field::new("row", DataType::Struct(schema.fields().clone()), false);
    let rows = Arc::new(Schema::new(vec![row]));
    let function =
        AggregateExprBuilder::new(array_agg_udaf(), vec![Arc::new(Column::new("row", 0))])
            .schema(rows)
            .alias("rows")
            .build()
            .map_err(failure::engine)?;
    let arguments = (0..schema.fields().len()).collect();
    Ok(AggregateCall { function: Arc::new(function), arguments, filter: None })
}

impl OperatorSpec {
    /// Checks columns and types, and that each aggregate can be built.
    ///
    /// # Errors
    /// Internal when the planner named a column that does not exist; the aggregate's own error when it cannot be built.
    pub fn try_new(
        window: WindowSpec,
        time: usize,
        input_schema: SchemaRef,
        mode: Mode,
    ) -> Result<Self> {
        let columns = Columns::try_new(time, input_schema, mode)?;
        let slicing = Slicing::new(window);
        Ok(Self { window, slicing, columns: Arc::new(columns), row_ends: None })
    }

    /// The same operator over rows that come with windows of their own, whose last tick is the time column: lateness is
    /// judged by another time, from which the end of the window follows.
    #[must_use]
    pub fn with_row_ends(self, row_ends: RowEnds) -> Self {
        Self { row_ends: Some(row_ends), ..self }
    }

    pub(crate) fn row_ends(&self) -> Option<RowEnds> {
        self.row_ends
    }

    /// The windows.
    pub fn window(&self) -> WindowSpec {
        self.window
    }

    /// The time column: a timestamp, never NULL.
    pub fn time(&self) -> usize {
        self.columns.time
    }

    /// Unit of the event time.
    pub fn time_unit(&self) -> TimeUnit {
        self.columns.time_type.0
    }

    /// The columns of a prepared batch.
    pub fn input_schema(&self) -> &SchemaRef {
        &self.columns.input_schema
    }

    /// What is computed from the rows.
    pub fn mode(&self) -> &Mode {
        &self.columns.mode
    }

    /// The division of time into slices.
    pub fn slicing(&self) -> &Slicing {
        &self.slicing
    }

    /// The columns, for tables of groups.
    pub(crate) fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// Aggregate: keys, grouping id, aggregates, `window_start`, `window_end`, `window_time`.
    /// Rows: the input's columns, then the same three. Bounds have the time column's type.
    pub fn output_schema(&self) -> &SchemaRef {
        &self.columns.output_schema
    }
}

impl SessionOperatorSpec {
    /// As [`OperatorSpec::try_new`]; `keys` are the columns of the prepared batch with the session keys, without
    /// duplicates (none: all rows have the same key). NULL is a distinct value; 0.0 and -0.0 are the same, and so are
    /// all NaN. In [`Mode::Aggregate`] the groups' keys are the same columns, in any order, without grouping sets: any
    /// other grouping holds rows, and groups them when a session has closed.
    ///
    /// # Errors
    /// As [`OperatorSpec::try_new`]; Internal when the groups have other keys.
    pub fn try_new(
        session: SessionSpec,
        keys: Vec<usize>,
        time: usize,
        input_schema: SchemaRef,
        mode: Mode,
    ) -> Result<Self> {
        for key in &keys {
            field(&input_schema, *key)?;
        }
        if let Mode::Aggregate { keys: groups, grouping_sets, .. } = &mode {
            let same = keys.len() == groups.len() && keys.iter().all(|key| groups.contains(key));
            if !same || grouping_sets.is_some() {
                return Err(Error::internal("sessions of other keys than their groups"));
            }
        }
        let columns = Columns::try_new(time, input_schema, mode)?.of_sessions(&keys)?;
        let kind = WindowKind::Tumble { size: session.gap() };
        let slicing = Slicing::new(WindowSpec::try_new(kind, 0)?);
        Ok(Self { session, keys, slicing, columns: Arc::new(columns) })
    }

    /// The division of time into slices: rows of the same key and slice belong to the same session, since a slice is
    /// one gap long.
    pub(crate) fn slicing(&self) -> &Slicing {
        &self.slicing
    }

    /// The columns, for tables of groups.
    pub(crate) fn columns(&self) -> &Arc<Columns> {
        &self.columns
    }

    /// The sessions.
    pub fn session(&self) -> SessionSpec {
        self.session
    }

    /// The columns of the prepared batch with the session keys.
    pub fn keys(&self) -> &[usize] {
        &self.keys
    }

    /// The time column: a timestamp, never NULL.
    pub fn time(&self) -> usize {
        self.columns.time
    }

    /// Unit of the event time.
    pub fn time_unit(&self) -> TimeUnit {
        self.columns.time_type.0
    }

    /// The columns of a prepared batch.
    pub fn input_schema(&self) -> &SchemaRef {
        &self.columns.input_schema
    }

    /// What is computed from the rows.
    pub fn mode(&self) -> &Mode {
        &self.columns.mode
    }

    /// As [`OperatorSpec::output_schema`].
    pub fn output_schema(&self) -> &SchemaRef {
        &self.columns.output_schema
    }
}

impl AggregateCall {
    /// Returns a new accumulator; functions without a grouped one get DataFusion's adapter.
    pub(crate) fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if self.function.groups_accumulator_supported() {
            return self.function.create_groups_accumulator().map_err(failure::engine);
        }
        let function = Arc::clone(&self.function);
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
    }
}

fn field(schema: &SchemaRef, index: usize) -> Result<&FieldRef> {
    schema
        .fields()
        .get(index)
        .ok_or_else(|| Error::internal(format!("prepared column {index} does not exist")))
}

fn check_aggregates(schema: &SchemaRef, aggregates: &[AggregateCall]) -> Result<()> {
    for call in aggregates {
        for argument in &call.arguments {
            field(schema, *argument)?;
        }
        if let Some(filter) = call.filter
            && field(schema, filter)?.data_type() != &DataType::Boolean
        {
            return Err(Error::internal(format!(
                "the filter of \"{}\" is not a boolean",
                call.function.name()
            )));
        }
        call.accumulator()?;
    }
    Ok(())
}

/// Returns the fields of the keys (nullable if a grouping set omits them), then the grouping id.
pub(crate) fn key_fields(
    schema: &SchemaRef,
    keys: &[usize],
    grouping_sets: Option<&GroupingSets>,
) -> Result<Vec<FieldRef>> {
    let mut fields = Vec::with_capacity(keys.len() + 1);
    for (i, key) in keys.iter().enumerate() {
        let field = field(schema, *key)?;
        let masked = grouping_sets
            .is_some_and(|sets| sets.masks.iter().any(|m| m.get(i).copied().unwrap_or(false)));
        fields.push(if masked && !field.is_nullable() {
            Arc::new(field.as_ref().clone().with_nullable(true))
        } else {
            Arc::clone(field)
        });
    }
    if let Some(sets) = grouping_sets {
        if sets.masks.iter().any(|m| m.len() != keys.len()) {
            return Err(Error::internal("grouping sets do not fit the keys"));
        }
        fields.push(Arc::clone(&sets.id_field));
    }
    Ok(fields)
}

/// Returns the event times of a column, in its own ticks.
///
/// # Errors
/// When it is not a timestamp.
pub(crate) fn ticks(column: &ArrayRef) -> Result<&[i64]> {
    use arrow::array::AsArray;
    use arrow::datatypes as t;
    let unit = time::time_unit(column.data_type())
        .ok_or_else(|| Error::internal("the time column is not a timestamp"))?;
    Ok(match unit {
        TimeUnit::Second => column.as_primitive::<t::TimestampSecondType>().values(),
        TimeUnit::Millisecond => column.as_primitive::<t::TimestampMillisecondType>().values(),
        TimeUnit::Microsecond => column.as_primitive::<t::TimestampMicrosecondType>().values(),
        TimeUnit::Nanosecond => column.as_primitive::<t::TimestampNanosecondType>().values(),
    })
}
