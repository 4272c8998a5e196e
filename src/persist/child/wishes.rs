//! The queue of requests for a child process ("wishes"), which wait while another child runs. Only
//! this module starts the child that a queued request, a save point or the AOF's growth requires.
//!
//! ```text
//!   BGREWRITEAOF, appendonly yes ─> Rewrite  ─┐
//!   BGSAVE SCHEDULE ──────────────> Snapshot ─┼─> in order of arrival, each at most once
//!   a replica needs a snapshot ───> Sync     ─┤           |
//!   slots move to another node ───> Slots    ─┘           |
//!                                                         v
//!   cron, no child ─> start_next: the first wish that may be granted now,
//!                     else a save point that is reached, else a rewrite that the AOF's growth asks for
//! ```
//!
//! A request whose child can't be started now (rewrites and snapshots pause after failures) stays
//! in the queue and does not delay the requests behind it.
//!
//! **Invariant:** a request is removed from the queue only when its child was started, or when the
//! request is withdrawn (`tests::a_wish_stays_until_its_child_was_started`).

use crate::persist::aof::rewrite;
use crate::persist::rdb::background;
use crate::state::Server;

/// A queued request for a child process, which is granted when its child is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// A request to rewrite the AOF.
    Rewrite,
    /// A request to save a snapshot to the disk.
    Snapshot,
    /// A request to create a snapshot for replicas, see [`super::ReplicationHooks`].
    Sync,
    /// A request to send slots to another node of the cluster, see [`super::SlotHooks`].
    Slots,
}

/// The requests that wait for a child, in order of arrival.
#[derive(Default)]
pub struct Wishes {
    waiting: Vec<Wish>,
}

impl Wishes {
    /// Adds a request to the queue; its child is started when no other child runs. A request that
    /// is in the queue already is not added again.
    pub fn add(&mut self, wish: Wish) {
        if !self.has(wish) {
            self.waiting.push(wish);
        }
    }

    /// Whether a request for a child is in the queue.
    pub fn has(&self, wish: Wish) -> bool {
        self.waiting.contains(&wish)
    }

    /// Removes a request for a child from the queue. Returns whether the request was in the queue.
    pub fn withdraw(&mut self, wish: Wish) -> bool {
        let had = self.has(wish);
        self.waiting.retain(|other| *other != wish);
        had
    }
}

/// The cron's step: starts the next child, if no child runs, and a queued request, a save point or
/// the AOF's growth requires a child.
pub fn start_next(server: &mut Server) {
    // In a nested turn, within a load or a long command, the data set is incomplete and must not be
    // saved.
    if server.child.is_some() || server.is_nested() {
        return;
    }
    for wish in server.forks.wishes.waiting.clone() {
        if start(server, wish) {
            server.forks.wishes.withdraw(wish);
            return;
        }
    }
    if background::start_if_due(server) {
        return;
    }
    rewrite::start_if_due(server);
}

/// Starts the child that a queued request asks for, if this is possible now. Returns whether the
/// child was started. An error of starting the child is logged.
fn start(server: &mut Server, wish: Wish) -> bool {
    match wish {
        Wish::Rewrite => rewrite::start_wished(server),
        Wish::Snapshot => background::start_wished(server),
        Wish::Sync => match server.forks.replication {
            Some(hooks) => (hooks.start)(server),
            None => false,
        },
        Wish::Slots => match server.forks.slots {
            Some(hooks) => (hooks.start)(server),
            None => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::{self as child, ChildKind, Job, Outcome, ReplicationHooks, Target};
    use super::*;
    use crate::config::Config;
    use crate::sys::fork;

    fn server() -> Server {
        let mut server = Server::new(Config::default(), Vec::new());
        server.config.save.clear();
        server.forks.replication = Some(ReplicationHooks {
            start: |server| {
                let job = Job {
                    kind: ChildKind::Rdb,
                    target: Target::Replicas,
                    keep: &[],
                };
                child::start(server, job, |_, _| Err(9)).is_ok()
            },
            ended: |server: &mut Server, outcome: &Outcome| {
                assert!(server.child.is_none(), "the next one can be started");
                server.dirty = 100 + (outcome.exit == fork::Exit::Code(9)) as u64;
            },
        });
        server
    }

    #[test]
    fn a_wish_stays_until_its_child_was_started() {
        let mut server = server();
        server.forks.wishes.add(Wish::Snapshot);
        server.forks.wishes.add(Wish::Sync);
        server.forks.wishes.add(Wish::Snapshot);
        assert_eq!(
            server.forks.wishes.waiting,
            [Wish::Snapshot, Wish::Sync],
            "each kind once"
        );
        // After a failed snapshot, snapshots pause, so the request behind the snapshot's in the
        // queue is granted first.
        server.rdb.failed = true;
        server.rdb.last_try_s = server.clock.now_s();
        start_next(&mut server);
        let child = server.child.as_ref().expect("a child");
        assert_eq!(
            (child.kind, child.target),
            (ChildKind::Rdb, Target::Replicas)
        );
        assert_eq!(server.forks.wishes.waiting, [Wish::Snapshot]);
        start_next(&mut server);
        assert_eq!(
            server.forks.wishes.waiting,
            [Wish::Snapshot],
            "one at a time"
        );
        assert!(server.forks.wishes.withdraw(Wish::Snapshot));
        assert!(!server.forks.wishes.withdraw(Wish::Snapshot));
    }

    #[test]
    fn replication_hears_how_its_child_ended() {
        let mut server = server();
        server.forks.wishes.add(Wish::Sync);
        start_next(&mut server);
        while server.child.is_some() {
            std::thread::yield_now();
            child::reap(&mut server);
        }
        assert_eq!(server.dirty, 101, "the hook was called with its exit code");
        assert!(!server.rdb.failed, "a transfer is no snapshot");
    }

    #[test]
    fn half_a_data_set_is_not_saved() {
        let mut server = server();
        server.forks.wishes.add(Wish::Snapshot);
        server.nested_turn(start_next);
        assert!(server.child.is_none(), "a load lets the loop turn");
        assert!(server.forks.wishes.has(Wish::Snapshot));
    }
}
