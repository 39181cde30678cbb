//! The three tables: the mapping of events to rows, and of rows to columns.

use std::sync::{Arc, OnceLock};

use arrow::array::{
    ArrayRef, Int64Array, StringViewArray, StringViewBuilder, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use windrow_core::{Error, Result};

use super::super::source::{MakeRows, below, mix, unit_interval};
use super::draws::{
    AUCTION_HORIZON_EVENTS, Auction, Bid, Channels, Depth, EPOCH_AUCTIONS, EPOCH_BIDS,
    EPOCH_EVENTS, EPOCH_PERSONS, Person,
};

/// Salts of the two draws that move a time back.
const SALT_MOVED: u64 = 1;
const SALT_JITTER: u64 = 2;

/// The kind of events in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Person,
    Auction,
    Bid,
}

/// A column: its name, its type, and the depth to which an event must be drawn for it.
type ColumnDoc = (&'static str, DataType, Depth);

impl Table {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Auction => "auction",
            Self::Bid => "bid",
        }
    }

    fn columns(self) -> Vec<ColumnDoc> {
        const TIME: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);
        let (int, text) = (DataType::Int64, DataType::Utf8View);
        match self {
            Self::Person => vec![
                ("id", int, Depth::Times),
                ("name", text.clone(), Depth::Texts),
                ("email_address", text.clone(), Depth::Texts),
                ("credit_card", text.clone(), Depth::Texts),
                ("city", text.clone(), Depth::Texts),
                ("state", text.clone(), Depth::Texts),
                ("date_time", TIME, Depth::Times),
                ("extra", text, Depth::Extra),
            ],
            Self::Auction => vec![
                ("id", int.clone(), Depth::Times),
                ("item_name", text.clone(), Depth::Texts),
                ("description", text.clone(), Depth::Texts),
                ("initial_bid", int.clone(), Depth::Texts),
                ("reserve", int.clone(), Depth::Texts),
                ("date_time", TIME, Depth::Times),
                ("expires", TIME, Depth::Texts),
                ("seller", int.clone(), Depth::Texts),
                ("category", int, Depth::Texts),
                ("extra", text, Depth::Extra),
            ],
            Self::Bid => vec![
                ("auction", int.clone(), Depth::Numbers),
                ("bidder", int.clone(), Depth::Numbers),
                ("price", int, Depth::Numbers),
                ("channel", text.clone(), Depth::Texts),
                ("url", text.clone(), Depth::Texts),
                ("date_time", TIME, Depth::Times),
                ("extra", text, Depth::Extra),
            ],
        }
    }

    /// The table's own columns.
    pub(super) fn schema(self) -> SchemaRef {
        let fields: Vec<_> =
            self.columns().into_iter().map(|(name, t, _)| Field::new(name, t, false)).collect();
        Arc::new(Schema::new(fields))
    }

    /// The position in an epoch of the table's first event, and the number of its events.
    fn place(self) -> (u64, u64) {
        match self {
            Self::Person => (0, EPOCH_PERSONS),
            Self::Auction => (EPOCH_PERSONS, EPOCH_AUCTIONS),
            Self::Bid => (EPOCH_PERSONS + EPOCH_AUCTIONS, EPOCH_BIDS),
        }
    }

    /// Returns the event of row `row`.
    fn event(self, row: u64) -> u64 {
        let (start, count) = self.place();
        (row / count).saturating_mul(EPOCH_EVENTS).saturating_add(start + row % count)
    }

    /// Returns how many rows of this table are among the first `events` events.
    pub(super) fn rows_before(self, events: u64) -> u64 {
        let (start, count) = self.place();
        events / EPOCH_EVENTS * count + (events % EPOCH_EVENTS).saturating_sub(start).min(count)
    }
}

/// A generator of the rows of one table.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) table: Table,
    pub(super) base_ms: i64,
    /// Events per second of event time.
    pub(super) event_rate: u64,
    /// Mixed with event numbers to seed a draw.
    pub(super) seed: u64,
    /// The most, in ms, by which a time is moved back, and the share of events that are.
    pub(super) jitter_ms: u64,
    pub(super) jitter_share: f64,
    /// The stream's event-time column, as index into the table's columns, and its declared unit.
    pub(super) event_time: Option<(usize, TimeUnit)>,
    /// Created when the first bid needs them.
    pub(super) channels: OnceLock<Channels>,
}

impl Events {
    /// Returns the ms from the first event to event `number`, rounded to the nearest.
    fn elapsed_ms(&self, number: u64) -> u64 {
        let (seconds, rest) = (number / self.event_rate, number % self.event_rate);
        let ms = (rest * 2_000 + self.event_rate) / (2 * self.event_rate);
        seconds.saturating_mul(1_000).saturating_add(ms)
    }

    fn time_ms(&self, number: u64) -> i64 {
        self.base_ms.saturating_add_unsigned(self.elapsed_ms(number))
    }

    /// Returns the time shown by event `number`: its own, or one moved back.
    fn shown_time_ms(&self, number: u64) -> i64 {
        let time = self.time_ms(number);
        if self.jitter_ms == 0
            || (self.jitter_share < 1.0
                && unit_interval(mix(self.seed, SALT_MOVED, number)) >= self.jitter_share)
        {
            return time;
        }
        time.saturating_sub_unsigned(below(
            mix(self.seed, SALT_JITTER, number),
            self.jitter_ms.saturating_add(1),
        ))
    }

    fn bids(&self, first: u64, count: usize, depth: Depth, out: &mut Columns) {
        let channels = (depth >= Depth::Texts).then(|| self.channels.get_or_init(Channels::new));
        let mut bid = Bid::default();
        for row in (first..).take(count) {
            let number = self.table.event(row);
            if depth > Depth::Times {
                bid.draw(number, self.seed, depth);
            }
            out.int(0, bid.auction);
            out.int(1, bid.bidder);
            out.int(2, bid.price);
            if let Some(channels) = channels {
                let (channel, url) = bid.channel(channels);
                out.text(3, channel);
                out.text(4, url);
            }
            if out.wants(5) {
                out.int(5, self.shown_time_ms(number));
            }
            out.text(6, &bid.extra);
        }
    }

    fn auctions(&self, first: u64, count: usize, depth: Depth, out: &mut Columns) {
        let mut auction = Auction::default();
        for row in (first..).take(count) {
            let number = self.table.event(row);
            let elapsed = self.elapsed_ms(number);
            let horizon = self.elapsed_ms(number.saturating_add(AUCTION_HORIZON_EVENTS)) - elapsed;
            auction.draw(number, self.seed, horizon, depth);
            out.int(0, auction.id);
            out.text(1, &auction.item_name);
            out.text(2, &auction.description);
            out.int(3, auction.initial_bid);
            out.int(4, auction.reserve);
            if out.wants(5) {
                out.int(5, self.shown_time_ms(number));
            }
            out.int(6, self.time_ms(number).saturating_add(auction.length_ms));
            out.int(7, auction.seller);
            out.int(8, auction.category);
            out.text(9, &auction.extra);
        }
    }

    fn persons(&self, first: u64, count: usize, depth: Depth, out: &mut Columns) {
        let mut person = Person::default();
        for row in (first..).take(count) {
            let number = self.table.event(row);
            person.draw(number, self.seed, depth);
            out.int(0, person.id);
            out.text(1, &person.name);
            out.text(2, &person.email_address);
            out.text(3, &person.credit_card);
            out.text(4, person.city);
            out.text(5, person.state);
            if out.wants(6) {
                out.int(6, self.shown_time_ms(number));
            }
            out.text(7, &person.extra);
        }
    }
}

impl MakeRows for Events {
    fn columns(&self, first: u64, count: usize, columns: &[usize]) -> Result<Vec<ArrayRef>> {
        let docs = self.table.columns();
        let mut out = Columns::new(&docs, columns, count);
        let wanted = columns.iter().filter_map(|&c| docs.get(c)).map(|(_, _, depth)| *depth);
        let depth = wanted.max().unwrap_or(Depth::Times);
        match self.table {
            Table::Bid => self.bids(first, count, depth, &mut out),
            Table::Auction => self.auctions(first, count, depth, &mut out),
            Table::Person => self.persons(first, count, depth, &mut out),
        }
        out.finish(columns)
    }

    fn event_times(&self, first: u64, count: u64) -> Option<(i64, i64)> {
        let (column, unit) = self.event_time?;
        let is_date_time = self.table.schema().field(column).name() == "date_time";
        if !is_date_time || self.jitter_ms > 0 || count == 0 {
            return None;
        }
        let last = first.checked_add(count - 1)?;
        let ticks = |row| {
            let ms = self.time_ms(self.table.event(row));
            match unit {
                TimeUnit::Second => Some(ms.div_euclid(1_000)),
                TimeUnit::Millisecond => Some(ms),
                TimeUnit::Microsecond => ms.checked_mul(1_000),
                TimeUnit::Nanosecond => ms.checked_mul(1_000_000),
            }
        };
        Some((ticks(first)?, ticks(last)?))
    }

    fn events_before(&self, row: u64) -> u64 {
        self.table.event(row)
    }
}

/// The columns under construction; an unwanted one stays empty.
struct Columns {
    columns: Vec<Column>,
}

enum Column {
    Unwanted,
    Int(Vec<i64>),
    Time(Vec<i64>),
    Text(StringViewBuilder),
}

impl Columns {
    fn new(docs: &[ColumnDoc], wanted: &[usize], rows: usize) -> Self {
        let column = |(i, (_, data_type, _)): (usize, &ColumnDoc)| match data_type {
            _ if !wanted.contains(&i) => Column::Unwanted,
            DataType::Utf8View => Column::Text(StringViewBuilder::with_capacity(rows)),
            DataType::Timestamp(..) => Column::Time(Vec::with_capacity(rows)),
            _ => Column::Int(Vec::with_capacity(rows)),
        };
        Self { columns: docs.iter().enumerate().map(column).collect() }
    }

    fn wants(&self, column: usize) -> bool {
        !matches!(self.columns.get(column), Some(Column::Unwanted) | None)
    }

    fn int(&mut self, column: usize, value: i64) {
        if let Some(Column::Int(values) | Column::Time(values)) = self.columns.get_mut(column) {
            values.push(value);
        }
    }

    fn text(&mut self, column: usize, value: &str) {
        if let Some(Column::Text(values)) = self.columns.get_mut(column) {
            values.append_value(value);
        }
    }

    /// Returns the finished columns, in the order of `wanted` (where one may occur twice).
    fn finish(self, wanted: &[usize]) -> Result<Vec<ArrayRef>> {
        let arrays: Vec<Option<ArrayRef>> = self
            .columns
            .into_iter()
            .map(|column| match column {
                Column::Unwanted => None,
                Column::Int(v) => Some(Arc::new(Int64Array::from(v)) as ArrayRef),
                Column::Time(v) => Some(Arc::new(TimestampMillisecondArray::from(v)) as ArrayRef),
                Column::Text(mut v) => Some(Arc::new(v.finish() as StringViewArray) as ArrayRef),
            })
            .collect();
        wanted
            .iter()
            .map(|&i| arrays.get(i).cloned().flatten())
            .collect::<Option<_>>()
            .ok_or_else(|| Error::internal("nexmark has no such column"))
    }
}
