//! Texts with the values of columns, such as the body of a request or the subject of a message: `{"text": "${name} is late", "since": ${ts}}`.
//!
//! In a template of JSON, a value that stands in a text is written into that text, escaped; a value that stands by itself is
//! written as JSON, a text with its quotes. So the body is JSON whatever the values. In other templates values are written as
//! they are. `$${` means `${`.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use windrow_core::{Error, Result};

use crate::encode::json_lines;

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value { column: usize, form: Form },
}

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// By itself, as JSON.
    Json,
    /// Within a JSON text.
    InText,
    /// As it is.
    Plain,
}

/// A template whose columns are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

impl Template {
    /// Parses a template for rows of these columns.
    ///
    /// # Errors
    /// For an unknown column, an open `${`, and one of JSON that is not JSON.
    pub(crate) fn parse(
        (option, text): (&str, &str),
        schema: &Schema,
        is_json: bool,
    ) -> Result<Self> {
        let mut pieces = vec![];
        let mut plain = String::new();
        let (mut in_text, mut escaped) = (false, false);
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("$${") {
                plain.push_str("${");
                rest = after;
                continue;
            }
            if let Some(after) = rest.strip_prefix("${") {
                let Some((name, after)) = after.split_once('}') else {
                    return Err(Error::config(format!(
                        "option \"{option}\": a \"${{\" is never closed"
                    ))
                    .with_hint("Write ${column}; $${ for the characters ${ themselves."));
                };
                let form = match (is_json, in_text) {
                    (false, _) => Form::Plain,
                    (true, false) => Form::Json,
                    (true, true) => Form::InText,
                };
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(Piece::Value { column: column(option, schema, name.trim())?, form });
                rest = after;
                continue;
            }
            if c == '"' && !escaped {
                in_text = !in_text;
            }
            escaped = c == '\\' && !escaped;
            plain.push(c);
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
        }
        pieces.push(Piece::Text(plain));
        let template = Self(pieces);
        if is_json {
            template.check_json(option)?;
        }
        Ok(template)
    }

    /// Checks that the template is JSON with any values.
    fn check_json(&self, option: &str) -> Result<()> {
        let with = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value { form: Form::Json, .. } => "null".to_owned(),
            Piece::Value { .. } => String::new(),
        };
        let sample: String = self.0.iter().map(with).collect();
        let parsed: Result<serde::de::IgnoredAny, _> = serde_json::from_str(&sample);
        parsed.map(|_| ()).map_err(|e| {
            Error::config(format!("option \"{option}\" is not JSON: {e}")).with_hint(
                "Write a JSON object such as {\"text\": \"${name} is late\"}, or give another content_type.",
            )
        })
    }

    /// Returns the body for each row.
    ///
    /// # Errors
    /// When JSON does not have the type of a column.
    pub(crate) fn fill(&self, rows: &RecordBatch) -> Result<Vec<String>> {
        let mut bodies = vec![String::new(); rows.num_rows()];
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => bodies.iter_mut().for_each(|body| body.push_str(text)),
                Piece::Value { column, form } => {
                    let values = values(rows.column(*column))?;
                    for (body, value) in bodies.iter_mut().zip(&values) {
                        push(body, value, *form);
                    }
                }
            }
        }
        Ok(bodies)
    }
}

/// Adds a value, which is given as JSON.
fn push(body: &mut String, json: &str, form: Form) {
    let inner = json.strip_prefix('"').and_then(|json| json.strip_suffix('"'));
    match (form, inner) {
        (Form::Json, _) | (Form::Plain, None) => body.push_str(json),
        (Form::InText, Some(inner)) => body.push_str(inner),
        // Numbers have no characters to escape, nested values do.
        (Form::InText, None) => {
            let escaped = serde_json::Value::from(json).to_string();
            body.push_str(escaped.trim_matches('"'));
        }
        (Form::Plain, Some(inner)) => match serde_json::from_str::<String>(json) {
            Ok(text) => body.push_str(&text),
            Err(_) => body.push_str(inner),
        },
    }
}

/// Returns the values of a column as JSON.
fn values(column: &ArrayRef) -> Result<Vec<String>> {
    const BEFORE: &str = "{\"v\":";
    let rows = RecordBatch::try_from_iter_with_nullable([("v", ArrayRef::clone(column), true)])?;
    let lines = json_lines(&rows)?;
    lines
        .iter()
        .map(|line| {
            let line = std::str::from_utf8(line).ok();
            let value = line.and_then(|line| line.strip_prefix(BEFORE)?.strip_suffix('}'));
            value.map(str::to_owned).ok_or_else(|| Error::internal("a value has no JSON"))
        })
        .collect()
}

fn column(option: &str, schema: &Schema, name: &str) -> Result<usize> {
    let found = schema.index_of(name);
    found.or_else(|_| schema.index_of(&name.to_lowercase())).map_err(|_| {
        let known: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        Error::config(format!("option \"{option}\": there is no column \"{name}\""))
            .with_hint(format!("Known columns: {}.", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn rows() -> RecordBatch {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![Some(1), None]),
            None,
        ]);
        RecordBatch::try_from_iter_with_nullable(vec![
            (
                "name",
                Arc::new(StringArray::from(vec![Some("a \"b\"\n\\ä${n}"), None])) as ArrayRef,
                true,
            ),
            ("n", Arc::new(Int64Array::from(vec![Some(i64::MIN), None])), true),
            ("list", Arc::new(lists), true),
        ])
        .unwrap()
    }

    fn filled(template: &str, is_json: bool) -> Vec<String> {
        Template::parse(("body", template), &rows().schema(), is_json)
            .unwrap()
            .fill(&rows())
            .unwrap()
    }

    #[test]
    fn a_template_of_json_gives_json() {
        let bodies = filled(
            r#"{"t": "is \"${name}\" $${x}", "name": ${ NAME }, "n": ${n}, "l": ${list}, "s": "${n} ${list}"}"#,
            true,
        );
        let parsed: Vec<serde_json::Value> =
            bodies.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
        assert_eq!(parsed[0]["t"], "is \"a \"b\"\n\\ä${n}\" ${x}");
        assert_eq!(parsed[0]["name"], "a \"b\"\n\\ä${n}");
        assert_eq!(parsed[0]["n"], i64::MIN);
        assert_eq!(parsed[0]["l"], serde_json::json!([1, null]));
        assert_eq!(parsed[0]["s"], format!("{} [1,null]", i64::MIN));
        assert_eq!(
            parsed[1],
            serde_json::json!({"t": "is \"null\" ${x}", "name": null, "n": null, "l": null, "s": "null null"})
        );
    }

    #[test]
    fn other_templates_have_values_as_they_are() {
        assert_eq!(
            filled("${n}: ${name}", false),
            [format!("{}: a \"b\"\n\\ä${{n}}", i64::MIN), "null: null".to_owned()]
        );
    }

    #[test]
    fn wrong_templates_are_refused() {
        for wrong in
            ["{\"a\": ${nope}}", "{\"a\": ${n", "{\"a\": ${n}", "${n} late", "{\"a\" ${n}}", ""]
        {
            let error = Template::parse(("body", wrong), &rows().schema(), true).unwrap_err();
            assert!(error.message().starts_with("option \"body\""), "{wrong}: {error}");
        }
    }
}
