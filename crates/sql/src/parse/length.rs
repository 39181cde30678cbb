//! The length of text types, which DataFusion ignores: `VARCHAR(3)`.
//!
//! CAST to such a type shortens the text, as the SQL standard requires. What columns of such a type contain is checked
//! where their rows are stored.

use sqlparser::ast::{
    CharacterLength, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, Value,
};

/// The most characters that a text type allows; `None` without a length, and for other types.
pub fn characters_max(data_type: &DataType) -> Option<u64> {
    let length = match data_type {
        DataType::Character(length)
        | DataType::Char(length)
        | DataType::CharacterVarying(length)
        | DataType::CharVarying(length)
        | DataType::Varchar(length)
        | DataType::Nvarchar(length) => length.as_ref()?,
        _ => return None,
    };
    match length {
        CharacterLength::IntegerLength { length, .. } => Some(*length),
        CharacterLength::Max => None,
    }
}

/// A CAST to such a type as `left(CAST(… AS VARCHAR), n)`.
pub(super) fn cut_cast(expr: &mut Expr) {
    let Expr::Cast { data_type, .. } = expr else { return };
    let Some(length) = characters_max(data_type) else { return };
    *data_type = DataType::Varchar(None);
    let value = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let length = Expr::Value(Value::Number(length.to_string(), false).with_empty_span());
    let text = std::mem::replace(expr, Expr::Value(Value::Null.with_empty_span()));
    *expr = Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("left")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![value(text), value(length)],
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    });
}
