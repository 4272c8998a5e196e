//! The time and traffic of commands by hash slot: `cluster-slot-stats-enabled`, CLUSTER SLOT-STATS.
//!
//! A command is charged once, by `execute::charge`, to the slot that `execute::route` has found. A
//! transaction or a script is charged as a whole, to the slot of its keys.
//!
//! **Limits:** a script that may use several slots is charged with its reply only, as in Redis. The
//! table of slots takes 384 KB while `cluster-slot-stats-enabled` is on. While
//! `cluster-slot-stats-enabled` is off, there is no table, and commands run no instruction for it.

use crate::db::slot::SLOTS;
use crate::state::Server;

/// The time and traffic of the commands of one hash slot.
#[derive(Clone, Copy, Default, Debug)]
pub struct SlotUsage {
    /// The time of the slot's commands, in ticks of the processor's counter.
    pub ticks: u64,
    /// The bytes of the requests for the slot.
    pub bytes_in: u64,
    /// The bytes of the replies for the slot.
    pub bytes_out: u64,
}

/// The time and traffic of the commands of each hash slot.
pub struct SlotStats {
    usage: Vec<SlotUsage>,
}

impl Default for SlotStats {
    fn default() -> SlotStats {
        SlotStats {
            usage: vec![SlotUsage::default(); SLOTS],
        }
    }
}

impl SlotStats {
    /// The time and traffic of the commands of a hash slot.
    pub fn of(&self, slot: u16) -> SlotUsage {
        self.usage[usize::from(slot)]
    }

    /// Adds the cost of a command to the figures of its slot. For a command without a slot, `slot`
    /// is above all slot numbers, and nothing is added.
    pub fn charge(&mut self, slot: u16, cost: SlotUsage) {
        if let Some(usage) = self.usage.get_mut(usize::from(slot)) {
            usage.ticks += cost.ticks;
            usage.bytes_in += cost.bytes_in;
            usage.bytes_out += cost.bytes_out;
        }
    }

    /// Sets the figures of the slots for which `is_kept` returns false to zero.
    pub fn retain(&mut self, is_kept: impl Fn(u16) -> bool) {
        for (slot, usage) in (0..).zip(&mut self.usage) {
            if !is_kept(slot) {
                *usage = SlotUsage::default();
            }
        }
    }
}

impl Server {
    /// Creates or drops the table of slots when `cluster-slot-stats-enabled` changes.
    pub fn follow_slot_stats_setting(&mut self) {
        let wanted = self.config.cluster_enabled && self.config.cluster_slot_stats_enabled;
        if wanted != self.stats.slots.is_some() {
            self.stats.slots = wanted.then(Box::default);
            self.update_armed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_charged_until_it_leaves() {
        let mut stats = SlotStats::default();
        let cost = SlotUsage {
            ticks: 1,
            bytes_in: 2,
            bytes_out: 3,
        };
        for slot in [0, 0, 16_383, 16_384, u16::MAX] {
            stats.charge(slot, cost);
        }
        let sum = |stats: &SlotStats| {
            let slots = (0..SLOTS as u16).map(|slot| stats.of(slot));
            slots.fold((0, 0, 0), |sum, one| {
                (
                    sum.0 + one.ticks,
                    sum.1 + one.bytes_in,
                    sum.2 + one.bytes_out,
                )
            })
        };
        assert_eq!(sum(&stats), (3, 6, 9));
        assert_eq!(stats.of(0).bytes_in, 4);
        stats.retain(|slot| slot > 0);
        assert_eq!(sum(&stats), (1, 2, 3));
    }
}
