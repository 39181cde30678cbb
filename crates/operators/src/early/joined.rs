//! Which pieces and which open sessions of a key become one session.

/// A session that has new pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Joined {
    pub(super) key: u32,
    pub(super) first: i64,
    pub(super) last: i64,
    /// The slots of the sessions that it continues.
    pub(super) olds: Vec<u32>,
    /// The rows of its new pieces; at least one.
    pub(super) pieces: Vec<u32>,
}

/// Adds the sessions of one key that have new pieces to `into`. `known` and `pieces`: first tick, last tick, and slot or
/// row.
pub(super) fn joined(
    key: u32,
    known: Vec<(i64, i64, u32)>,
    pieces: Vec<(i64, i64, u32)>,
    gap: i64,
    into: &mut Vec<Joined>,
) {
    let known = known.into_iter().map(|item| (item, true));
    let mut items: Vec<_> = known.chain(pieces.into_iter().map(|item| (item, false))).collect();
    items.sort_unstable();
    let mut open: Option<Joined> = None;
    let mut leave = |session: Option<Joined>| {
        into.extend(session.filter(|session| !session.pieces.is_empty()));
    };
    for ((first, last, id), is_known) in items {
        let joins = open.as_ref().is_some_and(|open| first.saturating_sub(open.last) <= gap);
        if !joins {
            leave(open.take());
        }
        let session =
            open.get_or_insert_with(|| Joined { key, first, last, olds: vec![], pieces: vec![] });
        session.last = session.last.max(last);
        if is_known {
            session.olds.push(id);
        } else {
            session.pieces.push(id);
        }
    }
    leave(open);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_between_two_sessions_joins_them() {
        let mut all = vec![];
        joined(
            7,
            vec![(0, 5, 1), (25, 30, 2), (90, 90, 3)],
            vec![(15, 15, 0), (50, 51, 1)],
            10,
            &mut all,
        );
        let first = Joined { key: 7, first: 0, last: 30, olds: vec![1, 2], pieces: vec![0] };
        let second = Joined { key: 7, first: 50, last: 51, olds: vec![], pieces: vec![1] };
        assert_eq!(all, [first, second]);
    }
}
