//! The types of columns, for `GetXdbcTypeInfo`.

use std::sync::LazyLock;

use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};
use tonic::Status;

static KNOWN: LazyLock<Result<XdbcTypeInfoData, String>> = LazyLock::new(|| {
    let mut data = XdbcTypeInfoDataBuilder::new();
    all().into_iter().for_each(|info| data.append(info));
    data.build().map_err(|e| e.to_string())
});

/// All types.
///
/// # Errors
/// When they cannot be encoded (a bug in Windrow).
pub(crate) fn known() -> Result<&'static XdbcTypeInfoData, Status> {
    KNOWN.as_ref().map_err(|e| Status::internal(e.clone()))
}

fn all() -> Vec<XdbcTypeInfo> {
    let mut all = vec![
        plain("BOOLEAN", XdbcDataType::XdbcBit, 1),
        integer("TINYINT", XdbcDataType::XdbcTinyint, 3, false),
        integer("SMALLINT", XdbcDataType::XdbcSmallint, 5, false),
        integer("INT", XdbcDataType::XdbcInteger, 10, false),
        integer("BIGINT", XdbcDataType::XdbcBigint, 19, false),
        integer("TINYINT UNSIGNED", XdbcDataType::XdbcTinyint, 3, true),
        integer("SMALLINT UNSIGNED", XdbcDataType::XdbcSmallint, 5, true),
        integer("INT UNSIGNED", XdbcDataType::XdbcInteger, 10, true),
        integer("BIGINT UNSIGNED", XdbcDataType::XdbcBigint, 20, true),
        number("REAL", XdbcDataType::XdbcReal, 24),
        number("DOUBLE", XdbcDataType::XdbcDouble, 53),
        XdbcTypeInfo {
            create_params: Some(vec!["precision".to_owned(), "scale".to_owned()]),
            minimum_scale: Some(0),
            maximum_scale: Some(38),
            fixed_prec_scale: true,
            num_prec_radix: Some(10),
            ..number("DECIMAL", XdbcDataType::XdbcDecimal, 38)
        },
        quoted("VARCHAR", XdbcDataType::XdbcVarchar, "'"),
        quoted("BYTEA", XdbcDataType::XdbcVarbinary, "X'"),
        plain("ARRAY", XdbcDataType::XdbcUnknownType, 0),
        plain("STRUCT", XdbcDataType::XdbcUnknownType, 0),
    ];
    let subcode = |code: XdbcDatetimeSubcode| Some(code);
    all.extend([
        time("DATE", XdbcDataType::XdbcDate, 10, subcode(XdbcDatetimeSubcode::XdbcSubcodeYear)),
        time("TIME", XdbcDataType::XdbcTime, 15, subcode(XdbcDatetimeSubcode::XdbcSubcodeTime)),
        time(
            "TIMESTAMP",
            XdbcDataType::XdbcTimestamp,
            29,
            subcode(XdbcDatetimeSubcode::XdbcSubcodeTimestamp),
        ),
        time(
            "TIMESTAMP WITH TIME ZONE",
            XdbcDataType::XdbcTimestamp,
            35,
            subcode(XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone),
        ),
        time("INTERVAL", XdbcDataType::XdbcInterval, 0, None),
    ]);
    all
}

fn plain(name: &str, data_type: XdbcDataType, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        column_size: (size > 0).then_some(size),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        local_type_name: Some(name.to_owned()),
        sql_data_type: data_type,
        ..XdbcTypeInfo::default()
    }
}

fn integer(name: &str, data_type: XdbcDataType, digits: i32, unsigned: bool) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(unsigned),
        auto_increment: Some(false),
        minimum_scale: Some(0),
        maximum_scale: Some(0),
        num_prec_radix: Some(10),
        ..plain(name, data_type, digits)
    }
}

fn number(name: &str, data_type: XdbcDataType, size: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        num_prec_radix: Some(2),
        ..plain(name, data_type, size)
    }
}

fn quoted(name: &str, data_type: XdbcDataType, prefix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some(prefix.to_owned()),
        literal_suffix: Some("'".to_owned()),
        case_sensitive: true,
        ..plain(name, data_type, i32::MAX)
    }
}

fn time(
    name: &str,
    data_type: XdbcDataType,
    size: i32,
    subcode: Option<XdbcDatetimeSubcode>,
) -> XdbcTypeInfo {
    XdbcTypeInfo {
        literal_prefix: Some(format!("{name} '")),
        literal_suffix: Some("'".to_owned()),
        datetime_subcode: subcode,
        ..plain(name, data_type, size)
    }
}
