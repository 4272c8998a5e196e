//! The timers: a binary heap with the earliest timer on top.
//!
//! ```text
//!   TimerId = slot + generation                     heap (by `when`, then by order of scheduling)
//!                |                                                [ 3 ]
//!   slots   [ Timer | free | Timer | Timer ]                     /     \
//!               |                                             [ 0 ]   [ 2 ]
//!               +-- proc, data, position ------------------>  an index into the heap
//! ```
//!
//! Each timer knows its position in the heap, so the deletion of a timer costs a swap and a sift,
//! which is O(log n), with no tombstones and no search. An addition is O(log n), a look at the next
//! timer O(1), and nothing is allocated once the vectors have grown.
//!
//! A timer is removed from the heap before its handler runs, and added again if the handler returns
//! a time. While its handler runs, a timer still exists: it may delete itself, and a nested turn
//! does not fire it again.
//!
//! **Invariants**
//! - `heap[slots[i].position].slot == i` for every timer in the heap
//!   (`heap_agrees_with_naive_twin`).
//! - A timer that was scheduled during a pass is not fired by that pass, even if it is due at once:
//!   a timer that creates timers can't block the loop
//!   (`timer_made_in_a_timer_waits_one_iteration`).
//! - Timers that are due at the same time fire in the order in which they were scheduled.
//!
//! **Rejected.** A list, as in Redis: fine for one cron timer, but the next timer is found by a
//! scan. A `BTreeMap`: the costs of a heap, but it allocates. A timing wheel: best for millions of
//! timeouts, but it rounds all times to a tick.
//!
//! Time is a `u64` of nanoseconds since the loop was made, from the monotonic clock. The
//! nanoseconds saturate after 584 years.

use std::time::{Duration, Instant};

use crate::EventLoop;
use crate::tap::Tap;

/// A handler, which is called when its timer is due. Returning `None` deletes the timer; `Some(d)`
/// lets the timer fire again after `d`.
pub type TimeProc<S> = fn(&mut EventLoop<S>, &mut S, TimerId) -> Option<Duration>;

/// Identifies a timer until it is deleted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerId {
    slot: u32,
    generation: u32,
}

/// The heap position of a timer that is not in the heap: its handler runs, or its slot is free.
const OUTSIDE: u32 = u32::MAX;

struct Timer<S> {
    /// The function that is called when the timer is due; `None` in a free slot.
    handler: Option<TimeProc<S>>,
    data: u64,
    generation: u32,
    position: u32,
}

/// An entry of the heap: a timer's slot and its time. Entries of the heap are ordered by their
/// fields, from the first field to the last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    when: u64,
    sequence: u64,
    slot: u32,
}

/// One walk over the timers that are due by `now` and were scheduled before the walk began.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    now: u64,
    sequence: u64,
}

pub(crate) struct Timers<S> {
    slots: Vec<Timer<S>>,
    free: Vec<u32>,
    heap: Vec<Due>,
    sequence: u64,
    origin: Instant,
    pub(crate) tap: Option<&'static dyn Tap>,
}

impl<S> Timers<S> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            heap: Vec::new(),
            sequence: 0,
            origin: Instant::now(),
            tap: None,
        }
    }

    pub(crate) fn add(&mut self, after: Duration, data: u64, handler: TimeProc<S>) -> TimerId {
        let when = self.in_future(after);
        self.add_at(when, data, handler)
    }

    fn add_at(&mut self, when: u64, data: u64, handler: TimeProc<S>) -> TimerId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Timer {
                handler: None,
                data: 0,
                generation: 0,
                position: OUTSIDE,
            });
            (self.slots.len() - 1) as u32
        });
        let timer = &mut self.slots[slot as usize];
        timer.handler = Some(handler);
        timer.data = data;
        let id = TimerId {
            slot,
            generation: timer.generation,
        };
        self.schedule(slot, when);
        id
    }

    /// Deletes a timer. Returns false if the timer does not exist any more.
    pub(crate) fn delete(&mut self, id: TimerId) -> bool {
        let Some(timer) = self.get_mut(id) else {
            return false;
        };
        timer.handler = None;
        timer.generation = timer.generation.wrapping_add(1);
        let position = std::mem::replace(&mut timer.position, OUTSIDE);
        if position != OUTSIDE {
            self.unschedule(position as usize);
        }
        self.free.push(id.slot);
        true
    }

    pub(crate) fn data(&self, id: TimerId) -> Option<u64> {
        self.slots
            .get(id.slot as usize)
            .filter(|timer| timer.generation == id.generation && timer.handler.is_some())
            .map(|timer| timer.data)
    }

    /// The time until the next timer; zero if a timer is due, `None` without timers.
    pub(crate) fn until_next(&self) -> Option<Duration> {
        let next = self.heap.first()?;
        Some(Duration::from_nanos(next.when.saturating_sub(self.now())))
    }

    /// Begins a pass over the due timers. Without timers, `None` is returned and the clock is not
    /// read.
    pub(crate) fn begin_pass(&self) -> Option<Pass> {
        let next = self.heap.first()?;
        let now = self.now();
        (next.when <= now).then_some(Pass {
            now,
            sequence: self.sequence,
        })
    }

    /// Takes the next due timer of `pass` off the heap. A timer that `take_due` returned stays out
    /// of the heap until `again` or `delete` is called.
    ///
    /// A timer that was scheduled during the pass is due at `now` or later and has a later sequence
    /// number, so it comes after all timers of the pass: the pass ends at the first such timer.
    pub(crate) fn take_due(&mut self, pass: Pass) -> Option<(TimerId, TimeProc<S>)> {
        let next = *self.heap.first()?;
        if next.when > pass.now || next.sequence >= pass.sequence {
            return None;
        }
        self.unschedule(0);
        let timer = &mut self.slots[next.slot as usize];
        timer.position = OUTSIDE;
        let id = TimerId {
            slot: next.slot,
            generation: timer.generation,
        };
        timer.handler.map(|handler| (id, handler))
    }

    /// Schedules a timer again after its handler, unless it was deleted meanwhile.
    pub(crate) fn again(&mut self, id: TimerId, after: Duration) {
        let when = self.in_future(after);
        if self.get_mut(id).is_some() {
            self.schedule(id.slot, when);
        }
    }

    fn now(&self) -> u64 {
        match self.tap {
            None => nanos(self.origin.elapsed()),
            Some(tap) => tap.clock(&|| nanos(self.origin.elapsed())),
        }
    }

    fn in_future(&self, after: Duration) -> u64 {
        self.now().saturating_add(nanos(after))
    }

    fn get_mut(&mut self, id: TimerId) -> Option<&mut Timer<S>> {
        self.slots
            .get_mut(id.slot as usize)
            .filter(|timer| timer.generation == id.generation && timer.handler.is_some())
    }

    fn schedule(&mut self, slot: u32, when: u64) {
        debug_assert!(self.slots[slot as usize].position == OUTSIDE);
        self.heap.push(Due {
            when,
            sequence: self.sequence,
            slot,
        });
        self.sequence += 1;
        self.sift_up(self.heap.len() - 1);
    }

    /// Removes an entry from the heap; the last entry fills its position and is sifted from there.
    fn unschedule(&mut self, position: usize) {
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            let position = self.sift_up(position);
            self.sift_down(position);
        }
    }

    fn sift_up(&mut self, mut position: usize) -> usize {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent] <= self.heap[position] {
                break;
            }
            self.heap.swap(parent, position);
            self.note_position(position);
            position = parent;
        }
        self.note_position(position);
        position
    }

    fn sift_down(&mut self, mut position: usize) {
        loop {
            let left = 2 * position + 1;
            let smallest = [position, left, left + 1]
                .into_iter()
                .filter(|&i| i < self.heap.len());
            let Some(smallest) = smallest.min_by_key(|&i| self.heap[i]) else {
                return;
            };
            if smallest == position {
                return self.note_position(position);
            }
            self.heap.swap(smallest, position);
            self.note_position(position);
            position = smallest;
        }
    }

    fn note_position(&mut self, position: usize) {
        let slot = self.heap[position].slot;
        self.slots[slot as usize].position = position as u32;
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(_: &mut EventLoop<()>, _: &mut (), _: TimerId) -> Option<Duration> {
        None
    }

    fn check_positions(timers: &Timers<()>) {
        for (position, due) in timers.heap.iter().enumerate() {
            assert_eq!(timers.slots[due.slot as usize].position as usize, position);
            assert!(position == 0 || timers.heap[(position - 1) / 2] <= *due);
        }
    }

    /// The naive twin of the heap is a list of (when, order of adding, id), searched from end to
    /// end.
    #[test]
    fn heap_agrees_with_naive_twin() {
        let mut timers = Timers::new();
        let mut twin: Vec<(u64, u64, TimerId)> = Vec::new();
        let mut random = 12345u64;
        for step in 0..20_000 {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let pick = random >> 33;
            match pick % 5 {
                0 | 1 => {
                    let when = pick % 97;
                    twin.push((when, step, timers.add_at(when, step, once)));
                }
                2 if !twin.is_empty() => {
                    let (_, _, id) = twin.swap_remove(pick as usize % twin.len());
                    assert!(timers.delete(id));
                    assert!(!timers.delete(id));
                }
                _ => {
                    let pass = Pass {
                        now: pick % 97,
                        sequence: timers.sequence,
                    };
                    twin.sort_by_key(|&(when, order, _)| (when, order));
                    let expected = twin.first().filter(|timer| timer.0 <= pass.now).copied();
                    let taken = timers.take_due(pass).map(|(id, _)| id);
                    assert_eq!(taken, expected.map(|timer| timer.2));
                    if let Some(id) = taken {
                        assert_eq!(timers.data(id), expected.map(|timer| timer.1));
                        assert!(timers.delete(id));
                        twin.remove(0);
                    }
                }
            }
            check_positions(&timers);
        }
    }

    #[test]
    fn pass_leaves_what_was_scheduled_during_it() {
        let mut timers = Timers::new();
        let first = timers.add_at(5, 0, once);
        let pass = Pass {
            now: 5,
            sequence: timers.sequence,
        };
        let second = timers.add_at(5, 0, once);
        assert_eq!(timers.take_due(pass).map(|due| due.0), Some(first));
        assert!(timers.take_due(pass).is_none());
        let next = Pass {
            now: 5,
            sequence: timers.sequence,
        };
        assert_eq!(timers.take_due(next).map(|due| due.0), Some(second));
    }

    #[test]
    fn far_future_saturates() {
        let mut timers = Timers::new();
        timers.add(Duration::MAX, 0, once);
        assert!(timers.until_next().is_some());
        assert!(timers.begin_pass().is_none());
    }
}
