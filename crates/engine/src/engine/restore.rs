//! Opens the objects of a data directory: executes their definitions again.

use std::sync::Arc;

use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::parse::{is_rewritten, parse_kept};
use windrow_stream::caught::caught;

use crate::catalog::names_called;
use crate::durable::definitions::{Definition, Kind, LostRows};
use crate::execution::context::StatementContext;
use crate::execution::creation::Creation;
use crate::instance::Instance;
use crate::session::Session;
use crate::statements::{self, restore_table};

/// Opens all objects of the data directory, functions and models first, and starts their queries. Views that read the same
/// stream read it once. An object that cannot be opened is broken: statements that use it get the reason, other
/// objects are not affected.
pub(super) async fn restore(session: &Session) {
    let cx = session.statement_context();
    let instance = &cx.instance;
    let Some(store) = &instance.store else { return };
    let known = in_order(store.definitions());
    let paused = known.iter().filter(|d| d.kind == Kind::Stream && store.is_paused(d));
    let paused: Vec<String> = paused.map(|definition| definition.name.clone()).collect();
    instance.parts.paused.send_modify(|names| names.extend(paused));
    for definition in known.clone() {
        let what = || format!("opening \"{}\"", definition.name);
        let restored = caught(what, restore_one(session, &definition)).await;
        let complete = || Creation::new(&cx, &definition.name).complete(Some(&definition));
        if let Err(error) = restored.and_then(|()| complete()) {
            // Its archiving may have started.
            instance.release(&definition.name).await;
            let error = named(error, &definition);
            tracing::error!("{error}");
            instance.catalog.mark_broken(&definition, error);
        }
    }
    for definition in store.definitions() {
        let before = known.iter().find(|d| d.id == definition.id).map_or(0, |d| d.lost.len());
        for lost in definition.lost.iter().skip(before) {
            report_lost(instance, &definition.name, lost);
        }
        instance.catalog.note_lost(&definition.name, definition.lost);
    }
    instance.start_pending();
    // Rows that were past their retention when the last process ended are not to be read again.
    instance.enable_retention().await;
}

/// Returns definitions in the order in which they can be opened: that of their creation, but functions and models first. A stream
/// may call one that was created after it, since it was altered.
fn in_order(mut known: Vec<Definition>) -> Vec<Definition> {
    known.sort_by_key(|definition| !matches!(definition.kind, Kind::Function | Kind::Model));
    known
}

/// Adds notices that the loss of rows has been accepted, and which views had consumed some of them.
fn report_lost(instance: &Instance, stream: &str, lost: &LostRows) {
    let LostRows { start, end, had, .. } = lost;
    let rows = end - start;
    instance.notice(format!(
        "stream \"{stream}\" has lost {rows} rows, from row {start} on; it continues with row {end}"
    ));
    for (view, to) in had {
        let rows = (*to).min(*end).saturating_sub(*start);
        instance
            .notice(format!("view \"{view}\" has consumed {rows} rows that \"{stream}\" has lost"));
    }
}

/// Executes the definition of one object again.
async fn restore_one(session: &Session, definition: &Definition) -> Result<()> {
    let restoring = Some(Arc::new(definition.clone()));
    let mut cx = StatementContext { restoring, ..session.statement_context() };
    cx = cx.pin_models(&definition.models)?;
    let Some(store) = &cx.instance.store else { return Ok(()) };
    check_functions(store.definitions(), definition)?;
    if definition.kind == Kind::Table && restore_table(&cx, definition).await? {
        return Ok(());
    }
    if store.is_from_before_zones(definition) {
        cx = cx.in_zone(None);
    }
    for parsed in parse_kept(&definition.sql)? {
        let restored = statements::of(parsed).execute(&cx).await;
        restored.map_err(|error| cx.suggest(error))?;
    }
    Ok(())
}

/// Checks that an object does not call a user-defined function in whose place a newer version of the engine would put one of its own.
fn check_functions(known: Vec<Definition>, definition: &Definition) -> Result<()> {
    let mut own = known.into_iter().filter(|d| d.kind == Kind::Function && is_rewritten(&d.name));
    let called = names_called(&definition.sql);
    match own.find(|function| called.contains(&function.name)) {
        None => Ok(()),
        Some(function) => {
            let message =
                format!("it calls function \"{}\", whose name is built in now", function.name);
            Err(Error::sql(message)
                .with_hint("Create it again with a function of another name, such as my_f."))
        }
    }
}

/// Returns an error that names the object that cannot be opened.
fn named(error: Error, definition: &Definition) -> Error {
    let message = format!(
        "{} \"{}\" of the data directory cannot be opened: {}",
        definition.kind.as_str().replace('_', " "),
        definition.name,
        error.message()
    );
    let mut named = Error::new(error.kind(), message);
    if let Some(detail) = error.detail() {
        named = named.with_detail(detail);
    }
    for hint in error.hints() {
        named = named.with_hint(hint);
    }
    if error.message().starts_with("unknown function") {
        named = named.with_hint(
            "If it is a function of the program that embeds Windrow, open the data directory with it: EngineConfig::functions \
             or EngineConfig::aggregates.",
        );
    }
    if matches!(error.kind(), ErrorKind::Sql | ErrorKind::Config | ErrorKind::NotFound) {
        let (name, kind) = (&definition.name, drop_word(definition.kind));
        named = named.with_hint(format!(
            "SHOW CREATE {name} shows its statement; DROP {kind} {name} removes it, so that it can be created again."
        ));
    }
    named.with_source(error)
}

/// Returns the kind of object as DROP names it.
fn drop_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Stream => "STREAM",
        Kind::View => "VIEW",
        Kind::MaterializedView | Kind::Insert => "MATERIALIZED VIEW",
        Kind::Table => "TABLE",
        Kind::Sink => "SINK",
        Kind::Function => "FUNCTION",
        Kind::Model => "MODEL",
    }
}

#[cfg(test)]
mod tests;
