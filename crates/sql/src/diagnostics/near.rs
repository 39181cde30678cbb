//! Near matches for names that do not exist.

/// The most names that a hint lists.
const LISTED_MAX: usize = 20;

/// The candidate that `name` was most likely meant to be: at most a third of its letters differ
/// (letters changed, left out, added or swapped; case does not count).
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.to_lowercase().chars().take(100).collect();
    let bound = (name.len() / 3).max(1);
    candidates
        .into_iter()
        .filter_map(|c| {
            let candidate: Vec<char> = c.to_lowercase().chars().take(100).collect();
            let d = distance(&name, &candidate);
            (d <= bound && d < candidate.len()).then_some((d, c))
        })
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// A hint: `Did you mean "x"? Known streams: a, b.`; `what` is a plural.
pub fn did_you_mean<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    what: &str,
) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let near = nearest(name, known.iter().copied());
    let listed = match known.len() {
        0 => format!("There are no {what}."),
        n if n > LISTED_MAX => {
            let some = known.get(..LISTED_MAX).unwrap_or_default().join(", ");
            format!("Known {what}: {some}, and {} more.", n - LISTED_MAX)
        }
        _ => format!("Known {what}: {}.", known.join(", ")),
    };
    match near {
        Some(near) => format!("Did you mean \"{near}\"? {listed}"),
        None => listed,
    }
}

/// The Levenshtein distance, except that a swap of neighbours counts as one.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    let cell = |rows: &[Vec<usize>], i: usize, j: usize| -> usize {
        rows.get(i).and_then(|r| r.get(j)).copied().unwrap_or(usize::MAX / 2)
    };
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let left = row.get(j).copied().unwrap_or(usize::MAX / 2);
            let mut best = (left + 1)
                .min(cell(&rows, i, j + 1) + 1)
                .min(cell(&rows, i, j) + usize::from(x != y));
            if i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x) {
                best = best.min(cell(&rows, i - 1, j - 1) + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    cell(&rows, a.len(), b.len())
}
