//! Files of Avro: those of fastavro and polars are read with the types of their schemas, and fastavro reads those of a sink.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;

use crate::kafka::same;
use crate::program::Home;
use crate::readers::python;
use crate::talk::Talk;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("avro/files have the types of their schema", types),
        trial("avro/files of other programs", others),
        trial("avro/damaged files are said to be", damaged),
        trial("avro/fastavro reads the files of a sink", sink),
    ]
}

/// Runs a command of the other end; what it prints.
pub(crate) fn other_end(arguments: &[&str]) -> Result<String, Failed> {
    let output =
        Command::new(python()?).arg("tests/clients/avro_end.py").args(arguments).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A directory with the files of other programs.
fn written() -> Result<tempfile::TempDir, Failed> {
    let dir = tempfile::tempdir()?;
    other_end(&["files", &dir.path().to_string_lossy()])?;
    Ok(dir)
}

fn types() -> Result<(), Failed> {
    let dir = written()?;
    let file = dir.path().join("types.avro");
    let file = file.display();
    let talk = Talk::new(Limits::default())?;
    let of = |columns: &str| talk.rows(&format!("SELECT {columns} FROM '{file}' ORDER BY id"));
    let null = "NULL";
    same(
        &of("id, small, x, f, text, data, yes, day, clock")?,
        &[
            &["1", "-1", "0.25", null, "ü1", "00ff", "false", "1969-12-31", "23:59:59.999999"],
            &[
                "9223372036854775807",
                "-2147483648",
                "1.7976931348623157e308",
                null,
                null,
                null,
                "false",
                "1969-12-31",
                "23:59:59.999999",
            ],
        ],
    )?;
    let found = of("ms, us, local, price, fixed, substr(u, 20) || kind")?;
    let same_in_both = |local| {
        let (ms, us) = ("2026-01-01T00:00:00.123Z", "1901-01-01T00:00:00.000001Z");
        [ms, us, local, "-12345678901234567.891", "0.05"]
    };
    for (row, local) in found.iter().zip(["2026-01-01T12:00:00", null]) {
        if row.iter().take(5).ne(same_in_both(local).iter()) {
            return Err(format!("{row:?}").into());
        }
    }
    let last = found[0].last().map(String::as_str);
    if last != Some("0000-000000000001GREEN") {
        return Err(format!("{found:?}").into());
    }
    same(
        &of("list, \"map\", nested")?,
        &[
            &["[1, NULL, -9223372036854775808]", "{k: 1}", "{a: 7, kinds: [RED, GREEN]}"],
            &["[]", "{}", "{a: 7, kinds: [RED, GREEN]}"],
        ],
    )?;
    talk.ask(&format!(
        "CREATE STREAM s (WATERMARK FOR us) WITH (connector = 'file', path = '{file}')"
    ))?;
    let described = format!("{:?}", talk.rows("DESCRIBE s")?);
    for wanted in ["TIMESTAMP(6) WITH TIME ZONE", "DECIMAL(20, 3)", "MAP(VARCHAR, INT)", "BIGINT[]"]
    {
        if !described.contains(wanted) {
            return Err(format!("{wanted} is not in {described}").into());
        }
    }
    same(&talk.rows("SELECT count(*) FROM s WHERE us < TIMESTAMP '1950-01-01'")?, &[&["2"]])
}

fn others() -> Result<(), Failed> {
    let dir = written()?;
    let dir = dir.path().display();
    let talk = Talk::new(Limits { batch_rows_max: 1_000, ..Limits::default() })?;
    // fastavro with two codecs, polars with snappy.
    let all = talk.rows(&format!(
        "SELECT count(*), sum(n), count(DISTINCT s), min(s), max(s) FROM '{dir}/many-*.avro'"
    ))?;
    same(&all, &[&["150000", "3749925000", "50000", "s0", "s9999"]])?;
    same(
        &talk.rows(&format!("SELECT count(*), max(n) FROM '{dir}/packed.avro.gz'"))?,
        &[&["50000", "49999"]],
    )?;
    // By name, and with other types.
    talk.ask(&format!(
        "CREATE STREAM t (s VARCHAR, N TINYINT) WITH (connector = 'file', path = '{dir}/many-deflate.avro')"
    ))?;
    same(
        &talk.rows("SELECT count(*), max(n), min(s), max(s) FROM t")?,
        &[&["128", "127", "s0", "s99"]],
    )?;
    let bad =
        "SELECT min(\"offset\"), max(\"offset\"), count(*), min(reason) FROM windrow.bad_rows";
    same(&talk.rows(bad)?, &[&["128", "49999", "49872", "column \"n\": '1000' is not TINYINT"]])?;
    for (columns, why) in [
        ("s BIGINT", "cannot become BIGINT"),
        ("n BIGINT, later INT", "has no column \"later\""),
        ("n BIGINT NOT NULL, s VARCHAR, x INT NOT NULL", "has no column \"x\""),
    ] {
        let create = format!(
            "CREATE STREAM x ({columns}) WITH (connector = 'file', path = '{dir}/many-null.avro')"
        );
        match talk.ask(&create) {
            Err(refusal) if refusal.0.contains(why) => {}
            Err(refusal) => return Err(refusal.0.into()),
            Ok(_) => return Err(format!("{create} is accepted").into()),
        }
    }
    Ok(())
}

fn damaged() -> Result<(), Failed> {
    let dir = written()?;
    let whole = std::fs::read(dir.path().join("many-null.avro"))?;
    let talk = Talk::new(Limits::default())?;
    let path = dir.path().join("damaged.avro");
    let mut turned = whole.clone();
    let middle = turned.len() / 2;
    turned[middle..middle + 20_000].reverse();
    for (bytes, why) in [
        (&whole[..whole.len() - 5], "it is cut off"),
        (&whole[..20], "it is cut off"),
        (&b"Obj\x02"[..], "does not begin"),
        (&b""[..], "it is cut off"),
        (&turned, "is damaged in the block of row"),
    ] {
        std::fs::write(&path, bytes)?;
        match talk.rows(&format!("SELECT count(*) FROM '{}'", path.display())) {
            Err(refusal) if refusal.0.contains(why) => {}
            other => return Err(format!("{why}: {other:?}").into()),
        }
    }
    Ok(())
}

/// The records of all files below a directory, sorted.
fn read_back(dir: &Path) -> Result<Vec<serde_json::Value>, Failed> {
    let mut files = vec![];
    for entry in std::fs::read_dir(dir)? {
        files.push(entry?.path().to_string_lossy().into_owned());
    }
    let mut arguments = vec!["read"];
    arguments.extend(files.iter().filter(|file| file.ends_with(".avro")).map(String::as_str));
    let mut records: Vec<serde_json::Value> = serde_json::from_str(&other_end(&arguments)?)?;
    records.sort_by_key(|record| record["ts"].to_string());
    Ok(records)
}

fn sink() -> Result<(), Failed> {
    for packing in ["deflate", "none"] {
        let home = Home::new()?;
        let path = home.beside("avro");
        home.ok(&format!(
            "CREATE STREAM t (ts TIMESTAMP(6), big BIGINT, u BIGINT UNSIGNED, small SMALLINT, x DOUBLE, price DECIMAL(38, 3), yes BOOLEAN, day DATE,
                 w VARCHAR, z TIMESTAMP(6) WITH TIME ZONE, l BIGINT[], WATERMARK FOR ts);
             CREATE MATERIALIZED VIEW tv AS SELECT * FROM t;
             INSERT INTO t VALUES
                 (TIMESTAMP '2026-01-01 00:00:01.123456', 9223372036854775807, 18446744073709551615, -32768, 0.1,
                  CAST('12345678901234567890123456789012345.678' AS DECIMAL(38, 3)), true, DATE '1969-12-31', 'it''s \"1\", ü',
                  TIMESTAMPTZ '2026-01-01 00:00:00+02:00', [1, NULL]),
                 (TIMESTAMP '2026-01-01 00:00:03', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
             CREATE SINK k FROM tv WITH (connector = 'file', path = '{}', format = 'avro', compression = '{packing}');
             ",
            path.display()
        ))?;
        let expected = serde_json::json!([
            {"ts": "2026-01-01 00:00:01.123456", "big": i64::MAX, "u": "18446744073709551615", "small": -32768, "x": 0.1,
             "price": "12345678901234567890123456789012345.678", "yes": true, "day": "1969-12-31", "w": "it's \"1\", ü",
             "z": "2025-12-31 22:00:00+00:00", "l": [1, null]},
            {"ts": "2026-01-01 00:00:03", "big": null, "u": null, "small": null, "x": null, "price": null, "yes": null,
             "day": null, "w": null, "z": null, "l": null}
        ]);
        let found = serde_json::Value::from(read_back(&path)?);
        if found != expected {
            return Err(format!("{packing}: {found:#}").into());
        }
    }
    let talk = Talk::new(Limits::default())?;
    talk.ask("CREATE STREAM t (ts TIMESTAMP, WATERMARK FOR ts)")?;
    talk.ask("CREATE MATERIALIZED VIEW tv AS SELECT ts AS \"a b\" FROM t")?;
    let dir = tempfile::tempdir()?;
    let create = format!(
        "CREATE SINK k FROM tv WITH (connector = 'file', path = '{}', format = 'avro')",
        dir.path().display()
    );
    match talk.ask(&create) {
        Err(refusal) if refusal.0.contains("has a name that Avro does not allow") => Ok(()),
        Err(refusal) => Err(refusal.0.into()),
        Ok(_) => Err("a name with a space".into()),
    }
}
