//! The last turns of the loop, for the live page of the monitor port: the duration and the work of
//! each turn.
//!
//! ```text
//!   end of a turn ─> Turn ─┬─> slot of its 10 ms, if it is the longest there ─> a ring of 10 s
//!                          ├─> histogram: turns by duration, powers of two of microseconds
//!                          └─> the slowest, longest first
//! ```
//!
//! Turns are recorded while the monitor port is open. The parts of a turn are differences of totals
//! that the server counts in any case, so recording a turn costs two additions and a few
//! comparisons. The longest command of a turn is named if it took [`NAMED_US`] or more: such a
//! command is recorded where slow commands are found, so that short commands cost nothing.
//!
//! **Limit:** short turns beside a longer one in the same 10 ms are counted in the histogram only:
//! so the ring has the same size at a hundred turns each second and at a hundred thousand turns.

use std::collections::VecDeque;

use crate::clock::Clock;
use crate::observe::stats::Stats;

/// The period in microseconds of which the ring keeps only the longest turn.
const SLOT_US: i64 = 10_000;
/// The number of periods of 10 ms that the ring covers: 10 seconds.
const SLOTS: usize = 1000;
/// The number of turns in the list of the slowest turns.
const SLOWEST: usize = 20;
/// The duration in microseconds from which a command is named as the longest command of its turn.
pub const NAMED_US: u64 = 100;
/// The number of classes of the histogram of turns: durations below 1, 2, 4 .. microseconds; the
/// last class has all longer turns.
pub const CLASSES: usize = 24;

/// A turn of the loop, without the time for which the poll sleeps.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Turn {
    /// The Unix time of the turn's beginning in microseconds.
    pub began_us: i64,
    /// The duration of the turn in microseconds.
    pub us: u64,
    /// The number of commands that ran in the turn.
    pub commands: u64,
    /// The parts of `us` that were spent in commands, in the cron and in writing the AOF.
    pub commands_us: u64,
    pub cron_us: u64,
    pub aof_us: u64,
    pub longest: Option<Longest>,
}

/// The longest command of a turn of the loop, and its duration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Longest {
    /// The id of the command in the command table.
    pub command: u16,
    pub us: u64,
}

/// The server's totals of time, in ticks, at the end of the last turn.
#[derive(Clone, Copy, Default)]
struct Totals {
    command_ticks: u64,
    cron_ticks: u64,
    aof_ticks: u64,
}

impl Totals {
    fn of(stats: &Stats) -> Totals {
        Totals {
            command_ticks: stats.command_ticks,
            cron_ticks: stats.cron_ticks,
            aof_ticks: stats.aof_ticks,
        }
    }
}

/// The turns of the last seconds, the slowest turns, and the histogram of all turns.
#[derive(Default)]
pub struct Turns {
    /// The longest turn of each 10 ms in which a turn began, the oldest first.
    ring: VecDeque<Turn>,
    slowest: Vec<Turn>,
    histogram: [u64; CLASSES],
    totals: Totals,
    /// The longest command of the present turn so far.
    longest: Option<Longest>,
}

impl Turns {
    /// Adds the turn that has just ended and took `us` microseconds.
    pub fn add(&mut self, stats: &Stats, clock: &Clock, us: u64) {
        let now = Totals::of(stats);
        let before = std::mem::replace(&mut self.totals, now);
        let longest = self.longest.take();
        // The subtraction saturates, since CONFIG RESETSTAT sets totals to zero.
        let since = |now: u64, before: u64| clock.us(now.saturating_sub(before)).min(us);
        self.note(Turn {
            began_us: stats.turn_began_us,
            us,
            commands: stats
                .commands_processed
                .saturating_sub(stats.turn_began_commands),
            commands_us: since(now.command_ticks, before.command_ticks),
            cron_us: since(now.cron_ticks, before.cron_ticks),
            aof_us: since(now.aof_ticks, before.aof_ticks),
            longest,
        });
    }

    /// Records a command that has ended as the longest of the present turn, if it is. A script ends
    /// after its commands, so of two commands of equal duration the later one is named.
    pub fn note_command(&mut self, command: u16, us: u64) {
        if us >= NAMED_US && self.longest.is_none_or(|longest| us >= longest.us) {
            self.longest = Some(Longest { command, us });
        }
    }

    fn note(&mut self, turn: Turn) {
        let class = (u64::BITS - turn.us.leading_zeros()) as usize;
        self.histogram[class.min(CLASSES - 1)] += 1;
        match self.ring.back_mut() {
            Some(last) if last.began_us / SLOT_US == turn.began_us / SLOT_US => {
                if turn.us > last.us {
                    *last = turn;
                }
            }
            _ => {
                if self.ring.len() == SLOTS {
                    self.ring.pop_front();
                }
                self.ring.push_back(turn);
            }
        }
        let is_slow = self.slowest.len() < SLOWEST
            || self.slowest.last().is_some_and(|least| turn.us > least.us);
        if is_slow {
            let at = self.slowest.partition_point(|other| other.us >= turn.us);
            self.slowest.insert(at, turn);
            self.slowest.truncate(SLOWEST);
        }
    }

    /// The turns in the ring that began after `after_us`, oldest first.
    pub fn since(&self, after_us: i64) -> impl Iterator<Item = &Turn> {
        let from = self.ring.partition_point(|turn| turn.began_us <= after_us);
        self.ring.range(from..)
    }

    /// The slowest turns since the start of the server, the longest first.
    pub fn slowest(&self) -> &[Turn] {
        &self.slowest
    }

    /// The number of turns in each class of duration: class `n` has the turns below 2^n
    /// microseconds that are not in a lower class.
    pub fn histogram(&self) -> &[u64; CLASSES] {
        &self.histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(began_us: i64, us: u64) -> Turn {
        Turn {
            began_us,
            us,
            ..Turn::default()
        }
    }

    #[test]
    fn a_slot_keeps_its_longest_turn() {
        let mut turns = Turns::default();
        for (began, us) in [(0, 5), (100, 9), (9_999, 3), (10_000, 1), (35_000, 0)] {
            turns.note(turn(began, us));
        }
        let kept = |after| turns.since(after).map(|t| (t.began_us, t.us)).collect();
        let all: Vec<(i64, u64)> = kept(-1);
        assert_eq!(all, [(100, 9), (10_000, 1), (35_000, 0)]);
        let later: Vec<(i64, u64)> = kept(10_000);
        assert_eq!(later, [(35_000, 0)]);
    }

    #[test]
    fn a_turn_has_its_longest_command() {
        let mut turns = Turns::default();
        let (stats, clock) = (Stats::default(), Clock::start());
        for (command, us) in [(1, NAMED_US - 1), (2, 300), (3, 200)] {
            turns.note_command(command, us);
        }
        turns.add(&stats, &clock, 600);
        turns.add(&stats, &clock, 500);
        let longest = [0, 1].map(|at| turns.slowest()[at].longest);
        let second = Longest {
            command: 2,
            us: 300,
        };
        assert_eq!(longest, [Some(second), None], "the next turn has none yet");
    }

    #[test]
    fn everything_has_a_bound() {
        let mut turns = Turns::default();
        for n in 0..5000_i64 {
            turns.note(turn(n * SLOT_US, (n as u64 * 7919) % 1000));
        }
        assert_eq!(turns.since(-1).count(), SLOTS);
        assert_eq!(turns.slowest().len(), SLOWEST);
        assert!(turns.slowest().is_sorted_by(|a, b| a.us >= b.us));
        assert_eq!(turns.slowest()[0].us, 999);
        assert_eq!(turns.histogram().iter().sum::<u64>(), 5000);
    }

    #[test]
    fn classes_are_powers_of_two() {
        let mut turns = Turns::default();
        for us in [0, 1, 2, 3, 4, 1023, 1024, u64::MAX] {
            turns.note(turn(0, us));
        }
        let found = turns.histogram().iter().enumerate();
        let found: Vec<(usize, u64)> = found.map(|(at, n)| (at, *n)).filter(|f| f.1 > 0).collect();
        assert_eq!(
            found,
            [
                (0, 1),
                (1, 1),
                (2, 2),
                (3, 1),
                (10, 1),
                (11, 1),
                (CLASSES - 1, 1)
            ]
        );
    }

    #[test]
    fn the_parts_of_a_turn_are_what_was_added_to_the_totals() {
        let mut turns = Turns::default();
        let clock = Clock::start();
        let ticks_of_1ms = {
            let mut ticks = 1;
            while clock.us(ticks) < 1000 {
                ticks *= 2;
            }
            ticks
        };
        let mut stats = Stats::default();
        stats.turn_began_us = 1;
        stats.command_ticks = ticks_of_1ms;
        stats.commands_processed = 7;
        turns.add(&stats, &clock, 1_000_000);
        stats.turn_began_us += SLOT_US;
        stats.turn_began_commands = 7;
        stats.cron_ticks = ticks_of_1ms;
        turns.add(&stats, &clock, 1_000_000);
        let kept: Vec<&Turn> = turns.since(0).collect();
        assert_eq!((kept[0].commands, kept[1].commands), (7, 0));
        assert!(kept[0].commands_us >= 1000 && kept[0].cron_us == 0);
        assert!(kept[1].cron_us >= 1000 && kept[1].commands_us == 0);
    }
}
