//! `ALTER STREAM`: changes of a stream while it runs.
//!
//! The definition of an altered stream is the statement that created it, followed by those that altered it: at each start they
//! are executed again, in order. An alteration is durable before it takes effect.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use sqlparser::ast::ExprWithAlias;
use windrow_core::{Error, Place, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::{self, Alteration, CheckClause, OptionItem};
use windrow_stream::Stream;
use windrow_stream::checks::Checks;
use windrow_stream::push::PushStream;
use windrow_stream::stream::table::LeftOut;

use super::declared_columns::checks;
use super::keyed_stream::append_only;
use super::stream_options::engine_options;
use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::{Catalog, dropped};
use crate::execution::context::StatementContext;
use crate::execution::creation::retention_ticks;
use crate::execution::outcome::Outcome;
use crate::names::{ident_name, plain_name};

/// `ALTER STREAM …`.
#[derive(Debug)]
pub(crate) struct AlterStream {
    pub(super) alter: parse::AlterStream,
    pub(super) text: String,
}

impl Statement for AlterStream {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("ALTER STREAM", Some(Weight::Query))
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Admin, &self.alter.name)
    }

    fn is_definition(&self) -> bool {
        true
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let name = plain_name(&self.alter.name)?;
            if self.alter.if_exists && !cx.catalog().exists(&name) {
                return Ok(Outcome::Done("ALTER STREAM (does not exist)".into()));
            }
            let _one_at_a_time = cx.instance.altering.lock().await;
            let stream = cx.catalog().stream(&name)?;
            append_only(&stream, "ALTER STREAM", "CREATE OR REPLACE STREAM {} creates it again.")?;
            match &self.alter.what {
                Alteration::Set(options) => self.set(cx, &stream, options)?,
                Alteration::Reset(keys) => self.reset(cx, &stream, keys)?,
                Alteration::AddColumn(clause) => {
                    if !self.add_column(cx, &stream, clause).await? {
                        return Ok(Outcome::Done(
                            "ALTER STREAM (the column exists already)".into(),
                        ));
                    }
                }
                Alteration::AddCheck { check, is_valid } => {
                    self.add_check(cx, &stream, (check, *is_valid)).await?;
                }
                Alteration::DropCheck { name, if_exists, place } => {
                    let name = ident_name(name);
                    if !self.drop_check(cx, &stream, (&name, *place), *if_exists)? {
                        return Ok(Outcome::Done("ALTER STREAM (there is no such check)".into()));
                    }
                }
            }
            Ok(Outcome::Done("ALTER STREAM".into()))
        })
    }
}

impl AlterStream {
    /// Adds the statement to the definition of the stream.
    pub(super) fn record(&self, cx: &StatementContext, stream: &Stream) -> Result<()> {
        let name = &stream.name;
        let now = cx.catalog().stream(name);
        if !now.is_ok_and(|now| std::ptr::eq(now.as_ref(), stream)) {
            return Err(dropped("stream", name));
        }
        let before = cx.catalog().text(name).unwrap_or_default();
        if before.starts_with("--") {
            return Err(Error::sql(format!("stream \"{name}\" was made by LATE DATA TO"))
                .with_hint("Create it with CREATE STREAM before the query that writes to it."));
        }
        // A comment at the end of a line would hide a semicolon.
        let text = format!("{}\n;\n{}", before.trim_end(), self.text);
        if let (Some(store), None) = (&cx.instance.store, &cx.restoring) {
            store.retext(name, &text)?;
        }
        cx.catalog().retext(name, &text);
        Ok(())
    }

    /// `SET (…)`.
    fn set(&self, cx: &StatementContext, stream: &Stream, options: &[OptionItem]) -> Result<()> {
        if let Some(other) = options.iter().find(|option| option.key != "retention") {
            return Err(fixed(&other.key, other.place));
        }
        let Some((keep, place)) = engine_options(options)?.retention else { return Ok(()) };
        let ticks = retention_ticks(&stream.name, &stream.schema, keep);
        self.keep(cx, stream, (Some(ticks.map_err(|e| e.with_place(place))?), place))
    }

    /// `RESET (…)`.
    fn reset(
        &self,
        cx: &StatementContext,
        stream: &Stream,
        keys: &[(String, Place)],
    ) -> Result<()> {
        if let Some((key, place)) = keys.iter().find(|(key, _)| key != "retention") {
            return Err(fixed(key, *place));
        }
        let Some((_, place)) = keys.first() else { return Ok(()) };
        self.keep(cx, stream, (None, *place))
    }

    fn keep(
        &self,
        cx: &StatementContext,
        stream: &Stream,
        (ticks, place): (Option<i64>, Place),
    ) -> Result<()> {
        let name = &stream.name;
        let Some(retention) = &stream.retention else {
            return Err(Error::sql(format!(
                "stream \"{name}\" does not store the rows of its connector"
            ))
            .with_place(place)
            .with_hint(
                "CREATE OR REPLACE STREAM … WITH (retention = '…') stores them from then on.",
            ));
        };
        self.record(cx, stream)?;
        retention.keep(ticks);
        Ok(())
    }

    /// `ADD CHECK`. `is_valid`: the rows that the stream has must satisfy it too.
    async fn add_check(
        &self,
        cx: &StatementContext,
        stream: &Arc<Stream>,
        (clause, is_valid): (&CheckClause, bool),
    ) -> Result<()> {
        let push = pushed(stream, clause.place)?;
        let (name, before) = (&stream.name, push.checks());
        let taken: Vec<String> = before.0.iter().map(|check| check.name.clone()).collect();
        if let Some(given) = clause.name.as_ref().map(ident_name)
            && taken.contains(&given)
        {
            return Err(Error::sql(format!("stream \"{name}\" has a check \"{given}\""))
                .with_place(clause.place)
                .with_hint("Give the new one another name, or drop the old one first."));
        }
        let schema = stream.schema.schema();
        let new = checks(&cx.state(), name, schema, std::slice::from_ref(clause), taken)?;
        let added = Checks(before.0.iter().cloned().chain(new.0).collect());
        let is_new = cx.restoring.is_none();
        // Rows that come while the others are examined have to satisfy it already.
        let mut tentative = Tentative { push, before: Some(before) };
        push.check_by(added);
        if is_valid && is_new {
            satisfied(cx, stream, clause).await?;
        }
        self.record(cx, stream)?;
        tentative.before = None;
        Ok(())
    }

    /// `DROP CONSTRAINT`. Returns whether there was one.
    fn drop_check(
        &self,
        cx: &StatementContext,
        stream: &Stream,
        (check, place): (&str, Place),
        if_exists: bool,
    ) -> Result<bool> {
        let push = pushed(stream, place)?;
        let before = push.checks();
        let names: Vec<&str> = before.0.iter().map(|check| check.name.as_str()).collect();
        if !names.contains(&check) {
            if if_exists {
                return Ok(false);
            }
            let hint = match names.as_slice() {
                [] => "It has none.".to_owned(),
                names => format!("It has {}.", names.join(", ")),
            };
            let message = format!("stream \"{}\" has no check \"{check}\"", stream.name);
            return Err(Error::sql(message).with_place(place).with_hint(hint));
        }
        self.record(cx, stream)?;
        push.check_by(Checks(before.0.iter().filter(|c| c.name != check).cloned().collect()));
        Ok(true)
    }
}

/// Checks that replace others for now: they are undone when it is dropped, also because the statement was stopped.
struct Tentative<'a> {
    push: &'a PushStream,
    /// The checks before; `None`: the new ones stay.
    before: Option<Arc<Checks>>,
}

impl Drop for Tentative<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.push.check_by(before.as_ref().clone());
        }
    }
}

/// The error of an option that is fixed when a stream is created.
fn fixed(key: &str, place: Place) -> Error {
    Error::sql(format!("option \"{key}\" of a stream cannot be altered")).with_place(place).with_hint(
        "Only retention can. CREATE OR REPLACE STREAM creates the stream anew with other options.",
    )
}

/// Returns the push stream whose checks are altered.
fn pushed(stream: &Stream, place: Place) -> Result<&PushStream> {
    stream.push().map(|push| &**push).ok_or_else(|| {
        Error::sql(format!(
            "the checks of stream \"{}\" cannot be altered: its rows are read again from its connector \"{}\"",
            stream.name, stream.connector
        ))
        .with_place(place)
        .with_hint("CREATE OR REPLACE STREAM declares other checks; a view with WHERE leaves rows out.")
    })
}

/// Checks that the rows that a stream has satisfy a condition.
async fn satisfied(
    cx: &StatementContext,
    stream: &Arc<Stream>,
    clause: &CheckClause,
) -> Result<()> {
    let schema = DFSchema::try_from(Arc::clone(stream.schema.schema()));
    let schema = schema.map_err(from_datafusion)?;
    let expr = ExprWithAlias { expr: clause.expr.clone(), alias: None };
    let expr =
        cx.state().create_logical_expr_from_sql_expr(expr, &schema).map_err(from_datafusion)?;
    let rows = cx.session.read_table(stream.contents(LeftOut::default()));
    let broken = rows.and_then(|rows| rows.filter(Expr::IsFalse(Box::new(expr))));
    let count = broken.map_err(from_datafusion)?.count().await.map_err(from_datafusion)?;
    if count == 0 {
        return Ok(());
    }
    let name = &stream.name;
    let message = match count {
        1 => format!("1 row of stream \"{name}\" violates the check"),
        count => format!("{count} rows of stream \"{name}\" violate the check"),
    };
    Err(Error::data(message)
        .with_place(clause.place)
        .with_hint("Add NOT VALID to check further rows only."))
}
