//! The state of a client in a blocking command: the keys, the acknowledgement or the end of a pause
//! for which it waits.

use crate::client::OwnedArgv;
use crate::ds::thin_buffer::{heap_bytes, size_class, vec_bytes};

/// What a blocked client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockKind {
    /// The client waits for an element of a list: BLPOP, BRPOP, BLMOVE, BLMPOP.
    List,
    Zset,
    Stream,
    /// The client waits for the end of a pause, by CLIENT PAUSE or a failover.
    Postpone,
    /// The client waits in WAIT for acknowledgements of replicas.
    Wait,
    WaitAof,
    /// The client waits in CLUSTER SETSLOT, until `replicas` replicas have acknowledged the change
    /// of the slot.
    SetSlot {
        replicas: usize,
    },
    /// The client waits in FLUSHALL SYNC, until the background thread has freed the keys, which is
    /// its job number `job`.
    Freed {
        job: u64,
    },
    /// The client waits in MIGRATE, while the keys are sent to another server.
    Migrate,
    /// The client waits in SHUTDOWN, while the server waits for replicas.
    Shutdown,
}

/// The state of a client in a blocking command; `execute::blocked` serves such clients.
pub struct Blocked {
    pub kind: BlockKind,
    /// The Unix time in milliseconds at which the client's timeout ends the wait; 0 for no timeout.
    pub deadline_ms: i64,
    /// A number that grows with each client that blocks: clients are served in this order.
    pub ticket: u64,
    pub keys: Vec<Box<[u8]>>,
    /// The blocking command, which runs again when the client is served.
    pub argv: OwnedArgv,
    /// Whether the blocking command also runs again when a key is deleted or changes its type
    /// (XREADGROUP).
    pub on_nokey: bool,
}

impl Blocked {
    /// The heap bytes of a blocked client's state, the structure `Blocked` included.
    pub fn memory(&self) -> usize {
        let keys = self.keys.iter().map(|key| heap_bytes(key.len()));
        size_class(size_of::<Blocked>())
            + vec_bytes(&self.keys)
            + keys.sum::<usize>()
            + self.argv.memory()
    }
}
