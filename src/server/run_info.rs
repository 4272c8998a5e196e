//! Facts about this process: its ids, its arguments, and its state before settings changed it.

use std::path::PathBuf;

use crate::server::supervisor::Sent;

/// Facts about this process.
pub struct RunInfo {
    /// The `run_id` of INFO: 40 hexadecimal digits, new at each start.
    pub run_id: String,
    pub pid: u32,
    pub executable: PathBuf,
    pub argv: Vec<String>,
    pub start_ms: i64,
    /// The used memory in bytes when the server was ready and empty.
    pub startup_memory: usize,
}

/// The state of this process before settings changed it.
#[derive(Default)]
pub struct ProcessState {
    /// `oom_score_adj` at the start, or when the server last stopped changing it.
    pub oom_score_base: i32,
    /// Whether the settings have changed `oom_score_adj`.
    pub oom_score_changed: bool,
    /// The messages that were last sent to the supervisor, such as systemd.
    pub sent: Sent,
}
