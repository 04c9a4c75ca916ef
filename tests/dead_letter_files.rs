//! The files that dead letters are in: they take the space that letters need, and keep what is damaged in them.
#![allow(clippy::unwrap_used)]

#[path = "support/fixture.rs"]
mod fixture;

use std::fs;
use std::ops::Range;
use std::path::Path;

use waystation::queue::{InspectError, Item, Queue, Settings, Step, Submitter, walk_dead_letters};
use waystation::record::stored::RecordId;

const PAYLOAD: usize = 300;

async fn store(queue: &Queue, submitter: &mut Submitter, numbers: Range<u64>) {
    for number in numbers {
        let record = Some(RecordId {
            queue: queue.id(),
            number,
        });
        let letter = fixture::letter("cloud", record, vec![number as u8; PAYLOAD]);
        submitter.store(Item::DeadLetter(letter)).await.unwrap();
    }
}

/// The letters that there are by their files, and the numbers of which nothing can be read.
fn letters(dir: &Path) -> (Vec<u64>, Vec<u64>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    walk_dead_letters::<InspectError>(dir, u64::MAX, |step| {
        match step {
            Step::Found((number, letter)) => {
                assert_eq!(letter.txid, number.to_string());
                found.push(number);
            }
            Step::Missing(numbers, _) => missing.extend(numbers),
            Step::Gone(_) | Step::Segment(..) => {}
        }
        Ok(())
    })
    .unwrap();
    (found, missing)
}

fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(dir.join("dead-letters")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "redb"))
        .collect()
}

/// Whoever looks at them, once a minute for instance, has the newest sealed each time.
#[tokio::test]
async fn letters_that_are_looked_at_one_by_one_are_not_dropped_for_it() {
    const LETTERS: u64 = 150;
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dead_letter_bytes: 2 << 20,
        ..fixture::SETTINGS
    };
    let (queue, writer) = Queue::open(dir.path(), settings).unwrap();
    queue.register("cloud", true);
    let mut submitter = queue.submitter();
    for number in 0..LETTERS {
        store(&queue, &mut submitter, number..number + 1).await;
        assert_eq!(queue.seal().await.unwrap().dead_letters, number + 1);
    }
    assert_eq!(letters(dir.path()), ((0..LETTERS).collect(), Vec::new()));
    assert!(segments(dir.path()).len() < 12, "{:?}", segments(dir.path()));
    assert_eq!(queue.retry((0..LETTERS).collect()).await.unwrap().records, LETTERS);
    tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
    assert_eq!(letters(dir.path()).0, Vec::<u64>::new());
}

#[tokio::test]
async fn what_is_left_of_a_damaged_letter_is_kept_when_another_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, writer) = Queue::open(dir.path(), fixture::SETTINGS).unwrap();
    queue.register("cloud", true);
    let mut submitter = queue.submitter();
    store(&queue, &mut submitter, 0..20).await;
    queue.seal().await.unwrap();
    let [path] = segments(dir.path()).try_into().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(PAYLOAD).position(|window| window == [7; PAYLOAD]) {
        bytes[at + found] = 0xff;
        at += found + PAYLOAD;
    }
    assert!(at > 0);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(queue.retry([5].into()).await.unwrap().records, 1);
    let (found, missing) = letters(dir.path());
    assert_eq!((found.len(), missing), (18, vec![7]));
    let kept = fs::read_dir(dir.path().join("quarantine")).unwrap().any(|entry| {
        let content = fs::read(entry.unwrap().path()).unwrap();
        content.windows(PAYLOAD - 1).any(|window| window == [7; PAYLOAD - 1])
    });
    assert!(kept, "the rest of it is in quarantine");
    tokio::task::spawn_blocking(|| writer.close()).await.unwrap().unwrap();
}
