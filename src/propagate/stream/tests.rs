use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const KB: usize = 1024;

/// Bytes that differ from their neighbours, so that a wrong offset is noticed.
fn pattern(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64)
        .map(|at| (at % 251) as u8)
        .collect()
}

fn open(backlog_size: usize) -> Stream {
    let mut stream = Stream::default();
    stream.open(backlog_size as u64);
    stream
}

fn append(stream: &mut Stream, len: usize) {
    let bytes = pattern(stream.end(), len);
    stream.append(&bytes);
}

/// Reads at most `limit` bytes of the stream at a cursor, and moves the cursor behind them.
fn read(stream: &mut Stream, cursor: &mut Cursor, limit: usize) -> Vec<u8> {
    let mut pieces = [IoSlice::new(&[]); 64];
    let n = stream.io_slices(cursor, limit, &mut pieces);
    let bytes: Vec<u8> = pieces[..n]
        .iter()
        .flat_map(|piece| piece.iter().copied())
        .collect();
    stream.advance(cursor, bytes.len());
    bytes
}

#[test]
fn a_closed_stream_holds_nothing_and_keeps_its_offset() {
    let mut stream = Stream::default();
    stream.append(b"lost");
    assert_eq!((stream.end(), stream.memory()), (0, 0));
    assert!(stream.attach(0).is_none());
    assert_eq!(stream.restart_at(1000), Ok(()));
    stream.open(1);
    append(&mut stream, 10);
    assert_eq!(stream.end(), 1010);
    assert_eq!((stream.first_byte_offset(), stream.histlen()), (1001, 10));
    stream.close();
    assert_eq!((stream.end(), stream.memory()), (1010, 0));
    assert_eq!((stream.first_byte_offset(), stream.histlen()), (0, 0));
    stream.open(1);
    assert_eq!((stream.first_byte_offset(), stream.histlen()), (1011, 0));
}

#[test]
fn an_offset_near_the_end_of_numbers_is_refused() {
    let mut stream = open(1);
    assert_eq!(stream.restart_at(START_MAX), Ok(()));
    append(&mut stream, 100);
    for offset in [START_MAX + 1, i64::MAX as u64, u64::MAX] {
        assert_eq!(stream.restart_at(offset), Err(OffsetTooLarge));
    }
    assert_eq!(stream.end(), START_MAX + 100);
}

#[test]
fn only_what_is_held_can_be_attached_to() {
    let mut stream = open(16 * KB);
    append(&mut stream, 100 * KB);
    let first = stream.first_byte_offset() - 1;
    assert!(first > 0 && stream.histlen() >= 16 * KB as u64);
    for offset in [0, first - 1, stream.end() + 1, u64::MAX] {
        assert!(stream.attach(offset).is_none(), "{offset}");
    }
    for offset in [first, first + 1, stream.end() - 1, stream.end()] {
        let mut cursor = stream.attach(offset).expect("held");
        let rest = (stream.end() - offset) as usize;
        assert_eq!(
            read(&mut stream, &mut cursor, usize::MAX),
            pattern(offset, rest)
        );
        stream.detach(cursor);
    }
}

#[test]
fn a_slow_cursor_keeps_what_it_needs_and_counts_for_it() {
    let mut stream = open(16 * KB);
    let mut slow = stream.attach(0).expect("held");
    append(&mut stream, 500 * KB);
    assert_eq!(
        (stream.first_byte_offset(), stream.histlen()),
        (1, 500 * KB as u64)
    );
    assert_eq!(stream.lag(&slow), 500 * KB as u64);
    assert_eq!(stream.memory_for_backlog(), 16 * KB);
    assert!(stream.memory_for_replicas() >= (500 - 16) * KB);
    assert_eq!(read(&mut stream, &mut slow, 300 * KB).len(), 300 * KB);
    stream.trim();
    assert!(stream.histlen() < (200 + 16) * KB as u64);
    stream.detach(slow);
    stream.trim();
    assert!(stream.histlen() < 32 * KB as u64);
    assert_eq!(stream.memory_for_replicas(), 0);
    assert_eq!(stream.memory_for_backlog(), stream.memory());
}

#[test]
fn trimming_stops_after_a_bounded_number_of_blocks() {
    let mut stream = open(16 * KB);
    let cursor = stream.attach(0).expect("held");
    append(&mut stream, 200 * 16 * KB);
    stream.detach(cursor);
    let before = stream.histlen();
    assert!(stream.trim(), "there is more");
    // Blocks that are still to be freed count for no replica, and as memory beyond the backlog, so
    // that they make `maxmemory` evict no keys.
    assert_eq!(stream.memory_for_replicas(), 0);
    assert_eq!(stream.memory_beyond_backlog(), stream.memory() - 16 * KB);
    assert_eq!(before - stream.histlen(), (TRIM_MAX * 16 * KB) as u64);
    while stream.trim() {}
    assert_eq!(stream.histlen(), 16 * KB as u64);
    // The memory of the list of blocks is freed as well.
    assert!(stream.memory() < 34 * KB, "{}", stream.memory());
}

#[test]
fn a_cursor_at_the_end_of_a_full_block_moves_on() {
    let mut stream = open(16 * KB);
    append(&mut stream, 16 * KB);
    let mut cursor = stream.attach(stream.end()).expect("the end");
    assert_eq!(read(&mut stream, &mut cursor, 100), b"");
    append(&mut stream, 40 * KB);
    let first = stream.first_byte_offset();
    assert_eq!(first, 1, "the cursor's block stays");
    let rest = read(&mut stream, &mut cursor, usize::MAX);
    assert_eq!(rest, pattern(16 * KB as u64, 40 * KB));
    stream.trim();
    assert!(stream.first_byte_offset() > first);
    stream.detach(cursor);
}

#[test]
fn a_restart_loses_cursors_and_pins_and_they_are_harmless() {
    let mut stream = open(16 * KB);
    append(&mut stream, 100);
    let mut cursor = stream.attach(0).expect("held");
    assert!(stream.pin(7, 0, 1000));
    assert_eq!(stream.restart_at(5000), Ok(()));
    append(&mut stream, 100);
    assert!(stream.is_lost(&cursor));
    assert_eq!(read(&mut stream, &mut cursor, 100), b"");
    assert_eq!(stream.claim(7), None);
    stream.detach(cursor);
    let mut cursor = stream.attach(5000).expect("held");
    assert_eq!(read(&mut stream, &mut cursor, 100), pattern(5000, 100));
    assert!(!stream.is_lost(&cursor));
    stream.detach(cursor);
    stream.check();
}

#[test]
fn a_pin_holds_until_it_is_claimed_or_its_time_is_over() {
    let mut stream = open(16 * KB);
    assert!(!stream.pin(1, 1, 1000), "not there yet");
    assert!(stream.pin(1, 0, 1000) && stream.pin(2, 0, 2000));
    append(&mut stream, 300 * KB);
    assert!(stream.expire_pins(999).is_empty());
    assert_eq!(stream.expire_pins(1000), [1]);
    assert_eq!(stream.claim(1), None);
    assert_eq!(stream.first_byte_offset(), 1, "the other one holds");
    let mut cursor = stream.claim(2).expect("pinned");
    assert_eq!(stream.pins(), 0);
    assert_eq!(
        read(&mut stream, &mut cursor, 300 * KB),
        pattern(0, 300 * KB)
    );
    stream.detach(cursor);
    stream.trim();
    assert!(stream.first_byte_offset() > 1);
}

#[test]
fn a_larger_backlog_grows_and_a_smaller_one_is_trimmed() {
    let mut stream = open(16 * KB);
    append(&mut stream, 100 * KB);
    stream.set_backlog_size(1 << 20);
    for _ in 0..3000 {
        append(&mut stream, KB);
    }
    let block = BLOCK_MAX;
    assert!((1 << 20..(1 << 20) + block).contains(&stream.histlen()));
    stream.set_backlog_size(1);
    while stream.trim() {}
    assert!(stream.histlen() <= block);
    let end = stream.end();
    assert!(stream.attach(end).is_some());
}

#[test]
fn a_command_says_its_database_once() {
    let mut stream = open(16 * KB);
    stream.command(3, b"*1\r\n$1\r\na\r\n");
    stream.command(3, b"*1\r\n$1\r\nb\r\n");
    stream.forget_db();
    stream.command(3, b"*1\r\n$1\r\nc\r\n");
    let mut cursor = stream.attach(0).expect("held");
    let text = String::from_utf8(read(&mut stream, &mut cursor, 1000)).expect("text");
    assert_eq!(
        text.replace("\r\n", " "),
        "*2 $6 SELECT $1 3 *1 $1 a *1 $1 b *2 $6 SELECT $1 3 *1 $1 c "
    );
    assert_eq!(stream.selected_db(), Some(3));
    stream.detach(cursor);
}

/// The naive twin of the stream, by which the test judges it: all bytes that were ever appended,
/// and the position of each reader.
#[derive(Default)]
struct Twin {
    start: u64,
    bytes: Vec<u8>,
    readers: BTreeMap<usize, u64>,
}

impl Twin {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn from(&self, offset: u64) -> &[u8] {
        &self.bytes[(offset - self.start) as usize..]
    }
}

#[derive(Clone, Debug)]
enum Op {
    Append(usize),
    /// A reader begins at a position that lies this fraction of the kept bytes before the end.
    Attach(f64),
    Pin(f64, i64),
    Read(usize, usize),
    Detach(usize),
    Expire(i64),
    Resize(usize),
    Trim,
    Restart(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let len = prop_oneof![6 => 0..200usize, 3 => 0..20 * KB, 1 => 0..300 * KB];
    let op = prop_oneof![
        12 => len.clone().prop_map(Op::Append),
        4 => (0.0..1.0f64).prop_map(Op::Attach),
        1 => (0.0..1.0f64, 0..100i64).prop_map(|(at, until)| Op::Pin(at, until)),
        10 => (any::<usize>(), len).prop_map(|(which, limit)| Op::Read(which, limit)),
        2 => any::<usize>().prop_map(Op::Detach),
        1 => (0..100i64).prop_map(Op::Expire),
        1 => (1..200 * KB).prop_map(Op::Resize),
        2 => Just(Op::Trim),
        1 => (0..1_000_000u64).prop_map(Op::Restart),
    ];
    proptest::collection::vec(op, 1..120)
}

/// The stream under test, its naive twin, and the cursors in the stream.
struct Pair {
    stream: Stream,
    twin: Twin,
    cursors: BTreeMap<usize, Cursor>,
    next: usize,
    /// For each pin, the time until which it is kept, and its offset.
    pins: BTreeMap<u64, (i64, u64)>,
    /// The offset from which on the backlog must have all bytes.
    floor: u64,
}

impl Pair {
    fn place(&self, share: f64) -> u64 {
        let held = self.stream.histlen();
        self.stream.end() - (held as f64 * share) as u64
    }

    fn pick(&self, which: usize) -> Option<usize> {
        let keys: Vec<usize> = self.cursors.keys().copied().collect();
        (!keys.is_empty()).then(|| keys[which % keys.len()])
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Append(len) => {
                let bytes = pattern(self.twin.end(), len);
                self.stream.append(&bytes);
                self.twin.bytes.extend_from_slice(&bytes);
            }
            Op::Attach(share) => {
                let offset = self.place(share);
                let cursor = self.stream.attach(offset).expect("held");
                self.cursors.insert(self.next, cursor);
                self.twin.readers.insert(self.next, offset);
                self.next += 1;
            }
            Op::Pin(share, until_ms) => {
                let (id, offset) = (self.next as u64, self.place(share));
                assert!(self.stream.pin(id, offset, until_ms));
                self.pins.insert(id, (until_ms, offset));
                self.next += 1;
            }
            Op::Read(which, limit) => self.read(which, limit),
            Op::Detach(which) => {
                if let Some(key) = self.pick(which) {
                    let cursor = self.cursors.remove(&key).expect("attached");
                    self.stream.detach(cursor);
                    self.twin.readers.remove(&key);
                }
            }
            Op::Expire(now_ms) => {
                let before = self.pins.len();
                self.pins.retain(|_, (until_ms, _)| *until_ms > now_ms);
                let expired = self.stream.expire_pins(now_ms).len();
                assert_eq!(expired, before - self.pins.len());
            }
            Op::Resize(size) => self.stream.set_backlog_size(size as u64),
            Op::Trim => {
                self.stream.trim();
            }
            Op::Restart(offset) => {
                self.stream.restart_at(offset).expect("small");
                let lost = std::mem::take(&mut self.cursors);
                assert!(lost.values().all(|cursor| self.stream.is_lost(cursor)));
                lost.into_values()
                    .for_each(|cursor| self.stream.detach(cursor));
                self.pins.clear();
                self.floor = offset;
                self.twin = Twin {
                    start: offset,
                    ..Twin::default()
                };
            }
        }
    }

    fn read(&mut self, which: usize, limit: usize) {
        let Some(key) = self.pick(which) else {
            return;
        };
        let cursor = self.cursors.get_mut(&key).expect("attached");
        let offset = self.twin.readers.get_mut(&key).expect("attached");
        let bytes = read(&mut self.stream, cursor, limit);
        let rest = &self.twin.bytes[(*offset - self.twin.start) as usize..];
        assert!(bytes.len() <= limit && rest.starts_with(&bytes));
        assert!(!bytes.is_empty() || limit == 0 || rest.is_empty());
        *offset += bytes.len() as u64;
    }

    fn check(&mut self) {
        let (stream, twin) = (&self.stream, &self.twin);
        stream.check();
        assert_eq!(stream.end(), twin.end());
        let first = stream.first_byte_offset() - 1;
        assert!(first >= twin.start);
        // The last `backlog_size` bytes must have been kept at any time.
        let backlog_start = stream.end().saturating_sub(stream.backlog_size());
        self.floor = self.floor.max(backlog_start).max(twin.start);
        assert!(first <= self.floor);
        let pinned = self.pins.values().map(|&(_, offset)| offset);
        let needed = twin.readers.values().copied().chain(pinned).min();
        assert!(needed.is_none_or(|needed| first <= needed));
        for (key, cursor) in &self.cursors {
            assert!(!stream.is_lost(cursor));
            assert_eq!(cursor.offset(), twin.readers[key]);
            assert_eq!(stream.lag(cursor), twin.from(cursor.offset()).len() as u64);
        }
    }
}

proptest! {
    #[test]
    fn any_history_reads_like_one_vector(ops in ops(), backlog_size in 1..200 * KB) {
        let mut pair = Pair {
            stream: open(backlog_size),
            twin: Twin::default(),
            cursors: BTreeMap::new(),
            next: 0,
            pins: BTreeMap::new(),
            floor: 0,
        };
        for op in ops {
            pair.apply(op);
            pair.check();
        }
        // Without cursors and pins, all blocks before the backlog are freed.
        let keys: Vec<usize> = pair.cursors.keys().copied().collect();
        keys.iter().for_each(|_| pair.apply(Op::Detach(0)));
        pair.apply(Op::Expire(i64::MAX));
        while pair.stream.trim() {}
        pair.check();
        prop_assert_eq!(pair.stream.memory_for_replicas(), 0);
        prop_assert!(pair.stream.histlen() < pair.stream.backlog_size() + BLOCK_MAX);
    }
}
