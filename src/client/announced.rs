//! What a replica says of itself with REPLCONF before it asks for a sync.

/// The contents of a snapshot that a replica asks for. Replicas with equal wishes share a child.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Contents {
    /// `rdb-filter-only` without `functions`: libraries of functions are left out.
    pub without_functions: bool,
    /// `rdb-filter-only functions`: keys are left out.
    pub without_keys: bool,
}

impl Contents {
    /// The replica leaves something out.
    pub fn is_filtered(self) -> bool {
        self.without_functions || self.without_keys
    }
}

/// A replica's announcements (`REPLCONF option value ...`), kept with its client.
#[derive(Clone, Default, Debug)]
pub struct Announced {
    /// `listening-port`: where the replica itself accepts clients; 0 if it did not say.
    pub port: i32,
    /// `ip-address`; empty: the address that its connection comes from.
    pub address: Box<str>,
    /// `capa eof`: reads a snapshot that ends in a mark, `$EOF:<mark>`.
    pub eof: bool,
    /// `capa psync2`: understands `+CONTINUE <id>`.
    pub psync2: bool,
    /// `version`: that of a Valkey server as 0xMMmmpp; Redis does not send it.
    pub version: Option<u32>,
    /// `capa rdb<version>`: the newest RDB version that it reads, which is our own announcement.
    pub rdb_version: Option<u32>,
    /// `rdb-only 1`: wants a snapshot and no stream (redis-cli --rdb).
    pub rdb_only: bool,
    /// `rdb-filter-only`.
    pub contents: Contents,
}
