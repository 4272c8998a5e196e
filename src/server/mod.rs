//! The server's own verbs: how it starts, runs a command, keeps house and stops.

pub mod apply;
pub mod before_sleep;
pub mod busy;
pub mod call;
pub mod cli;
pub mod clock;
pub mod cron;
pub mod dispatch;
pub mod init;
pub mod propagate;
pub mod shutdown;
pub mod start;
