//! Sums of floating-point numbers from which numbers can be taken away again: the exact sum, rounded once when it is read.
//!
//! A number is an integer times a power of two. Integers with powers of similar size are added in one 128-bit number, so a
//! sum is a few of these; what is taken away leaves nothing behind, whatever the order.
//!
//! Invariant: no part is zero, and none is as large as [`PART_END`].

use std::collections::BTreeMap;

use windrow_core::Result;

use super::delta::{added, too_many};

/// The powers of two that one part covers.
const STEP: i32 = 32;

/// The amounts of parts are below this, so that a carry has room.
const PART_END: u128 = 1 << 126;

/// The exact sum of numbers, each of which may be taken away again.
#[derive(Debug, Default, Clone)]
pub(super) struct ExactSum {
    /// The integers, by their power of two divided by [`STEP`].
    parts: BTreeMap<i16, i128>,
    /// The number of values, of NaN, of infinity and of its negative.
    pub(super) count: i64,
    nan: i64,
    positive: i64,
    negative: i64,
}

impl ExactSum {
    /// Adds a number `weight` times; takes it away if that is negative.
    ///
    /// # Errors
    /// Limit when the sum would need more bits than a part has, from some 2^41 numbers on; nothing has changed then.
    pub(super) fn add(&mut self, value: f64, weight: i64) -> Result<()> {
        let count = added(self.count, weight)?;
        if value.is_nan() {
            self.nan = added(self.nan, weight)?;
        } else if value == f64::INFINITY {
            self.positive = added(self.positive, weight)?;
        } else if value == f64::NEG_INFINITY {
            self.negative = added(self.negative, weight)?;
        } else if value != 0.0 {
            let (integer, power) = parted(value);
            let (place, shift) = (power.div_euclid(STEP), power.rem_euclid(STEP));
            // 53 bits, shifted by less than 32: room for 2^41 numbers.
            let term = (i128::from(integer) << shift).checked_mul(i128::from(weight));
            let place = i16::try_from(place).unwrap_or(i16::MAX);
            let part = self.parts.get(&place).copied().unwrap_or(0);
            let part = term.and_then(|term| part.checked_add(term));
            match part.filter(|part| part.unsigned_abs() < PART_END).ok_or_else(too_many)? {
                0 => self.parts.remove(&place),
                part => self.parts.insert(place, part),
            };
        }
        self.count = count;
        Ok(())
    }

    /// The sum, rounded.
    pub(super) fn value(&self) -> f64 {
        if self.nan > 0 || (self.positive > 0 && self.negative > 0) {
            return f64::NAN;
        }
        if self.positive > 0 {
            return f64::INFINITY;
        }
        if self.negative > 0 {
            return f64::NEG_INFINITY;
        }
        // Parts that do not overlap: each is below 2^32 in amount, but the first.
        let mut carried = BTreeMap::new();
        let (mut carry, mut next) = (0_i128, None);
        for (place, part) in &self.parts {
            while carry != 0 && next.is_some_and(|next| next < *place) {
                carry = put(&mut carried, &mut next, carry);
            }
            next = Some(*place);
            carry = put(&mut carried, &mut next, carry + *part);
        }
        while carry != 0 && next.is_some() {
            carry = put(&mut carried, &mut next, carry);
        }
        // From the smallest on, with the error of each addition kept.
        let (mut sum, mut error) = (0.0_f64, 0.0_f64);
        for (place, part) in carried {
            let term = scaled(part, i32::from(place) * STEP);
            let total = sum + term;
            let back = total - sum;
            error += (sum - (total - back)) + (term - back);
            sum = total;
        }
        // The errors of an infinite sum are no numbers.
        if sum.is_finite() { sum + error } else { sum }
    }

    /// Bytes of memory, beside its own.
    pub(super) fn size_bytes(&self) -> usize {
        self.parts.len() * 48
    }
}

/// Puts the lowest bits of a part at the next place; returns the rest, which belongs to the place after it.
fn put(carried: &mut BTreeMap<i16, i64>, next: &mut Option<i16>, part: i128) -> i128 {
    let base = 1_i128 << STEP;
    // The remainder nearest to zero, so that a small negative sum has no large parts.
    let mut low = part.rem_euclid(base);
    if low >= base / 2 {
        low -= base;
    }
    if let (Some(place), true) = (*next, low != 0) {
        carried.insert(place, i64::try_from(low).unwrap_or(0));
    }
    *next = next.and_then(|place| place.checked_add(1));
    (part - low) >> STEP
}

/// A finite number as an integer times a power of two.
fn parted(value: f64) -> (i64, i32) {
    let bits = value.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let fraction = (bits & ((1 << 52) - 1)) as i64;
    let (integer, power) = match exponent {
        0 => (fraction, -1074),
        _ => (fraction | 1 << 52, exponent - 1075),
    };
    (if value.is_sign_negative() { -integer } else { integer }, power)
}

/// An integer times a power of two.
fn scaled(integer: i64, power: i32) -> f64 {
    let value = integer as f64;
    // Two steps, since a power of two alone may be out of range.
    let half = power / 2;
    value * 2_f64.powi(half) * 2_f64.powi(power - half)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn what_is_taken_away_leaves_nothing_behind() {
        let rng = &mut StdRng::seed_from_u64(1);
        for _ in 0..200 {
            let value = |rng: &mut StdRng| {
                let power = rng.random_range(-300..300);
                rng.random_range(-1.0..1.0) * 10_f64.powi(power)
            };
            let kept: Vec<f64> = (0..rng.random_range(0..4)).map(|_| value(rng)).collect();
            let gone: Vec<f64> = (0..rng.random_range(0..50)).map(|_| value(rng)).collect();
            let mut sum = ExactSum::default();
            gone.iter().for_each(|value| sum.add(*value, 1).unwrap());
            kept.iter().for_each(|value| sum.add(*value, 1).unwrap());
            gone.iter().for_each(|value| sum.add(*value, -1).unwrap());
            let mut only = ExactSum::default();
            kept.iter().for_each(|value| only.add(*value, 1).unwrap());
            assert_eq!(sum.parts, only.parts);
            assert_eq!(sum.value().to_bits(), only.value().to_bits());
            if let [one] = kept[..] {
                assert_eq!(sum.value(), one);
            }
            if let [a, b] = kept[..] {
                assert_eq!(sum.value(), a + b, "{a} {b}");
            }
        }
    }

    #[test]
    fn sums_of_whole_numbers_are_exact() {
        let mut sum = ExactSum::default();
        for n in 1..=1000 {
            sum.add(f64::from(n), 3).unwrap();
        }
        assert_eq!((sum.value(), sum.count), (1_501_500.0, 3000));
        sum.add(1e300, 1).unwrap();
        sum.add(1e300, -1).unwrap();
        sum.add(-1_501_501.5, 1).unwrap();
        assert_eq!(sum.value(), -1.5);
    }

    #[test]
    fn infinities_and_nan_leave_too() {
        let mut sum = ExactSum::default();
        sum.add(f64::INFINITY, 1).unwrap();
        assert_eq!(sum.value(), f64::INFINITY);
        sum.add(f64::NEG_INFINITY, 1).unwrap();
        assert!(sum.value().is_nan());
        sum.add(f64::INFINITY, -1).unwrap();
        assert_eq!(sum.value(), f64::NEG_INFINITY);
        sum.add(f64::NEG_INFINITY, -1).unwrap();
        sum.add(f64::NAN, 1).unwrap();
        assert!(sum.value().is_nan());
        sum.add(f64::NAN, -1).unwrap();
        sum.add(2.5, 1).unwrap();
        assert_eq!(sum.value(), 2.5);
    }

    #[test]
    fn a_sum_without_room_is_an_error() {
        let mut sum = ExactSum::default();
        let error = sum.add(f64::MAX, i64::MAX).unwrap_err();
        assert_eq!(error.kind(), windrow_core::ErrorKind::Limit);
        sum.add(f64::MAX, 1 << 40).unwrap();
        assert!(sum.value().is_infinite());
    }
}
