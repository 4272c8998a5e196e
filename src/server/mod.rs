//! The life of the server: start, cron, the end of a turn, changed settings, shutdown.

pub mod before_sleep;
pub mod busy;
pub mod check_system;
pub mod cli;
pub mod completions;
pub mod crash_report;
pub mod cron;
pub mod defrag;
pub mod first_start;
pub mod init;
pub mod jobs;
pub mod record;
pub mod run_info;
pub mod settings;
pub mod shutdown;
pub mod start;
pub mod supervisor;
pub mod tls;
pub mod trace;
