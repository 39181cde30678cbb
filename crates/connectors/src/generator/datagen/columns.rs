//! One column of generated values: its options, and the values of a range of rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, StringArray,
    StringViewBuilder, UInt64Array,
};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options, nullif, take};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type, TimeUnit};
use windrow_core::time::{ticks_per_second, time_unit};
use windrow_core::{Error, Result, sql_type};

use super::super::source::{below, mix, unit_interval};
use super::{EventTimes, Settings, bad_value};

/// Salts of a column's draws.
const SALT_VALUE: u64 = 11;
const SALT_NULL: u64 = 12;
const SALT_LETTERS: u64 = 13;

/// The default upper bound of random numbers, where the type allows it.
const RANDOM_MAX: i64 = 1_000_000;
/// The default number of letters of a random text.
const TEXT_LETTERS: usize = 8;
/// The longest random text.
const TEXT_LETTERS_MAX: u64 = 1 << 20;

/// The kind of values of a column.
#[derive(Debug)]
enum Values {
    /// The row's event time.
    EventTime(TimeUnit),
    /// `first`, incremented with each row.
    Sequence { first: i64, rows: Option<u64> },
    /// One of `choices` whole numbers from `min`, in the smallest unit of the type.
    Ticks { min: i64, choices: u64 },
    /// A number from `min` to below `max`; one of `choices` evenly spread ones if given.
    Fractions { min: f64, max: f64, choices: Option<u64> },
    /// A text of `letters` letters; one of `choices` texts if given.
    Texts { letters: usize, choices: Option<u64> },
    /// False or true.
    Flags { choices: u64 },
    /// One of the listed values.
    Listed(ArrayRef),
}

/// A column and its values.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    data_type: DataType,
    seed: u64,
    null_share: f64,
    values: Values,
}

impl Column {
    /// Parses the options of `field`.
    pub(super) fn try_new(
        field: &Field,
        settings: &Settings<'_>,
        times: &EventTimes,
    ) -> Result<Self> {
        let options = FieldOptions { field, settings, prefix: field.name().to_lowercase() };
        let key = options.key("null_share");
        let null_share = settings.share(&[&key, &options.key("null-rate")])?.unwrap_or(0.0);
        if null_share > 0.0 && !field.is_nullable() {
            return Err(Error::config(format!(
                "option \"{key}\" requests NULLs in column \"{}\", which is NOT NULL",
                field.name()
            )));
        }
        let values = options.values(times)?;
        let native = match &values {
            Values::Texts { .. } => &DataType::Utf8View,
            Values::Fractions { .. } => &DataType::Float64,
            Values::Flags { .. } => &DataType::Boolean,
            _ => field.data_type(),
        };
        if native != field.data_type() && !can_cast_types(native, field.data_type()) {
            return Err(unsupported(field));
        }
        Ok(Self {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            seed: field.name().bytes().fold(times.seed, |h, b| mix(h, u64::from(b), 0)),
            null_share,
            values,
        })
    }

    /// The greatest number of rows, limited by a sequence that ends.
    pub(super) fn rows_max(&self) -> Option<u64> {
        match self.values {
            Values::Sequence { rows, .. } => rows,
            _ => None,
        }
    }

    /// Whether the values are the rows' event times, without NULLs.
    pub(super) fn is_plain_event_time(&self) -> bool {
        matches!(self.values, Values::EventTime(_)) && self.null_share == 0.0
    }

    /// Returns the values of `count` rows from row `first`, in the column's type or one that casts to it.
    pub(super) fn make(&self, first: u64, count: usize, times: &EventTimes) -> Result<ArrayRef> {
        let rows = (first..).take(count);
        let bits = rows.clone().map(|row| mix(self.seed, SALT_VALUE, row));
        let array: ArrayRef = match &self.values {
            Values::EventTime(unit) => {
                let ticks = rows.clone().map(|row| times.ticks(row, *unit));
                self.typed_ticks(ticks.collect::<Result<Vec<_>>>()?)?
            }
            Values::Sequence { first, .. } => {
                let ticks = rows.clone().map(|row| {
                    first.checked_add_unsigned(row).ok_or_else(|| {
                        Error::data(format!(
                            "the sequence of column \"{}\" is at its end",
                            self.name
                        ))
                    })
                });
                Arc::new(Int64Array::from(ticks.collect::<Result<Vec<_>>>()?))
            }
            Values::Ticks { min, choices } => self.typed_ticks(
                bits.map(|b| min.wrapping_add_unsigned(below(b, *choices))).collect(),
            )?,
            Values::Fractions { min, max, choices } => {
                let share = |b: u64| match choices {
                    Some(n) => below(b, *n) as f64 / *n as f64,
                    None => unit_interval(b),
                };
                Arc::new(Float64Array::from_iter_values(bits.map(|b| min + (max - min) * share(b))))
            }
            Values::Texts { letters, choices } => {
                let mut builder = StringViewBuilder::with_capacity(count);
                let mut text = String::with_capacity(*letters);
                for b in bits {
                    self.text(b, *letters, *choices, &mut text);
                    builder.append_value(&text);
                }
                Arc::new(builder.finish())
            }
            Values::Flags { choices } => {
                Arc::new(bits.map(|b| Some(below(b, *choices) == 1)).collect::<BooleanArray>())
            }
            Values::Listed(values) => {
                let n = values.len() as u64;
                take(values, &UInt64Array::from_iter_values(bits.map(|b| below(b, n))), None)?
            }
        };
        if self.null_share == 0.0 {
            return Ok(array);
        }
        let is_null = |row| unit_interval(mix(self.seed, SALT_NULL, row)) < self.null_share;
        let nulls: BooleanArray = rows.map(|row| Some(is_null(row))).collect();
        Ok(nullif(&array, &nulls)?)
    }

    /// Converts whole numbers in the smallest unit of the column's type to that type.
    fn typed_ticks(&self, ticks: Vec<i64>) -> Result<ArrayRef> {
        match &self.data_type {
            DataType::Decimal128(precision, scale) => {
                let values = ticks.into_iter().map(i128::from);
                let array = Decimal128Array::from_iter_values(values);
                Ok(Arc::new(array.with_precision_and_scale(*precision, *scale)?))
            }
            // First without a zone: an instant of UTC, not a local time.
            DataType::Timestamp(unit, _) => cast(
                &(Arc::new(Int64Array::from(ticks)) as ArrayRef),
                &DataType::Timestamp(*unit, None),
            ),
            DataType::Date32 | DataType::Time32(_) => {
                let days =
                    cast(&(Arc::new(Int64Array::from(ticks)) as ArrayRef), &DataType::Int32)?;
                cast(&days, &self.data_type)
            }
            _ => Ok(Arc::new(Int64Array::from(ticks))),
        }
    }

    /// Replaces `text` by `letters` lower-case letters.
    fn text(&self, bits: u64, letters: usize, choices: Option<u64>, text: &mut String) {
        /// 26^12 is the largest power of 26 that leaves spread bits in 64.
        const LETTERS_PER_DRAW: usize = 12;
        text.clear();
        let (number, mut rest, tail) = match choices {
            None => (bits, 0, 0),
            // The last letters encode the choice, so that two choices are never equal.
            Some(n) => {
                let choice = below(bits, n);
                (choice, choice, letters_for(n))
            }
        };
        let mut draw = 0;
        for i in 0..letters.saturating_sub(tail) {
            if i % LETTERS_PER_DRAW == 0 {
                draw = mix(self.seed, SALT_LETTERS + i as u64, number);
            }
            text.push(letter(draw % 26));
            draw /= 26;
        }
        for _ in 0..tail {
            text.push(letter(rest % 26));
            rest /= 26;
        }
    }
}

/// Returns letter `number` (0 to 25).
fn letter(number: u64) -> char {
    // Below 26, so it fits.
    char::from(b'a' + (number % 26) as u8)
}

/// Returns how many letters distinguish `choices` texts.
fn letters_for(choices: u64) -> usize {
    let mut letters = 0;
    let mut told_apart = 1u64;
    while told_apart < choices {
        told_apart = told_apart.saturating_mul(26);
        letters += 1;
    }
    letters
}

/// The options `fields.<name>.…` of one column.
struct FieldOptions<'a> {
    field: &'a Field,
    settings: &'a Settings<'a>,
    /// The column's name in lower case.
    prefix: String,
}

/// The values of `fields.<name>.kind`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Random,
    Sequence,
    EventTime,
}

impl FieldOptions<'_> {
    fn key(&self, option: &str) -> String {
        format!("fields.{}.{option}", self.prefix)
    }

    fn text(&self, option: &str) -> Result<Option<&str>> {
        Ok(self.settings.find(&[&self.key(option)])?.map(|(_, value)| value))
    }

    fn has_any(&self, options: &[&str]) -> Result<bool> {
        for option in options {
            if self.text(option)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn kind(&self) -> Result<Kind> {
        let kind = match self.text("kind")? {
            Some(kind) if kind.eq_ignore_ascii_case("random") => Kind::Random,
            Some(kind) if kind.eq_ignore_ascii_case("sequence") => Kind::Sequence,
            Some(kind) if kind.eq_ignore_ascii_case("event_time") => Kind::EventTime,
            Some(other) => {
                let expected = "one of 'random', 'sequence', 'event_time'";
                return Err(bad_value(&self.key("kind"), other, expected));
            }
            None if self.has_any(&["start", "end"])? => Kind::Sequence,
            None if time_unit(self.field.data_type()).is_none() => Kind::Random,
            None if self.has_any(&["min", "max", "values", "cardinality"])? => Kind::Random,
            None => Kind::EventTime,
        };
        let others: &[&str] = match kind {
            Kind::Random => &["start", "end"],
            Kind::Sequence => &["min", "max", "values", "cardinality", "length"],
            Kind::EventTime => &["min", "max", "values", "cardinality", "length", "start", "end"],
        };
        for option in others {
            if self.text(option)?.is_some() {
                return Err(Error::config(format!(
                    "option \"{}\" does not apply to the kind of column \"{}\"",
                    self.key(option),
                    self.field.name()
                ))
                .with_hint("min, max, values, cardinality and length are for random values, start and end for a sequence."));
            }
        }
        Ok(kind)
    }

    fn values(&self, times: &EventTimes) -> Result<Values> {
        match self.kind()? {
            Kind::EventTime => match time_unit(self.field.data_type()) {
                Some(unit) => Ok(Values::EventTime(unit)),
                None => Err(Error::config(format!(
                    "column \"{}\" is {} and cannot hold the event time",
                    self.field.name(),
                    sql_type(self.field.data_type())
                ))
                .with_hint("Declare it as TIMESTAMP.")),
            },
            Kind::Sequence => {
                if !can_cast_types(&DataType::Int64, self.field.data_type()) {
                    return Err(unsupported(self.field));
                }
                let first = self.whole("start")?.unwrap_or(0);
                let rows = match self.whole("end")? {
                    None => None,
                    Some(end) if end < first => {
                        let text = end.to_string();
                        return Err(bad_value(&self.key("end"), &text, "at least the start"));
                    }
                    Some(end) => Some(end.abs_diff(first).saturating_add(1)),
                };
                Ok(Values::Sequence { first, rows })
            }
            Kind::Random => self.random(times),
        }
    }

    fn whole(&self, option: &str) -> Result<Option<i64>> {
        self.text(option)?
            .map(|text| {
                let number = text.replace('_', "").parse();
                number.map_err(|_| bad_value(&self.key(option), text, "a whole number"))
            })
            .transpose()
    }

    fn random(&self, times: &EventTimes) -> Result<Values> {
        let choices = self.settings.number(&[&self.key("cardinality")], 1, u64::MAX)?;
        if let Some(list) = self.text("values")? {
            let list: Vec<&str> = list.split(',').map(str::trim).collect();
            let array: ArrayRef = Arc::new(StringArray::from(list));
            let values = cast(&array, self.field.data_type()).map_err(|e| {
                let kept = self.text("values").ok().flatten().unwrap_or_default();
                let expected = format!("a list of {} values", self.field.data_type());
                bad_value(&self.key("values"), kept, &expected).with_source(e)
            })?;
            let kept = choices.map_or(values.len(), |n| usize::try_from(n).unwrap_or(usize::MAX));
            return Ok(Values::Listed(values.slice(0, kept.min(values.len()))));
        }
        match self.field.data_type() {
            DataType::Boolean => Ok(Values::Flags { choices: choices.unwrap_or(2).min(2) }),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => self.fractions(choices),
            t if is_text(t) => self.texts(choices),
            t => {
                let (min, max) = default_range(t, times).ok_or_else(|| unsupported(self.field))?;
                let min = self.ticks("min")?.unwrap_or(min);
                let max = self.ticks("max")?.unwrap_or(max.max(min));
                if max < min {
                    let text = self.text("max")?.unwrap_or_default();
                    return Err(bad_value(&self.key("max"), text, "at least the minimum"));
                }
                let span = max.abs_diff(min).saturating_add(1);
                Ok(Values::Ticks { min, choices: choices.map_or(span, |n| n.min(span)) })
            }
        }
    }

    fn fractions(&self, choices: Option<u64>) -> Result<Values> {
        let number = |option: &str| -> Result<Option<f64>> {
            let Some(text) = self.text(option)? else { return Ok(None) };
            match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Some(number)),
                _ => Err(bad_value(&self.key(option), text, "a number")),
            }
        };
        let min = number("min")?.unwrap_or(0.0);
        let max = number("max")?.unwrap_or(if min < 1.0 { 1.0 } else { min });
        if max < min {
            return Err(bad_value(&self.key("max"), &max.to_string(), "at least the minimum"));
        }
        Ok(Values::Fractions { min, max, choices })
    }

    fn texts(&self, choices: Option<u64>) -> Result<Values> {
        let key = self.key("length");
        let given = self.settings.number(&[&key], 0, TEXT_LETTERS_MAX)?;
        let given = given.and_then(|n| usize::try_from(n).ok());
        let needed = choices.map_or(0, letters_for);
        let letters = given.unwrap_or(TEXT_LETTERS.max(needed));
        if letters < needed {
            let expected = format!("at least {needed} for that many different texts");
            return Err(bad_value(&key, &letters.to_string(), &expected));
        }
        Ok(Values::Texts { letters, choices })
    }

    /// Parses a value of the column's type, in its smallest unit.
    fn ticks(&self, option: &str) -> Result<Option<i64>> {
        let Some(text) = self.text(option)? else { return Ok(None) };
        let data_type = self.field.data_type();
        let array: ArrayRef = Arc::new(StringArray::from(vec![text.replace('_', "")]));
        let ticks = cast(&array, data_type).and_then(|value| match data_type {
            DataType::Decimal128(..) => {
                let value = value.as_primitive::<Decimal128Type>().iter().flatten().next();
                Ok(value.and_then(|v| i64::try_from(v).ok()))
            }
            DataType::Date32 | DataType::Time32(_) => {
                let value = cast(&cast(&value, &DataType::Int32)?, &DataType::Int64)?;
                Ok(value.as_primitive::<Int64Type>().iter().flatten().next())
            }
            _ => {
                let value = cast(&value, &DataType::Int64)?;
                Ok(value.as_primitive::<Int64Type>().iter().flatten().next())
            }
        });
        match ticks {
            Ok(Some(ticks)) => Ok(Some(ticks)),
            Ok(None) => Err(bad_value(&self.key(option), text, "within 64 bits")),
            Err(e) => {
                let expected = format!("a value of type {}", sql_type(data_type));
                Err(bad_value(&self.key(option), text, &expected).with_source(e))
            }
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    use DataType as T;
    match data_type {
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Binary | T::LargeBinary | T::BinaryView => true,
        T::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// Returns the smallest and largest random value of a type that whole numbers can hold, in its smallest unit; `None`
/// for every other type.
fn default_range(data_type: &DataType, times: &EventTimes) -> Option<(i64, i64)> {
    const DAY_SECONDS: i64 = 86_400;
    let start_days = times.start_nanos.div_euclid(1_000_000_000 * DAY_SECONDS);
    Some(match data_type {
        DataType::Int8 => (0, i64::from(i8::MAX)),
        DataType::UInt8 => (0, i64::from(u8::MAX)),
        DataType::Int16 => (0, i64::from(i16::MAX)),
        DataType::UInt16 => (0, i64::from(u16::MAX)),
        DataType::Int32 | DataType::UInt32 | DataType::Int64 | DataType::UInt64 => (0, RANDOM_MAX),
        DataType::Decimal128(precision, scale) => {
            let nines = |digits: i64| {
                let digits = u32::try_from(digits.clamp(0, 18)).unwrap_or(18);
                10i64.pow(digits) - 1
            };
            (0, nines(i64::from(*precision).min(i64::from(*scale) + 6)))
        }
        DataType::Date32 => (start_days, start_days + 364),
        DataType::Date64 => {
            let day_ms = DAY_SECONDS * 1_000;
            (start_days * day_ms, (start_days + 364) * day_ms)
        }
        DataType::Time32(unit) | DataType::Time64(unit) => {
            (0, DAY_SECONDS * ticks_per_second(*unit) - 1)
        }
        DataType::Timestamp(unit, _) => {
            let per_second = ticks_per_second(*unit);
            let start = times.start_nanos.div_euclid(1_000_000_000 / per_second);
            (start, start.saturating_add(DAY_SECONDS * per_second - 1))
        }
        _ => return None,
    })
}

fn unsupported(field: &Field) -> Error {
    Error::config(format!(
        "datagen cannot generate values of type {} for column \"{}\"",
        field.data_type(),
        field.name()
    ))
    .with_hint("Use numbers, texts, booleans, dates, times or timestamps.")
}

/// Casts; a value that does not fit is an error and not NULL.
fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..Default::default() };
    Ok(cast_with_options(array, to, &options)?)
}
