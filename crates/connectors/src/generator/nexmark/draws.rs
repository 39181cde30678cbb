//! The random draws of the Nexmark generator, event by event, in integers.
//!
//! They are those of the crate `nexmark` in the same order from the same generator (`SmallRng` of rand 0.8, seeded by
//! the event's number), so rows equal the crate's wherever its `f32` clock is still exact; tests compare the two. Two
//! things differ on purpose: times are computed in integers, so they stay right for any event number, and a draw needed
//! only by an unwanted column is skipped (strings are most of the cost).

use rand_0_8::rngs::SmallRng;
use rand_0_8::{Rng, SeedableRng};

/// Of 50 consecutive events the first is a person, the next three are auctions, 46 are bids.
pub(super) const EPOCH_EVENTS: u64 = 50;
pub(super) const EPOCH_PERSONS: u64 = 1;
pub(super) const EPOCH_AUCTIONS: u64 = 3;
pub(super) const EPOCH_BIDS: u64 = 46;

const FIRST_ID: u64 = 1000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: usize = 5;
const ACTIVE_PERSONS: u64 = 1000;
const ID_LEAD: u64 = 10;
const IN_FLIGHT_AUCTIONS: u64 = 100;
/// Every 100th person or auction is a hot one.
const HOT_EVERY: u64 = 100;
const HOT_AUCTION_RATIO: usize = 2;
const HOT_BIDDER_RATIO: usize = 4;
const HOT_SELLER_RATIO: usize = 4;
const HOT_CHANNEL_RATIO: usize = 2;
const CHANNELS: usize = 10_000;
const BID_BYTES: usize = 100;
const AUCTION_BYTES: usize = 500;
const PERSON_BYTES: usize = 200;

/// The number of events until as many auctions have opened as may be open at a time.
pub(super) const AUCTION_HORIZON_EVENTS: u64 = IN_FLIGHT_AUCTIONS * EPOCH_EVENTS / EPOCH_AUCTIONS;

/// Channel names and their pages.
#[derive(Debug)]
pub(super) struct Channels {
    hot: Vec<(String, String)>,
    others: Vec<(String, String)>,
}

impl Channels {
    /// Returns the hot channels and ten thousand others.
    pub(super) fn new() -> Self {
        let hot = ["Google", "Facebook", "Baidu", "Apple"];
        let hot = hot.into_iter().zip(0..).map(|(n, i)| (n.to_owned(), base_url(i))).collect();
        let others = (0..CHANNELS)
            .zip(0u32..)
            .map(|(i, bits)| {
                let mut url = base_url(u64::from(bits));
                if SmallRng::seed_from_u64(u64::from(bits)).gen_range(0..10) > 0 {
                    // As the original: the reversed bits as a signed number, without its sign.
                    let id = i64::from(bits.reverse_bits().cast_signed()).abs();
                    url.push_str(&format!("&channel_id={id}"));
                }
                (format!("channel-{i}"), url)
            })
            .collect();
        Self { hot, others }
    }
}

/// Returns a page address that depends on `seed` alone.
fn base_url(seed: u64) -> String {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut url = "https://www.nexmark.com".to_owned();
    for _ in 0..3 {
        url.push('/');
        let length: usize = rng.gen_range(3..5);
        for _ in 0..length {
            let letter = if rng.gen_range(0..13) == 0 {
                '_'
            } else {
                char::from(rng.gen_range(b'a'..=b'z'))
            };
            url.push(letter);
        }
    }
    url.push_str("/item.htm?query=1");
    url
}

/// The depth to which an event is drawn; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// No draw at all.
    Times,
    /// The numbers that come before the long strings.
    Numbers,
    /// Names, channels, descriptions.
    Texts,
    /// `extra`, the longest.
    Extra,
}

/// A bid as drawn.
#[derive(Debug, Default)]
pub(super) struct Bid {
    pub(super) auction: i64,
    pub(super) bidder: i64,
    pub(super) price: i64,
    /// Index among all channels: hot ones first.
    pub(super) channel: usize,
    pub(super) extra: String,
}

impl Bid {
    /// Draws the bid of event `number` into `self`.
    pub(super) fn draw(&mut self, number: u64, seed: u64, depth: Depth) {
        let rng = &mut SmallRng::seed_from_u64(number ^ seed);
        let epoch = number / EPOCH_EVENTS;
        let last_auction = epoch * EPOCH_AUCTIONS + EPOCH_AUCTIONS - 1;
        let auction = if rng.gen_range(0..HOT_AUCTION_RATIO) > 0 {
            last_auction / HOT_EVERY * HOT_EVERY
        } else {
            let first = last_auction.saturating_sub(IN_FLIGHT_AUCTIONS);
            first + rng.gen_range(0..last_auction - first + 1 + ID_LEAD)
        };
        self.auction = id(auction);
        let bidder = if rng.gen_range(0..HOT_BIDDER_RATIO) > 0 {
            epoch / HOT_EVERY * HOT_EVERY + 1
        } else {
            next_person(epoch, rng)
        };
        self.bidder = id(bidder);
        self.price = price(rng);
        if depth < Depth::Texts {
            return;
        }
        self.channel = if rng.gen_range(0..HOT_CHANNEL_RATIO) > 0 {
            rng.gen_range(0..4usize)
        } else {
            // The original picks from a slice, which draws an index of 32 bits.
            4 + rng.gen_range(0..CHANNELS as u32) as usize
        };
        if depth >= Depth::Extra {
            self.extra.clear();
            push_extra(&mut self.extra, rng, 32, BID_BYTES);
        }
    }

    /// Returns the bid's channel and page.
    pub(super) fn channel<'a>(&self, channels: &'a Channels) -> (&'a str, &'a str) {
        let found = channels
            .hot
            .get(self.channel)
            .or_else(|| channels.others.get(self.channel.wrapping_sub(channels.hot.len())));
        found.map_or(("", ""), |(channel, url)| (channel, url))
    }
}

/// An auction as drawn.
#[derive(Debug, Default)]
pub(super) struct Auction {
    pub(super) id: i64,
    pub(super) item_name: String,
    pub(super) description: String,
    pub(super) initial_bid: i64,
    pub(super) reserve: i64,
    /// ms from its opening to its end.
    pub(super) length_ms: i64,
    pub(super) seller: i64,
    pub(super) category: i64,
    pub(super) extra: String,
}

impl Auction {
    /// Draws the auction of event `number` into `self`; `horizon_ms` is the duration of [`AUCTION_HORIZON_EVENTS`]
    /// events from it.
    pub(super) fn draw(&mut self, number: u64, seed: u64, horizon_ms: u64, depth: Depth) {
        let rng = &mut SmallRng::seed_from_u64(number ^ seed);
        let epoch = number / EPOCH_EVENTS;
        self.id = auction_id(number);
        if depth == Depth::Times {
            return;
        }
        self.item_name.clear();
        push_letters(&mut self.item_name, rng, 20);
        self.description.clear();
        push_letters(&mut self.description, rng, 100);
        self.initial_bid = price(rng);
        self.reserve = self.initial_bid + price(rng);
        self.length_ms = signed(1 + rng.gen_range(0..(horizon_ms * 2).max(1)));
        let seller = if rng.gen_range(0..HOT_SELLER_RATIO) > 0 {
            epoch / HOT_EVERY * HOT_EVERY
        } else {
            next_person(epoch, rng)
        };
        self.seller = id(seller);
        self.category = signed(FIRST_CATEGORY + rng.gen_range(0..CATEGORIES) as u64);
        if depth >= Depth::Extra {
            self.extra.clear();
            push_extra(&mut self.extra, rng, 168, AUCTION_BYTES);
        }
    }
}

/// Returns the id of the auction of event `number`; no draw is needed.
fn auction_id(number: u64) -> i64 {
    let place = (number % EPOCH_EVENTS).saturating_sub(EPOCH_PERSONS);
    id(number / EPOCH_EVENTS * EPOCH_AUCTIONS + place)
}

/// The lists that persons are drawn from.
const FIRST_NAMES: [&str; 11] = [
    "peter", "paul", "luke", "john", "saul", "vicky", "kate", "julie", "sarah", "deiter", "walter",
];
const LAST_NAMES: [&str; 9] =
    ["shultz", "abrams", "spencer", "white", "bartels", "walton", "smith", "jones", "noris"];
const CITIES: [&str; 10] = [
    "phoenix",
    "los angeles",
    "san francisco",
    "boise",
    "portland",
    "bend",
    "redmond",
    "seattle",
    "kent",
    "cheyenne",
];
const STATES: [&str; 6] = ["az", "ca", "id", "or", "wa", "wy"];

/// A person as drawn.
#[derive(Debug, Default)]
pub(super) struct Person {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) email_address: String,
    pub(super) credit_card: String,
    pub(super) city: &'static str,
    pub(super) state: &'static str,
    pub(super) extra: String,
}

impl Person {
    /// Draws the person of event `number` into `self`.
    pub(super) fn draw(&mut self, number: u64, seed: u64, depth: Depth) {
        self.id = id(number / EPOCH_EVENTS);
        if depth < Depth::Texts {
            return;
        }
        let rng = &mut SmallRng::seed_from_u64(number ^ seed);
        self.name.clear();
        self.name.push_str(pick(&FIRST_NAMES, rng));
        self.name.push(' ');
        self.name.push_str(pick(&LAST_NAMES, rng));
        self.email_address.clear();
        push_letters(&mut self.email_address, rng, 7);
        self.email_address.push('@');
        push_letters(&mut self.email_address, rng, 5);
        self.email_address.push_str(".com");
        self.credit_card.clear();
        for group in 0..4 {
            if group > 0 {
                self.credit_card.push(' ');
            }
            let digits: i32 = rng.gen_range(0..10_000);
            self.credit_card.push_str(&format!("{digits:04}"));
        }
        self.city = pick(&CITIES, rng);
        self.state = pick(&STATES, rng);
        if depth >= Depth::Extra {
            let size = 8
                + self.name.len()
                + self.email_address.len()
                + self.credit_card.len()
                + self.city.len()
                + self.state.len();
            self.extra.clear();
            push_extra(&mut self.extra, rng, size, PERSON_BYTES);
        }
    }
}

/// Picks one of `list`, by a 32-bit index.
fn pick(list: &'static [&'static str], rng: &mut SmallRng) -> &'static str {
    let index = rng.gen_range(0..list.len() as u32) as usize;
    list.get(index).copied().unwrap_or_default()
}

/// Picks one of the persons who are active in `epoch`, or who soon will be; base 0.
fn next_person(epoch: u64, rng: &mut SmallRng) -> u64 {
    let persons = epoch * EPOCH_PERSONS + 1;
    let active = persons.min(ACTIVE_PERSONS);
    persons - active + rng.gen_range(0..active + ID_LEAD)
}

fn price(rng: &mut SmallRng) -> i64 {
    // At most 10^8, which the cast keeps.
    (10.0_f32.powf(rng.r#gen::<f32>() * 6.0) * 100.0).round() as i64
}

fn push_letters(text: &mut String, rng: &mut SmallRng, count: usize) {
    text.extend((0..count).map(|_| char::from(rng.gen_range(b'a'..=b'z'))));
}

/// Fills a row of `size` bytes up to about `wanted` bytes.
fn push_extra(text: &mut String, rng: &mut SmallRng, size: usize, wanted: usize) {
    let Some(missing) = wanted.checked_sub(size) else { return };
    let delta = (missing + 2) / 5;
    let more = if delta == 0 { 0 } else { rng.gen_range(0..2 * delta) };
    push_letters(text, rng, missing - delta + more);
}

fn id(base_0: u64) -> i64 {
    signed(base_0 + FIRST_ID)
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
