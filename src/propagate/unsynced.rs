//! Under `appendfsync always`, clients see only changes that are on the disk.
//!
//! A writer's reply waits for the fsync of its change (`propagate::gate`). Before the fsync the
//! change is in the keyspace, and another client could read it, act on it, and find it lost after a
//! power cut. So every reply and every message that depends on a change before its fsync waits
//! until the AOF is synced up to this change; all other replies are sent, even while the disk
//! hangs.
//!
//! ```text
//!   offsets in the AOF    synced ......... fed         hash of a key -> place -> the offset after which it is durable
//!   SET k new                              └ k: fed + 1 at the time of the change, somewhere in its unit
//!   GET k                 held until synced reaches that offset           GET other    leaves at once
//! ```
//!
//! The changes that a client's replies depend on are expressed as one offset, `Client::aof_offset`,
//! which only grows. `Client::aof_offset` is the highest of the offsets that result from:
//!
//! - the client's own changes: the end of the unit in which they are propagated;
//! - a command that reads keys: the highest offset in the table at the places of these keys; in a
//!   transaction or a script, at the places of the keys of all its commands;
//! - a command that looks at the whole keyspace (SCAN, KEYS, DBSIZE, RANDOMKEY), at keys that the
//!   data names (SORT BY), and an EXEC that failed since a watched key was changed: the end of all
//!   that was fed to the AOF;
//! - a message to another client: for an event or an invalidation, the change that caused it; for
//!   PUBLISH, the offset of its client, or the whole unit in a transaction or a script; for
//!   MONITOR's line, the change that the line shows.
//!
//! The command of a blocked client runs again when the client is served, so it counts as a command
//! that reads keys.
//!
//! Offsets are never removed from the table, since an offset up to which the AOF is synced makes no
//! reply wait. Two keys may share a place in the table, which can only add a delay. An offset may
//! belong to a change that is never fed to the AOF (a script with redis.set_repl); no reply waits
//! when everything that was fed is synced (`gate::safe_offset`).
//!
//! Limits: commands like INFO and DEBUG, which describe the process, never wait, since they are
//! needed most when a disk hangs. Cost: none unless `appendfsync always` is set
//! (`armed::UNSYNCED`); then one pass over the keys of each command.
//!
//! **Invariant:** several keys, by their hash, share an offset in the table, which is at least the
//! offset of each change to these keys (`tests/durable_reads.rs`).

use crate::armed;
use crate::client::Client;
use crate::command::keys::{self, KeyRef};
use crate::command::{self, Command, INCOMPLETE, KeySpec};
use crate::config::AppendFsync;
use crate::propagate::gate;
use crate::state::Server;

/// The number of places in the table of offsets, a power of two; the hash of a key selects its
/// place.
const PLACES: usize = 1 << 14;

/// The offsets in the AOF of recent changes, by key, for changes that may not be durable yet.
#[derive(Default)]
pub struct Unsynced {
    /// The table of offsets: at the place that a key's hash selects, the offset of the last change
    /// of such a key; empty unless `appendfsync always` is set.
    places: Box<[u64]>,
    /// The offset in the AOF of the last change that does not concern single keys: FLUSHALL,
    /// SWAPDB, functions.
    everywhere: u64,
    /// The offset in the AOF on which the replies of the running command, transaction or script
    /// depend so far.
    seen: u64,
}

impl Unsynced {
    fn is_on(&self) -> bool {
        !self.places.is_empty()
    }

    fn note(&mut self, hash: u64, offset: u64) {
        if let Some(place) = self.places.get_mut(hash as usize & (PLACES - 1)) {
            *place = offset;
        }
    }

    fn offset_of(&self, hash: u64) -> u64 {
        let place = self.places.get(hash as usize & (PLACES - 1));
        place.map_or(0, |&offset| offset)
    }
}

impl Server {
    /// Starts or stops tracking changes without an fsync, as `appendfsync` and the AOF's state
    /// require. The bit `armed::UNSYNCED` is set exactly while changes are tracked.
    pub fn follow_unsynced(&mut self) {
        let on = self.aof.feed.is_open() && self.config.appendfsync == AppendFsync::Always;
        let unsynced = &mut self.gate.unsynced;
        if on && !unsynced.is_on() {
            unsynced.places = vec![0; PLACES].into();
            // The keys of changes before now are not known, so replies about any key depend on
            // these changes.
            unsynced.everywhere = self.aof.feed.fed;
        } else if !on {
            *unsynced = Unsynced::default();
        }
        self.update_armed();
    }

    /// Whether changes without an fsync are tracked.
    pub fn tracks_unsynced(&self) -> bool {
        self.gate.unsynced.is_on()
    }

    /// The offset in the AOF of a change in progress, which has not been fed: one more than was fed
    /// so far.
    fn open_offset(&self) -> u64 {
        self.aof.offset() + 1
    }

    /// The offset in the AOF for a reply that depends on all changes so far.
    fn last_offset(&self) -> u64 {
        self.aof.offset() + u64::from(!self.propagation.is_idle())
    }

    /// Records that a key was changed by a command, by expiry or by eviction.
    pub fn note_unsynced(&mut self, key: &[u8]) {
        let (hash, offset) = (self.seed.hash(key), self.open_offset());
        self.gate.unsynced.note(hash, offset);
    }

    /// Makes the reply of the running command depend on every change so far.
    pub fn depend_on_all_changes(&mut self) {
        if self.armed & armed::UNSYNCED != 0 {
            let last = self.last_offset();
            let seen = &mut self.gate.unsynced.seen;
            *seen = last.max(*seen);
        }
    }

    /// Whether the last change of a key is as safe (`appendfsync`) as it must be before a reply may
    /// show the key's value.
    pub fn is_key_safe(&self, key: &[u8]) -> bool {
        if self.armed & armed::UNSYNCED == 0 {
            return true;
        }
        let unsynced = &self.gate.unsynced;
        let changed = unsynced.offset_of(self.seed.hash(key));
        changed.max(unsynced.everywhere) <= gate::safe_offset(self)
    }

    /// The offset in the AOF on which a message depends that the change in progress causes; 0 if
    /// the message need not wait.
    pub fn offset_of_event(&self) -> u64 {
        match self.armed & armed::UNSYNCED {
            0 => 0,
            _ => self.open_offset(),
        }
    }

    /// The offset in the AOF on which a message depends that the client `c` sends (PUBLISH); 0 if
    /// the message need not wait.
    pub fn offset_of_message(&self, c: &Client) -> u64 {
        match (self.armed & armed::UNSYNCED, self.nesting) {
            (0, _) => 0,
            (_, 0) => c.aof_offset,
            _ => self.open_offset(),
        }
    }
}

/// Called after a command and before it is fed to the AOF: records the keys that the command
/// changed, or the changes that its client has seen.
#[cold]
pub fn after_command(
    server: &mut Server,
    c: &mut Client,
    argv: &[&[u8]],
    cmd: &Command,
    changed: bool,
) {
    // EXEC and scripts are not recorded as changes, since the commands that they ran have been
    // recorded.
    let is_frame = cmd.flags & (command::SCRIPT_DECIDES | command::RUNS_IN_MULTI) != 0;
    if changed && !is_frame {
        note_changes(server, argv, cmd);
    } else if !changed && !is_durable(server) {
        let offset = offset_of_command(server, argv, cmd);
        let seen = &mut server.gate.unsynced.seen;
        *seen = offset.max(*seen);
    }
    if server.nesting == 0 {
        let seen = std::mem::take(&mut server.gate.unsynced.seen);
        c.aof_offset = c.aof_offset.max(seen);
    }
}

/// Whether the AOF is synced up to its end, and no change waits to be fed to the AOF.
pub fn is_durable(server: &Server) -> bool {
    let feed = &server.aof.feed;
    feed.synced >= feed.fed && server.propagation.is_idle()
}

/// Records the keys that a command may have changed. `signal_modified` has recorded most of these
/// keys, but it is not called for changes of consumer groups.
fn note_changes(server: &mut Server, argv: &[&[u8]], cmd: &Command) {
    let mut found = Vec::new();
    let known = keys::get_keys(cmd, argv, &mut found).is_ok();
    if !known || found.is_empty() {
        server.gate.unsynced.everywhere = server.open_offset();
    }
    for key in found.iter().filter(|key| key.is_key()) {
        server.note_unsynced(argv[key.pos as usize]);
    }
}

/// The offset in the AOF on which the reply of a command that changed nothing depends.
fn offset_of_command(server: &Server, argv: &[&[u8]], cmd: &Command) -> u64 {
    let unsynced = &server.gate.unsynced;
    let has_keys = !cmd.keys.is_empty() || cmd.get_keys.is_some();
    let reads = cmd.flags & (command::READONLY | command::WRITE) != 0;
    if !has_keys && !reads {
        // The replies of FUNCTION LIST and FCALL depend on changes of functions, which `everywhere`
        // includes.
        let scripting = cmd.acl & command::SCRIPTING != 0;
        return if scripting { unsynced.everywhere } else { 0 };
    }
    let mut found = Vec::new();
    let known = keys::get_keys(cmd, argv, &mut found).is_ok();
    let is_script = cmd.flags & command::SCRIPT_DECIDES != 0;
    let incomplete = |spec: &KeySpec| spec.flags & INCOMPLETE != 0 || spec.is_unknown();
    let incomplete = cmd.keys.iter().any(incomplete);
    if !is_script && (!known || !has_keys || incomplete) {
        return server.last_offset();
    }
    let offset = |key: &KeyRef| unsynced.offset_of(server.seed.hash(argv[key.pos as usize]));
    let keys = found.iter().filter(|key| key.is_key());
    keys.map(offset).fold(unsynced.everywhere, u64::max)
}
