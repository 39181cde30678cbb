//! Statements other than queries.

use datafusion::sql::parser::CreateExternalTable;
use sqlparser::ast::{
    ColumnDef, ColumnOption, ColumnOptionDef, CreateTable, Insert, Set, ShowStatementOptions,
    Statement, TableConstraint, TableObject,
};
use windrow_core::{Error, Result};

use super::super::cursor::place_of;
use super::Walk;

pub(super) fn statement(walk: &Walk<'_>, statement: &Statement) -> Result<()> {
    match statement {
        Statement::Query(_)
        | Statement::Explain { .. }
        | Statement::ExplainTable { .. }
        | Statement::ShowVariable { variable: _ }
        | Statement::ShowFunctions { filter: _ }
        | Statement::ShowTables { .. }
        | Statement::ShowCreate { .. }
        // The planner destructures these three as we do, and refuses what it does not support.
        | Statement::Delete(_)
        | Statement::Update(_)
        | Statement::Truncate(_)
        | Statement::Deallocate { name: _, prepare: _ } => Ok(()),
        Statement::Insert(insert) => self::insert(walk, insert),
        Statement::CreateTable(table) => create_table(walk, table),
        Statement::ShowColumns { extended: _, full: _, show_options } => {
            show(walk, show_options)
        }
        Statement::Prepare { name: _, data_types: _, statement: inner } => {
            self::statement(walk, inner)
        }
        Statement::Execute { .. } => execute(walk, statement),
        Statement::Set(set) => settings(walk, set),
        Statement::CreateSchema {
            schema_name: _,
            if_not_exists: _,
            with,
            options,
            default_collate_spec,
            clone,
        } => {
            let more =
                with.is_some() || options.is_some() || default_collate_spec.is_some() || clone.is_some();
            walk.without(more, "CREATE", "a schema has no options", "Write CREATE SCHEMA name.")
        }
        Statement::CreateDatabase { db_name, if_not_exists, .. } => {
            // Any other options appear in its text.
            let plain = match if_not_exists {
                true => format!("CREATE DATABASE IF NOT EXISTS {db_name}"),
                false => format!("CREATE DATABASE {db_name}"),
            };
            let more = statement.to_string() != plain;
            walk.without(more, "CREATE", "a database has no options", "Write CREATE DATABASE name.")
        }
        Statement::Drop {
            object_type: _,
            if_exists: _,
            names: _,
            cascade: _,
            restrict: _,
            purge,
            temporary,
            table,
        } => {
            let hint = "Leave it out.";
            walk.without(*purge, "PURGE", "DROP … PURGE is not supported", hint)?;
            walk.without(*temporary, "TEMPORARY", "there are no temporary objects", hint)?;
            walk.without(table.is_some(), "ON", "DROP … ON is not supported", hint)
        }
        Statement::StartTransaction { .. }
        | Statement::Commit { .. }
        | Statement::Rollback { .. } => {
            let word = statement.to_string();
            let word = word.split_whitespace().next().unwrap_or_default().to_uppercase();
            let hint = "Leave it out: each statement takes effect as a whole, by itself.";
            Err(walk.refused(&word, "there are no transactions over several statements", hint))
        }
        Statement::CreateIndex(_) => {
            let hint = "Leave it out: archived rows are found by the statistics of their files.";
            Err(walk.refused("CREATE", "there are no indexes", hint))
        }
        other => {
            let text = other.to_string();
            let words: Vec<&str> = text.split_whitespace().take(2).collect();
            let word = words.first().copied().unwrap_or_default();
            let message = format!("{} is not supported", words.join(" ").to_uppercase());
            let hint = "docs/sql.md has the list of statements.";
            Err(walk.refused(word, &message, hint))
        }
    }
}

fn execute(walk: &Walk<'_>, statement: &Statement) -> Result<()> {
    let Statement::Execute {
        name: _,
        parameters: _,
        has_parentheses: _,
        immediate,
        into,
        using,
        output,
        default,
    } = statement
    else {
        return Ok(());
    };
    let more = *immediate || !into.is_empty() || !using.is_empty() || *output || *default;
    let hint = "Write EXECUTE name(1, 2).";
    walk.without(more, "EXECUTE", "EXECUTE takes a name and values", hint)
}

fn settings(walk: &Walk<'_>, set: &Set) -> Result<()> {
    match set {
        Set::SingleAssignment { .. } => Ok(()),
        Set::SetTimeZone { .. }
        | Set::ParenthesizedAssignments { .. }
        | Set::MultipleAssignments { .. }
        | Set::SetSessionAuthorization(_)
        | Set::SetSessionParam(_)
        | Set::SetRole { .. }
        | Set::SetNames { .. }
        | Set::SetNamesDefault {}
        | Set::SetTransaction { .. } => {
            Err(walk.refused("SET", "this form of SET is not supported", "Write SET name = value."))
        }
    }
}

/// INSERT of VALUES or of a query, and nothing else.
pub(super) fn insert(walk: &Walk<'_>, insert: &Insert) -> Result<()> {
    let Insert {
        insert_token: _,
        optimizer_hints,
        or,
        ignore,
        into: _,
        table,
        table_alias,
        columns: _,
        overwrite,
        source,
        assignments,
        partitioned,
        after_columns,
        has_table_keyword: _,
        on,
        returning,
        output,
        replace_into,
        priority,
        insert_alias,
        settings,
        format_clause,
        multi_table_insert_type,
        multi_table_into_clauses,
        multi_table_when_clauses,
        multi_table_else_clause,
    } = insert;
    let leave = "Leave it out.";
    walk.without(
        !optimizer_hints.is_empty(),
        "INSERT",
        "optimizer hints are not supported",
        leave,
    )?;
    let named = matches!(table, TableObject::TableName(_));
    let hint = "Write INSERT INTO name SELECT ….";
    walk.without(!named, "INTO", "INSERT needs the name of a table or stream", hint)?;
    let appends = "INSERT appends rows, and replaces none";
    let hint = "A view keeps the last row of a key: last_value(x ORDER BY ts) … GROUP BY key.";
    walk.without(or.is_some(), "OR", appends, hint)?;
    walk.without(*ignore, "IGNORE", appends, hint)?;
    walk.without(*replace_into, "REPLACE", appends, hint)?;
    walk.without(on.is_some(), "ON", appends, hint)?;
    walk.without(*overwrite, "OVERWRITE", appends, "Write CREATE OR REPLACE TABLE … AS.")?;
    let hint = "Give the value with the rows: INSERT INTO t (a, b) SELECT ….";
    let fixed = partitioned.is_some() || !after_columns.is_empty();
    walk.without(fixed, "PARTITION", "INSERT takes no PARTITION", hint)?;
    walk.without(!assignments.is_empty(), "SET", "INSERT … SET is not supported", hint)?;
    let alias = table_alias.is_some() || insert_alias.is_some();
    walk.without(alias, "AS", "the target of INSERT has no alias", leave)?;
    let hint = "SELECT the rows afterwards.";
    let returns = returning.is_some() || output.is_some();
    walk.without(returns, "RETURNING", "INSERT returns no rows", hint)?;
    walk.without(priority.is_some(), "INSERT", "INSERT has no priority", leave)?;
    let hint = "Use SET name = value before it.";
    walk.without(settings.is_some(), "SETTINGS", "INSERT has no SETTINGS of its own", hint)?;
    let hint = "Write VALUES, or a query; COPY and streams read files.";
    walk.without(format_clause.is_some(), "FORMAT", "INSERT has no FORMAT", hint)?;
    let several = multi_table_insert_type.is_some()
        || !multi_table_into_clauses.is_empty()
        || !multi_table_when_clauses.is_empty()
        || multi_table_else_clause.is_some();
    walk.without(several, "INSERT", "INSERT has one target", "Write one INSERT for each.")?;
    let hint = "Name the values: INSERT INTO t (a) VALUES (1).";
    walk.without(source.is_none(), "INSERT", "INSERT needs VALUES or a query", hint)
}

/// The planner destructures the rest as we do, and refuses what it does not support.
fn create_table(walk: &Walk<'_>, table: &CreateTable) -> Result<()> {
    walk.without(
        table.temporary,
        "CREATE",
        "there are no temporary tables",
        "Leave TEMPORARY out, and DROP it when it is done.",
    )?;
    let name = table.name.to_string();
    if let Some(constraint) = table.constraints.first() {
        return Err(constrained(walk, &name, constraint));
    }
    table.columns.iter().try_for_each(column_options)
}

pub(super) fn external_table(walk: &Walk<'_>, table: &CreateExternalTable) -> Result<()> {
    let CreateExternalTable {
        name,
        columns,
        file_type: _,
        locations: _,
        table_partition_cols: _,
        order_exprs: _,
        if_not_exists: _,
        or_replace: _,
        temporary,
        unbounded,
        options: _,
        constraints,
    } = table;
    let hint = "Leave it out, and DROP the table when it is done.";
    walk.without(*temporary, "TEMPORARY", "there are no temporary tables", hint)?;
    let hint =
        "A file that grows is a stream: CREATE STREAM … WITH (connector = 'file', follow = true).";
    walk.without(*unbounded, "UNBOUNDED", "an external table has an end", hint)?;
    if let Some(constraint) = constraints.first() {
        return Err(constrained(walk, &name.to_string(), constraint));
    }
    columns.iter().try_for_each(column_options)
}

/// The error for a constraint, which would not be checked, and which the planner would rely on.
fn constrained(walk: &Walk<'_>, table: &str, constraint: &TableConstraint) -> Error {
    let (word, hint) = match constraint {
        TableConstraint::PrimaryKey(_) | TableConstraint::PrimaryKeyUsingIndex(_) => {
            ("PRIMARY KEY", KEY)
        }
        TableConstraint::Unique(_) | TableConstraint::UniqueUsingIndex(_) => ("UNIQUE", KEY),
        TableConstraint::ForeignKey(_) => ("FOREIGN KEY", REFERENCE),
        TableConstraint::Check(_) => ("CHECK", CHECK),
        TableConstraint::Index(_) | TableConstraint::FulltextOrSpatial(_) => {
            ("INDEX", "Remove it: there are no indexes.")
        }
    };
    walk.refused(
        word,
        &format!("table \"{table}\" cannot have {word}: it would not be enforced"),
        hint,
    )
}

const KEY: &str = "Remove it; SELECT DISTINCT, or GROUP BY the key, gives each key once.";
const REFERENCE: &str = "Remove it; a join finds the rows that have no match.";
const CHECK: &str = "Remove it; a view with WHERE leaves out the rows that do not satisfy it.";

fn column_options(column: &ColumnDef) -> Result<()> {
    let ColumnDef { name, data_type: _, options } = column;
    for ColumnOptionDef { name: _, option } in options {
        let (what, hint) = match option {
            ColumnOption::Null
            | ColumnOption::NotNull
            | ColumnOption::Default(_)
            // It stays in the text of the definition, which SHOW CREATE shows.
            | ColumnOption::Comment(_) => continue,
            ColumnOption::PrimaryKey(_) => ("PRIMARY KEY: it would not be enforced".to_owned(), KEY),
            ColumnOption::Unique(_) => ("UNIQUE: it would not be enforced".to_owned(), KEY),
            ColumnOption::ForeignKey(_) => ("REFERENCES: it would not be enforced".to_owned(), REFERENCE),
            ColumnOption::Check(_) => ("CHECK: it would not be enforced".to_owned(), CHECK),
            ColumnOption::Generated { .. } => (
                "GENERATED".to_owned(),
                "Compute it in the query or in a view; the columns of a stream may be generated.",
            ),
            ColumnOption::Materialized(_)
            | ColumnOption::Ephemeral(_)
            | ColumnOption::Alias(_)
            | ColumnOption::DialectSpecific(_)
            | ColumnOption::CharacterSet(_)
            | ColumnOption::Collation(_)
            | ColumnOption::OnUpdate(_)
            | ColumnOption::Options(_)
            | ColumnOption::Identity(_)
            | ColumnOption::OnConflict(_)
            | ColumnOption::Policy(_)
            | ColumnOption::Tags(_)
            | ColumnOption::Srid(_)
            | ColumnOption::Invisible => {
                (option.to_string(), "A column of a table may be NOT NULL and have a DEFAULT.")
            }
        };
        return Err(Error::sql(format!("column \"{}\" cannot have {what}", name.value))
            .with_place(place_of(name.span))
            .with_hint(hint));
    }
    Ok(())
}

fn show(walk: &Walk<'_>, options: &ShowStatementOptions) -> Result<()> {
    let ShowStatementOptions { show_in: _, starts_with, limit, limit_from, filter_position } =
        options;
    let more = starts_with.is_some()
        || limit.is_some()
        || limit_from.is_some()
        || filter_position.is_some();
    let hint = "Select from information_schema.columns, or DESCRIBE the table.";
    walk.without(more, "SHOW", "SHOW COLUMNS takes no filter", hint)
}
