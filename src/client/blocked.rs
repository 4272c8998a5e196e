//! What a blocked client waits for: a key, an acknowledgement, the end of a pause.

use crate::client::OwnedArgv;
use crate::ds::thin_buffer::{heap_bytes, size_class, vec_bytes};

/// The reason why a client is blocked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockKind {
    /// An element of a list: BLPOP, BRPOP, BLMOVE, BLMPOP.
    List,
    Zset,
    Stream,
    /// The end of CLIENT PAUSE or of a failover.
    Postpone,
    /// WAIT.
    Wait,
    WaitAof,
    /// CLUSTER SETSLOT, until this number of replicas has acknowledged it.
    SetSlot {
        replicas: usize,
    },
    /// FLUSHALL SYNC, until the background thread has done the job of this number.
    Freed {
        job: u64,
    },
    /// MIGRATE, while another server gets the keys.
    Migrate,
    /// SHUTDOWN, while it waits for replicas.
    Shutdown,
}

/// The state of a blocked client, see `execute::blocked`.
pub struct Blocked {
    pub kind: BlockKind,
    /// Unix time in milliseconds, 0 for never.
    pub deadline_ms: i64,
    /// The client's place among all waiting clients.
    pub ticket: u64,
    pub keys: Vec<Box<[u8]>>,
    /// The command, which runs again when the client is served.
    pub argv: OwnedArgv,
    /// Whether the command also runs again when a key is deleted or changes its type (XREADGROUP).
    pub on_nokey: bool,
}

impl Blocked {
    /// The heap bytes, this structure included.
    pub fn memory(&self) -> usize {
        let keys = self.keys.iter().map(|key| heap_bytes(key.len()));
        size_class(size_of::<Blocked>())
            + vec_bytes(&self.keys)
            + keys.sum::<usize>()
            + self.argv.memory()
    }
}
