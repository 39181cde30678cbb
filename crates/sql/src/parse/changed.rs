//! `DELETE` and `UPDATE` as the query for the rows that they change.
//!
//! Invariant: the query reads the target alone, and its columns are those that it is asked for, in order.

use datafusion::sql::parser::Statement as EngineStatement;
use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, Ident, ObjectName, Query, SelectItem,
    SetExpr, Statement, TableFactor, TableWithJoins, Update,
};
use sqlparser::parser::Parser;
use windrow_core::{Error, Result};

use super::ddl::folded;
use super::dialect;

/// `DELETE FROM target [WHERE …]` or `UPDATE target SET … [WHERE …]`.
#[derive(Debug, Clone)]
pub struct ChangeRows {
    /// What is changed.
    pub target: ObjectName,
    /// The columns that are set, folded, each once, and their new values; `None`: the rows are deleted.
    pub assignments: Option<Vec<(String, Expr)>>,
    /// The target, with its alias.
    from: TableWithJoins,
    selection: Option<Expr>,
}

impl ChangeRows {
    /// Returns what `statement` changes; `None`: it is no DELETE or UPDATE of one object.
    pub fn of(statement: &EngineStatement) -> Option<Self> {
        let EngineStatement::Statement(statement) = statement else { return None };
        let (from, assignments, selection) = match statement.as_ref() {
            Statement::Delete(delete) => match &delete.from {
                FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from) => {
                    (from.first()?, None, &delete.selection)
                }
            },
            Statement::Update(update) => {
                (&update.table, Some(&update.assignments), &update.selection)
            }
            _ => return None,
        };
        let TableFactor::Table { name, .. } = &from.relation else { return None };
        let assignments = assignments.map(|all| all.iter().filter_map(assigned).collect());
        let (from, selection) = (from.clone(), selection.clone());
        Some(Self { target: name.clone(), assignments, from, selection })
    }

    /// Refuses what a change of a stream cannot have. `statement` is the one that it was made of.
    ///
    /// # Errors
    /// The clause, and what to write instead.
    pub fn check(&self, statement: &EngineStatement) -> Result<()> {
        let EngineStatement::Statement(statement) = statement else { return Ok(()) };
        let without = |is_there: bool, clause: &str, hint: &str| match is_there {
            false => Ok(()),
            true => Err(Error::sql(format!("{clause} is not supported here")).with_hint(hint)),
        };
        let (returns, ordered, several) = match statement.as_ref() {
            Statement::Delete(Delete {
                tables,
                from,
                using,
                returning,
                output,
                order_by,
                limit,
                ..
            }) => {
                let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = from;
                let several = using.is_some() || !tables.is_empty() || from.len() != 1;
                let ordered = !order_by.is_empty() || limit.is_some();
                (returning.is_some() || output.is_some(), ordered, several)
            }
            Statement::Update(Update {
                from,
                returning,
                output,
                or,
                order_by,
                limit,
                assignments,
                ..
            }) => {
                let known = self.assignments.as_ref().map_or(0, Vec::len);
                let hint = "Assign columns one by one: SET a = 1, b = 2.";
                without(known != assignments.len(), "this SET", hint)?;
                let ordered = !order_by.is_empty() || limit.is_some();
                let returns = returning.is_some() || output.is_some();
                (returns, ordered, from.is_some() || or.is_some())
            }
            _ => return Ok(()),
        };
        without(returns, "RETURNING", "SELECT the rows before or afterwards.")?;
        without(
            ordered,
            "ORDER BY or LIMIT",
            "Choose the rows in WHERE: … WHERE id IN (SELECT id FROM … ORDER BY … LIMIT 10).",
        )?;
        let hint = "Choose the rows in WHERE: … WHERE id IN (SELECT id FROM other).";
        without(several || !self.from.joins.is_empty(), "a join", hint)?;
        let Some(assignments) = &self.assignments else { return Ok(()) };
        let mut names: Vec<&String> = assignments.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair.first() == pair.last()) {
            Some([name, _]) => Err(Error::sql(format!("column \"{name}\" is set twice"))
                .with_hint("Remove one of the assignments.")),
            _ => Ok(()),
        }
    }

    /// Returns the query for the rows that are changed: with these columns, of which those that are set have their new
    /// values.
    ///
    /// # Errors
    /// Internal when the text of an empty query cannot be parsed.
    pub fn query(&self, columns: &[&str]) -> Result<Query> {
        let broken = || Error::internal("a query cannot be made of a change");
        let parsed = Parser::parse_sql(&dialect::DIALECT, "SELECT * FROM t");
        let parsed = parsed.map_err(|e| broken().with_source(e))?.pop();
        let Some(Statement::Query(query)) = parsed else { return Err(broken()) };
        let mut query = *query;
        let SetExpr::Select(select) = query.body.as_mut() else { return Err(broken()) };
        let value = |column: &&str| {
            let set = self.assignments.iter().flatten().find(|(name, _)| name == column);
            let name = Ident::with_quote('"', *column);
            match set {
                Some((_, expr)) => SelectItem::ExprWithAlias { expr: expr.clone(), alias: name },
                None => SelectItem::UnnamedExpr(Expr::Identifier(name)),
            }
        };
        select.projection = columns.iter().map(value).collect();
        select.from = vec![self.from.clone()];
        select.selection = self.selection.clone();
        Ok(query)
    }
}

/// The column that is set, and its value; `None`: they are several at once.
fn assigned(assignment: &Assignment) -> Option<(String, Expr)> {
    let AssignmentTarget::ColumnName(name) = &assignment.target else { return None };
    let [column] = name.0.as_slice() else { return None };
    Some((folded(column.as_ident()?), assignment.value.clone()))
}
