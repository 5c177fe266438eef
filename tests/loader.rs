//! Both stages of a loader in a chain: bytes arrive whole by every route, and failures as errors.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pipo_wgpu::error::{Error, Result};
use pipo_wgpu::gpu::{Buffer, Gpu, Place, Readback};
use pipo_wgpu::pipeline::loader::DiskItems;
use pipo_wgpu::pipeline::ring::RingShape;
use pipo_wgpu::pipeline::{
    HostSlot, Loader, LoaderOptions, ReadAhead, ReadAheadOptions, Reader, Route, Source,
};
use pipo_wgpu::trace::Trace;
use wgpu::BufferUsages;

use crate::common::gpu;

/// More than one piece of the disk's readers in the largest.
const ITEM_BYTES: [u64; 5] = [12_288, 5 << 20, 4096, 65_536, 20_480];

fn content(item: usize) -> Vec<u8> {
    let byte = |at: u64| ((at + 77 * item as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    (0..ITEM_BYTES[item]).map(byte).collect()
}

fn reader() -> Reader {
    let content: Vec<_> = (0..ITEM_BYTES.len()).map(content).collect();
    Arc::new(move |item, offset, to, _| {
        to.copy_from_slice(&content[item][offset as usize..][..to.len()]);
        Ok(())
    })
}

/// A source that must not be asked.
fn no_source() -> Source {
    Arc::new(|_, _, _| Err(Error::Usage("the source was asked".into())))
}

/// Where the items are: pinned where the letter is `p`, else on disk.
fn options(route: Route, depth: usize, ahead_bytes: u64, homes: &str, reader: Reader) -> LoaderOptions {
    let pinned = |(item, home): (usize, char)| {
        (home == 'p').then(|| {
            let buffer = gpu().buffer_in(Place::Pinned, "home", ITEM_BYTES[item]).unwrap();
            buffer.memory().unwrap().write(0..ITEM_BYTES[item], |to| to.copy_from_slice(&content(item)));
            Arc::new(buffer)
        })
    };
    LoaderOptions {
        shape: RingShape { item_bytes: ITEM_BYTES.to_vec(), depth, piece_bytes: 1 << 20, cyclic: true },
        route,
        threads: 2,
        staging_each: 2,
        names: (0..ITEM_BYTES.len()).map(|item| format!("item {item}")).collect(),
        pinned: homes.chars().enumerate().map(pinned).collect(),
        disk: Some(DiskItems { reader, read_ahead_bytes: ahead_bytes }),
        trace: Trace::off(),
    }
}

fn start(options: &LoaderOptions, source: &Source) -> Result<Loader> {
    // As the route's own slots, but that tests may look into them.
    let usage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
    let slot = || match options.route {
        Route::Staged | Route::WriteBuffer => gpu().buffer("slot", 5 << 20, usage),
        Route::Mapped | Route::Dma => options.route.slot(gpu(), 5 << 20),
    };
    let slots = (0..options.shape.depth).map(|_| slot());
    Loader::start(gpu(), options, slots.collect::<Result<_>>()?, source)
}

/// What lies in a buffer now.
fn read(gpu: &Gpu, from: &Buffer, bytes: u64, through: &mut Readback) -> Vec<u8> {
    let mut encoder = gpu.encoder("look");
    encoder.copy_buffer_to_buffer(from, 0, through.buffer(), 0, bytes);
    gpu.queue.submit([encoder.finish()]);
    through.read(gpu, bytes, <[u8]>::to_vec).unwrap()
}

#[test]
fn every_item_arrives_whole_by_every_route_from_every_home() {
    let homes: &[&str] = if gpu().has(Place::Pinned) { &["", "p d p", "ddp"] } else { &[""] };
    let mut through = Readback::new(gpu(), "look", 5 << 20).unwrap();
    for route in Route::ALL.into_iter().filter(|route| route.is_open(gpu())) {
        for (number, homes) in homes.iter().enumerate() {
            for depth in 1..=4 {
                // From one slot, however little there is, to more than there are items.
                let ahead_bytes = [1, 10 << 20, 40 << 20][(depth + number) % 3];
                let options = options(route, depth, ahead_bytes, homes, reader());
                let loader = start(&options, &no_source()).unwrap();
                for ticket in 0..12 {
                    let slot = loader.lease(ticket).unwrap();
                    let item = ticket as usize % ITEM_BYTES.len();
                    let found = read(gpu(), &loader.slots()[slot], ITEM_BYTES[item], &mut through);
                    assert!(found == content(item), "{route:?} {homes:?} {depth} {ahead_bytes} {ticket}");
                    loader.release(ticket);
                }
            }
        }
    }
}

#[test]
fn a_failure_or_panic_of_a_reader_is_the_next_lease_s_error() {
    let failing: Reader = Arc::new(|item, _, _, _| match item {
        1 => Err(Error::file("model.safetensors", "cable pulled")),
        _ => Ok(()),
    });
    let panicking: Reader = Arc::new(|item, _, _, _| {
        assert_ne!(item, 1, "a test's panic, which is expected");
        Ok(())
    });
    for route in Route::ALL.into_iter().filter(|route| route.is_open(gpu())) {
        for (reader, said) in [(&failing, "cable pulled"), (&panicking, "panicked")] {
            let loader = start(&options(route, 3, 20 << 20, "", Arc::clone(reader)), &no_source()).unwrap();
            let error = (0..3).find_map(|ticket| loader.lease(ticket).err()).unwrap();
            assert!(error.to_string().contains(said), "{route:?}: {error}");
        }
    }
}

#[test]
fn dropping_a_loader_ends_readers_and_workers_that_wait() {
    for route in Route::ALL.into_iter().filter(|route| route.is_open(gpu())) {
        // Everything is full, and then: everything is still on its way.
        for delay in [Duration::ZERO, Duration::from_millis(50)] {
            let asked = Arc::new(AtomicU64::new(0));
            let seen = Arc::clone(&asked);
            let slow: Reader = Arc::new(move |_, _, _, _| {
                seen.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(delay);
                Ok(())
            });
            let loader = start(&options(route, 2, 10 << 20, "", slow), &no_source()).unwrap();
            if delay.is_zero() {
                loader.lease(1).unwrap();
            }
            let start = Instant::now();
            drop(loader);
            assert!(start.elapsed() < Duration::from_secs(10), "{route:?}");
            let after = asked.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(60));
            assert_eq!(asked.load(Ordering::Relaxed), after, "a reader outlived its loader");
        }
    }
}

#[test]
fn items_are_read_into_pinned_memory_and_booked_there() {
    if !gpu().has(Place::Pinned) {
        eprintln!("SKIPPED: this adapter has no {}", Place::Pinned);
        return;
    }
    let alone = Gpu::open(&pipo_wgpu::gpu::AdapterChoice::Best).unwrap();
    let slots: Vec<_> = ITEM_BYTES.iter().map(|bytes| HostSlot::new(&alone, true, *bytes).unwrap()).collect();
    assert_eq!(alone.pinned_account().bytes(), ITEM_BYTES.iter().sum::<u64>());
    let options = ReadAheadOptions {
        shape: RingShape { item_bytes: ITEM_BYTES.to_vec(), depth: 5, piece_bytes: 1 << 20, cyclic: false },
        threads: 3,
        names: (0..5).map(|item| format!("item {item}")).collect(),
        wait_max: Duration::from_secs(60),
        trace: Trace::off(),
        reader: reader(),
    };
    let mut arrived = 0;
    ReadAhead::start(&options, slots.clone()).unwrap().finish(|_| arrived += 1).unwrap();
    assert_eq!(arrived, 5);
    for (item, slot) in slots.iter().enumerate() {
        let HostSlot::Pinned(buffer) = slot else { panic!("not pinned") };
        let memory = buffer.memory().unwrap();
        memory.read(0..ITEM_BYTES[item], |bytes| assert!(*bytes == content(item), "item {item}"));
    }
}
