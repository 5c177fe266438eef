//! What the first stage hands on is what was read, and its failures and its end reach who waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

const ITEM_BYTES: [u64; 5] = [300, 100, 550, 200, 50];

/// What a reader puts at a byte of an item in a round.
fn byte(item: usize, round: usize, at: u64) -> u8 {
    (item * 101 + round * 37) as u8 ^ (at * 7) as u8
}

fn options(depth: usize, cyclic: bool, reader: Reader) -> ReadAheadOptions {
    ReadAheadOptions {
        shape: RingShape { item_bytes: ITEM_BYTES.to_vec(), depth, piece_bytes: 64, cyclic },
        threads: 3,
        names: (0..ITEM_BYTES.len()).map(|item| format!("item {item}")).collect(),
        wait_max: Duration::from_secs(60),
        trace: Trace::off(),
        reader,
    }
}

fn plain(depth: usize) -> Vec<HostSlot> {
    (0..depth).map(|_| HostSlot::Plain(Arc::new(SharedMemory::new(550).unwrap()))).collect()
}

fn start(depth: usize, reader: Reader) -> ReadAhead {
    ReadAhead::start(&options(depth, true, reader), plain(depth)).unwrap()
}

/// Writes [`byte`], counting an item's rounds by how often its first piece was asked for.
fn counting() -> Reader {
    let rounds: [AtomicUsize; 5] = Default::default();
    let pieces: Vec<Vec<AtomicUsize>> =
        ITEM_BYTES.iter().map(|b| (0..b.div_ceil(64)).map(|_| AtomicUsize::new(0)).collect()).collect();
    Arc::new(move |item, offset, to, _| {
        let round = pieces[item][offset as usize / 64].fetch_add(1, Ordering::Relaxed);
        rounds[item].fetch_max(round, Ordering::Relaxed);
        (offset..).zip(to).for_each(|(at, to)| *to = byte(item, round, at));
        Ok(())
    })
}

/// Several copiers take pieces in any order, and see their ticket's bytes and no others.
#[test]
fn slots_stay_until_all_their_bytes_have_left() {
    for depth in 1..=4 {
        let ahead = start(depth, counting());
        let next = Mutex::new(Ring::new(RingShape {
            item_bytes: ITEM_BYTES.to_vec(),
            depth: 1000,
            piece_bytes: 90,
            cyclic: true,
        }));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let piece = locked(&next).claim().unwrap();
                        let (round, item) = (piece.ticket / 5, piece.ticket % 5);
                        if round == 60 {
                            return;
                        }
                        let ticket = ahead.ticket(round, item);
                        let slot = ahead.lease(ticket).unwrap().unwrap();
                        slot.memory().unwrap().0.read(piece.offset..piece.offset + piece.bytes, |bytes| {
                            for (at, found) in (piece.offset..).zip(bytes) {
                                assert_eq!(*found, byte(item as usize, round as usize, at), "{piece:?}");
                            }
                        });
                        ahead.left(ticket, piece.bytes);
                    }
                });
            }
        });
    }
}

#[test]
fn a_readers_failure_or_panic_reaches_one_lease_and_the_others_end() {
    let failing: Reader = Arc::new(|item, _, _, _| match item {
        2 => Err(Error::file("model", "cable pulled")),
        _ => Ok(()),
    });
    let panicking: Reader = Arc::new(|item, _, _, _| {
        assert_ne!(item, 2, "a test's panic, which is expected");
        Ok(())
    });
    for (reader, said) in [(failing, "cable pulled"), (panicking, "panicked")] {
        let ahead = start(3, reader);
        std::thread::scope(|scope| {
            let leases: Vec<_> =
                (0..3).map(|_| scope.spawn(|| ahead.lease(2).map(|slot| slot.is_some()))).collect();
            let (mut failures, mut ends) = (0, 0);
            for lease in leases {
                match lease.join().unwrap() {
                    Err(error) => {
                        assert!(error.to_string().contains(said), "{error}");
                        failures += 1;
                    }
                    Ok(is_there) => {
                        assert!(!is_there);
                        ends += 1;
                    }
                }
            }
            assert_eq!((failures, ends), (1, 2));
        });
    }
}

#[test]
fn stopping_wakes_readers_and_those_who_wait_for_them() {
    // All slots are full and nobody takes them: the readers wait.
    drop(start(2, counting()));
    let slow: Reader = Arc::new(|_, _, _, _| {
        std::thread::sleep(Duration::from_millis(30));
        Ok(())
    });
    let ahead = start(1, slow);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ahead.lease(0).unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
        ahead.stop();
        assert!(waiting.join().unwrap(), "the lease was told that nothing comes");
    });
}

#[test]
fn a_slot_for_each_item_is_filled_once_and_reported_in_order() {
    let slots = plain(5);
    let trace = Trace::on();
    let options = ReadAheadOptions { trace: trace.clone(), ..options(5, false, counting()) };
    let mut seen = Vec::new();
    ReadAhead::start(&options, slots.clone()).unwrap().finish(|ticket| seen.push(ticket)).unwrap();
    assert_eq!(seen, [0, 1, 2, 3, 4]);
    for (item, slot) in slots.iter().enumerate() {
        slot.memory().unwrap().0.read(0..ITEM_BYTES[item], |bytes| {
            assert!((0..).zip(bytes).all(|(at, found)| *found == byte(item, 0, at)));
        });
    }
    let spans = trace.spans();
    assert_eq!(spans.iter().map(|span| span.bytes).sum::<u64>(), ITEM_BYTES.iter().sum::<u64>());
    assert!(spans.iter().all(|span| span.lane.to_string().starts_with("load weight · disk ")));
}
