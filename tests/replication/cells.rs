//! The cells of the interoperability matrix: the server on the other side, the role of aeris, how
//! the snapshot is sent and loaded, and the events that follow.

use crate::load;
use crate::nodes::{Logs, Node, ServerKind, wait_for, wait_in_step, wait_same};

/// The events of a cell after the first sync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Story {
    /// The link is cut and restored.
    Partial,
    /// The replica is promoted, and the old primary becomes its replica.
    Promotion,
    /// The replica ends with SHUTDOWN SAVE and is started again, then the primary is restarted,
    /// too.
    RestartByRdb,
    /// The replica is killed and started again with its AOF.
    RestartByAof,
    /// The replica has a replica of its own, and is promoted when its primary dies.
    Chained,
}

#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub peer: ServerKind,
    /// Whether aeris is the primary at the beginning.
    pub we_are_primary: bool,
    pub diskless: bool,
    /// The value of `repl-diskless-load` on the replica.
    pub load: &'static str,
    pub story: Story,
}

/// The values of `repl-diskless-load`.
const LOADS: [&str; 4] = ["disabled", "on-empty-db", "swapdb", "flush-before-load"];

/// Whether a server has this value of `repl-diskless-load`.
fn knows(kind: ServerKind, load: &str) -> bool {
    load != "flush-before-load" || matches!(kind, ServerKind::Aeris | ServerKind::Valkey9)
}

impl Cell {
    /// All cells of the matrix.
    pub fn all() -> Vec<Cell> {
        let mut cells = Vec::new();
        for peer in ServerKind::PEERS {
            for (we_are_primary, diskless) in
                [(true, false), (true, true), (false, false), (false, true)]
            {
                let replica = match we_are_primary {
                    true => peer,
                    false => ServerKind::Aeris,
                };
                let loads = LOADS.iter().filter(|load| knows(replica, load));
                for load in loads.copied() {
                    for story in [
                        Story::Partial,
                        Story::Promotion,
                        Story::RestartByRdb,
                        Story::RestartByAof,
                        Story::Chained,
                    ] {
                        cells.push(Cell {
                            peer,
                            we_are_primary,
                            diskless,
                            load,
                            story,
                        });
                    }
                }
            }
        }
        cells
    }

    /// A name such as `primary Redis8, diskless, swapdb, Chained`, with the role and name of the
    /// real server first.
    pub fn name(&self) -> String {
        let role = if self.we_are_primary {
            "replica"
        } else {
            "primary"
        };
        let way = if self.diskless { "diskless" } else { "disk" };
        format!(
            "{role} {:?}, {way}, {}, {:?}",
            self.peer, self.load, self.story
        )
    }

    fn kinds(&self) -> (ServerKind, ServerKind) {
        match self.we_are_primary {
            true => (ServerKind::Aeris, self.peer),
            false => (self.peer, ServerKind::Aeris),
        }
    }

    fn start(&self, kind: ServerKind) -> Option<Node> {
        let diskless = if self.diskless { "yes" } else { "no" };
        let aof = match self.story {
            Story::RestartByAof => "yes",
            _ => "no",
        };
        let args = [
            "--repl-diskless-sync",
            diskless,
            "--repl-diskless-load",
            // `repl-diskless-load` is a setting of the replica; the primary's version may not know
            // the value.
            if knows(kind, self.load) {
                self.load
            } else {
                "disabled"
            },
            "--appendonly",
            aof,
            // The files of a test need not survive a power cut.
            "--appendfsync",
            "no",
        ];
        let mut args = args.to_vec();
        if kind == ServerKind::Aeris && self.peer == ServerKind::Valkey9 {
            // Valkey's digests do not show which fields have a time to live.
            args.extend(["--extended-redis-compatibility", "no"]);
        }
        Node::start(kind, &args)
    }

    /// Whether both servers of the cell have times to live of hash fields.
    fn field_ttls(&self) -> bool {
        self.peer.has_field_ttls()
    }

    /// Runs the cell, if its real server is installed.
    pub fn run(&self) {
        let (primary, replica) = self.kinds();
        let (Some(primary), Some(replica)) = (self.start(primary), self.start(replica)) else {
            return;
        };
        let mut pair = Pair {
            cell: *self,
            primary,
            replica,
            seed: 0,
        };
        let _logs = Logs::of(&[&pair.primary, &pair.replica]);
        pair.load(3);
        let Pair {
            primary, replica, ..
        } = &mut pair;
        replica.follow(primary);
        pair.settle();
        pair.load(2);
        pair.settle();
        match self.story {
            Story::Partial => pair.partial(),
            Story::Promotion => pair.promotion(),
            Story::RestartByRdb => pair.restart_by_rdb(),
            Story::RestartByAof => pair.restart_by_aof(),
            Story::Chained => pair.chained(),
        }
    }
}

struct Pair {
    cell: Cell,
    primary: Node,
    replica: Node,
    seed: u64,
}

impl Pair {
    fn load(&mut self, rounds: u64) {
        self.seed += 1;
        let field_ttls = self.cell.field_ttls();
        load::run(self.primary.conn(), self.seed, rounds, field_ttls);
    }

    fn settle(&mut self) {
        wait_in_step(&mut self.primary, &mut self.replica);
        wait_same(&mut self.primary, &mut self.replica);
    }

    fn swap(&mut self) {
        std::mem::swap(&mut self.primary, &mut self.replica);
    }

    fn partial(&mut self) {
        for cut in 1..=2 {
            self.primary.cut_replicas();
            self.load(1);
            self.settle();
            assert_eq!(self.primary.number("sync_partial_ok"), cut);
        }
        assert_eq!(self.primary.number("sync_full"), 1);
    }

    fn promotion(&mut self) {
        for _ in 0..2 {
            self.replica.ok("REPLICAOF NO ONE");
            self.swap();
            let full = self.primary.number("sync_full");
            self.load(1);
            self.replica.follow(&self.primary);
            self.settle();
            self.load(1);
            self.settle();
            assert_eq!(self.primary.number("sync_full"), full, "a partial resync");
        }
    }

    /// The arguments with which a replica is started again.
    fn replicaof(&self) -> [String; 2] {
        let port = self.primary.port();
        ["--replicaof".into(), format!("127.0.0.1 {port}")]
    }

    /// Asserts the number of full syncs that the primary has begun since its start.
    fn expect_full_syncs(&mut self, count: u64) {
        assert_eq!(self.primary.number("sync_full"), count, "a partial resync");
    }

    fn restart_by_rdb(&mut self) {
        let replicaof = self.replicaof();
        let args = replicaof.each_ref().map(String::as_str);
        self.replica.restart("SHUTDOWN SAVE", &args);
        self.load(1);
        self.settle();
        self.expect_full_syncs(1);
        // The restarted primary continues its replication history.
        self.primary.restart("SHUTDOWN SAVE", &[]);
        self.load(1);
        self.settle();
        self.expect_full_syncs(0);
    }

    fn restart_by_aof(&mut self) {
        let replicaof = self.replicaof();
        let args = replicaof.each_ref().map(String::as_str);
        // The base of the replica's AOF, with the loaded snapshot, may still be written.
        let replica = &mut self.replica;
        wait_for("its AOF is complete", || {
            replica.number("aof_rewrite_in_progress") == 0
                && replica.number("aof_rewrite_scheduled") == 0
        });
        self.replica.peer.kill();
        self.load(1);
        self.replica.start_again(&args);
        self.settle();
        if self.replica.kind == ServerKind::Aeris {
            // Only aeris writes its replication offset into the AOF, so only aeris can avoid a full
            // sync.
            self.expect_full_syncs(1);
        }
        self.load(1);
        self.settle();
    }

    fn chained(&mut self) {
        let kind = self.primary.kind;
        let Some(mut leaf) = self.cell.start(kind) else {
            return;
        };
        let _logs = Logs::of(&[&leaf]);
        leaf.follow(&self.replica);
        wait_in_step(&mut self.replica, &mut leaf);
        let full = self.replica.number("sync_full");
        self.load(1);
        self.settle();
        wait_in_step(&mut self.primary, &mut leaf);
        wait_same(&mut self.primary, &mut leaf);
        // The links of the replica and of the replica's replica are cut, one after the other.
        self.primary.cut_replicas();
        self.load(1);
        if leaf.kind == ServerKind::Redis8 {
            // Redis 8.2 frees the data of FLUSHDB in a thread, while the primary's client is
            // blocked, and forgets the offset of a link that ends meanwhile: the load ends with
            // FLUSHDB.
            wait_in_step(&mut self.primary, &mut self.replica);
            wait_in_step(&mut self.replica, &mut leaf);
        }
        self.replica.cut_replicas();
        self.settle();
        wait_in_step(&mut self.primary, &mut leaf);
        wait_same(&mut self.primary, &mut leaf);
        assert_eq!(self.replica.number("sync_full"), full, "the leaf continued");
        // The primary is killed, and its replica, in the middle of the chain, is promoted.
        self.primary.peer.kill();
        self.replica.ok("REPLICAOF NO ONE");
        let middle = &mut self.replica;
        load::run(middle.conn(), 77, 1, self.cell.field_ttls());
        wait_in_step(middle, &mut leaf);
        wait_same(middle, &mut leaf);
        assert_eq!(middle.number("sync_full"), full, "the leaf continued");
    }
}
