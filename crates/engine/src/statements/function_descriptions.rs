//! Syntax and descriptions of the functions that do not bring their own, for `SHOW FUNCTIONS`.

/// The windowing table functions, which no registry has: name, syntax, description.
pub(super) const WINDOWS: [(&str, &str, &str); 4] = [
    (
        "tumble",
        "tumble(TABLE name, DESCRIPTOR(time), size [, offset | zone])",
        "Assigns each row to the window of this size that contains its time.",
    ),
    (
        "hop",
        "hop(TABLE name, DESCRIPTOR(time), slide, size [, offset | zone])",
        "Assigns each row to all windows that contain its time; a window begins at each slide.",
    ),
    (
        "cumulate",
        "cumulate(TABLE name, DESCRIPTOR(time), step, size [, offset | zone])",
        "Assigns each row to windows with one start that grow by a step up to a size.",
    ),
    (
        "session",
        "session(TABLE name [PARTITION BY key, …], DESCRIPTOR(time), gap)",
        "Assigns rows to sessions, which end when no row comes for the gap.",
    ),
];

/// The call of a model, which is a function of its own for the planner: syntax, description.
pub(super) const PREDICT: (&str, &str) = (
    "predict(model, value, …)",
    "Returns what a model computes from the values: SHOW MODELS lists models, DESCRIBE one shows what it takes and returns.",
);

const MAX_BY: &str =
    "Returns the value of the row with the greatest key. Rows whose key is NULL do not count.";
const MIN_BY: &str =
    "Returns the value of the row with the smallest key. Rows whose key is NULL do not count.";
const DATE_PART: &str = "Returns a part of a date, time or interval, such as its year or hour.";
const DATE_DIFF: &str = "Returns the number of boundaries of units between two times; negative if the second is earlier.";
const FORMAT: &str = "Formats a time or a number by a pattern of PostgreSQL, Java or strftime.";
const DISCRETE: &str =
    "Returns the first value, in order, at which the share of values so far is at least `p`.";
const JSON_KEYS: &str = "Returns the keys of a JSON object as a list.";
const JSON_LENGTH: &str = "Returns the number of elements of a JSON array or object.";
const TIMESTAMP_OF: &str = "Converts text or a number to a timestamp of this precision; text by the first pattern that fits.";

/// Functions of any kind without a description of their own: name, arguments, description.
pub(super) const DESCRIBED_HERE: [(&str, &str, &str); 51] = [
    (
        "approx_percentile_accumulate",
        "(value)",
        "Returns a t-digest of numbers, as BINARY, for approx_percentile_combine and approx_percentile_estimate.",
    ),
    ("approx_percentile_combine", "(sketch)", "Merges t-digests of approx_percentile_accumulate."),
    (
        "approx_percentile_estimate",
        "(sketch, p)",
        "Returns a percentile, from 0 to 1, of a t-digest of approx_percentile_accumulate.",
    ),
    ("date_diff", "(unit, from, to)", DATE_DIFF),
    ("datediff", "(unit, from, to)", DATE_DIFF),
    (
        "hll_accumulate",
        "(value)",
        "Returns a HyperLogLog of different values, as BINARY, for hll_combine and hll_estimate.",
    ),
    ("hll_combine", "(sketch)", "Merges HyperLogLogs of hll_accumulate."),
    (
        "hll_estimate",
        "(sketch)",
        "Returns the approximate number of different values of a HyperLogLog of hll_accumulate.",
    ),
    ("kurtosis", "(value)", "Returns the excess kurtosis of the values, corrected for samples."),
    ("skewness", "(value)", "Returns the skewness of the values, corrected for samples."),
    ("strftime", "(time, pattern)", FORMAT),
    (
        "timestampdiff",
        "(unit, from, to)",
        "Returns the number of whole units between two times; negative if the second is earlier.",
    ),
    (
        "approx_top_k",
        "(value, k)",
        "Returns the k most frequent values as a list of {item, count}. The result is exact.",
    ),
    ("arg_max", "(value, key)", MAX_BY),
    ("arg_min", "(value, key)", MIN_BY),
    ("date_format", "(time, pattern)", FORMAT),
    ("date_part", "(part, time)", DATE_PART),
    ("datepart", "(part, time)", DATE_PART),
    (
        "hash",
        "(value [, …])",
        "Returns a number of 64 bits that is the same in every run and version.",
    ),
    ("json", "(text)", "Returns text that is JSON; an error if it is not."),
    (
        "json_as_text",
        "(json, key [, …])",
        "Returns the value at a path of keys and indexes as text; `->>` is the same.",
    ),
    ("json_contains", "(json, key [, …])", "Returns whether a path of keys and indexes exists."),
    ("json_from_scalar", "(value)", "Converts a value to JSON."),
    (
        "json_get",
        "(json, key [, …])",
        "Returns the value at a path of keys and indexes; `->` is the same.",
    ),
    ("json_get_array", "(json, key [, …])", "Returns the array at a path as a list of JSON texts."),
    ("json_get_bool", "(json, key [, …])", "Returns the boolean at a path, NULL if it is none."),
    (
        "json_get_float",
        "(json, key [, …])",
        "Returns the number at a path as DOUBLE, NULL if it is none.",
    ),
    (
        "json_get_int",
        "(json, key [, …])",
        "Returns the integer at a path as BIGINT, NULL if it is none.",
    ),
    ("json_get_json", "(json, key [, …])", "Returns the value at a path as JSON text."),
    ("json_get_str", "(json, key [, …])", "Returns the string at a path, NULL if it is none."),
    ("json_keys", "(json [, key, …])", JSON_KEYS),
    ("json_len", "(json [, key, …])", JSON_LENGTH),
    ("json_length", "(json [, key, …])", JSON_LENGTH),
    ("json_object_keys", "(json [, key, …])", JSON_KEYS),
    ("json_union_to_text", "(value)", "Converts the result of `json_get` to JSON text."),
    ("json_valid", "(text)", "Returns whether a text is JSON."),
    ("max_by", "(value, key)", MAX_BY),
    ("min_by", "(value, key)", MIN_BY),
    ("mode", "(value)", "Returns the most frequent value; of equally frequent ones the smallest."),
    ("percentile_disc", "(p) WITHIN GROUP (ORDER BY value)", DISCRETE),
    ("quantile_disc", "(value, p)", DISCRETE),
    ("scalar_to_json", "(value)", "Converts a value to JSON."),
    ("to_char", "(value, pattern)", FORMAT),
    (
        "to_date",
        "(text [, pattern, …])",
        "Converts text to a date, by the first pattern that fits.",
    ),
    ("to_timestamp", "(value [, pattern, …])", TIMESTAMP_OF),
    ("to_timestamp_micros", "(value [, pattern, …])", TIMESTAMP_OF),
    ("to_timestamp_millis", "(value [, pattern, …])", TIMESTAMP_OF),
    ("to_timestamp_nanos", "(value [, pattern, …])", TIMESTAMP_OF),
    ("to_timestamp_seconds", "(value [, pattern, …])", TIMESTAMP_OF),
    ("try_json", "(text)", "Returns text that is JSON, NULL if it is not."),
    ("version", "()", "Returns the version of Windrow."),
];
