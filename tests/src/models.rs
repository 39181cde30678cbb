//! Models: predictions beside scikit-learn and onnxruntime, on models that are trained here; versions after restarts and kills.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};
use windrow_core::Limits;

use crate::program::{Home, for_ever};
use crate::readers::python;
use crate::talk::Talk;
use crate::watch::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("models/predictions are those of scikit-learn and onnxruntime", trained),
        trial("models/a view keeps its version over replacements and kills", versions),
        trial("models/a damaged version breaks its users alone", damaged),
    ]
}

/// What is compared: a file, what is added to its rows, the prediction, and pairs of a value and the columns that it must be.
struct Field {
    file: &'static str,
    models: &'static [&'static str],
    /// The rows, with the predictions as p.
    rows: &'static str,
    labels: &'static [(&'static str, &'static str)],
    numbers: &'static [(&'static str, &'static str)],
}

const FIELDS: [Field; 5] = [
    Field {
        file: "fraud.csv",
        models: &["fraud_linear"],
        rows: "SELECT *, predict(fraud_linear, amount, hour, distance, abroad) AS p FROM fraud",
        labels: &[("p['label']", "linear_label_sk"), ("p['label']", "linear_label_rt")],
        numbers: &[("p['probabilities'][2]", "linear_sk"), ("p['probabilities'][2]", "linear_rt")],
    },
    Field {
        file: "fraud.csv",
        models: &["fraud_trees"],
        rows: "SELECT *, predict(fraud_trees, amount, hour, distance, abroad) AS p FROM fraud",
        labels: &[("p['label']", "trees_label_sk"), ("p['label']", "trees_label_rt")],
        numbers: &[("p['probabilities'][2]", "trees_sk"), ("p['probabilities'][2]", "trees_rt")],
    },
    Field {
        file: "machines.csv",
        models: &["state"],
        rows: "SELECT *, predict(state, temperature, vibration, age) AS p FROM machines",
        labels: &[("p['label']", "state_sk"), ("p['label']", "state_rt")],
        numbers: &[
            ("p['probabilities'][1]", "failing_sk"),
            ("p['probabilities'][1]", "failing_rt"),
        ],
    },
    Field {
        file: "machines.csv",
        models: &["hours"],
        rows: "SELECT *, predict(hours, temperature, vibration, age) AS p FROM machines",
        labels: &[],
        // Of some hundred hours: floats of single precision.
        numbers: &[("p / 400", "hours_sk / 400"), ("p / 400", "hours_rt / 400")],
    },
    Field {
        file: "reviews.csv",
        models: &["sentiment"],
        rows: "SELECT *, predict(sentiment, \
                 words(text, 'good'), words(text, 'great'), words(text, 'love'), words(text, 'happy'), \
                 words(text, 'bad'), words(text, 'awful'), words(text, 'hate'), words(text, 'broken')) AS p FROM reviews",
        labels: &[("p['label']", "label_sk"), ("p['label']", "label_rt")],
        numbers: &[("p['probabilities'][2]", "good_sk"), ("p['probabilities'][2]", "good_rt")],
    },
];

/// Both forms of each field: in batches of seven rows, and in one.
fn trained() -> Result<(), Failed> {
    let home = tempfile::tempdir()?;
    let output = Command::new(python()?).arg("tests/models/train.py").arg(home.path()).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    for limits in [Limits::default(), Limits { batch_rows_max: 7, threads: 1, ..Limits::default() }]
    {
        let talk = Talk::new(limits)?;
        talk.ask(
            "CREATE FUNCTION words(text VARCHAR, word VARCHAR) RETURNS BIGINT AS \
             '(length(text) - length(replace(text, word, ''''))) / length(word)'",
        )?;
        for name in ["fraud", "machines", "reviews"] {
            let path = home.path().join(format!("{name}.csv"));
            let path = path.display();
            talk.ask(&format!("CREATE STREAM {name} WITH (connector = 'file', path = '{path}')"))?;
        }
        for field in &FIELDS {
            compare(&talk, home.path(), field)?;
        }
    }
    Ok(())
}

fn compare(talk: &Talk, directory: &Path, field: &Field) -> Result<(), Failed> {
    for model in field.models {
        let path = directory.join(format!("{model}.onnx"));
        talk.ask(&format!("CREATE MODEL {model} WITH (path = '{}')", path.display()))?;
    }
    let different =
        field.labels.iter().map(|(p, is)| format!("count(*) FILTER (WHERE {p} <> {is})"));
    let distant = field.numbers.iter().map(|(p, is)| format!("max(abs({p} - {is}))"));
    let checks: Vec<String> = different.chain(distant).collect();
    let rows = std::fs::read_to_string(directory.join(field.file))?.lines().count() - 1;
    for emit in ["", " EMIT CHANGES"] {
        let predicted = talk.rows(&format!("{}{emit}", field.rows))?;
        if predicted.len() != rows {
            return Err(
                format!("{}{emit}: {} rows, not {rows}", field.rows, predicted.len()).into()
            );
        }
    }
    let sql =
        format!("WITH rows AS ({}) SELECT count(*), {} FROM rows", field.rows, checks.join(", "));
    let found = talk.rows(&sql).map_err(|e| format!("{sql}: {e}"))?;
    let values: Vec<f64> = found.iter().flatten().map(|v| v.parse()).collect::<Result<_, _>>()?;
    let fits = values.first() == Some(&(rows as f64))
        && values
            .get(1..=field.labels.len())
            .is_some_and(|labels| labels.iter().all(|n| *n == 0.0))
        && values.get(1 + field.labels.len()..).is_some_and(|far| far.iter().all(|x| *x < 1e-5));
    match fits {
        true => Ok(()),
        false => Err(format!("{sql}: {values:?}").into()),
    }
}

/// A place of its own for the file of a model, and the statement that creates it.
fn model(home: &Home, or_replace: &str, file: &str) -> Result<String, Failed> {
    let path = home.beside("m.onnx");
    std::fs::copy(Path::new("tests/models").join(file), &path)?;
    Ok(format!("CREATE {or_replace}MODEL m WITH (path = '{}');\n", path.display()))
}

const STREAM: &str = "CREATE STREAM s (a DOUBLE, b DOUBLE, ts TIMESTAMP, WATERMARK FOR ts);\n";
const VIEW: &str = "
CREATE MATERIALIZED VIEW v AS
SELECT window_end, sum(predict(m, a, b)) AS y FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start, window_end;
";

fn insert(minute: u32) -> String {
    format!(
        "INSERT INTO s VALUES (1, 2, '2026-01-01 00:{minute:02}:10'), (3, 0, '2026-01-01 00:{minute:02}:20');\n"
    )
}

/// With linear.onnx the rows of a minute are 9 and 7, with tenfold.onnx 10 and 30.
fn versions() -> Result<(), Failed> {
    let home = Home::new()?;
    let create = model(&home, "", "linear.onnx")?;
    home.ok(&format!("{STREAM}{create}{VIEW}{}", insert(0)))?;
    // The file that the model came from is not needed any more.
    std::fs::remove_file(home.beside("m.onnx"))?;
    let mut running = home.start(&format!("{}{}", insert(1), for_ever("v")))?;
    running.until(1, "INSERT 0 ")?;
    running.kill()?;
    let replace = model(&home, "OR REPLACE ", "tenfold.onnx")?;
    let mut running = home.start(&format!("{replace}{}{}", insert(2), for_ever("v")))?;
    running.until(1, "INSERT 0 ")?;
    running.kill()?;
    std::fs::remove_file(home.beside("m.onnx"))?;
    let found = home.tables(
        &format!("{}WAIT FOR v;\n", insert(3)),
        &[
            "SELECT window_end, y FROM v",
            "SELECT sum(predict(m, a, b)) FROM s WHERE ts < '2026-01-01 00:01:00'",
        ],
    )?;
    let [view, query] = &found[..] else { return Err("two results were expected".into()) };
    let sums: Vec<&str> = view.iter().filter_map(|row| row.split(',').nth(1)).collect();
    if sums != ["16.0"; 3] || query != &["40.0"] {
        return Err(format!("the view has {view:?}, the query {query:?}").into());
    }
    let said = home.ok("SHOW MODELS;")?;
    if !said.contains("v (version 1)") || !said.contains("m,2,") {
        return Err(said.into());
    }
    // What is created again has the new version, and VERIFY compares with the version of the view.
    home.ok("VERIFY VIEW v;")?;
    home.ok(&VIEW.replace("CREATE", "CREATE OR REPLACE"))?;
    let found = home.tables("", &["SELECT window_end, y FROM v"])?;
    let sums: Vec<&str> = found[0].iter().filter_map(|row| row.split(',').nth(1)).collect();
    if sums != ["40.0"; 3] {
        return Err(format!("the new view has {found:?}").into());
    }
    home.ok("VERIFY VIEW v; DROP MODEL m CASCADE;")?;
    match home.directory_of("models", "m") {
        Err(_) => Ok(()),
        Ok(left) => Err(format!("{} is left", left.display()).into()),
    }
}

/// The bytes of a version are verified: without it a view would continue with another model.
fn damaged() -> Result<(), Failed> {
    let home = Home::new()?;
    let create = model(&home, "", "linear.onnx")?;
    home.ok(&format!("{STREAM}{create}{VIEW}{}", insert(0)))?;
    let replace = model(&home, "OR REPLACE ", "tenfold.onnx")?;
    home.ok(&replace)?;
    let directory = home.directory_of("models", "m")?;
    let file = directory.strip_prefix(home.data())?.join("1.onnx");
    let mut bytes = home.read(&file)?;
    bytes[20] ^= 1;
    home.write(&file, bytes)?;
    home.run("SELECT * FROM v;")?
        .refused(3, &["1.onnx", "is damaged: its checksum is wrong", "Restore the file"])?;
    let said = home.ok("SELECT predict(m, 1, 2) AS y; SELECT count(*) AS n FROM s;")?;
    if !said.contains("10.0") {
        return Err(said.into());
    }
    let bytes = {
        let mut bytes = home.read(&file)?;
        bytes[20] ^= 1;
        bytes
    };
    home.write(&file, bytes)?;
    home.ok(&format!("{}WAIT FOR v;", insert(1)))?;
    let found = home.tables("", &["SELECT window_end, y FROM v"])?;
    match found[0].iter().any(|row| row.ends_with("16.0")) {
        true => Ok(()),
        false => Err(format!("the view has {found:?}").into()),
    }
}
