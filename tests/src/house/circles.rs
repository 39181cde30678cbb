//! Cycles in a graph: the groups of files that refer to one another, directly or through others.

use std::collections::{BTreeMap, BTreeSet};

use super::modules::Name;

/// The circles that are larger than a parent and its children.
pub(super) fn circles(edges: &BTreeMap<Name, BTreeSet<Name>>) -> Vec<BTreeSet<Name>> {
    let reached: BTreeMap<&Name, BTreeSet<&Name>> =
        edges.keys().map(|from| (from, reachable(edges, from))).collect();
    let mut circles: Vec<BTreeSet<Name>> = vec![];
    for (from, all) in &reached {
        if circles.iter().any(|circle| circle.contains(*from)) {
            continue;
        }
        let back = |to: &&&Name| reached.get(**to).is_some_and(|all| all.contains(from));
        let circle: BTreeSet<Name> = all.iter().filter(back).map(|to| (*to).clone()).collect();
        if circle.len() > 1 && !is_family(&circle) {
            circles.push(circle);
        }
    }
    circles
}

/// All files that can be reached from one.
fn reachable<'a>(edges: &'a BTreeMap<Name, BTreeSet<Name>>, from: &Name) -> BTreeSet<&'a Name> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&Name> = edges.get(from).into_iter().flatten().collect();
    while let Some(name) = next.pop() {
        if found.insert(name) {
            next.extend(edges.get(name).into_iter().flatten());
        }
    }
    found
}

/// Whether these are a module and modules right in it. The root of a crate is no such module: otherwise all would be in it.
fn is_family(circle: &BTreeSet<Name>) -> bool {
    let Some(shortest) = circle.iter().min_by_key(|name| name.len()) else { return true };
    let above = shortest.split_last().map_or(&[] as &[String], |(_, above)| above);
    [shortest.as_slice(), above].into_iter().filter(|parent| !parent.is_empty()).any(|parent| {
        let is_child = |name: &Name| name.split_last().is_some_and(|(_, above)| above == parent);
        circle.iter().all(|name| name.as_slice() == parent || is_child(name))
    })
}
