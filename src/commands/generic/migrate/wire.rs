//! What MIGRATE sends to the other server, and the errors that it reports. Used by `at_once`, for a
//! MIGRATE in a transaction or a script, and by `networking::migrate`, for all others.

use crate::error::Error;
use crate::execute::migration::{Destination, Migration};
use crate::link::{Errors, Failure, Step};
use crate::persist::rdb::payload;
use crate::state::Server;

/// The maximum total size, in bytes, of the requests of one MIGRATE that have no reply yet, unless
/// a single key is larger.
pub const WINDOW: usize = 1 << 20;

/// The tags of requests, by which their replies are identified.
pub mod tag {
    /// The tag of AUTH.
    pub const AUTH: u32 = 0;
    /// The tag of SELECT and ASKING.
    pub const SELECT: u32 = 1;
    /// The tag of a RESTORE or a DEL of a key.
    pub const KEY: u32 = 2;
}

/// The request AUTH, if MIGRATE has a password. Nothing else is sent before the reply to AUTH.
pub fn auth(to: &Destination) -> Option<Step> {
    let (user, password) = to.account.as_ref()?;
    Some(Step::auth(tag::AUTH, user.as_deref(), password).wait())
}

/// The request SELECT, with the number of the database at the destination.
pub fn select(migration: &Migration) -> Step {
    let db = migration.to_db.to_string();
    let step = Step::new(tag::SELECT, &["SELECT", &db]).errors(Errors::Tolerated);
    step.timeout(migration.timeout_ms)
}

/// The request ASKING, which must precede a DEL in a cluster: the other node only imports the slot
/// and does not own it yet.
pub fn asking(migration: &Migration) -> Step {
    let step = Step::new(tag::SELECT, &["ASKING"]).errors(Errors::Tolerated);
    step.timeout(migration.timeout_ms)
}

/// The request that moves a key: RESTORE with its value, or DEL if the key was sent before and does
/// not exist any more. `None` if the key was deleted before it was sent.
pub fn request_for(server: &mut Server, migration: &Migration, key: &[u8]) -> Option<Vec<Vec<u8>>> {
    let config = &server.config;
    let (version, compress) = (config.rdb_version.number(), config.rdbcompression);
    let now = server.clock.now_ms;
    let Some(entry) = server.lookup_in(migration.db, key) else {
        let was_sent = migration.round > 0;
        return was_sent.then(|| vec![b"DEL".to_vec(), key.to_vec()]);
    };
    let ttl = entry
        .expire_at()
        .map_or(0, |at| at.saturating_sub(now).max(1));
    let value = payload::dump(entry, version, compress);
    let verb = match server.cluster {
        // In a cluster, MIGRATE serves to move a slot, which the other node does not own yet.
        Some(_) => "RESTORE-ASKING",
        None => "RESTORE",
    };
    let mut request = vec![verb.into(), key.to_vec()];
    request.extend([ttl.to_string().into_bytes(), value]);
    if migration.replace || migration.round > 0 {
        request.push(b"REPLACE".to_vec());
    }
    Some(request)
}

/// The error of a finished migration, if there is one: an error of the destination is preferred to
/// one of the connection.
pub fn error_of(migration: &Migration, failure: Option<&Failure>) -> Option<Error> {
    let refused = match failure {
        Some(Failure::Refused { error, .. }) => Some(error),
        _ => migration.error.as_ref(),
    };
    match (refused, failure) {
        (Some(error), _) => {
            let error = String::from_utf8_lossy(error);
            Some(Error::new(format!(
                "ERR Target instance replied with error: {error}"
            )))
        }
        (None, Some(failure)) => Some(Error::of(io_error(failure))),
        (None, None) => None,
    }
}

/// The error for a lost connection, which names the step that failed (connecting, writing or
/// reading), as in Redis.
fn io_error(failure: &Failure) -> &'static str {
    match failure {
        Failure::Resolve(_) => "IOERR error or timeout connecting to the client",
        Failure::Connect(_) | Failure::ConnectTimeout | Failure::SendTimeout => {
            "IOERR error or timeout writing to target instance"
        }
        _ => "IOERR error or timeout reading to target instance",
    }
}
