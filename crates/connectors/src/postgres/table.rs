//! The table that a sink writes to: creates it on request, and compares its columns with those of the sink.
//!
//! Invariant: names and texts reach SQL only through `quoted` and `literal`.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};
use windrow_core::{Error, Result, sql_type};

use super::connection::judged;
use super::options::PostgresOptions;
use super::types::{PgType, created, fits, hint};
use crate::encode::{Encoding, Packing};
use crate::env::SinkChanges;

/// The temporary table of an upsert, and its first column, which orders the rows of one key.
const STAGE: &str = "pg_temp.windrow_rows";
const NUMBER: &str = "\"number of the row\"";
/// Its second column, if the rows are changes that are applied by key. No column of the view has this name.
const CHANGE: &str = "\"change\"";

/// A column of a table.
struct Column {
    name: String,
    /// `None`: it cannot be written.
    pg_type: Option<PgType>,
    modifier: i32,
    /// Its type as SQL shows it.
    shown: String,
    /// Whether rows need a value for it.
    is_needed: bool,
    /// Whether it is generated, and accepts no values.
    is_computed: bool,
}

/// The columns of a sink, and the names of its table.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// The columns of the table.
    schema: SchemaRef,
    /// Whether the rows are changes that are applied by key. They have the kind of the change first, which is not a column of
    /// the table.
    applies: bool,
}

/// Returns a quoted identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Returns a string literal.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn full_name(options: &PostgresOptions) -> String {
    format!("{}.{}", quoted(&options.schema), quoted(&options.table))
}

impl Table {
    /// Checks what can be checked without the server.
    ///
    /// # Errors
    /// For a key that is not a column, or not that of the changes, and column types that PostgreSQL does not have.
    pub(super) fn new(
        schema: &SchemaRef,
        changes: Option<&SinkChanges>,
        options: &PostgresOptions,
    ) -> Result<Self> {
        let applied = changes.filter(|_| !options.key.is_empty());
        let first = usize::from(applied.is_some());
        let columns: Vec<usize> = (first..schema.fields().len()).collect();
        let schema = &SchemaRef::new(schema.project(&columns)?);
        for (at, name) in options.key.iter().enumerate() {
            if schema.field_with_name(name).is_err() {
                let known: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
                return Err(Error::config(format!(
                    "option \"key\": there is no column \"{name}\""
                ))
                .with_hint(format!("Columns: {}.", known.join(", "))));
            }
            if options.key.iter().take(at).any(|before| before == name) {
                return Err(Error::config(format!("option \"key\" has \"{name}\" twice")));
            }
        }
        if let Some(changes) = applied {
            let without =
                "leave key out: then each change becomes a row, with the column \"change\"";
            changes.check_key(&options.key, without)?;
        }
        for field in schema.fields() {
            let (name, data_type) = (field.name(), field.data_type());
            if created(data_type).is_none() {
                return Err(Error::sql(format!(
                    "column \"{name}\" has the type {}, which PostgreSQL does not take",
                    sql_type(data_type)
                ))
                .with_hint(hint(name, data_type)));
            }
            if data_type.is_nested() && !matches!(data_type, DataType::Dictionary(..)) {
                let nested = Schema::new(vec![Field::new(name, data_type.clone(), true)]);
                Encoding::Json(Packing::Plain).check(&nested)?;
            }
        }
        Ok(Self { schema: SchemaRef::clone(schema), applies: applied.is_some() })
    }

    fn names(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| quoted(field.name())).collect()
    }

    /// The COPY statement.
    pub(super) fn copy_sql(&self, options: &PostgresOptions) -> String {
        let columns = self.names().join(", ");
        match options.key.is_empty() {
            true => format!("COPY {} ({columns}) FROM STDIN (FORMAT binary)", full_name(options)),
            false => format!(
                "COPY {STAGE} ({NUMBER}, {}{columns}) FROM STDIN (FORMAT binary)",
                self.change()
            ),
        }
    }

    /// The column of the change in the temporary table, with a comma after it.
    fn change(&self) -> String {
        if self.applies { format!("{CHANGE}, ") } else { String::new() }
    }

    /// The statements that move rows from the temporary table, in order; none if there is no key. The last one inserts.
    pub(super) fn move_sql(&self, options: &PostgresOptions) -> Vec<String> {
        let mut statements = vec![];
        if self.applies {
            statements.extend(self.delete_sql(options));
        }
        statements.extend(self.upsert_sql(options));
        statements
    }

    /// The statements that delete the rows whose last change is a delete: those with a value in each column of the key, by
    /// its index, and the others.
    fn delete_sql(&self, options: &PostgresOptions) -> [String; 2] {
        let key: Vec<String> = options.key.iter().map(|name| quoted(name)).collect();
        let each = |form: &dyn Fn(&String) -> String, word: &str| {
            key.iter().map(form).collect::<Vec<_>>().join(word)
        };
        let (table, list) = (full_name(options), key.join(", "));
        let last = format!(
            "(SELECT DISTINCT ON ({list}) {CHANGE}, {list} FROM {STAGE} ORDER BY {list}, {NUMBER} DESC)"
        );
        let delete = format!(
            "DELETE FROM {table} AS old USING {last} AS last WHERE last.{CHANGE} = 'delete'"
        );
        let equal = each(&|name| format!("old.{name} = last.{name}"), " AND ");
        let null = each(&|name| format!("last.{name} IS NULL"), " OR ");
        let same = each(&|name| format!("old.{name} IS NOT DISTINCT FROM last.{name}"), " AND ");
        [format!("{delete} AND {equal}"), format!("{delete} AND ({null}) AND {same}")]
    }

    fn upsert_sql(&self, options: &PostgresOptions) -> Option<String> {
        if options.key.is_empty() {
            return None;
        }
        let columns = self.names().join(", ");
        let key: Vec<String> = options.key.iter().map(|name| quoted(name)).collect();
        let others = self.schema.fields().iter().filter(|f| !options.key.contains(f.name()));
        let sets: Vec<String> = others
            .map(|field| {
                let name = quoted(field.name());
                format!("{name} = EXCLUDED.{name}")
            })
            .collect();
        let action = match sets.is_empty() {
            true => "NOTHING".to_owned(),
            false => format!("UPDATE SET {}", sets.join(", ")),
        };
        let (table, key) = (full_name(options), key.join(", "));
        let change = self.change();
        let last = format!(
            "SELECT DISTINCT ON ({key}) {change}{columns} FROM {STAGE} ORDER BY {key}, {NUMBER} DESC"
        );
        // The row before an update is current until the row after it comes.
        let rows = match self.applies {
            true => format!("SELECT {columns} FROM ({last}) AS last WHERE {CHANGE} <> 'delete'"),
            false => last,
        };
        Some(format!("INSERT INTO {table} ({columns}) {rows} ON CONFLICT ({key}) DO {action}"))
    }

    /// A query that returns a signature of the columns of the table.
    pub(super) fn signature_sql(&self, options: &PostgresOptions) -> String {
        format!(
            "SELECT string_agg(concat_ws(' ', attnum, attname, atttypid, atttypmod), ',' ORDER BY attnum) \
             FROM pg_catalog.pg_attribute \
             WHERE attrelid = to_regclass({}) AND attnum > 0 AND NOT attisdropped",
            literal(&full_name(options))
        )
    }

    /// Creates what is missing, and returns the types of the columns, in the order of the sink, and the signature of the table.
    ///
    /// # Errors
    /// When the table cannot store the rows.
    pub(super) async fn prepare(
        &self,
        client: &Client,
        options: &PostgresOptions,
    ) -> Result<(Vec<PgType>, String)> {
        let failed = |error: tokio_postgres::Error| judged(&error, options);
        let ledger = format!("{}.windrow_sinks", quoted(&options.schema));
        create(
            client,
            options,
            &ledger,
            "id text PRIMARY KEY, sink text NOT NULL, sequence bigint NOT NULL, updated timestamptz NOT NULL DEFAULT now()",
        )
        .await?;
        if options.create_table {
            create(client, options, &full_name(options), &self.definition(options)?).await?;
        }
        let signature =
            client.query_one(&self.signature_sql(options), &[]).await.map_err(failed)?;
        let columns = client.query(&columns_sql(options), &[]).await.map_err(failed)?;
        let columns: Vec<Column> = columns.iter().map(column).collect();
        let (Some(signature), false) = (signature.get::<_, Option<String>>(0), columns.is_empty())
        else {
            let table = options.shown_table();
            return Err(Error::config(format!(
                "there is no table \"{table}\" in database \"{}\"",
                options.database
            ))
            .with_hint("Create it, or add create_table = 'true'."));
        };
        let types = self.compare(&columns, options)?;
        if let Some(upsert) = self.upsert_sql(options) {
            let names = self.names().join(", ");
            let change =
                if self.applies { format!("''::text AS {CHANGE}, ") } else { String::new() };
            let stage = format!(
                "CREATE TEMP TABLE windrow_rows ON COMMIT DELETE ROWS AS \
                 SELECT 0::bigint AS {NUMBER}, {change}{names} FROM {} WITH NO DATA",
                full_name(options)
            );
            client.batch_execute(&stage).await.map_err(failed)?;
            let planned = client.batch_execute(&format!("EXPLAIN {upsert}")).await;
            planned.map_err(|error| match error.code() {
                Some(code) if *code == SqlState::INVALID_COLUMN_REFERENCE => no_index(options),
                _ => judged(&error, options),
            })?;
        }
        Ok((types, signature))
    }

    /// The column definitions of a new table.
    fn definition(&self, options: &PostgresOptions) -> Result<String> {
        let mut parts = vec![];
        for field in self.schema.fields() {
            let pg_type = created(field.data_type());
            let pg_type = pg_type.ok_or_else(|| Error::internal("a column has no type"))?;
            parts.push(format!("{} {pg_type}", quoted(field.name())));
        }
        if !options.key.is_empty() {
            let key: Vec<String> = options.key.iter().map(|name| quoted(name)).collect();
            parts.push(format!("PRIMARY KEY ({})", key.join(", ")));
        }
        Ok(parts.join(", "))
    }

    /// Returns the types of the columns that the sink writes.
    fn compare(&self, columns: &[Column], options: &PostgresOptions) -> Result<Vec<PgType>> {
        let table = options.shown_table();
        let mut types = if self.applies { vec![PgType::Text] } else { vec![] };
        for field in self.schema.fields() {
            let (name, data_type) = (field.name(), field.data_type());
            let Some(column) = columns.iter().find(|column| column.name == *name) else {
                let known: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
                return Err(Error::config(format!("table \"{table}\" has no column \"{name}\""))
                    .with_hint(format!(
                        "Its columns: {}. Rename columns of the sink in its query: AS \"…\".",
                        known.join(", ")
                    )));
            };
            if column.is_computed {
                return Err(Error::config(format!(
                    "column \"{name}\" of table \"{table}\" is computed, and takes no values"
                ))
                .with_hint("Leave it out of the query of the sink."));
            }
            let why = match &column.pg_type {
                Some(pg_type) => fits(data_type, pg_type, column.modifier),
                None => Some("the types do not fit"),
            };
            match (&column.pg_type, why) {
                (Some(pg_type), None) => types.push(pg_type.clone()),
                (_, why) => {
                    let (from, to) = (sql_type(data_type), &column.shown);
                    let why = why.unwrap_or_default();
                    return Err(Error::config(format!(
                        "column \"{name}\" of the sink is {from}, and that of table \"{table}\" is {to}: {why}"
                    ))
                    .with_hint(hint(name, data_type)));
                }
            }
        }
        let left = columns
            .iter()
            .find(|column| column.is_needed && self.schema.field_with_name(&column.name).is_err());
        match left {
            Some(Column { name, .. }) => Err(Error::config(format!(
                "column \"{name}\" of table \"{table}\" needs a value, and the sink has no such column"
            ))
            .with_hint("Add it to the query of the sink, or give it a default in the table.")),
            None => Ok(types),
        }
    }
}

/// Creates a table, unless there is one.
async fn create(
    client: &Client,
    options: &PostgresOptions,
    name: &str,
    definition: &str,
) -> Result<()> {
    // CREATE TABLE IF NOT EXISTS would need the right to create even if the table exists.
    let there = client.query_one("SELECT to_regclass($1::text) IS NOT NULL", &[&name]).await;
    if there.map_err(|e| judged(&e, options))?.get(0) {
        return Ok(());
    }
    let created = client.batch_execute(&format!("CREATE TABLE {name} ({definition})")).await;
    match created {
        // Another session was faster.
        Err(error)
            if matches!(
                error.code(),
                Some(code) if *code == SqlState::DUPLICATE_TABLE || *code == SqlState::UNIQUE_VIOLATION
            ) =>
        {
            Ok(())
        }
        Err(error) => {
            let why = judged(&error, options);
            Err(Error::new(
                why.kind(),
                format!("table {name} cannot be created: {}", why.message()),
            )
            .with_hint(format!("Create it: CREATE TABLE {name} ({definition}).")))
        }
        Ok(()) => Ok(()),
    }
}

fn no_index(options: &PostgresOptions) -> Error {
    let (table, key) = (options.shown_table(), options.key.join(", "));
    Error::config(format!("table \"{table}\" has no unique index on \"{key}\"")).with_hint(format!(
        "Rows replace others by such an index: CREATE UNIQUE INDEX ON {} ({key}).",
        full_name(options)
    ))
}

/// The query for the columns of the table. A domain counts as its base type.
fn columns_sql(options: &PostgresOptions) -> String {
    format!(
        "SELECT a.attname::text, \
                CASE WHEN t.typtype = 'd' THEN t.typbasetype WHEN t.typtype = 'e' OR t.typname = 'citext' THEN 25::oid \
                     ELSE t.oid END, \
                CASE WHEN t.typtype = 'd' THEN t.typtypmod ELSE a.atttypmod END, \
                pg_catalog.format_type(a.atttypid, a.atttypmod), \
                CASE WHEN t.typcategory = 'A' THEN t.typelem ELSE 0::oid END, \
                a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', \
                a.attgenerated <> '' OR a.attidentity = 'a' \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         WHERE a.attrelid = to_regclass({}) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        literal(&full_name(options))
    )
}

fn column(row: &Row) -> Column {
    let (oid, element): (u32, u32) = (row.get(1), row.get(4));
    let pg_type = match element {
        0 => PgType::of(oid),
        item => PgType::of(item).map(|of| PgType::Array(item, Box::new(of))),
    };
    Column {
        name: row.get(0),
        pg_type,
        modifier: row.get(2),
        shown: row.get(3),
        is_needed: row.get(5),
        is_computed: row.get(6),
    }
}
