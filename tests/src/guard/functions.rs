//! User-defined functions and rights: calling one needs `read` on it, changing one `admin`; a view has the rights of its creator.

use libtest_mimic::Failed;
use windrow_engine::EngineConfig;

use super::{Fixture, Role};

pub(super) fn between_users() -> Result<(), Failed> {
    let f = Fixture::new(EngineConfig::default())?;
    f.setup(&[
        "CREATE STREAM s (k INT, ts TIMESTAMP, WATERMARK FOR ts)",
        "INSERT INTO s VALUES (3, TIMESTAMP '2026-01-01 00:00:00')",
        "CREATE FUNCTION twice(a INT) RETURNS VARCHAR AS 'concat(a * 2)'",
        "CREATE FUNCTION private(a INT) RETURNS VARCHAR AS 'concat(a + 40)'",
        "CREATE VIEW w AS SELECT private(k) AS k FROM s",
    ])?;
    let ann = f.user(&[(Role::Read, "s"), (Role::Read, "twice"), (Role::Read, "w")])?;
    let says = |sql: &str, expected: &str| match f.names(&ann, sql)? {
        found if found == [expected] => Ok(()),
        found => Err(Failed::from(format!("{sql}: {found:?}"))),
    };
    says("SELECT arrow_cast(twice(k), 'Utf8') FROM s", "6")?;
    says("SELECT arrow_cast(k, 'Utf8') FROM w", "43")?;
    // Others do not even learn that it exists.
    let call = |name: &str| match f.run(&ann, &format!("SELECT {name}(k) FROM s")) {
        Ok(_) => Err(Failed::from(format!("{name} is called"))),
        Err(error) => Ok((error.kind(), error.message().replace(name, "…"))),
    };
    let (there, gone) = (call("private")?, call("nothing_like_it")?);
    if there != gone {
        return Err(format!("{there:?}, {gone:?}").into());
    }
    let replace = "CREATE OR REPLACE FUNCTION twice(a INT) RETURNS VARCHAR AS 'concat(a * 3)'";
    for sql in [replace, "DROP FUNCTION twice", "CREATE FUNCTION mine(a INT) AS 'a'"] {
        f.denied(&ann, sql)?;
    }
    let bob = f.user(&[(Role::Admin, "twice"), (Role::Read, "s")])?;
    f.allowed(&bob, replace)?;
    says("SELECT arrow_cast(twice(k), 'Utf8') FROM s", "9")?;
    f.denied(&bob, "DROP FUNCTION private").map(drop)
}
