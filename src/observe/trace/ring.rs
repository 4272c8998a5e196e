//! The ring of a trace's events: the newest `capacity` events are kept, and recording allocates
//! nothing.
//!
//! Most events of a busy loop are commands of a pipeline: such an event begins where the event
//! before ended, and has the same client. An event of this form is stored in one word, so that a
//! command costs one store, and eight commands fill a line of the cache. An event that begins at
//! another time, or has another client, takes four words.
//!
//! ```text
//!   short   took: 40 bits        number: 16      0, kind: 8     start and client: see above
//!   wide    number: 32 bits          0: 24       1, kind: 8     start     end     client
//!
//!   Ring    oldest [512 words] [512 words] .. [512 words] newest      free: [512 words] [512 words] ..
//!                                             ^^^ current, up to `len`
//! ```
//!
//! The words are stored in blocks of one page. A block can be read without the blocks before it,
//! since it stores the end and the client of the event before its first event. When the current
//! block is full, the oldest blocks that are not needed for `capacity` events are freed, and the
//! block that was freed last is used next: so events of pipelines touch only about a third of the
//! ring's memory.
//!
//! A ring is larger than the processor's fast caches, so a line of memory is no longer cached when
//! it is written again. So each line of the ring's memory is prefetched [`AHEAD`] words before its
//! first store: waiting for an uncached line would cost more time than all instructions of the
//! trace.
//!
//! **Invariant:** the events that are read are the newest ones that were pushed, whatever their
//! kinds and times (`the_newest_events_come_back`).
//! **Invariant:** a free block of memory exists when a block is needed: there is memory for
//! `capacity` wide events (`Ring::new`).

use std::collections::VecDeque;

use crate::observe::trace::event::{Event, EventKind};
use crate::sys::cache;

/// The number of words in a block: a page of memory.
const WORDS: usize = 512;
/// The number of words by which memory is fetched into the cache ahead of the stores: three lines
/// of the cache, which a pipeline's events fill in some microseconds.
const AHEAD: usize = 24;
/// The number of words of a wide event, which stores its start, its end and its client.
const WIDE_WORDS: usize = 4;
/// The bit in an event's first word that marks a wide event.
const WIDE: u64 = 1 << 7;
const KIND_BITS: u32 = 8;
const NUMBER_BITS: u32 = 16;
const TOOK_SHIFT: u32 = KIND_BITS + NUMBER_BITS;
const NUMBER_MAX: u32 = (1 << NUMBER_BITS) - 1;
/// The longest duration, in ticks, of an event that is stored in one word.
pub const TOOK_MAX: u64 = u64::MAX >> TOOK_SHIFT;

/// An event whose duration and number fit into one word. Such an event is stored in one word if it
/// begins where the event before ended, and has the same client.
pub struct Short {
    pub kind: EventKind,
    pub number: u16,
    pub start: u64,
    pub took: u64,
    pub client: u64,
}

/// The end and the client of the event before, which an event of one word does not repeat.
#[derive(Clone, Copy, Default)]
struct Before {
    end: u64,
    client: u64,
}

/// A page of words that store events, and the state that is needed to read these events.
struct Block {
    words: Box<[u64; WORDS]>,
    /// The number of words of the block that are in use.
    len: usize,
    /// The end and the client of the event that precedes the block's first event.
    before: Before,
    /// The number of events that were pushed before the first event of this block.
    pushed: u64,
}

impl Block {
    fn new() -> Block {
        Block {
            words: Box::new([0; WORDS]),
            len: 0,
            before: Before::default(),
            pushed: 0,
        }
    }

    /// Appends the events of this block to `to`, the oldest first.
    fn read(&self, to: &mut Vec<Event>) {
        let mut before = self.before;
        let mut words = self.words[..self.len].iter();
        while let Some(&word) = words.next() {
            let kind = EventKind::ALL[(word & (WIDE - 1)) as usize];
            let event = if word & WIDE == 0 {
                Event {
                    start: before.end,
                    end: before.end.wrapping_add(word >> TOOK_SHIFT),
                    client: before.client,
                    number: (word >> KIND_BITS) as u32 & NUMBER_MAX,
                    kind,
                }
            } else {
                let mut next = || *words.next().expect("a wide event lies in one block");
                Event {
                    start: next(),
                    end: next(),
                    client: next(),
                    number: (word >> 32) as u32,
                    kind,
                }
            };
            before = Before {
                end: event.end,
                client: event.client,
            };
            to.push(event);
        }
    }
}

/// The ring: the events that were recorded last.
pub struct Ring {
    current: Block,
    before: Before,
    /// The number of words of all wide events, less one word for each event.
    extra: u64,
    /// The number of words in all blocks that were ever filled.
    written: u64,
    /// The full blocks of events, the oldest first.
    full: VecDeque<Block>,
    free: Vec<Block>,
    capacity: usize,
}

impl Ring {
    /// Allocates and touches all memory of the ring. A `capacity` of 0 counts as 1.
    pub fn new(capacity: usize) -> Ring {
        let capacity = capacity.max(1);
        // The ring has enough blocks for `capacity` wide events, and one more, since of the oldest
        // block perhaps only the last event is needed.
        let blocks = capacity.div_ceil(WORDS / WIDE_WORDS) + 1;
        Ring {
            current: Block::new(),
            before: Before::default(),
            extra: 0,
            written: 0,
            full: VecDeque::with_capacity(blocks),
            free: (1..blocks).map(|_| Block::new()).collect(),
            capacity,
        }
    }

    /// Adds an event, in place of the oldest one if the ring is full.
    #[inline]
    pub fn push(&mut self, event: Event) {
        let took = event.end.wrapping_sub(event.start);
        let fits = took <= TOOK_MAX && event.number <= NUMBER_MAX;
        let short = fits.then_some(Short {
            kind: event.kind,
            number: event.number as u16,
            start: event.start,
            took,
            client: event.client,
        });
        if !short.is_some_and(|short| self.push_short(short)) {
            self.push_wide(event);
        }
    }

    /// Adds an event if one word is enough to store it. `took`, its duration, is at most
    /// [`TOOK_MAX`]. Returns whether the event was added.
    #[inline(always)]
    pub fn push_short(&mut self, event: Short) -> bool {
        debug_assert!(event.took <= TOOK_MAX);
        let follows = event.start == self.before.end && event.client == self.before.client;
        if follows && let Some(word) = self.current.words.get_mut(self.current.len) {
            let number = u64::from(event.number) << KIND_BITS;
            *word = event.took << TOOK_SHIFT | number | event.kind as u64;
            cache::prefetch(std::ptr::from_ref(word).wrapping_add(AHEAD));
            self.current.len += 1;
            self.before.end = event.start.wrapping_add(event.took);
            return true;
        }
        false
    }

    #[inline(never)]
    fn push_wide(&mut self, event: Event) {
        if self.current.len + WIDE_WORDS > WORDS {
            self.next_block();
        }
        let at = self.current.len;
        self.current.words[at..at + WIDE_WORDS].copy_from_slice(&[
            u64::from(event.number) << 32 | WIDE | event.kind as u64,
            event.start,
            event.end,
            event.client,
        ]);
        self.current.len += WIDE_WORDS;
        self.extra += WIDE_WORDS as u64 - 1;
        self.before = Before {
            end: event.end,
            client: event.client,
        };
    }

    #[cold]
    fn next_block(&mut self) {
        let pushed = self.pushed();
        self.written += self.current.len as u64;
        // The oldest block is not needed if the newer blocks have `capacity` events.
        while let Some(oldest) = self.full.pop_front() {
            let second = self.full.front().unwrap_or(&self.current);
            if pushed - second.pushed < self.capacity as u64 {
                self.full.push_front(oldest);
                break;
            }
            self.free.push(oldest);
        }
        let mut next = self.free.pop().expect("memory for all events");
        (next.len, next.before, next.pushed) = (0, self.before, pushed);
        self.full
            .push_back(std::mem::replace(&mut self.current, next));
    }

    /// The maximum number of events that the ring keeps.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The bytes of all blocks of the ring, the free ones included.
    pub fn memory(&self) -> usize {
        (1 + self.full.len() + self.free.len()) * WORDS * size_of::<u64>()
    }

    /// The number of events that were ever pushed to the ring.
    pub fn pushed(&self) -> u64 {
        self.written + self.current.len as u64 - self.extra
    }

    /// The number of events that the ring does not hold any more.
    pub fn lost(&self) -> u64 {
        self.pushed().saturating_sub(self.capacity as u64)
    }

    /// A copy of the ring's events, the oldest first.
    pub fn to_vec(&self) -> Vec<Event> {
        let mut events = Vec::with_capacity(self.capacity + WORDS);
        for block in self.full.iter().chain([&self.current]) {
            block.read(&mut events);
        }
        let surplus = events.len().saturating_sub(self.capacity);
        events.drain(..surplus);
        events
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(start: u64) -> Event {
        Event {
            start,
            end: start + 1,
            client: 7,
            number: 0,
            kind: EventKind::Poll,
        }
    }

    fn starts(ring: &Ring) -> Vec<u64> {
        ring.to_vec().iter().map(|e| e.start).collect()
    }

    #[test]
    fn a_full_ring_keeps_the_newest() {
        let mut ring = Ring::new(3);
        assert!(starts(&ring).is_empty());
        (0..3).for_each(|start| ring.push(event(start)));
        assert_eq!((starts(&ring), ring.lost()), (vec![0, 1, 2], 0));
        ring.push(event(3));
        assert_eq!((starts(&ring), ring.lost()), (vec![1, 2, 3], 1));
        (4..12).for_each(|start| ring.push(event(start)));
        assert_eq!((starts(&ring), ring.pushed()), (vec![9, 10, 11], 12));
    }

    #[test]
    fn an_event_that_follows_takes_one_word() {
        let mut ring = Ring::new(WORDS);
        ring.push(event(1));
        assert_eq!(ring.current.len, WIDE_WORDS);
        ring.push(event(2));
        assert_eq!(ring.current.len, WIDE_WORDS + 1);
        ring.push(event(2));
        assert_eq!(ring.current.len, 2 * WIDE_WORDS + 1, "it begins earlier");
        ring.push(Event {
            client: 8,
            ..event(3)
        });
        assert_eq!(ring.current.len, 3 * WIDE_WORDS + 1, "another client");
        assert_eq!(ring.pushed(), 4);
    }

    #[test]
    fn few_blocks_are_used_again_and_again() {
        let mut ring = Ring::new(4 * WORDS);
        let memory = ring.memory();
        (0..1000 * WORDS as u64).for_each(|start| ring.push(event(start)));
        assert!(ring.full.len() <= 5, "{} blocks", ring.full.len());
        assert_eq!(ring.memory(), memory);
    }

    /// Draws a random event: whether it begins where the event before ended, its duration, client,
    /// number and kind.
    fn any_event() -> impl Strategy<Value = (bool, u64, u64, u32, usize)> {
        let took = prop_oneof![
            Just(0),
            1..1000u64,
            TOOK_MAX - 1..TOOK_MAX + 2,
            any::<u64>()
        ];
        let number = prop_oneof![Just(0), NUMBER_MAX - 1..NUMBER_MAX + 2, any::<u32>()];
        (
            prop::bool::weighted(0.7),
            took,
            7..9u64,
            number,
            0..EventKind::ALL.len(),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// For random events, a ring returns the same events as the end of a list of all events.
        #[test]
        fn the_newest_events_come_back(
            capacity in prop_oneof![1..4usize, 1..2000usize],
            drawn in prop::collection::vec(any_event(), 0..4000),
        ) {
            let mut ring = Ring::new(capacity);
            let memory = ring.memory();
            let mut all: Vec<Event> = Vec::new();
            for (follows, took, client, number, kind) in drawn {
                let start = match (follows, all.last()) {
                    (true, Some(last)) => last.end,
                    _ => took / 3,
                };
                let event = Event { start, end: start.wrapping_add(took), client, number, kind: EventKind::ALL[kind] };
                ring.push(event);
                all.push(event);
            }
            let newest = &all[all.len().saturating_sub(capacity)..];
            prop_assert_eq!(ring.to_vec(), newest);
            prop_assert_eq!(ring.pushed(), all.len() as u64);
            prop_assert_eq!(ring.memory(), memory);
        }
    }
}
