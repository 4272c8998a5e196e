//! The faults of simulated machines, disks, clocks and links, and when they happen.

use aeris::cluster::{ManualKind, SetSlot};

use super::world::World;

/// A fault of the simulation, or the end of a fault.
pub enum Fault {
    Kill(usize),
    Start(usize),
    /// The process of a machine is stopped until a simulated time in milliseconds.
    Pause(usize, u64),
    /// The machines of a set are cut off from all other machines.
    Split(Vec<usize>),
    Heal,
    CutLinks(usize),
    /// The wall clock of a machine jumps by this number of milliseconds.
    Jump(usize, i64),
    /// The disk of a machine takes up to this number of milliseconds for a write.
    Disk(usize, u64),
    Failover(usize, ManualKind),
    /// A slot moves to a machine by CLUSTER SETSLOT, as redis-cli does it.
    MoveSlot(u16, usize),
}

impl Fault {
    pub fn happen(self, world: &mut World) {
        match self {
            Fault::Kill(at) => world.kill(at),
            Fault::Start(at) => world.start(at),
            Fault::Pause(at, until) => world.machines[at].paused_until = until,
            Fault::Split(machines) => {
                world.partitioned_at = world.now;
                machines.iter().for_each(|at| world.side[*at] = 1);
            }
            Fault::Heal => world.heal(),
            Fault::CutLinks(count) => (0..count).for_each(|_| world.cut_a_link()),
            Fault::Jump(at, ms) => world.machines[at].wall_skew += ms,
            Fault::Disk(at, ms) => world.machines[at].disk_ms = ms,
            Fault::Failover(at, kind) => {
                // CLUSTER FAILOVER is refused by a node that is no replica.
                let _ = world.command(at, |cluster, now, out| cluster.failover(now, kind, out));
            }
            Fault::MoveSlot(slot, to) => move_slot(world, slot, to),
        }
        world.note_cuts();
    }

    /// Schedules a random fault at the time `at`, and its end before `end`.
    pub fn schedule_random(world: &mut World, at: u64, end: u64) {
        let timeout = world.settings.node_timeout_ms;
        let count = world.machines.len() as u64;
        let machine = world.random.below(count) as usize;
        let length = timeout / 5 + world.random.below(timeout * 4);
        let until = (at + length).min(end);
        match world.random.below(12) {
            0 | 1 => {
                world.schedule(at, Fault::Kill(machine));
                world.schedule(until, Fault::Start(machine));
            }
            2 | 3 => world.schedule(at, Fault::Pause(machine, until)),
            4 | 5 => {
                let cut = 1 + world.random.below(count / 2);
                let machines = (0..cut).map(|_| world.random.below(count) as usize);
                let machines = machines.collect();
                world.schedule(at, Fault::Split(machines));
                world.schedule(until, Fault::Heal);
            }
            6 => {
                let links = 1 + world.random.below(count * 4) as usize;
                world.schedule(at, Fault::CutLinks(links));
            }
            7 => {
                let jump = world.random.below(7_200_000) as i64 - 3_600_000;
                world.schedule(at, Fault::Jump(machine, jump));
            }
            8 => {
                let ms = world.random.below(1000);
                world.schedule(at, Fault::Disk(machine, ms));
                world.schedule(until, Fault::Disk(machine, 2));
            }
            9 | 10 => {
                let slot = world.random.below(16_384) as u16;
                world.schedule(at, Fault::MoveSlot(slot, machine));
            }
            _ => {
                let kinds = [ManualKind::Default, ManualKind::Default, ManualKind::Force];
                let kind = kinds[world.random.below(3) as usize];
                world.schedule(at, Fault::Failover(machine, kind));
            }
        }
    }
}

fn move_slot(world: &mut World, slot: u16, to: usize) {
    let target = world.machines[to].name;
    let owner = world.machines[to].cluster.as_ref().and_then(|cluster| {
        let owner = cluster.slots().owner(slot)?;
        Some(cluster.nodes()[owner].name)
    });
    let from = world
        .machines
        .iter()
        .position(|machine| Some(machine.name) == owner);
    let Some(from) = from.filter(|from| *from != to) else {
        return;
    };
    let source = world.machines[from].name;
    let mut set = |at: usize, change: SetSlot| {
        let outcome = world.command(at, |cluster, now, out| {
            cluster.set_slot(now, slot, change, 0, out)
        });
        // CLUSTER SETSLOT is refused by a replica, and by a node that has lost the slot.
        matches!(outcome, Some(Ok(())))
    };
    if set(to, SetSlot::Importing(source)) {
        if set(from, SetSlot::Migrating(target)) && set(to, SetSlot::Owner(target)) {
            set(from, SetSlot::Owner(target));
        } else {
            set(to, SetSlot::Stable);
            set(from, SetSlot::Stable);
        }
    }
}
