//! The session actions of Flight: SetSessionOptions, GetSessionOptions, CloseSession.
//!
//! The options are the settings of `SET`; `catalog` and `schema` determine where names are resolved and cannot be
//! changed.

use std::collections::HashMap;

use prost::Message;
use windrow_core::Place;
use windrow_engine::Session;
use windrow_sql::parse::{Parsed, Set, Statement};

/// The names of the actions.
pub(crate) const SET: &str = "SetSessionOptions";
pub(crate) const GET: &str = "GetSessionOptions";
pub(crate) const CLOSE: &str = "CloseSession";

/// A value of an option.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OptionValue {
    #[prost(oneof = "option_value::Value", tags = "1, 2, 3, 4, 5")]
    pub(crate) value: Option<option_value::Value>,
}

pub(crate) mod option_value {
    /// The kinds of values.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(crate) enum Value {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(bool, tag = "2")]
        Bool(bool),
        #[prost(sfixed64, tag = "3")]
        Int(i64),
        #[prost(double, tag = "4")]
        Double(f64),
        #[prost(message, tag = "5")]
        List(super::Texts),
    }
}

/// A list of texts.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Texts {
    #[prost(string, repeated, tag = "1")]
    pub(crate) values: Vec<String>,
}

/// Options by name: the request of Set, the result of Get.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Options {
    #[prost(map = "string, message", tag = "1")]
    pub(crate) options: HashMap<String, OptionValue>,
}

/// The result of Set: errors by option name.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SetResult {
    #[prost(map = "string, message", tag = "1")]
    pub(crate) errors: HashMap<String, SetError>,
}

/// Why an option was not set.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SetError {
    /// 1: the name is unknown, 2: the value is invalid, 3: another error.
    #[prost(int32, tag = "1")]
    pub(crate) value: i32,
}

/// The result of Close.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CloseResult {
    /// 1: closed.
    #[prost(int32, tag = "1")]
    pub(crate) status: i32,
}

const NAME: i32 = 1;
const VALUE: i32 = 2;

/// Sets options.
pub(crate) async fn set(session: &Session, wanted: Options) -> SetResult {
    let mut errors = HashMap::new();
    let mut wanted: Vec<_> = wanted.options.into_iter().collect();
    wanted.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in wanted {
        if let Err(value) = set_one(session, &name, value).await {
            errors.insert(name, SetError { value });
        }
    }
    SetResult { errors }
}

async fn set_one(session: &Session, name: &str, value: OptionValue) -> Result<(), i32> {
    let value = match value.value {
        Some(option_value::Value::Text(text)) => text,
        Some(option_value::Value::Bool(value)) => value.to_string(),
        Some(option_value::Value::Int(value)) => value.to_string(),
        Some(option_value::Value::Double(value)) => value.to_string(),
        Some(option_value::Value::List(_)) | None => return Err(VALUE),
    };
    let settings = session.settings();
    let (_, now) = settings.iter().find(|(known, _)| known == name).ok_or(NAME)?;
    if ["catalog", "schema"].contains(&name) {
        return if *now == value { Ok(()) } else { Err(VALUE) };
    }
    let set = Set { name: name.to_owned(), value, place: Place::at(1, 1) };
    let (statement, text) = (Statement::Set(set), String::new());
    let parsed = Parsed { statement, text, first_line: 1, first_column: 1 };
    session.execute(&parsed).await.map(|_| ()).map_err(|_| VALUE)
}

/// All options.
pub(crate) fn get(session: &Session) -> Options {
    let text = |value: String| OptionValue { value: Some(option_value::Value::Text(value)) };
    let options = session.settings().into_iter().map(|(name, value)| (name, text(value)));
    Options { options: options.collect() }
}
