//! Facts about this process: its ids, its arguments, and its state before settings changed it.

use std::path::PathBuf;

/// Identifies this process.
pub struct RunInfo {
    /// 40 hex digits, new at each start.
    pub run_id: String,
    pub pid: u32,
    pub executable: PathBuf,
    pub argv: Vec<String>,
    pub start_ms: i64,
    /// Bytes in use when the server was ready and empty.
    pub startup_memory: usize,
}

/// What this process looked like before settings changed it.
#[derive(Default)]
pub struct ProcessState {
    /// `oom_score_adj` when the server started, or when it last was left alone.
    pub oom_score_base: i32,
    /// The settings have changed `oom_score_adj`.
    pub oom_score_changed: bool,
}
