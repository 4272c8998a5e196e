//! What MIGRATE sends to the other server, and the errors that it reports. Used by both ways of
//! sending: `at_once`, and `networking::migrate`.

use crate::error::Error;
use crate::execute::migration::{Destination, Migration};
use crate::link::{Errors, Failure, Step};
use crate::persist::rdb::payload;
use crate::state::Server;

/// The size of the requests that are under way for one MIGRATE, unless one key is larger.
pub const WINDOW: usize = 1 << 20;

/// The tags of the steps.
pub mod tag {
    /// AUTH.
    pub const AUTH: u32 = 0;
    /// SELECT, and ASKING.
    pub const SELECT: u32 = 1;
    /// RESTORE or DEL of a key.
    pub const KEY: u32 = 2;
}

/// AUTH, if an account is given. Nothing is sent before the reply to AUTH.
pub fn auth(to: &Destination) -> Option<Step> {
    let (user, password) = to.account.as_ref()?;
    Some(Step::auth(tag::AUTH, user.as_deref(), password).wait())
}

/// SELECT of the database at the destination.
pub fn select(migration: &Migration) -> Step {
    let db = migration.to_db.to_string();
    let step = Step::new(tag::SELECT, &["SELECT", &db]).errors(Errors::Tolerated);
    step.timeout(migration.timeout_ms)
}

/// ASKING, which must precede a DEL: the other node only imports the slot and does not own it yet.
pub fn asking(migration: &Migration) -> Step {
    let step = Step::new(tag::SELECT, &["ASKING"]).errors(Errors::Tolerated);
    step.timeout(migration.timeout_ms)
}

/// RESTORE with the value of a key; DEL if the key was sent before and does not exist any more;
/// nothing if it was deleted before it was sent.
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
        // The slot moves, so the other node does not own it yet.
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

/// The error of a lost connection, with the step that failed, as in Redis.
fn io_error(failure: &Failure) -> &'static str {
    match failure {
        Failure::Resolve(_) => "IOERR error or timeout connecting to the client",
        Failure::Connect(_) | Failure::ConnectTimeout | Failure::SendTimeout => {
            "IOERR error or timeout writing to target instance"
        }
        _ => "IOERR error or timeout reading to target instance",
    }
}
