//! Nexmark rows compared with the crate `nexmark` and with themselves, and at large row numbers.

use ::nexmark::EventGenerator;
use ::nexmark::config::NexmarkConfig;
use ::nexmark::event::{Event, EventType};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit, TimestampMillisecondType};
use windrow_core::{ManualClock, ScanRequest, Split};

use super::super::reading::{env, options, read, scan};
use super::super::source::{MakeRows, SplitRange};
use super::*;

fn open(pairs: &[(&str, &str)]) -> Arc<dyn Source> {
    nexmark(&options(pairs), &Declared::default(), &env(&ManualClock::default())).unwrap()
}

fn ints(batch: &RecordBatch, column: &str) -> Vec<i64> {
    let column = batch.column_by_name(column).unwrap();
    let column = arrow::compute::cast(column, &DataType::Int64).unwrap();
    column.as_primitive::<Int64Type>().values().to_vec()
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    let column = batch.column_by_name(column).unwrap().as_string_view();
    column.iter().map(|text| text.unwrap().to_owned()).collect()
}

/// Returns the crate's events of one kind, as many as `table` has rows.
fn original(kind: EventType, rows: usize) -> Vec<Event> {
    let base_time = BASE_TIME_MS.unsigned_abs();
    let config = NexmarkConfig { base_time, ..NexmarkConfig::default() };
    EventGenerator::new(config).with_type_filter(kind).take(rows).collect()
}

async fn all(table: &str, events: &str) -> RecordBatch {
    let source = open(&[("table", table), ("events", events)]);
    let columns: Vec<usize> = (0..source.schema().fields().len()).collect();
    read(source.as_ref(), &columns, 1_000).await
}

#[tokio::test]
async fn bids_are_those_of_the_crate() {
    let rows = all("bid", "20_000").await;
    assert_eq!(rows.num_rows(), 20_000 / 50 * 46);
    let bids: Vec<_> = original(EventType::Bid, rows.num_rows())
        .into_iter()
        .map(|e| if let Event::Bid(bid) = e { bid } else { panic!("not a bid") })
        .collect();
    let expected = |f: fn(&::nexmark::event::Bid) -> usize| -> Vec<i64> {
        bids.iter().map(|b| f(b) as i64).collect()
    };
    assert_eq!(ints(&rows, "auction"), expected(|b| b.auction));
    assert_eq!(ints(&rows, "bidder"), expected(|b| b.bidder));
    assert_eq!(ints(&rows, "price"), expected(|b| b.price));
    assert_eq!(ints(&rows, "date_time"), expected(|b| b.date_time as usize));
    let expected = |f: fn(&::nexmark::event::Bid) -> &String| -> Vec<String> {
        bids.iter().map(|b| f(b).clone()).collect()
    };
    assert_eq!(texts(&rows, "channel"), expected(|b| &b.channel));
    assert_eq!(texts(&rows, "url"), expected(|b| &b.url));
    assert_eq!(texts(&rows, "extra"), expected(|b| &b.extra));
}

#[tokio::test]
async fn auctions_are_those_of_the_crate() {
    let rows = all("auction", "20_000").await;
    let auctions: Vec<_> = original(EventType::Auction, rows.num_rows())
        .into_iter()
        .map(|e| if let Event::Auction(auction) = e { auction } else { panic!("not an auction") })
        .collect();
    let expected = |f: fn(&::nexmark::event::Auction) -> usize| -> Vec<i64> {
        auctions.iter().map(|a| f(a) as i64).collect()
    };
    assert_eq!(ints(&rows, "id"), expected(|a| a.id));
    assert_eq!(ints(&rows, "initial_bid"), expected(|a| a.initial_bid));
    assert_eq!(ints(&rows, "reserve"), expected(|a| a.reserve));
    assert_eq!(ints(&rows, "date_time"), expected(|a| a.date_time as usize));
    assert_eq!(ints(&rows, "expires"), expected(|a| a.expires as usize));
    assert_eq!(ints(&rows, "seller"), expected(|a| a.seller));
    assert_eq!(ints(&rows, "category"), expected(|a| a.category));
    let expected = |f: fn(&::nexmark::event::Auction) -> &String| -> Vec<String> {
        auctions.iter().map(|a| f(a).clone()).collect()
    };
    assert_eq!(texts(&rows, "item_name"), expected(|a| &a.item_name));
    assert_eq!(texts(&rows, "description"), expected(|a| &a.description));
    assert_eq!(texts(&rows, "extra"), expected(|a| &a.extra));
}

#[tokio::test]
async fn persons_are_those_of_the_crate() {
    let rows = all("person", "20_000").await;
    let persons: Vec<_> = original(EventType::Person, rows.num_rows())
        .into_iter()
        .map(|e| if let Event::Person(person) = e { person } else { panic!("not a person") })
        .collect();
    assert_eq!(ints(&rows, "id"), persons.iter().map(|p| p.id as i64).collect::<Vec<_>>());
    let expected = |f: fn(&::nexmark::event::Person) -> &String| -> Vec<String> {
        persons.iter().map(|p| f(p).clone()).collect()
    };
    assert_eq!(texts(&rows, "name"), expected(|p| &p.name));
    assert_eq!(texts(&rows, "email_address"), expected(|p| &p.email_address));
    assert_eq!(texts(&rows, "credit_card"), expected(|p| &p.credit_card));
    assert_eq!(texts(&rows, "city"), expected(|p| &p.city));
    assert_eq!(texts(&rows, "state"), expected(|p| &p.state));
    assert_eq!(texts(&rows, "extra"), expected(|p| &p.extra));
}

#[tokio::test]
async fn any_split_batch_and_projection_gives_the_same_rows() {
    let given = [("events", "700_000"), ("out_of_order", "4 s"), ("seed", "7")];
    let source = open(&given);
    let splits = source.discover().await.unwrap()[0].splits.len();
    assert_eq!(splits, 3);
    let wide = read(source.as_ref(), &[0, 2, 5], 65_536).await;
    let narrow = read(open(&given).as_ref(), &[0, 2, 5], 9_999).await;
    assert_eq!(wide, narrow);
    let some = read(source.as_ref(), &[5], 65_536).await;
    assert_eq!(some.column(0), wide.column(2));
    let none = read(source.as_ref(), &[], 65_536).await;
    assert_eq!(none.num_rows(), 700_000 / 50 * 46);
    let other = open(&[("events", "700_000"), ("out_of_order", "4 s"), ("seed", "8")]);
    assert_ne!(read(other.as_ref(), &[0, 2, 5], 65_536).await, wide);
}

#[tokio::test]
async fn tables_end_with_the_events() {
    for (events, persons, auctions, bids) in [
        ("0", 0, 0, 0),
        ("1", 1, 0, 0),
        ("3", 1, 2, 0),
        ("5", 1, 3, 1),
        ("50", 1, 3, 46),
        ("103", 3, 8, 92),
    ] {
        for (table, rows) in [("person", persons), ("auction", auctions), ("bid", bids)] {
            let source = open(&[("table", table), ("events", events)]);
            assert_eq!(read(source.as_ref(), &[0], 100).await.num_rows(), rows, "{table} {events}");
        }
    }
}

/// Reads from row `first` of an endless source.
async fn far_out(source: &dyn Source, first: u64, request: &ScanRequest) -> RecordBatch {
    let detail = Arc::new(SplitRange { first, end: u64::MAX });
    let split = Split { detail, ..source.discover().await.unwrap()[0].splits[0].clone() };
    source.open(&split, request).await.unwrap().next().await.unwrap().unwrap().rows
}

#[tokio::test]
async fn times_stay_exact_past_sixteen_million_events() {
    let source = open(&[]);
    assert!(!source.is_bounded());
    // 10^12 events take 10^8 s at ten a millisecond.
    let first = 1_000_000_000_000 / 50 * 46;
    let rows = far_out(source.as_ref(), first, &scan(&[5], 92)).await;
    let times = rows.column(0).as_primitive::<TimestampMillisecondType>().values().to_vec();
    let expected: Vec<i64> = (0..100)
        .filter(|n| n % 50 >= 4)
        // Ten events in a millisecond; rounded to the nearest.
        .map(|n| BASE_TIME_MS + 100_000_000_000 + (n + 5) / 10)
        .collect();
    assert_eq!(times, expected);
}

#[tokio::test]
async fn disorder_moves_times_back_within_its_bound() {
    let plain = read(open(&[("events", "50_000")]).as_ref(), &[5], 65_536).await;
    let given = [("events", "50_000"), ("out_of_order", "1 s"), ("out_of_order_share", "0.2")];
    let moved = read(open(&given).as_ref(), &[5], 65_536).await;
    let (plain, moved) = (ints(&plain, "date_time"), ints(&moved, "date_time"));
    let back: Vec<i64> = plain.iter().zip(&moved).map(|(a, b)| a - b).collect();
    assert!(back.iter().all(|ms| (0..=1_000).contains(ms)));
    let share = back.iter().filter(|ms| **ms > 0).count() as f64 / back.len() as f64;
    assert!((0.19..0.21).contains(&share), "{share}");
}

#[tokio::test]
async fn declared_columns_are_found_by_name_and_cast() {
    let schema = Schema::new(vec![
        Field::new(
            "dateTime",
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            true,
        ),
        Field::new("price", DataType::Float64, true),
        Field::new("url", DataType::Utf8, true),
    ]);
    let declared = Declared {
        schema: Some(Arc::new(schema)),
        event_time: Some("dateTime".into()),
        ..Declared::default()
    };
    let given = options(&[("events", "5000")]);
    let source = nexmark(&given, &declared, &env(&ManualClock::default())).unwrap();
    let rows = read(source.as_ref(), &[0, 1, 2], 100).await;
    let times = ints(&rows, "dateTime");
    assert_eq!(times[0], BASE_TIME_MS * 1_000);
    let split = &source.discover().await.unwrap()[0].splits[0];
    assert_eq!(split.event_times, Some((times[0], times[times.len() - 1])));

    let wrong = Schema::new(vec![Field::new("prize", DataType::Int64, true)]);
    let declared =
        Declared { schema: Some(Arc::new(wrong)), event_time: None, ..Declared::default() };
    let error = nexmark(&given, &declared, &env(&ManualClock::default())).unwrap_err();
    assert_eq!(error.message(), "nexmark table \"bid\" has no column \"prize\"");
    assert!(error.hints()[0].contains("auction, bidder, price"));
}

#[tokio::test]
async fn expiry_is_no_ascending_event_time() {
    let declared =
        Declared { schema: None, event_time: Some("expires".into()), ..Declared::default() };
    let given = options(&[("events", "5000"), ("table", "auction")]);
    let source = nexmark(&given, &declared, &env(&ManualClock::default())).unwrap();
    assert_eq!(source.discover().await.unwrap()[0].splits[0].event_times, None);
}

#[tokio::test]
async fn a_rate_paces_by_the_clock() {
    let clock = ManualClock::at(1_000);
    let given = options(&[("rate", "100"), ("events", "1000")]);
    let source = nexmark(&given, &Declared::default(), &env(&clock)).unwrap();
    let splits = source.discover().await.unwrap().remove(0).splits;
    assert_eq!(splits.len(), 1);
    let request = scan(&[5], 65_536);
    let mut reader = source.open(&splits[0], &request).await.unwrap();
    let waiting = futures::FutureExt::now_or_never(reader.next());
    assert!(waiting.is_none(), "the first bid is event 4");
    clock.advance(std::time::Duration::from_millis(40));
    assert_eq!(reader.next().await.unwrap().unwrap().rows.num_rows(), 1);
    clock.advance(std::time::Duration::from_millis(990));
    // Events 5 to 103 are due by now; 50 to 53 and 100 to 103 are no bids.
    let rows = reader.next().await.unwrap().unwrap().rows.num_rows();
    assert_eq!(rows, 45 + 46);
    // What is available now, for another reader: the same rows, and the end.
    let now = ScanRequest { until_now: true, ..request };
    let mut other = source.open(&splits[0], &now).await.unwrap();
    assert_eq!(other.next().await.unwrap().unwrap().rows.num_rows(), 1 + rows);
    assert!(other.next().await.unwrap().is_none());
    clock.advance(std::time::Duration::from_secs(1_000));
    let mut total = 1 + rows;
    while let Some(batch) = reader.next().await.unwrap() {
        total += batch.rows.num_rows();
    }
    assert_eq!(total, 920);
}

#[test]
fn wrong_options_are_told() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    for (pairs, message) in [
        (
            vec![("table", "bids")],
            "option \"table\" must be one of 'bid', 'auction', 'person', not \"bids\"",
        ),
        (vec![("rate", "0")], "option \"rate\" must be a whole number of at least 1, not \"0\""),
        (
            vec![("events", "-3")],
            "option \"events\" must be a whole number of at least 0, not \"-3\"",
        ),
        (vec![("evnts", "3")], "unknown option \"evnts\" of connector \"nexmark\""),
        (
            vec![("base_time", "soon")],
            "option \"base_time\" must be a timestamp like '2024-01-01 00:00:00', ms since 1970, or 'now', not \"soon\"",
        ),
    ] {
        let env = env(&ManualClock::default());
        let error = nexmark(&options(&pairs), &Declared::default(), &env).unwrap_err();
        assert_eq!(error.message(), message);
    }
}

/// Measures the speed: `cargo test -p windrow-connectors --release nexmark_speed -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, worth something in release only"]
#[expect(clippy::disallowed_methods, reason = "a stopwatch")]
fn nexmark_speed() {
    let events = Events {
        table: Table::Bid,
        base_ms: BASE_TIME_MS,
        event_rate: EVENT_RATE,
        seed: 0,
        jitter_ms: 0,
        jitter_share: 1.0,
        event_time: None,
        channels: std::sync::OnceLock::new(),
    };
    for (name, columns) in [("numbers", vec![0, 1, 2, 5]), ("all", (0..7).collect())] {
        let start = std::time::Instant::now();
        for batch in 0..32 {
            assert_eq!(
                events.columns(batch * 65_536, 65_536, &columns).unwrap().len(),
                columns.len()
            );
        }
        let rows = 32.0 * 65_536.0;
        println!("{name}: {:.1} M rows/s", rows / start.elapsed().as_secs_f64() / 1e6);
    }
}
