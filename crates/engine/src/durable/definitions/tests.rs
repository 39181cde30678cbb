//! The catalog is restored as it was, is refused when it is damaged or belongs to another directory, and changes
//! atomically.

use windrow_storage::files::StdFiles;

use super::*;

#[test]
fn definitions_come_back_in_order() {
    let tmp = tempfile::tempdir().unwrap();
    let directory = DataDirectory::open(Arc::new(StdFiles), tmp.path()).unwrap();
    let definitions = Definitions::open(&directory).unwrap();
    assert!(definitions.list().is_empty());
    let s = definitions.replace(&[], "s", Kind::Stream, "CREATE STREAM s \"é\"\n").unwrap();
    assert_eq!((s.id, s.dir.as_str()), (1, "s"));
    definitions.replace(&[], "V", Kind::MaterializedView, "CREATE …").unwrap();
    let error = definitions.replace(&[], "s", Kind::View, "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    let before = definitions.list();
    drop(definitions);
    let definitions = Definitions::open(&directory).unwrap();
    assert_eq!(definitions.list(), before);
    let models = BTreeMap::from([("m".to_owned(), 3)]);
    let based =
        definitions.replace_using(&[], ("b", Kind::Table, "…"), Some("/files"), models).unwrap();
    let reopened = Definitions::open(&directory).unwrap().list().pop();
    assert_eq!(reopened, Some(based));
    definitions.remove(&["b"]).unwrap();
    // The folder of the old one may still be there.
    let s = definitions.replace(&["s"], "s", Kind::Table, "CREATE TABLE s").unwrap();
    assert_eq!((s.id, s.dir.as_str()), (4, "s.4"));
    definitions.remove(&["V", "nobody"]).unwrap();
    assert_eq!(Definitions::open(&directory).unwrap().list(), [s]);
    // An id is not reused, even if the newest object is gone.
    definitions.remove(&["s"]).unwrap();
    let definitions = Definitions::open(&directory).unwrap();
    std::fs::create_dir_all(tmp.path().join("views/w")).unwrap();
    let w = definitions.replace(&[], "w", Kind::View, "").unwrap();
    assert_eq!((w.id, w.dir.as_str()), (5, "w.5"));
    let long = definitions.replace(&[], &"É".repeat(100), Kind::View, "").unwrap();
    assert!(long.dir.len() < 255 && long.dir.ends_with(".6"), "{}", long.dir);
}

#[test]
fn a_reserved_definition_is_there_when_it_is_committed() {
    let tmp = tempfile::tempdir().unwrap();
    let directory = DataDirectory::open(Arc::new(StdFiles), tmp.path()).unwrap();
    let definitions = Definitions::open(&directory).unwrap();
    let old = definitions.replace(&[], "v", Kind::MaterializedView, "old").unwrap();
    let new = definitions.reserve("v", Kind::MaterializedView, "new");
    let s = definitions.replace(&[], "s", Kind::Stream, "s").unwrap();
    assert_eq!((old.id, new.id, s.id, new.dir.as_str()), (1, 2, 3, "v.2"));
    assert_eq!(Definitions::open(&directory).unwrap().list(), [old.clone(), s.clone()]);
    assert_eq!(definitions.commit(&new).unwrap(), Some(old));
    assert_eq!(Definitions::open(&directory).unwrap().list(), [s, new]);
}

#[test]
fn a_flipped_byte_never_changes_what_is_meant() {
    let tmp = tempfile::tempdir().unwrap();
    let directory = DataDirectory::open(Arc::new(StdFiles), tmp.path()).unwrap();
    let definitions = Definitions::open(&directory).unwrap();
    definitions.replace(&[], "s", Kind::Stream, "CREATE STREAM s").unwrap();
    definitions.replace(&[], "v", Kind::View, "CREATE VIEW v").unwrap();
    let (path, good) = (definitions.path(), definitions.list());
    let bytes = std::fs::read(&path).unwrap();
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        match Definitions::open(&directory) {
            // White space.
            Ok(read) => assert_eq!(read.list(), good),
            Err(e) if e.kind() == ErrorKind::Data => {
                assert!(e.message().contains("knows format 2"), "{e}");
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Corrupt);
                assert!(e.message().contains("catalog.json"), "{e}");
            }
        }
        assert_eq!(std::fs::read(&path).unwrap(), damaged);
    }
    for len in 0..bytes.len() - 2 {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert_eq!(Definitions::open(&directory).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn parts_and_losses_come_back_and_another_catalog_is_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let open =
        |name: &str| DataDirectory::open(Arc::new(StdFiles), &tmp.path().join(name)).unwrap();
    let (one, two) = (open("one"), open("two"));
    let definitions = Definitions::open(&one).unwrap();
    let s = definitions.replace(&[], "s", Kind::Stream, "").unwrap();
    definitions.mark_created(s.id, &[Part::Stream]).unwrap();
    let lost = LostRows { start: 5, end: 9, at_micros: 1, had: vec![("v".into(), 8)] };
    definitions.record_lost(s.id, &lost).unwrap();
    let back = Definitions::open(&one).unwrap().list().pop().unwrap();
    assert_eq!((back.parts.as_slice(), back.lost.as_slice()), (&[Part::Stream][..], &[lost][..]));
    assert_eq!((back.gaps().after(4), back.gaps().after(5)), (4, 9));
    drop(Definitions::open(&two).unwrap());
    std::fs::copy(one.path().join(CATALOG), two.path().join(CATALOG)).unwrap();
    let error = Definitions::open(&two).unwrap_err();
    assert!(error.message().contains("of another data directory"), "{error}");
    std::fs::remove_file(two.path().join(CATALOG)).unwrap();
    let error = Definitions::open(&two).unwrap_err();
    assert!(error.message().ends_with("catalog.json\" is missing"), "{error}");
    // An older one of this directory.
    one.note_next_id(definitions.next_id() + 1).unwrap();
    let error = Definitions::open(&one).unwrap_err();
    assert!(error.message().ends_with("is older than the data directory"), "{error}");
}

#[test]
fn a_catalog_from_before_ids_is_taken_over_once() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::write(tmp.path().join("FORMAT"), r#"{"format":1}"#).unwrap();
    let object = Definition { dir: "s".into(), ..Definition::new(1, "s", Kind::Stream, "…") };
    let state = State { next_id: 2, objects: vec![object.clone()] };
    let old = json!({ "format": 1, "next_id": 2, "crc32": state.checksum(None),
                      "objects": [object.to_json()] });
    std::fs::write(tmp.path().join(CATALOG), old.to_string()).unwrap();
    let directory = DataDirectory::open(Arc::new(StdFiles), tmp.path()).unwrap();
    assert_eq!(Definitions::open(&directory).unwrap().list(), std::slice::from_ref(&object));
    assert!(directory.owner(1).may_be_unrecorded && !directory.owner(2).may_be_unrecorded);
    assert_eq!(Definitions::open(&directory).unwrap().list(), [object]);
    // A catalog of the old format in a directory that has an id is another one's.
    std::fs::write(tmp.path().join(CATALOG), old.to_string()).unwrap();
    assert_eq!(Definitions::open(&directory).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_change_that_cannot_be_written_did_not_happen() {
    let tmp = tempfile::tempdir().unwrap();
    let directory = DataDirectory::open(Arc::new(StdFiles), tmp.path()).unwrap();
    let definitions = Definitions::open(&directory).unwrap();
    definitions.replace(&[], "s", Kind::Stream, "").unwrap();
    std::fs::create_dir(tmp.path().join("catalog.json.tmp")).unwrap();
    assert!(definitions.replace(&[], "t", Kind::Stream, "").is_err());
    assert!(definitions.remove(&["s"]).is_err());
    std::fs::remove_dir(tmp.path().join("catalog.json.tmp")).unwrap();
    assert_eq!(definitions.list().len(), 1);
    assert_eq!(definitions.replace(&[], "t", Kind::Stream, "").unwrap().id, 2);
}
