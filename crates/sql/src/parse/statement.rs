//! The statements that parsing returns. Queries in them are canonical: see [`super`].

use std::time::Duration;

use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{
    self, ColumnDef, Expr, Ident, ObjectName, Query, SetExpr, Statement as StandardStatement,
};
use windrow_core::Place;

use super::tail::Tail;

/// One statement of a submission.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// The parsed statement.
    pub statement: Statement,
    /// Its own text, as written, without the `;`.
    pub text: String,
    /// The line of its first character in the submission, from 1.
    pub first_line: usize,
    /// The column of its first character, from 1, in characters.
    pub first_column: usize,
}

/// The text of a statement, and where in its submission it begins.
#[derive(Debug, Clone)]
pub struct StatementText {
    pub(super) text: String,
    pub(super) first_line: usize,
    pub(super) first_column: usize,
}

impl Parsed {
    /// Its text and where that begins.
    pub fn source(&self) -> StatementText {
        let Self { text, first_line, first_column, .. } = self;
        let (first_line, first_column) = (*first_line, *first_column);
        StatementText { text: text.clone(), first_line, first_column }
    }
}

/// A parsed statement.
#[derive(Debug, Clone)]
pub enum Statement {
    /// `CREATE STREAM`, and its synonyms.
    CreateStream(CreateStream),
    /// `ALTER STREAM`.
    AlterStream(Box<AlterStream>),
    /// `TRUNCATE [TABLE | STREAM] name`.
    Truncate(ObjectName),
    /// `CREATE [MATERIALIZED] VIEW`.
    CreateView(CreateView),
    /// `CREATE SINK`.
    CreateSink(Box<CreateSink>),
    /// `CREATE FUNCTION`.
    CreateFunction(Box<CreateFunction>),
    /// `CREATE MODEL`.
    CreateModel(Box<CreateModel>),
    /// `PAUSE SINK name`, `RESUME SINK name`.
    PauseSink {
        /// The sink.
        sink: ObjectName,
        /// Whether it continues.
        resume: bool,
    },
    /// `PAUSE STREAM name`, `RESUME STREAM name`.
    PauseStream {
        /// The stream.
        stream: ObjectName,
        /// Whether it continues.
        resume: bool,
    },
    /// `SELECT`, `WITH`, `VALUES`, with or without a tail.
    Query(ContinuousQuery),
    /// `INSERT INTO`.
    Insert(Box<Insert>),
    /// `SUBSCRIBE [TO] view [AFTER n] [WITH (snapshot = true)]`.
    Subscribe {
        /// The view to follow.
        view: ObjectName,
        /// Resume after this sequence number; `None`: from now.
        after: Option<u64>,
        /// Whether the current rows come first; not together with `after`.
        snapshot: bool,
    },
    /// `WAIT FOR view [UNTIL TIMESTAMP '…'] [TIMEOUT interval]`.
    WaitFor {
        /// The view to wait for.
        view: ObjectName,
        /// Until its watermark has passed this timestamp; `None`: until its inputs are consumed.
        until: Option<Expr>,
        /// Fail after this time.
        timeout: Option<Duration>,
    },
    /// `VERIFY VIEW view [FROM TIMESTAMP '…'] [TO TIMESTAMP '…']`.
    Verify(Box<Verify>),
    /// `EXPLAIN [ANALYZE] [VERBOSE] statement` or `EXPLAIN WHY NOT view`.
    Explain(Explain),
    /// `SHOW …` for a kind of object that Windrow has.
    Show(ShowKind),
    /// `SHOW FUNCTIONS [LIKE pattern]`.
    ShowFunctions(Option<String>),
    /// `SHOW CREATE [kind] name`.
    ShowCreate(ObjectName),
    /// `DESCRIBE name`, `DESCRIBE 'file'` (a name in single quotes).
    Describe(ObjectName),
    /// `DESCRIBE FUNCTION name`.
    DescribeFunction(ObjectName),
    /// `SUMMARIZE name | 'file' | query`.
    Summarize(Box<ContinuousQuery>),
    /// `COPY name FROM 'file'`.
    CopyFrom(Box<CopyFrom>),
    /// `COPY … TO STDOUT`.
    CopyOut(Box<CopyOut>),
    /// `DROP kind [IF EXISTS] name, … [CASCADE]`.
    Drop(Drop),
    /// `SET name = value`.
    Set(Set),
    /// Any other statement, as the underlying engine parses it; windows in it are canonical too.
    DataFusion(Box<EngineStatement>),
}

/// `CREATE [OR REPLACE] STREAM [IF NOT EXISTS] name (…) WITH (…)`.
#[derive(Debug, Clone)]
pub struct CreateStream {
    /// Replaces a stream of that name.
    pub or_replace: bool,
    /// Does nothing if the name exists.
    pub if_not_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// The columns as declared, generated ones with their expression. Empty: inferred from the data.
    pub columns: Vec<ColumnDef>,
    /// The conditions that rows must satisfy, in order.
    pub checks: Vec<CheckClause>,
    /// The columns that identify a row.
    pub key: Option<KeyClause>,
    /// The declared event time.
    pub watermark: Option<WatermarkClause>,
    /// `WITH (…)`, in order; no key occurs twice.
    pub options: Vec<OptionItem>,
    /// The continuous query that feeds it; `None`: a connector, or INSERT.
    pub query: Option<Box<ContinuousQuery>>,
}

/// `ALTER STREAM [IF EXISTS] name …`.
#[derive(Debug, Clone)]
pub struct AlterStream {
    /// Does nothing if the stream does not exist.
    pub if_exists: bool,
    /// The stream.
    pub name: ObjectName,
    /// The change.
    pub what: Alteration,
}

/// A change of a stream.
#[derive(Debug, Clone)]
pub enum Alteration {
    /// `SET (key = value, …)`.
    Set(Vec<OptionItem>),
    /// `RESET (key, …)`: the options, and their places.
    Reset(Vec<(String, Place)>),
    /// `ADD [COLUMN] [IF NOT EXISTS] name type [NOT NULL] [DEFAULT expr]`.
    AddColumn(Box<AddedColumn>),
    /// `ADD [CONSTRAINT name] CHECK (expr) [NOT VALID]`.
    AddCheck {
        /// The check.
        check: Box<CheckClause>,
        /// Whether the rows that the stream has must satisfy it too.
        is_valid: bool,
    },
    /// `DROP CONSTRAINT [IF EXISTS] name`.
    DropCheck {
        /// The name of the check.
        name: Ident,
        /// Does nothing if there is no such check.
        if_exists: bool,
        /// The place of the name.
        place: Place,
    },
}

/// A column that is added to a stream.
#[derive(Debug, Clone)]
pub struct AddedColumn {
    /// The column. The value of its DEFAULT is that of the rows without it.
    pub column: ColumnDef,
    /// Whether nothing is done if there is a column of this name.
    pub if_not_exists: bool,
    /// The place of its name.
    pub place: Place,
}

/// `WATERMARK FOR column [AS expr]`.
#[derive(Debug, Clone)]
pub struct WatermarkClause {
    /// The event-time column.
    pub column: Ident,
    /// The promise, such as `ts - INTERVAL '5 seconds'`; `None`: the column itself, no delay.
    pub expr: Option<Expr>,
    /// The place of the clause.
    pub place: Place,
}

/// `[CONSTRAINT name] CHECK (expr)`.
#[derive(Debug, Clone)]
pub struct CheckClause {
    /// Its name, where one is given.
    pub name: Option<Ident>,
    /// The condition, with the names of the engine.
    pub expr: Expr,
    /// The condition as it was written.
    pub text: String,
    /// The place of the clause.
    pub place: Place,
}

/// `PRIMARY KEY (column, …)`, or `PRIMARY KEY` of a column.
#[derive(Debug, Clone)]
pub struct KeyClause {
    /// The columns; no name twice.
    pub columns: Vec<Ident>,
    /// The place of the clause.
    pub place: Place,
}

/// `key = 'value'` of a `WITH (…)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionItem {
    /// The key; lower case unless it was quoted. Dotted keys keep their dots.
    pub key: String,
    /// The value as text, quotes removed.
    pub value: String,
    /// The place of key and value.
    pub place: Place,
}

/// `CREATE [OR REPLACE] [MATERIALIZED] VIEW [IF NOT EXISTS] name [(columns)] [WITH (…)] AS query`.
#[derive(Debug, Clone)]
pub struct CreateView {
    /// Replaces a view of that name.
    pub or_replace: bool,
    /// Does nothing if the name exists.
    pub if_not_exists: bool,
    /// Whether it runs and keeps its results; otherwise it is only a name for a query.
    pub materialized: bool,
    /// Its name.
    pub name: ObjectName,
    /// New names for the columns; empty: those of the query.
    pub columns: Vec<Ident>,
    /// `WITH (…)`, in order; no key occurs twice.
    pub options: Vec<OptionItem>,
    /// The query.
    pub query: ContinuousQuery,
}

/// `CREATE [OR REPLACE] SINK [IF NOT EXISTS] name FROM view WITH (…)`, or `… name AS query WITH (…)`.
#[derive(Debug, Clone)]
pub struct CreateSink {
    /// Replaces a sink of that name.
    pub or_replace: bool,
    /// Does nothing where one exists.
    pub if_not_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// Which rows it takes.
    pub rows: SinkRows,
    /// `WITH (…)`, in order; no key twice.
    pub options: Vec<OptionItem>,
}

/// `CREATE [OR REPLACE] FUNCTION [IF NOT EXISTS] name (parameters) [RETURNS type] AS 'body'`.
#[derive(Debug, Clone)]
pub struct CreateFunction {
    /// Replaces a function of that name.
    pub or_replace: bool,
    /// Does nothing where one exists.
    pub if_not_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// The parameters, in order; no name twice.
    pub parameters: Vec<Parameter>,
    /// The return type; `None`: that of the body.
    pub returns: Option<ast::DataType>,
    /// The body: an expression without queries and placeholders.
    pub body: Expr,
    /// The place of the body.
    pub place: Place,
}

/// `CREATE [OR REPLACE] MODEL [IF NOT EXISTS] name WITH (path = 'file')`.
#[derive(Debug, Clone)]
pub struct CreateModel {
    /// Adds a version to a model of that name.
    pub or_replace: bool,
    /// Does nothing where one exists.
    pub if_not_exists: bool,
    /// Its name.
    pub name: ObjectName,
    /// The place of the file, as it was written.
    pub path: String,
    /// The place of the option in the statement.
    pub place: Place,
}

/// A parameter of a function.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name.
    pub name: Ident,
    /// Its type.
    pub data_type: ast::DataType,
}

/// The rows that a sink takes.
#[derive(Debug, Clone)]
pub enum SinkRows {
    /// Those of a materialized view.
    View(ObjectName),
    /// The results of a query, which becomes a view of the sink's own.
    Query(Box<ContinuousQuery>),
}

/// `COPY name [(columns)] FROM 'file' [(options)]`.
#[derive(Debug, Clone)]
pub struct CopyFrom {
    /// The object that rows are inserted into.
    pub target: ObjectName,
    /// The columns that the file's columns fill, in order; empty: those of the same names.
    pub columns: Vec<Ident>,
    /// The file, or the files.
    pub path: String,
    /// The place of the path.
    pub place: Place,
    /// How it is read, as options of a stream of files.
    pub options: Vec<OptionItem>,
}

/// `COPY … TO STDOUT`: a query whose rows are written in this format, whatever the format of other output.
#[derive(Debug, Clone)]
pub struct CopyOut {
    /// The query; it has no tail.
    pub query: ContinuousQuery,
    /// How rows are written.
    pub format: OutFormat,
}

/// The format of rows on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutFormat {
    /// Comma-separated values with a header.
    Csv,
    /// A JSON object per line.
    Json,
}

/// A query and its tail.
#[derive(Debug, Clone)]
pub struct ContinuousQuery {
    /// The query; every window in it is canonical.
    pub query: Box<Query>,
    /// How it emits, and what happens to late rows.
    pub tail: Tail,
}

/// `INSERT INTO target [(columns)] query`.
#[derive(Debug, Clone)]
pub struct Insert {
    /// The object that rows are inserted into.
    pub target: ObjectName,
    /// The columns that the query's columns fill; empty: all, in order.
    pub columns: Vec<Ident>,
    /// The query that returns the rows.
    pub query: ContinuousQuery,
    /// The statement as parsed, without its query.
    pub(super) rest: ast::Insert,
}

impl Insert {
    /// The same statement for the underlying engine, for a target that is one of its tables. The tail, which it does
    /// not have, is left out.
    pub fn into_datafusion(self) -> EngineStatement {
        let mut insert = self.rest;
        let mut query = self.query.query;
        if let SetExpr::Values(values) = query.body.as_mut() {
            values.rows.iter_mut().for_each(|row| row.content.iter_mut().for_each(keep_cast));
        }
        insert.source = Some(query);
        EngineStatement::Statement(Box::new(StandardStatement::Insert(insert)))
    }
}

/// Doubles an explicit cast. The planner casts each value of VALUES to the type of its column, unless it has that cast
/// already; doubled, an explicit cast can be distinguished from an added one (`plan/exact/assignment`).
fn keep_cast(value: &mut Expr) {
    let mut inner = &*value;
    while let Expr::Nested(nested) = inner {
        inner = nested;
    }
    if let Expr::Cast { kind, data_type, array, format, .. } = inner {
        *value = Expr::Cast {
            kind: kind.clone(),
            data_type: data_type.clone(),
            array: *array,
            format: format.clone(),
            expr: Box::new(value.clone()),
        };
    }
}

/// `VERIFY VIEW view [FROM TIMESTAMP '…'] [TO TIMESTAMP '…']`.
#[derive(Debug, Clone)]
pub struct Verify {
    /// The materialized view to verify.
    pub view: ObjectName,
    /// Only rows with this event time or later.
    pub from: Option<Expr>,
    /// Only rows before this event time.
    pub to: Option<Expr>,
    /// The place of the range.
    pub place: Place,
}

/// `EXPLAIN`.
#[derive(Debug, Clone)]
pub struct Explain {
    /// Whether to run the statement and report what happened.
    pub analyze: bool,
    /// Whether to report details.
    pub verbose: bool,
    /// The subject.
    pub what: Explained,
}

/// The subject of `EXPLAIN`.
#[derive(Debug, Clone)]
pub enum Explained {
    /// How a statement is executed.
    Statement(Box<Statement>),
    /// `EXPLAIN WHY NOT view`: what the view is waiting for.
    WhyNot(ObjectName),
}

/// What `SHOW` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShowKind {
    /// Streams (also `SOURCES`).
    Streams,
    /// Views, materialized or not.
    Views,
    /// Materialized views only.
    MaterializedViews,
    /// Everything that can be read.
    Tables,
    /// Running queries.
    Queries,
    /// Sinks.
    Sinks,
    /// Models.
    Models,
    /// Watermarks per partition.
    Watermarks,
    /// Open windows.
    Windows,
    /// Databases (also `CATALOGS`).
    Databases,
    /// Schemas.
    Schemas,
}

/// `DROP`.
#[derive(Debug, Clone)]
pub struct Drop {
    /// The kind of object.
    pub kind: DropKind,
    /// The names of the objects.
    pub names: Vec<ObjectName>,
    /// Whether names that do not exist are ignored.
    pub if_exists: bool,
    /// Whether to drop the objects that depend on them too.
    pub cascade: bool,
}

/// The kinds of objects that `DROP` removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropKind {
    /// `STREAM` or `SOURCE`.
    Stream,
    /// `VIEW`.
    View,
    /// `MATERIALIZED VIEW`.
    MaterializedView,
    /// `TABLE`.
    Table,
    /// `SINK`.
    Sink,
    /// `FUNCTION`.
    Function,
    /// `MODEL`.
    Model,
}

/// `SET name = value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// The setting, lower case, with its dots.
    pub name: String,
    /// The value as text, quotes removed.
    pub value: String,
    /// The place of the value.
    pub place: Place,
}
