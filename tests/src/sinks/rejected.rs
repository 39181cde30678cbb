//! `on_error = 'reject'`: refused rows are set aside, all others arrive.

use std::collections::BTreeSet;

use libtest_mimic::Failed;

use super::{by_key, engine, insert, refusal, small, wait_until};
use crate::hooks::Hooks;
use crate::talk::Talk;

/// The numbers that were refused, and those of the rows that have come.
fn refused(talk: &Talk) -> Result<Vec<String>, Failed> {
    let rows = talk.rows("SELECT \"sequence\" FROM windrow.rejected_rows ORDER BY \"sequence\"")?;
    Ok(rows.into_iter().flatten().collect())
}

pub(super) fn requests() -> Result<(), Failed> {
    for durable in [false, true] {
        let temp = tempfile::tempdir()?;
        let dir = durable.then_some(temp.path());
        let talk = engine(dir)?;
        small(&talk)?;
        // The first row, two that follow each other, and the last one.
        let bad = ["{\"id\":0,", "{\"id\":7,", "{\"id\":8,", "{\"id\":99,"];
        let hooks = Hooks::answering(0, move |number, post| {
            match bad.iter().any(|start| post.body.starts_with(start)) {
                true => 422,
                false if number % 7 == 5 => 503,
                false => 200,
            }
        })?;
        talk.ask(&format!(
            "CREATE SINK h FROM v WITH (connector = 'webhook', url = '{}', on_error = 'reject')",
            hooks.url()
        ))?;
        insert(&talk, 0..100)?;
        talk.ask("WAIT FOR h")?;
        if refused(&talk)? != ["1", "8", "9", "100"] {
            return Err(format!("{:?}", refused(&talk)?).into());
        }
        let row = talk.rows("SELECT reason, row FROM windrow.rejected_rows LIMIT 1")?;
        if !row[0][0].contains("422") || row[0][1] != "{\"id\":0,\"k\":1}" {
            return Err(format!("{row:?}").into());
        }
        // Good rows before a refused one were not sent again.
        let posts = hooks.posts();
        let keys = by_key(&posts)?;
        let again = posts.len() - keys.len();
        let temporary = (0..posts.len()).filter(|number| number % 7 == 5).count();
        if keys.len() != 100 || again > temporary {
            return Err(format!("{} keys, {again} of them again", keys.len()).into());
        }
        let state = talk.rows("SELECT state, committed, rows, rejected FROM windrow.sinks")?;
        if state != [["running", "100", "96", "4"]] {
            return Err(format!("{state:?}").into());
        }
        talk.close()?;
        if durable {
            let talk = engine(dir)?;
            talk.ask("WAIT FOR h")?;
            if refused(&talk)? != ["1", "8", "9", "100"] || hooks.posts().len() != posts.len() {
                return Err("something is sent again".into());
            }
            talk.close()?;
        }
    }
    Ok(())
}

pub(super) fn batches() -> Result<(), Failed> {
    let temp = tempfile::tempdir()?;
    let talk = engine(Some(temp.path()))?;
    small(&talk)?;
    let hooks = Hooks::answering(0, |number, post| {
        match ["\"id\":3,", "\"id\":77,", "\"id\":78,"].iter().any(|id| post.body.contains(id)) {
            true => 400,
            false if number % 5 == 3 => 503,
            false => 200,
        }
    })?;
    talk.ask(&format!(
        "CREATE SINK h FROM v WITH (connector = 'webhook', url = '{}', mode = 'batch', batch_rows = 40, batch_interval = '10 ms', \
         on_error = 'reject')",
        hooks.url()
    ))?;
    insert(&talk, 0..100)?;
    talk.ask("WAIT FOR h")?;
    if refused(&talk)? != ["4", "78", "79"] {
        return Err(format!("{:?}", refused(&talk)?).into());
    }
    // Each key has the same rows whenever it comes, and every good row is in a request that was taken.
    by_key(&hooks.posts())?;
    let mut taken = BTreeSet::new();
    for (number, post) in hooks.posts().iter().enumerate() {
        let is_bad =
            ["\"id\":3,", "\"id\":77,", "\"id\":78,"].iter().any(|id| post.body.contains(id));
        if is_bad || number % 5 == 3 {
            continue;
        }
        for row in post.body.split("{\"id\":").skip(1) {
            let id: u64 = row.split(',').next().unwrap_or_default().parse()?;
            if !taken.insert(id) {
                return Err(format!("row {id} is taken twice").into());
            }
        }
    }
    if taken.len() != 97 {
        return Err(format!("{} rows", taken.len()).into());
    }
    talk.close()?;
    Ok(())
}

pub(super) fn not_the_row() -> Result<(), Failed> {
    let talk = engine(None)?;
    small(&talk)?;
    let hooks = Hooks::answering(0, |_, _| 401)?;
    talk.ask(&format!(
        "CREATE SINK h FROM v WITH (connector = 'webhook', url = '{}', on_error = 'reject')",
        hooks.url()
    ))?;
    insert(&talk, 0..5)?;
    let why = refusal(talk.ask("WAIT FOR h"))?;
    wait_until(&talk, "SELECT state FROM windrow.sinks", "stopped")?;
    if !why.contains("401") || !refused(&talk)?.is_empty() || hooks.posts().len() != 1 {
        let (refused, posts) = (refused(&talk)?, hooks.posts());
        return Err(format!("{why} {refused:?} {posts:?}").into());
    }
    // It ends with the error of the sink.
    drop(talk.close());
    Ok(())
}
