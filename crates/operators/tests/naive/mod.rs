//! A naive evaluator, which visits every row and every window.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, SchemaRef};
use rand::Rng;
use rand::rngs::StdRng;
use windrow_core::{Calendar, CalendarUnit, StepUnit, WindowKind, WindowSpec, Zone};
use windrow_operators::lateness::Tolerance;
use windrow_operators::{Mode, OperatorSpec, SessionOperatorSpec};

/// By (end, start): the rows as text, sorted.
pub(crate) type Windowed = BTreeMap<(i64, i64), Vec<String>>;

/// One row.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) time: i64,
    pub(crate) keys: (Option<i64>, Option<String>, Option<i64>),
    pub(crate) value: Option<i64>,
    pub(crate) float: Option<f64>,
    pub(crate) flag: Option<bool>,
}

impl Row {
    pub(crate) fn random(rng: &mut StdRng, id: i64, time: i64, cardinality: i64) -> Self {
        let mut number =
            |n: i64| if rng.random_bool(0.1) { None } else { Some(rng.random_range(0..n)) };
        Self {
            id,
            time,
            keys: (
                number(cardinality),
                number(4).map(|n| format!("a text that does not fit into a view {n}")),
                number(3),
            ),
            value: number(10),
            float: number(8).map(|n| n as f64),
            flag: number(2).map(|n| n == 1),
        }
    }

    pub(crate) fn key_texts(&self) -> [String; 3] {
        let (a, b, c) = &self.keys;
        [show(*a), show(b.clone()), show(c.map(|n| format!("{{a:{n}}}")))]
    }
}

fn show<T: ToString>(value: Option<T>) -> String {
    value.map_or("NULL".to_owned(), |v| v.to_string())
}

/// Returns a list as text that does not depend on its order.
pub(crate) fn sorted_list(mut items: Vec<String>) -> String {
    items.sort();
    format!("[{}]", items.join(", "))
}

/// Returns the rows as a prepared batch.
pub(crate) fn batch(schema: &SchemaRef, text: &DataType, rows: &[Row]) -> RecordBatch {
    let a: Int64Array = rows.iter().map(|r| Some(r.keys.2.unwrap_or(0))).collect();
    let field = Arc::new(Field::new("a", DataType::Int64, true));
    let valid: NullBuffer = rows.iter().map(|r| r.keys.2.is_some()).collect();
    let texts: StringArray = rows.iter().map(|r| r.keys.1.clone()).collect();
    let times: TimestampMicrosecondArray = rows.iter().map(|r| Some(r.time)).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| Some(r.id)).collect::<Int64Array>()),
        Arc::new(times.with_timezone("UTC")),
        Arc::new(rows.iter().map(|r| r.keys.0).collect::<Int64Array>()),
        cast(&texts, text).unwrap(),
        Arc::new(StructArray::new(vec![field].into(), vec![Arc::new(a)], Some(valid))),
        Arc::new(rows.iter().map(|r| r.value).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| r.float).collect::<Float64Array>()),
        Arc::new(rows.iter().map(|r| r.flag).collect::<BooleanArray>()),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

/// Returns the first instants of the days or months of Berlin in the years 2023 to 2026, with their numbers, from the
/// local time of every hour.
fn units(unit: CalendarUnit) -> &'static [(i64, i64)] {
    static DAYS: OnceLock<Vec<(i64, i64)>> = OnceLock::new();
    static MONTHS: OnceLock<Vec<(i64, i64)>> = OnceLock::new();
    let berlin = Zone::of("Europe/Berlin").unwrap();
    let walk = || {
        let mut day = i64::MIN;
        let starts = (1_672_531_200..1_798_761_600).step_by(3_600).filter_map(|instant| {
            let shown = (instant + berlin.ahead_of_utc(instant)).div_euclid(86_400);
            let begins = shown != std::mem::replace(&mut day, shown);
            begins.then_some((instant, shown))
        });
        starts.collect()
    };
    let days = DAYS.get_or_init(walk);
    match unit {
        CalendarUnit::Day => days,
        CalendarUnit::Month => MONTHS.get_or_init(|| {
            let lengths = |year: i64| {
                let leap = if year % 4 == 0 { 29 } else { 28 };
                [31, leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
            };
            // The first of them may be the middle of a day; from 2023-02-01, in days and months after 1970.
            let (mut day, mut month) = (19_389, 637);
            let mut starts = vec![];
            while let Some((instant, _)) = days.iter().find(|(_, number)| *number == day) {
                starts.push((*instant, month));
                day += lengths(1970 + month / 12)[(month % 12) as usize];
                month += 1;
            }
            starts
        }),
    }
}

/// Returns all calendar windows that contain `time`, by trial.
fn calendar_windows(spec: &WindowSpec, calendar: Calendar, time: i64) -> Vec<(i64, i64)> {
    let starts = units(calendar.unit);
    let (period, size) = match spec.kind() {
        WindowKind::Tumble { size } | WindowKind::Cumulate { size, .. } => (size, size),
        WindowKind::Hop { slide, size } => (slide, size),
    };
    let first = starts[0].1;
    let begun = starts.partition_point(|(start, _)| *start <= time);
    let near = &starts[begun.saturating_sub(size as usize)..begun];
    let longest = near.iter().filter(|(_, n)| (n - spec.offset()).rem_euclid(period) == 0);
    longest
        .filter_map(|(start, n)| Some((*start, starts.get((n + size - first) as usize)?.0)))
        .filter(|(start, end)| (*start..*end).contains(&time))
        .flat_map(|(start, end)| match (spec.kind(), calendar.step_unit) {
            (WindowKind::Cumulate { step, .. }, StepUnit::Tick) => (1..)
                .map(|j| start + j * step)
                .take_while(|at| *at < end)
                .chain([end])
                .map(|at| (start, at))
                .collect(),
            (WindowKind::Cumulate { step, .. }, _) => {
                let days = units(CalendarUnit::Day);
                let from = days.partition_point(|(instant, _)| *instant < start);
                let within = days[from..].iter().map(|(instant, _)| *instant);
                let within = within.take_while(|at| *at < end).step_by(step as usize).skip(1);
                within.chain([end]).map(|at| (start, at)).collect()
            }
            _ => vec![(start, end)],
        })
        .filter(|(_, end)| time < *end)
        .collect()
}

/// Returns all windows (start, end) that contain `time`, by trial.
fn windows_of(spec: &WindowSpec, time: i64) -> Vec<(i64, i64)> {
    match spec.calendar() {
        Some(calendar) => calendar_windows(spec, calendar, time),
        None => windows(spec.kind(), spec.offset(), time),
    }
}

/// Returns all windows of constant length that contain `time`, by trial.
fn windows(kind: WindowKind, offset: i64, time: i64) -> Vec<(i64, i64)> {
    let (period, lengths): (i64, Vec<i64>) = match kind {
        WindowKind::Tumble { size } => (size, vec![size]),
        WindowKind::Hop { slide, size } => (slide, vec![size]),
        WindowKind::Cumulate { step, size } => {
            (size, (1..=size / step).map(|j| j * step).collect())
        }
    };
    let longest = *lengths.last().unwrap();
    let near = (time - offset).div_euclid(period);
    (near - longest / period - 2..=near + 2)
        .map(|k| k * period + offset)
        .flat_map(|start| lengths.iter().map(move |length| (start, start + length)))
        .filter(|(start, end)| (*start..*end).contains(&time))
        .collect()
}

#[allow(dead_code, reason = "not every test binary asks for aligned windows")]
/// Returns the windows of all rows, and the number of rows that are in none because they are late.
pub(crate) fn evaluate(
    spec: &OperatorSpec,
    tolerance: Tolerance,
    partitions: &[Vec<Row>],
) -> (Windowed, usize) {
    let mut groups: BTreeMap<((i64, i64), String), Vec<&Row>> = BTreeMap::new();
    let mut late = 0;
    for rows in partitions {
        let mut watermark = i64::MIN / 2;
        for row in rows {
            let mut counted = false;
            for (start, end) in windows_of(&spec.window(), row.time) {
                if end + tolerance.allowed_lateness > watermark {
                    counted = true;
                    for key in keys(spec.mode(), row) {
                        groups.entry(((end, start), key)).or_default().push(row);
                    }
                }
            }
            late += usize::from(!counted);
            watermark = watermark.max(row.time - tolerance.delay);
        }
    }
    let mut windowed = Windowed::new();
    for ((window, key), rows) in groups {
        let lines = windowed.entry(window).or_default();
        match spec.mode() {
            Mode::Rows => lines.extend(rows.iter().map(|r| plain(r))),
            Mode::Aggregate { aggregates, .. } => {
                let mut cells = aggregate(&rows);
                cells.truncate(aggregates.len());
                lines.push(format!("{key}{}", cells.join("|")));
            }
        }
    }
    windowed.values_mut().for_each(|lines| lines.sort());
    (windowed, late)
}

/// Returns the sessions of all rows, and the number of rows that are in none because they are late.
#[allow(dead_code, reason = "not every test binary asks for sessions")]
pub(crate) fn sessions(
    spec: &SessionOperatorSpec,
    tolerance: Tolerance,
    partitions: &[Vec<Row>],
) -> (Windowed, usize) {
    let mut of_key: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    let mut late = 0;
    for rows in partitions {
        let mut watermark = i64::MIN / 2;
        for row in rows {
            if row.time < watermark - tolerance.allowed_lateness {
                late += 1;
            } else {
                let texts = row.key_texts();
                let key = texts.iter().take(spec.keys().len()).map(|text| format!("{text}|"));
                of_key.entry(key.collect()).or_default().push(row);
            }
            watermark = watermark.max(row.time - tolerance.delay);
        }
    }
    let gap = spec.session().gap();
    let mut windowed = Windowed::new();
    for (key, mut rows) in of_key {
        rows.sort_by_key(|row| row.time);
        for rows in rows.chunk_by(|a, b| b.time - a.time <= gap) {
            let (first, last) = (rows[0].time, rows[rows.len() - 1].time);
            let lines = windowed.entry((last + gap, first)).or_default();
            match spec.mode() {
                Mode::Rows => lines.extend(rows.iter().map(|r| plain(r))),
                Mode::Aggregate { aggregates, .. } => {
                    let mut cells = aggregate(rows);
                    cells.truncate(aggregates.len());
                    lines.push(format!("{key}{}", cells.join("|")));
                }
            }
        }
    }
    windowed.values_mut().for_each(|lines| lines.sort());
    (windowed, late)
}

/// Returns the groups of all rows; without keys there is one even if there are no rows.
#[allow(dead_code, reason = "not every test binary asks for groups")]
pub(crate) fn groups(mode: &Mode, rows: &[Row]) -> Vec<String> {
    let mut groups: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    let Mode::Aggregate { keys: columns, aggregates, .. } = mode else { return vec![] };
    if columns.is_empty() {
        groups.insert(String::new(), vec![]);
    }
    for row in rows {
        for key in keys(mode, row) {
            groups.entry(key).or_default().push(row);
        }
    }
    let lines = groups.into_iter().map(|(key, rows)| {
        let mut cells = aggregate(&rows);
        cells.truncate(aggregates.len());
        format!("{key}{}", cells.join("|")).trim_end_matches('|').to_owned()
    });
    lines.collect()
}

/// Returns the keys of the groups in which a row counts, as text.
fn keys(mode: &Mode, row: &Row) -> Vec<String> {
    let Mode::Aggregate { keys, grouping_sets, .. } = mode else {
        return vec![String::new()];
    };
    let texts = row.key_texts();
    let plain = [vec![false; keys.len()]];
    let masks = grouping_sets.as_ref().map_or(&plain[..], |sets| sets.masks());
    let mut seen: BTreeMap<&Vec<bool>, u64> = BTreeMap::new();
    masks
        .iter()
        .map(|mask| {
            let shown = mask.iter().zip(&texts).map(|(m, t)| if *m { "NULL" } else { t });
            let mut key: String = shown.map(|t| format!("{t}|")).collect();
            if grouping_sets.is_some() {
                let bits = mask.iter().fold(0, |id, null| id * 2 + u64::from(*null));
                let before = seen.entry(mask).or_default();
                key += &format!("{}|", bits + (*before << mask.len()));
                *before += 1;
            }
            key
        })
        .collect()
}

fn plain(row: &Row) -> String {
    let [a, b, c] = row.key_texts();
    let time =
        datafusion::scalar::ScalarValue::TimestampMicrosecond(Some(row.time), Some("UTC".into()));
    let cells = [
        row.id.to_string(),
        time.to_string(),
        a,
        b,
        c,
        show(row.value),
        show(row.float),
        show(row.flag),
    ];
    cells.join("|")
}

fn aggregate(rows: &[&Row]) -> Vec<String> {
    let values: Vec<i64> = rows.iter().filter_map(|r| r.value).collect();
    let floats: Vec<f64> = rows.iter().filter_map(|r| r.float).collect();
    let mean = floats.iter().sum::<f64>() / floats.len() as f64;
    let flagged = rows.iter().filter(|r| r.flag == Some(true) && r.value.is_some()).count();
    vec![
        rows.len().to_string(),
        show((!values.is_empty()).then(|| values.iter().sum::<i64>())),
        show(values.iter().min()),
        show(rows.iter().filter_map(|r| r.keys.1.clone()).max()),
        show((!floats.is_empty()).then_some(mean)),
        values.iter().collect::<BTreeSet<_>>().len().to_string(),
        // An aggregate without keys may have no rows.
        match rows {
            [] => show::<i64>(None),
            _ => sorted_list(
                rows.iter().map(|r| r.value.map_or(String::new(), |v| v.to_string())).collect(),
            ),
        },
        flagged.to_string(),
        floats.len().to_string(),
        show(rows.iter().filter_map(|r| Some((r.value?, r.id))).max().map(|(_, id)| id)),
        show(most_frequent(&values)),
    ]
}

/// The smallest of the most frequent values.
fn most_frequent(values: &[i64]) -> Option<i64> {
    let times = |value: &i64| values.iter().filter(|other| *other == value).count();
    values.iter().copied().max_by_key(|value| (times(value), -value))
}
