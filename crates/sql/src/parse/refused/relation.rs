//! Relations in FROM.

use sqlparser::ast::{
    EmptyMatchesMode, FunctionArg, Join, JoinOperator, RowsPerMatch, TableAlias,
    TableAliasColumnDef, TableFactor, TableFunctionArgs, TableSample, TableSampleKind,
    TableSampleMethod, TableSampleQuantity, TableSampleSeed, TableSampleUnit,
};
use windrow_core::Result;

use super::{Walk, query};

pub(super) fn factor(walk: &Walk<'_>, factor: &TableFactor) -> Result<()> {
    match factor {
        TableFactor::Table { alias: name, args, sample, .. } => {
            table(walk, factor)?;
            optional(walk, name.as_ref())?;
            sampled(walk, sample.as_ref(), args.is_none())
        }
        TableFactor::Derived { lateral: _, subquery: _, alias: name, sample } => {
            optional(walk, name.as_ref())?;
            sampled(walk, sample.as_ref(), false)
        }
        TableFactor::TableFunction { expr: _, alias: name }
        | TableFactor::NestedJoin { table_with_joins: _, alias: name } => {
            if let TableFactor::NestedJoin { table_with_joins, .. } = factor {
                table_with_joins.joins.iter().try_for_each(|j| join(walk, j))?;
            }
            optional(walk, name.as_ref())
        }
        TableFactor::Function { lateral: _, name: _, args, with_ordinality, alias: name } => {
            ordinality(walk, *with_ordinality)?;
            let named = args.iter().any(|a| !matches!(a, FunctionArg::Unnamed(_)));
            let hint = "Give them in their order, without names.";
            walk.without(named, "LATERAL", "arguments of a function in FROM have no names", hint)?;
            optional(walk, name.as_ref())
        }
        TableFactor::UNNEST {
            alias: name,
            array_exprs: _,
            with_offset,
            with_offset_alias: _,
            with_ordinality,
        } => {
            ordinality(walk, *with_ordinality)?;
            let hint = "Number the elements: unnest(generate_series(1, array_length(list))).";
            walk.without(*with_offset, "WITH OFFSET", "WITH OFFSET is not supported", hint)?;
            optional(walk, name.as_ref())
        }
        TableFactor::Pivot { .. } => {
            let hint = "Aggregate each value: sum(x) FILTER (WHERE k = 'a') AS a, ….";
            Err(walk.refused("PIVOT", "PIVOT is not supported", hint))
        }
        TableFactor::Unpivot { .. } => {
            let hint = "Join the parts with UNION ALL.";
            Err(walk.refused("UNPIVOT", "UNPIVOT is not supported", hint))
        }
        TableFactor::MatchRecognize {
            table: _,
            partition_by: _,
            order_by,
            measures: _,
            rows_per_match,
            after_match_skip: _,
            pattern: _,
            symbols: _,
            alias: name,
        } => {
            order_by.iter().try_for_each(|by| query::ordered(walk, by))?;
            let unmatched = Some(RowsPerMatch::AllRows(Some(EmptyMatchesMode::WithUnmatched)));
            let hint = "Join the rows with those of the matches: … LEFT JOIN (SELECT * FROM t MATCH_RECOGNIZE (…)) AS m ON ….";
            walk.without(
                *rows_per_match == unmatched,
                "WITH UNMATCHED ROWS",
                "WITH UNMATCHED ROWS is not supported",
                hint,
            )?;
            optional(walk, name.as_ref())
        }
        TableFactor::JsonTable { .. }
        | TableFactor::OpenJsonTable { .. }
        | TableFactor::XmlTable { .. }
        | TableFactor::SemanticView { .. } => {
            let hint = "Read JSON with ->, ->> and json_get.";
            let message = "tables of JSON or XML are not supported in FROM";
            Err(walk.refused("FROM", message, hint))
        }
    }
}

/// The parts of a table in FROM that only other databases have.
fn table(walk: &Walk<'_>, factor: &TableFactor) -> Result<()> {
    let TableFactor::Table {
        name: _,
        alias: _,
        args,
        with_hints,
        version,
        with_ordinality,
        partitions,
        json_path,
        sample: _,
        index_hints,
    } = factor
    else {
        return Ok(());
    };
    if let Some(TableFunctionArgs { args: _, settings }) = args {
        let hint = "Use SET name = value before the query.";
        walk.without(settings.is_some(), "SETTINGS", "a function in FROM has no SETTINGS", hint)?;
    }
    walk.without(!with_hints.is_empty(), "WITH", "table hints are not supported", "Remove them.")?;
    let hint = "A table has one version; for a stream give event times in WHERE.";
    walk.without(version.is_some(), "FROM", "a table cannot be read as of another time", hint)?;
    ordinality(walk, *with_ordinality)?;
    let hint = "Write the condition in WHERE; archived rows are found by it as quickly.";
    walk.without(!partitions.is_empty(), "PARTITION", "partitions cannot be chosen", hint)?;
    let hint = "Read JSON with ->, ->> and json_get.";
    walk.without(json_path.is_some(), "FROM", "a path into JSON is not allowed in FROM", hint)?;
    walk.without(!index_hints.is_empty(), "INDEX", "table hints are not supported", "Remove them.")
}

fn ordinality(walk: &Walk<'_>, is_there: bool) -> Result<()> {
    let hint = "Number the rows with row_number() OVER (ORDER BY …).";
    walk.without(is_there, "WITH ORDINALITY", "WITH ORDINALITY is not supported", hint)
}

fn optional(walk: &Walk<'_>, name: Option<&TableAlias>) -> Result<()> {
    name.map_or(Ok(()), |name| alias(walk, name))
}

pub(super) fn alias(walk: &Walk<'_>, alias: &TableAlias) -> Result<()> {
    let TableAlias { explicit: _, name: _, columns, at } = alias;
    walk.without(at.is_some(), "AT", "a relation has no AT", "Leave it out.")?;
    for TableAliasColumnDef { name, data_type } in columns {
        let what = format!("column \"{}\" of an alias cannot have a type", name.value);
        walk.without(data_type.is_some(), "AS", &what, "Leave it out, and CAST where it is used.")?;
    }
    Ok(())
}

fn sampled(walk: &Walk<'_>, sample: Option<&TableSampleKind>, may: bool) -> Result<()> {
    let sample = match sample {
        None => return Ok(()),
        Some(TableSampleKind::BeforeTableAlias(s) | TableSampleKind::AfterTableAlias(s)) => s,
    };
    let TableSample { modifier: _, name, quantity, seed, bucket, offset } = &**sample;
    let word =
        if walk.place("TABLESAMPLE") == walk.place("SELECT") { "SAMPLE" } else { "TABLESAMPLE" };
    let hint =
        "Write FROM stream TABLESAMPLE BERNOULLI (10) REPEATABLE (1) for 10 percent of the rows.";
    walk.without(!may, word, "only a stream or a materialized view can be sampled", hint)?;
    let by_row = match name {
        None | Some(TableSampleMethod::Bernoulli | TableSampleMethod::Row) => true,
        Some(TableSampleMethod::System | TableSampleMethod::Block) => false,
    };
    walk.without(!by_row, word, "rows are sampled one by one, not by blocks", hint)?;
    walk.without(
        bucket.is_some() || offset.is_some(),
        word,
        "rows are not sampled by buckets",
        hint,
    )?;
    match quantity {
        None => return Err(walk.refused(word, "a sample needs a size", hint)),
        Some(TableSampleQuantity { parenthesized: _, value: _, unit }) => match unit {
            None | Some(TableSampleUnit::Percent) => {}
            Some(TableSampleUnit::Rows) => {
                let message = "a sample has a number of percent, not of rows";
                return Err(walk.refused(word, message, hint));
            }
        },
    }
    match seed {
        None | Some(TableSampleSeed { modifier: _, value: _ }) => Ok(()),
    }
}

pub(super) fn join(walk: &Walk<'_>, join: &Join) -> Result<()> {
    let Join { relation: _, global, join_operator } = join;
    walk.without(*global, "GLOBAL", "GLOBAL joins are not supported", "Leave GLOBAL out.")?;
    let (word, hint) = match join_operator {
        JoinOperator::Join(_)
        | JoinOperator::Inner(_)
        | JoinOperator::Left(_)
        | JoinOperator::LeftOuter(_)
        | JoinOperator::Right(_)
        | JoinOperator::RightOuter(_)
        | JoinOperator::FullOuter(_)
        | JoinOperator::CrossJoin(_)
        | JoinOperator::Semi(_)
        | JoinOperator::LeftSemi(_)
        | JoinOperator::RightSemi(_)
        | JoinOperator::Anti(_)
        | JoinOperator::LeftAnti(_)
        | JoinOperator::RightAnti(_) => return Ok(()),
        JoinOperator::CrossApply | JoinOperator::OuterApply => {
            ("APPLY", "Write CROSS JOIN LATERAL (SELECT …).")
        }
        JoinOperator::AsOf { match_condition: _, constraint: _ } => {
            ("ASOF", "Write a ASOF JOIN b ON a.k = b.k AND a.ts >= b.ts.")
        }
        JoinOperator::StraightJoin(_) => ("STRAIGHT_JOIN", "Write JOIN."),
        JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
            ("ARRAY", "Write FROM t, unnest(t.list) AS u (x).")
        }
    };
    Err(walk.refused(word, &format!("{word} joins are not supported"), hint))
}
