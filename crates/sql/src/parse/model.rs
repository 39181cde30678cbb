//! `CREATE MODEL`.

use windrow_core::{Error, Place, Result};

use super::cursor::{Cursor, spanning};
use super::ddl::{Head, if_not_exists, options};
use super::statement::{CreateModel, Statement};

/// What follows `CREATE [OR REPLACE] MODEL`.
pub(super) fn create_model(mut cursor: Cursor<'_>, head: Head, end: Place) -> Result<Statement> {
    let if_not_exists = if_not_exists(&mut cursor)?;
    let name = cursor.name("the name of the model")?;
    let hint = "Write CREATE MODEL m WITH (path = 'm.onnx').";
    if !cursor.sees(&["WITH"]) {
        return Err(cursor.expected("WITH (path = …)").with_hint(hint));
    }
    let at = cursor.place();
    let mut path = None;
    for option in options(&mut cursor)? {
        match option.key.as_str() {
            "path" => path = Some((option.value, option.place)),
            key => {
                return Err(Error::config(format!("unknown option \"{key}\" of a model"))
                    .with_place(option.place)
                    .with_hint("The only option is path, the place of an ONNX file."));
            }
        }
    }
    cursor.expect_end()?;
    let missing = || {
        Error::config("a model needs the option path").with_place(spanning(at, end)).with_hint(hint)
    };
    let (path, place) = path.ok_or_else(missing)?;
    let or_replace = head.or_replace;
    Ok(Statement::CreateModel(Box::new(CreateModel {
        or_replace,
        if_not_exists,
        name,
        path,
        place,
    })))
}
