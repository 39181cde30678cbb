//! Sorts numbers that are close to each other, such as event times of rows that arrived together, with a radix sort, so
//! that the cost does not depend on their disorder.

/// The bits of a digit: its counts fit in the first-level cache.
const DIGIT_BITS: u32 = 11;
const DIGITS: usize = 1 << DIGIT_BITS;
/// With more digits, a comparison sort is faster.
const PASSES_MAX: u32 = 4;
/// Fewer values are sorted by comparison: counting has a fixed cost.
const COUNTED_MIN: usize = 512;

/// Returns the positions of `values` in ascending order, equal ones in the order of their positions; `None` when they
/// are in order. There are fewer than 2³² of them.
pub(crate) fn ascending(values: &[i64]) -> Option<Vec<u32>> {
    if values.is_sorted() {
        return None;
    }
    let (min, max) =
        values.iter().fold((i64::MAX, i64::MIN), |(a, b), value| (a.min(*value), b.max(*value)));
    let bits = u64::BITS - max.abs_diff(min).leading_zeros();
    let place_bits = u64::BITS - (values.len() as u64).leading_zeros();
    if values.len() >= COUNTED_MIN
        && bits <= DIGIT_BITS * PASSES_MAX
        && bits + place_bits <= u64::BITS
    {
        return Some(by_digits(values, min, bits, place_bits));
    }
    let mut order: Vec<(i64, u32)> = values.iter().copied().zip(0..).collect();
    // Positions differ, so the order of equal values is kept.
    order.sort_unstable();
    Some(order.into_iter().map(|(_, place)| place).collect())
}

/// Sorts by the lowest digit first; each pass is stable. A value above `min` and its position are one number.
fn by_digits(values: &[i64], min: i64, bits: u32, place_bits: u32) -> Vec<u32> {
    let mut from: Vec<u64> = values
        .iter()
        .zip(0_u64..)
        .map(|(value, place)| value.abs_diff(min) << place_bits | place)
        .collect();
    let mut to = vec![0_u64; from.len()];
    for shift in (0..bits).step_by(DIGIT_BITS as usize).map(|digit| digit + place_bits) {
        let digit = |number: u64| (number >> shift) as usize % DIGITS;
        let mut places = [0_usize; DIGITS];
        for number in &from {
            places[digit(*number)] += 1;
        }
        let mut before = 0;
        for place in &mut places {
            before += std::mem::replace(place, before);
        }
        for number in &from {
            let place = &mut places[digit(*number)];
            if let Some(slot) = to.get_mut(*place) {
                *slot = *number;
            }
            *place += 1;
        }
        std::mem::swap(&mut from, &mut to);
    }
    let mask = (1 << place_bits) - 1;
    from.into_iter().map(|number| (number & mask) as u32).collect()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn the_order_is_that_of_a_stable_sort() {
        let mut rng = StdRng::seed_from_u64(7);
        for case in 0..400 {
            let len = [2, 10, 511, 512, 513, 5_000][case % 6];
            let bits = rng.random_range(1..64);
            let base = rng.random_range(-1_000_000..1_000_000);
            let width = (1_i64 << (bits - 1)) - 1;
            let values: Vec<i64> =
                (0..len).map(|_| rng.random_range(-width..=width).saturating_add(base)).collect();
            let mut expected: Vec<u32> = (0..len as u32).collect();
            expected.sort_by_key(|place| values[*place as usize]);
            match ascending(&values) {
                Some(order) => assert_eq!(order, expected),
                None => assert!(values.is_sorted()),
            }
        }
    }

    #[test]
    fn the_ends_of_time_are_in_order() {
        let mut values = vec![0; 600];
        values[0] = i64::MAX;
        values[1] = i64::MIN;
        let order = ascending(&values).unwrap();
        assert_eq!((order[0], order[599]), (1, 0));
        assert!(ascending(&[i64::MIN, i64::MIN, i64::MAX]).is_none());
    }
}
