//! What a client waits for: a key, an acknowledgement, the end of a pause.

use crate::client::OwnedArgv;

/// Why a client waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockKind {
    /// A list to get an element: BLPOP and its kin.
    List,
    Zset,
    Stream,
    /// CLIENT PAUSE, and failover.
    Postpone,
    /// WAIT.
    Wait,
    WaitAof,
    /// SHUTDOWN waits for replicas.
    Shutdown,
}

/// What a blocked client waits for, see `execute::blocked`.
pub struct Blocked {
    pub kind: BlockKind,
    /// Unix time in milliseconds, 0 for never.
    pub deadline_ms: i64,
    /// Its place among all waiting clients.
    pub ticket: u64,
    pub keys: Vec<Box<[u8]>>,
    /// The command, to be run again on wake-up.
    pub argv: OwnedArgv,
    /// Wake it also when a key is deleted or changes type (XREADGROUP).
    pub on_nokey: bool,
}
