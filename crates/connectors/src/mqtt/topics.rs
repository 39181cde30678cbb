//! Topics, and the filters by which they are subscribed to.

/// The most bytes of a topic.
const BYTES_MAX: usize = 65_535;

/// Whether a message can be published to a topic.
pub(super) fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= BYTES_MAX && !topic.contains(['+', '#', '\0'])
}

/// Whether a text is a filter: levels between slashes, of which `+` is any one, and `#` at the end any that follow. It may be
/// that of a shared subscription: `$share/group/filter`.
pub(super) fn is_filter(filter: &str) -> bool {
    if filter.len() > BYTES_MAX || filter.contains('\0') {
        return false;
    }
    let filter = match filter.strip_prefix("$share/") {
        Some(shared) => match shared.split_once('/') {
            Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) => filter,
            _ => return false,
        },
        None => filter,
    };
    let levels: Vec<&str> = filter.split('/').collect();
    let is_level = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at + 1 == levels.len(),
        name => !name.contains(['+', '#']),
    };
    !filter.is_empty() && levels.iter().enumerate().all(is_level)
}

/// Returns the filter of a shared subscription without its group.
pub(super) fn without_share(filter: &str) -> &str {
    let shared = filter.strip_prefix("$share/").and_then(|shared| shared.split_once('/'));
    shared.map_or(filter, |(_, filter)| filter)
}

/// Whether a filter takes a topic. Wildcards at the beginning do not take topics that begin with `$`, which are the broker's own.
pub(super) fn takes(filter: &str, topic: &str) -> bool {
    let filter = without_share(filter);
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            // A filter a/# takes the topic a, too.
            None => return filter.strip_suffix("/#") == Some(topic),
            Some(_) => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        for filter in ["a", "/", "a/+/b", "+", "#", "a/#", "ü/+", "$share/g/a/#", "$SYS/#", "a b"]
        {
            assert!(is_filter(filter), "{filter}");
        }
        for filter in [
            "",
            "a+",
            "a/#/b",
            "a#",
            "++",
            "$share/g",
            "$share//a",
            "$share/+/a",
            "a\0",
            "$share/g/",
        ] {
            assert!(!is_filter(filter), "{filter}");
        }
        assert!(is_topic("a/b ü") && !is_topic("a/+") && !is_topic("") && !is_topic("#"));
    }

    #[test]
    fn wildcards_take_levels() {
        for (filter, topic) in [
            ("a/b", "a/b"),
            ("a/+/c", "a/b/c"),
            ("a/+", "a/"),
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("a/+/#", "a/b"),
            ("#", "ü/x"),
            ("+/+", "/x"),
            ("$share/g/a/+", "a/ü"),
            ("$SYS/#", "$SYS/x"),
        ] {
            assert!(takes(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("a/b", "a"),
            ("a/+", "a"),
            ("a/+", "a/b/c"),
            ("#", "$SYS/x"),
            ("a", "a/b"),
            ("a/+/#", "a"),
        ] {
            assert!(!takes(filter, topic), "{filter} {topic}");
        }
    }
}
