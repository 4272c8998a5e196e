//! The options that a replica announces with REPLCONF before it requests a synchronization.

/// The parts of the data set that a replica requests in its snapshot. Replicas that request the
/// same contents share a child process.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Contents {
    /// `rdb-filter-only` without `functions`: the snapshot has no libraries of functions.
    pub without_functions: bool,
    /// `rdb-filter-only functions`: the snapshot has no keys.
    pub without_keys: bool,
}

impl Contents {
    /// Whether the snapshot leaves out a part of the data set.
    pub fn is_filtered(self) -> bool {
        self.without_functions || self.without_keys
    }
}

/// A replica's announcements (`REPLCONF option value ...`), which are kept with the replica's
/// client.
#[derive(Clone, Default, Debug)]
pub struct Announced {
    /// `listening-port`: the port on which the replica accepts clients; 0 if it was not announced.
    pub port: i32,
    /// `ip-address`; if it is empty, the address of the replica's connection is used.
    pub address: Box<str>,
    /// `capa eof`: the replica can read a snapshot that ends with a mark, `$EOF:<mark>`.
    pub eof: bool,
    /// `capa psync2`: the replica accepts `+CONTINUE <id>`.
    pub psync2: bool,
    /// `version`: the version of a Valkey server as 0xMMmmpp; Redis does not send it.
    pub version: Option<u32>,
    /// `capa rdb<version>`: the newest RDB version that the replica reads; only aeris announces it.
    pub rdb_version: Option<u32>,
    /// `rdb-only 1`: the replica requests a snapshot without a stream (redis-cli --rdb).
    pub rdb_only: bool,
    /// `capa dual-channel`: the replica can receive a snapshot on a second connection, as Valkey 8
    /// does.
    pub dual_channel: bool,
    /// `capa rdb-channel-repl`: the replica can receive a snapshot on a second connection, as Redis
    /// 8 does.
    pub rdb_channel_repl: bool,
    /// `rdb-no-compress 1`: the replica's link is fast, so strings in its snapshot are not to be
    /// compressed (Redis 8.6).
    pub no_compression: bool,
    /// A snapshot that is not written to a disk needs no checksum: `capa skip-rdb-checksum` on a
    /// connection with TLS, which has checksums of its own (Valkey 8.1), or `rdb-no-checksum 1`
    /// (Redis 8.8).
    pub no_checksum: bool,
    /// `rdb-channel 1`: the client is the second connection of a replica, which receives the
    /// snapshot.
    pub rdb_channel: bool,
    /// `set-rdb-client-id`: the client that is the second connection of this replica (Valkey).
    pub rdb_client: Option<u64>,
    /// `main-ch-client-id`: the client that is the first connection of this replica (Redis).
    pub main_client: Option<u64>,
    /// `set-cluster-node-id`: the id of the replica's node in the cluster (Valkey 9).
    pub node: Option<Box<[u8]>>,
    /// `rdb-filter-only`: the parts of the data set that the snapshot contains.
    pub contents: Contents,
}
