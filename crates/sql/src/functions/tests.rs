//! Tables of patterns: how they are parsed.

use super::patterns::{Family, Pattern};

/// The pattern in chrono's form.
fn chrono(text: &str, prefer: Family) -> String {
    match Pattern::read(text, prefer).and_then(|pattern| pattern.to_chrono()) {
        Ok(chrono) => chrono,
        Err(error) => panic!("{text}: {error}"),
    }
}

#[test]
fn patterns_of_all_families_are_read() {
    for (text, expected) in [
        ("YYYY-MM-DD HH24:MI:SS.MS", "%Y-%m-%d %H:%M:%S.%3f"),
        ("yyyy-mm-dd hh24:mi:ss", "%Y-%m-%d %H:%M:%S"),
        ("YYYYMMDD", "%Y%m%d"),
        ("HH12:MI AM", "%I:%M %p"),
        ("DD Mon YYYY", "%d %b %Y"),
        ("FMDD.FMMM.YYYY", "%-d.%-m.%Y"),
        ("YYYY-MM-DD\"T\"HH24:MI", "%Y-%m-%dT%H:%M"),
        ("IYYY-IW", "%G-%V"),
        ("yyyy-MM-dd HH:mm:ss", "%Y-%m-%d %H:%M:%S"),
        ("yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "%Y-%m-%dT%H:%M:%S.%3f%:z"),
        ("dd/MM/yy", "%d/%m/%y"),
        ("EEE, d MMM yyyy h:mm a", "%a, %-d %b %Y %-I:%M %p"),
        ("yyyyMMddHHmm", "%Y%m%d%H%M"),
        ("yyyy''MM", "%Y'%m"),
        ("%Y-%m-%d %H:%i:%s", "%Y-%m-%d %H:%M:%S"),
        ("%e %M %Y %i%%", "%-d %B %Y %M%%"),
        ("%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M"),
        ("", ""),
    ] {
        assert_eq!(chrono(text, Family::Postgres), expected, "{text}");
    }
    // A pattern that could be either is what the function prefers.
    assert_eq!(chrono("mm", Family::Postgres), "%m");
    assert_eq!(chrono("mm", Family::Java), "%M");
    assert_eq!(chrono("yyyy-MM", Family::Java), "%Y-%m");
    assert_eq!(chrono("YYYY-MM-DD HH24:MI", Family::Java), "%Y-%m-%d %H:%M");
}

#[test]
fn what_is_in_no_pattern_is_an_error() {
    for (text, prefer, part) in [
        ("YYYY-MM-DDTHH24:MI", Family::Postgres, "TH"),
        ("YYYY-MM-DD foo", Family::Postgres, "foo"),
        ("YYYY \"open", Family::Postgres, "open"),
        ("yyyy-MM-dd b", Family::Java, "b"),
        ("yyyyy", Family::Java, "yyyyy"),
        ("YYYY", Family::Java, "YYYY"),
        ("HH:mm 'open", Family::Java, "open"),
        ("%Y %i %Q", Family::Postgres, "%Q"),
    ] {
        match Pattern::read(text, prefer) {
            Ok(read) => panic!("{text} is read as {read:?}"),
            Err(error) => assert!(error.message().contains(part), "{text}: {error}"),
        }
    }
    for text in ["Q", "YYYY-WW", "HH12 A.M."] {
        assert!(Pattern::read(text, Family::Postgres).unwrap().to_chrono().is_err(), "{text}");
    }
}
