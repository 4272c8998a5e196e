//! Settings for tests that DEBUG changes.

/// DEBUG REPL-PAUSE: the step of a full sync at which this process stops itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ReplPause {
    /// A primary stops itself when it has forked a child for the snapshot.
    AfterFork,
    /// A replica stops itself when it is about to open the connection for its snapshot.
    BeforeRdbChannel,
    /// A replica stops itself when it is about to apply the stream that it has collected during the
    /// snapshot.
    OnStreamingReplBuf,
}

/// The switches that DEBUG sets for tests.
#[derive(Default)]
pub struct DebugSwitches {
    pub no_active_expire: bool,
    /// DEBUG REPLYBUFFER PEAK-RESET-TIME, in milliseconds; `None` is the default of 5 s, a negative
    /// number means never.
    pub reply_peak_reset_ms: Option<i64>,
    /// DEBUG DICT-RESIZING 0: hash tables are not resized.
    pub no_resize: bool,
    /// DEBUG REPLYBUFFER RESIZING 0: reply buffers are not resized.
    pub no_reply_resize: bool,
    /// DEBUG KEYSIZES-HIST-ASSERT 1: histograms of lengths are compared with the keys after each
    /// change.
    pub assert_lengths: bool,
    /// DEBUG PAUSE-CRON 1: the cron's jobs do not run.
    pub no_cron: bool,
    /// DEBUG SET-DISABLE-DENY-SCRIPTS 1: scripts may call commands that are not allowed in scripts.
    pub allow_noscript: bool,
    /// DEBUG SET-SKIP-CHECKSUM-VALIDATION 1: checksums of payloads are not compared.
    pub skip_checksum: bool,
    /// DEBUG CLIENT-ENFORCE-REPLY-LIST 1: a reply counts for output limits as if it were in a node
    /// of its own of Redis's reply list.
    pub enforce_reply_list: bool,
    /// PFDEBUG SIMD OFF: registers are merged by portable code.
    pub no_hll_simd: bool,
    /// DEBUG QUICKLIST-PACKED-THRESHOLD: list elements of this size get a node of their own; 0 is
    /// the default.
    pub packed_threshold: usize,
    /// DEBUG PAUSE-AFTER-FORK 1: this process stops itself after a fork, and on a replica when its
    /// primary has forked for it, until a SIGCONT.
    pub pause_after_fork: bool,
    /// DEBUG REPL-PAUSE: the step of a full sync at which this process stops itself until a
    /// SIGCONT.
    pub repl_pause: Option<ReplPause>,
    /// DEBUG DELAY-RDB-CLIENT-FREE-SECONDS: the number of seconds for which a primary keeps the
    /// stream for a replica whose snapshot connection ended; `None` is the default.
    pub rdb_client_grace_s: Option<i64>,
    /// DEBUG DROP-CLUSTER-PACKET-FILTER: the type of the packets of the cluster bus that are
    /// dropped; -2 drops all.
    pub dropped_packets: Option<i64>,
    /// DEBUG CLOSE-CLUSTER-LINK-ON-PACKET-DROP 1: a dropped packet closes the connection that it
    /// came from.
    pub close_link_at_drop: bool,
    /// DEBUG AOF-BACKLOG-LIMIT: the number of bytes that may wait for the AOF's disk before clients
    /// with waiting writes are not read.
    pub aof_backlog_max: Option<u64>,
}

impl DebugSwitches {
    /// Whether this process stops itself after a fork.
    pub fn stops_after_fork(&self) -> bool {
        self.pause_after_fork || self.repl_pause == Some(ReplPause::AfterFork)
    }

    /// Whether a replica stops itself before it opens the connection for its snapshot.
    pub fn stops_before_rdb_channel(&self) -> bool {
        self.repl_pause == Some(ReplPause::BeforeRdbChannel)
    }

    /// Whether a replica stops itself before it applies the stream that it has collected.
    pub fn stops_before_collected(&self) -> bool {
        self.repl_pause == Some(ReplPause::OnStreamingReplBuf)
    }
}
