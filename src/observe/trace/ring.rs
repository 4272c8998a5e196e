//! The ring of events: the newest `capacity` are kept, and recording allocates nothing.

use crate::observe::trace::event::{Event, Kind};

/// The events that were recorded last.
pub struct Ring {
    slots: Box<[Event]>,
    /// The slot of the next event; behind the last one when the ring is full and begins again.
    next: usize,
    /// How often it has begun again.
    laps: u64,
}

impl Ring {
    /// All memory is requested and touched here. `capacity` is at least one.
    pub fn new(capacity: usize) -> Ring {
        let unused = Event {
            start: 0,
            end: 0,
            client: 0,
            number: 0,
            kind: Kind::Turn,
        };
        Ring {
            slots: vec![unused; capacity.max(1)].into_boxed_slice(),
            next: 0,
            laps: 0,
        }
    }

    /// Adds an event, in place of the oldest if the ring is full.
    #[inline]
    pub fn push(&mut self, event: Event) {
        if self.next >= self.slots.len() {
            self.begin_again();
        }
        self.slots[self.next] = event;
        self.next += 1;
    }

    #[cold]
    fn begin_again(&mut self) {
        self.next = 0;
        self.laps += 1;
    }

    /// The maximum number of events.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The number of events ever pushed.
    pub fn pushed(&self) -> u64 {
        self.laps * self.slots.len() as u64 + self.next as u64
    }

    /// The number of events that were overwritten.
    pub fn lost(&self) -> u64 {
        self.pushed().saturating_sub(self.slots.len() as u64)
    }

    /// A copy of the events, oldest first.
    pub fn to_vec(&self) -> Vec<Event> {
        let (newer, older) = self.slots.split_at(self.next);
        if self.laps == 0 {
            return newer.to_vec();
        }
        [older, newer].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_keeps_the_newest() {
        let mut ring = Ring::new(3);
        let event = |start| Event {
            start,
            end: start + 1,
            client: 7,
            number: 0,
            kind: Kind::Poll,
        };
        let starts = |ring: &Ring| ring.to_vec().iter().map(|e| e.start).collect::<Vec<_>>();
        assert!(starts(&ring).is_empty());
        (0..3).for_each(|start| ring.push(event(start)));
        assert_eq!((starts(&ring), ring.lost()), (vec![0, 1, 2], 0));
        ring.push(event(3));
        assert_eq!((starts(&ring), ring.lost()), (vec![1, 2, 3], 1));
        (4..12).for_each(|start| ring.push(event(start)));
        assert_eq!((starts(&ring), ring.pushed()), (vec![9, 10, 11], 12));
    }
}
