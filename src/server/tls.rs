//! Decides when the server loads its TLS materials: at start, by CONFIG SET, after each
//! `tls-auto-reload-interval`, and when it receives SIGHUP. `connection::tls` does the loading.
//!
//! **Invariant:** TLS materials that can't be loaded, or with another certificate that is not valid
//! at present, do not replace those in use. Connections keep the TLS materials with which they
//! began.

use crate::connection::tls::{self, Inputs, Materials};
use crate::server::supervisor;
use crate::state::Server;
use crate::sys::{error_text, signals};

/// Loads the TLS materials (certificates and keys) at start. Certificates that are not valid are
/// reported but used: a client decides for itself.
pub fn start(server: &mut Server) -> Result<(), String> {
    if !tls::is_needed(&server.config) {
        return Ok(());
    }
    let materials = Materials::load(&Inputs::of(&server.config))?;
    if let Some(problem) = materials.not_valid(server.clock.now_s()) {
        warn_of(&problem);
    }
    server.tls.replace(materials);
    Ok(())
}

fn warn_of(problem: &str) {
    log::warn!("WARNING: {problem}; clients will refuse it");
}

/// Loads the TLS materials after CONFIG SET changed a setting of TLS. `Err` is a line for the log.
pub fn apply(server: &mut Server) -> Result<(), String> {
    if !tls::is_needed(&server.config) {
        return Ok(());
    }
    let materials = Materials::load(&Inputs::of(&server.config))?;
    use_valid(server, materials)
}

/// Uses these TLS materials if their certificates are valid, or are those in use: a server that was
/// started with an expired certificate can change its other settings.
fn use_valid(server: &mut Server, materials: Materials) -> Result<(), String> {
    if let Some(problem) = materials.not_valid(server.clock.now_s()) {
        let same = |current: &Materials| current.has_same_certificates(&materials);
        if !server.tls.materials.as_deref().is_some_and(same) {
            return Err(problem);
        }
        warn_of(&problem);
    }
    server.tls.replace(materials);
    Ok(())
}

/// A job of the cron: begins to reload the TLS materials when `tls-auto-reload-interval` has passed
/// or SIGHUP was received, and takes the result of a reload that has ended.
pub fn cron(server: &mut Server) {
    let asked = signals::take_hangup();
    let interval_ms = i64::from(server.config.tls_auto_reload_interval) * 1000;
    let now_ms = server.clock.now_ms;
    let due = interval_ms > 0 && server.tls.due_ms <= now_ms;
    if due {
        server.tls.due_ms = now_ms + interval_ms;
    }
    if asked {
        supervisor::reloading(server);
    }
    if server.tls.materials.is_none() {
        return supervisor::reloaded(server);
    }
    if asked || due {
        let inputs = Inputs::of(&server.config);
        if let Err(e) = server.tls.load_in_background(inputs) {
            log::warn!("Can't reload TLS materials: {}", error_text(&e));
            supervisor::reloaded(server);
        }
    }
    if let Some(loaded) = server.tls.take_loaded() {
        use_loaded(server, loaded);
        supervisor::reloaded(server);
    }
}

/// Uses TLS materials that were loaded in the background, if they differ from the present ones.
fn use_loaded(server: &mut Server, loaded: Result<Materials, String>) {
    match loaded {
        Ok(loaded) => {
            let same = |current: &Materials| current.is_same(&loaded);
            if server.tls.materials.as_deref().is_some_and(same) {
                return log::debug!("TLS materials unchanged");
            }
            match use_valid(server, loaded) {
                Ok(()) => log::info!("TLS materials reloaded successfully"),
                Err(problem) => report_failure(&problem),
            }
        }
        Err(problem) => report_failure(&problem),
    }
}

fn report_failure(problem: &str) {
    log::warn!("{problem}");
    log::warn!("Background TLS reload failed; the present certificates stay in use");
}
