//! Files in an object store behave like files, and only one process can use them.

use std::time::Duration;

use object_store::memory::InMemory;
use windrow_core::{ErrorKind, ManualClock};

use super::*;
use crate::directory::DataDirectory;

const ROOT: &str = "s3://b/data";

fn path(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

/// Returns a process that uses the store, with its clock.
fn process(store: &Arc<InMemory>) -> (Arc<ObjectFiles>, ManualClock) {
    let clock = ManualClock::at(1_000_000_000_000);
    let (store, root) = (Arc::clone(store) as Arc<dyn ObjectStore>, Path::new(ROOT));
    let threads = Threads::start().unwrap();
    let shared = Arc::new(clock.clone());
    (Arc::new(ObjectFiles::new(store, (root, Key::from("data")), threads, shared)), clock)
}

fn store() -> Arc<InMemory> {
    Arc::new(InMemory::new())
}

/// Changes the contents of `LOCK`.
fn edit_lock(store: &Arc<InMemory>, edit: impl FnOnce(&mut serde_json::Value)) {
    let key = Key::from("data/LOCK");
    futures::executor::block_on(async {
        let bytes = store.get(&key).await.unwrap().bytes().await.unwrap();
        let mut lock = serde_json::from_slice(&bytes).unwrap();
        edit(&mut lock);
        store.put(&key, serde_json::to_vec(&lock).unwrap().into()).await.unwrap();
    });
}

/// Waits for something that threads of the store do.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what}");
}

#[test]
fn files_are_written_listed_and_removed() {
    let store = store();
    let (files, _) = process(&store);
    let _lock = files.lock(Path::new(ROOT)).unwrap();
    assert_eq!(files.read(&path("f")).unwrap_err().kind(), io::ErrorKind::NotFound);
    for text in ["one", "two"] {
        files.replace(&path("f"), text.as_bytes()).unwrap();
        assert_eq!(files.read(&path("f")).unwrap(), text.as_bytes());
    }
    let mut file = files.create(&path("d/log")).unwrap();
    file.write_all(b"ab").unwrap();
    assert_eq!(files.read(&path("d/log")).unwrap_err().kind(), io::ErrorKind::NotFound);
    file.sync().unwrap();
    file.write_all(b"cdef").unwrap();
    file.truncate(3).unwrap();
    file.sync().unwrap();
    file.sync().unwrap();
    assert_eq!(files.read(&path("d/log")).unwrap(), b"abc");
    let mut same = files.create(&path("d/log")).unwrap();
    same.write_all(b"x").unwrap();
    assert_eq!(same.sync().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let mut names = files.list(Path::new(ROOT)).unwrap();
    names.sort_unstable();
    assert_eq!(names, ["LOCK", "d", "f"]);
    assert_eq!(files.list(&path("nothing")).unwrap(), [""; 0]);
    files.remove(&path("f")).unwrap();
    assert_eq!(files.remove(&path("f")).unwrap_err().kind(), io::ErrorKind::NotFound);
    files.remove_all(&path("d")).unwrap();
    files.remove_all(&path("d")).unwrap();
    assert_eq!(files.list(Path::new(ROOT)).unwrap(), ["LOCK"]);
    assert!(files.read(Path::new("/elsewhere")).is_err());
}

#[test]
fn a_missing_part_is_damage() {
    let store = store();
    let (files, _) = process(&store);
    let _lock = files.lock(Path::new(ROOT)).unwrap();
    let mut file = files.create(&path("log")).unwrap();
    for byte in [b"a", b"b", b"c"] {
        file.write_all(byte).unwrap();
        file.sync().unwrap();
    }
    futures::executor::block_on(store.delete(&Key::from("data/log/00000001"))).unwrap();
    let error = files.read(&path("log")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().contains("log/00000001\" is missing"), "{error}");
}

#[test]
fn of_two_writers_one_goes_on() {
    let store = store();
    let old = process(&store).0;
    old.held.assume();
    old.replace(&path("catalog"), b"1").unwrap();
    let mut written = old.create(&path("log")).unwrap();
    written.write_all(b"a").unwrap();
    written.sync().unwrap();
    // Another one takes over, whatever the lease says.
    let new = process(&store).0;
    new.held.assume();
    assert_eq!(new.read(&path("catalog")).unwrap(), b"1");
    assert_eq!(new.read(&path("log")).unwrap(), b"a");
    let mut log = new.append(&path("log")).unwrap();
    written.write_all(b"z").unwrap();
    let error = written.sync().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("another process has written"), "{error}");
    log.write_all(b"b").unwrap();
    log.sync().unwrap();
    new.replace(&path("catalog"), b"2").unwrap();
    assert!(old.replace(&path("catalog"), b"3").is_err());
    assert_eq!(new.read(&path("catalog")).unwrap(), b"2");
    assert_eq!(new.read(&path("log")).unwrap(), b"ab");
}

#[test]
fn a_lease_is_held_given_back_and_found() {
    let store = store();
    let (files, _) = process(&store);
    assert!(files.replace(&path("f"), b"").is_err(), "nothing is written without the lease");
    let files: Arc<dyn Files> = files;
    let open = DataDirectory::open(Arc::clone(&files), Path::new(ROOT)).unwrap();
    let other: Arc<dyn Files> = process(&store).0;
    let error = DataDirectory::open(Arc::clone(&other), Path::new(ROOT)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.message(), format!("data directory \"{ROOT}\" is in use by this process"));
    drop(open);
    assert!(files.replace(&path("f"), b"").is_err(), "nothing is written after the end");
    drop(DataDirectory::open(other, Path::new(ROOT)).unwrap());
}

#[test]
fn a_dead_holder_on_this_machine_is_followed_at_once() {
    let store = store();
    drop(process(&store).0.lock(Path::new(ROOT)).unwrap());
    edit_lock(&store, |lock| {
        lock["released"] = false.into();
        lock["started"] = "1".into();
    });
    drop(process(&store).0.lock(Path::new(ROOT)).unwrap());
}

#[test]
fn a_silent_holder_elsewhere_is_waited_for() {
    let store = store();
    drop(process(&store).0.lock(Path::new(ROOT)).unwrap());
    let elsewhere = |lock: &mut serde_json::Value| {
        lock["released"] = false.into();
        lock["machine"] = "another".into();
        lock["host"] = "there".into();
    };
    edit_lock(&store, elsewhere);
    let take = |store: &Arc<InMemory>| {
        let (files, clock) = process(store);
        let taken = std::thread::spawn(move || files.lock(Path::new(ROOT)).map(drop));
        (taken, clock)
    };
    // It is renewed meanwhile: in use.
    let (taken, clock) = take(&store);
    until("the lock is looked at", || {
        clock.advance(Duration::from_secs(1));
        edit_lock(&store, |lock| lock["renewed"] = 7.into());
        taken.is_finished()
    });
    let error = taken.join().unwrap().unwrap_err();
    assert!(error.message().contains("in use by another process (pid"), "{error}");
    assert!(error.message().contains("on \"there\")"), "{error}");
    // It is not: after thirty seconds it counts as ended.
    let (taken, clock) = take(&store);
    for _ in 0..20 {
        clock.advance(Duration::from_secs(1));
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(!taken.is_finished(), "it waits");
    until("the lock is taken", || {
        clock.advance(Duration::from_secs(1));
        taken.is_finished()
    });
    taken.join().unwrap().unwrap();
}

#[test]
fn who_loses_the_lease_stops_and_who_renews_it_goes_on() {
    let store = store();
    let (files, clock) = process(&store);
    let lock = files.lock(Path::new(ROOT)).unwrap();
    let renewed = |store: &Arc<InMemory>| {
        let key = Key::from("data/LOCK");
        let bytes = futures::executor::block_on(async {
            store.get(&key).await.unwrap().bytes().await.unwrap()
        });
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["renewed"].as_u64().unwrap()
    };
    for times in 1..5 {
        until("the lease is renewed", || {
            if renewed(&store) < times {
                clock.advance(Duration::from_millis(200));
            }
            renewed(&store) >= times
        });
        until("and the renewal is known", || files.replace(&path("f"), b"x").is_ok());
    }
    // Time passes without a renewal: nothing is written until there is one.
    clock.advance(Duration::from_secs(40));
    until("the lease is renewed again", || files.replace(&path("f"), b"y").is_ok());
    // Another process has taken it.
    edit_lock(&store, |lock| {
        lock["owner"] = "another".into();
        lock["machine"] = "another".into();
        lock["host"] = "there".into();
    });
    until("the loss is seen", || {
        clock.advance(Duration::from_secs(1));
        files.replace(&path("g"), b"z").is_err_and(|e| e.to_string().contains("was taken over by"))
    });
    let error = files.replace(&path("g"), b"z").unwrap_err().to_string();
    assert!(error.contains("data directory \"s3://b/data\" was taken over by another"), "{error}");
    assert_eq!(files.read(&path("f")).unwrap(), b"y", "reading goes on");
    drop(lock);
}
