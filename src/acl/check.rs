//! Checks whether the ACL rights of a user allow the call of a command.
//!
//! ```text
//!   command      one bit of the selector, or the first argument (+select|0); AUTH, HELLO and so on need no right
//!   database     the current one for commands that touch the keyspace, and those that the arguments name
//!   keys         each key that the row's specs find: its flags say whether R, W, or any right will do
//!   channels     what is subscribed to or published to; leaving a channel needs no right
//! ```
//!
//! The user's root selector is checked first, then the other selectors in their order. A call is
//! allowed if one selector allows its command, keys, channels and databases; the rights of two
//! selectors don't add up. If all selectors refuse the call, the error names the check that failed
//! last, over all selectors.
//!
//! A key spec that does not fit the arguments (a number of keys that is too large) finds no keys:
//! the command itself refuses such arguments.
//!
//! Limits: commands without key arguments that walk over the whole keyspace (KEYS, SCAN, FLUSHALL,
//! DBSIZE) are governed by the right to the command and to the database alone, as in Redis.

use crate::acl::selector::{KeyPattern, READ, Selector, WRITE};
use crate::acl::user::User;
use crate::command;
use crate::command::keys;
use crate::command::keys::KeyRef;
use crate::command::table::CommandTable;
use crate::command::{
    ACCESS, Command, DELETE, INSERT, KEYSPACE, KeyFlags, NO_AUTH, PUBSUB, UPDATE,
};
use crate::state::Server;
use crate::util::glob::glob_match;
use crate::util::number::parse_i64;

/// The right that a refused call lacked. The variants of `Reason` are in the order of the checks:
/// the later a check fails, the more of the call was allowed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    Database,
    Command,
    Key,
    Channel,
    /// A login failed because of a wrong name or password. The reason is used for logins in ACL
    /// LOG, never for calls.
    Auth,
    /// A login by TLS certificate failed, because the certificate names no user. The reason is used
    /// for logins in ACL LOG, never for calls.
    Certificate,
}

/// The first check that a refused call failed, and the argument that was not allowed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Denied {
    pub reason: Reason,
    /// The index in argv of the argument that was not allowed; 0 if the command itself was not.
    at: usize,
    /// What the user had no right to: the full name of the command, the key, the channel, or the
    /// database as the call spells it. If the client's current database is not allowed, `object` is
    /// the full name of the command.
    pub object: Vec<u8>,
}

impl Denied {
    fn new(reason: Reason, at: usize, object: &[u8]) -> Denied {
        Denied {
            reason,
            at,
            object: object.to_vec(),
        }
    }

    /// The text of the NOPERM error; with `dry_run`, the arguments of the call, the text of ACL
    /// DRYRUN.
    pub fn text(&self, user: &User, dry_run: Option<&[&[u8]]>) -> Vec<u8> {
        let (verb, kind) = match self.reason {
            Reason::Command | Reason::Auth | Reason::Certificate => ("run", "command"),
            Reason::Key => ("access", "key"),
            Reason::Channel => ("access", "channel"),
            Reason::Database => ("access", "database"),
        };
        let is_database = self.reason == Reason::Database;
        if dry_run.is_none() && verb == "access" {
            let article = if is_database { "" } else { "a " };
            return format!("No permissions to access {article}{kind}").into();
        }
        if let Some(argv) = dry_run.filter(|_| is_database) {
            let middle: &[u8] = b" has no permissions to access database ";
            return [b"User ", &user.name[..], middle, argv[self.at]].concat();
        }
        let parts: [&[u8]; 8] = [
            b"User ",
            &user.name,
            b" has no permissions to ",
            verb.as_bytes(),
            b" the '",
            &self.object,
            b"' ",
            kind.as_bytes(),
        ];
        parts.concat()
    }

    /// The text of the refusal in EXEC's reply, when rights were removed after the command was
    /// queued.
    pub fn text_in_exec(&self) -> &'static str {
        match self.reason {
            Reason::Command => "no permission to execute the command or subcommand",
            Reason::Key => "no permission to touch the specified keys",
            Reason::Channel => "no permission to access one of the channels used as arguments",
            Reason::Database | Reason::Auth | Reason::Certificate => "no permission",
        }
    }
}

/// A call of a command whose rights are to be checked.
pub struct Call<'a> {
    pub table: &'a CommandTable,
    /// The id of the command in the command table.
    pub id: u16,
    pub argv: &'a [&'a [u8]],
    /// The index of the database in which the call would run.
    db: u32,
    /// The server's number of databases.
    databases: usize,
    /// The keys of the call, computed when the first selector needs them.
    keys: Option<Vec<KeyRef>>,
}

impl<'a> Call<'a> {
    /// Describes a call of the command with this id, which would run in `db`.
    pub fn new(server: &'a Server, id: u16, argv: &'a [&'a [u8]], db: u32) -> Call<'a> {
        Call {
            table: &server.commands,
            databases: server.data.dbs.len(),
            id,
            argv,
            db,
            keys: None,
        }
    }

    fn row(&self) -> &'static Command {
        self.table.row(self.id)
    }

    /// The database that the argument at index `at` names; `None` if there is no such database.
    fn database_at(&self, at: usize) -> Option<u32> {
        let db = parse_i64(self.argv.get(at)?)?;
        let exists = |db: &u32| (*db as usize) < self.databases;
        u32::try_from(db).ok().filter(exists)
    }

    fn keys(&mut self) -> &[KeyRef] {
        let row = self.table.row(self.id);
        self.keys.get_or_insert_with(|| {
            let mut found = Vec::new();
            // Arguments in which no keys can be found are refused by the command itself.
            let _ = keys::get_keys(row, self.argv, &mut found);
            found
        })
    }
}

/// Whether the user may make the call; `Err` has the right that was missing.
pub fn check(user: &User, call: &mut Call) -> Result<(), Denied> {
    if user.is_unlimited() {
        return Ok(());
    }
    let mut worst: Option<Denied> = None;
    for selector in user.selectors() {
        let Err(denied) = check_selector(selector, call) else {
            return Ok(());
        };
        let further = |worst: &Denied| (denied.reason, denied.at) > (worst.reason, worst.at);
        if worst.as_ref().is_none_or(further) {
            worst = Some(denied);
        }
    }
    worst.map_or(Ok(()), Err)
}

/// Whether the user may make the call and read every existing key. SORT needs this right for BY and
/// GET patterns.
pub fn check_reading_all_keys(user: &User, call: &mut Call) -> bool {
    user.selectors().iter().any(|selector| {
        let all = |key: &KeyPattern| key.rights & READ != 0 && *key.pattern == *b"*";
        let reads_all = selector
            .keys
            .as_ref()
            .is_none_or(|keys| keys.iter().any(all));
        reads_all && check_selector(selector, call).is_ok()
    })
}

fn check_selector(selector: &Selector, call: &mut Call) -> Result<(), Denied> {
    let row = call.row();
    // The database is checked first: a selector that does not allow it must not add a reason about
    // commands or keys.
    if let Some(allowed) = &selector.databases {
        check_databases(allowed, call)?;
    }
    if !selector.allows_command(call.id)
        && !row.is(NO_AUTH)
        && !selector.allows_first_arg(call.id, call.argv)
    {
        let name = call.table.entry(call.id).fullname.as_bytes();
        return Err(Denied::new(Reason::Command, 0, name));
    }
    if let Some(patterns) = &selector.keys
        && (row.has_keys() || row.get_keys.is_some())
    {
        check_keys(patterns, call)?;
    }
    if let Some(patterns) = &selector.channels
        && row.is(PUBSUB)
    {
        check_channels(patterns, row, call.argv)?;
    }
    Ok(())
}

fn check_keys(patterns: &[KeyPattern], call: &mut Call) -> Result<(), Denied> {
    let argv = call.argv;
    for key in call.keys().iter().filter(|key| key.is_key()) {
        let name = argv[key.pos as usize];
        let needed = rights_needed(key.flags);
        let gives = |p: &KeyPattern| p.rights & needed == needed && glob_match(&p.pattern, name);
        if !patterns.iter().any(gives) {
            return Err(Denied::new(Reason::Key, key.pos as usize, name));
        }
    }
    Ok(())
}

/// The rights that a key needs: R to return or copy the key's data, W to change or delete the key.
/// A command that only checks whether a key exists needs no particular right, but any right to the
/// key.
fn rights_needed(flags: KeyFlags) -> u8 {
    let mut needed = 0;
    if flags & ACCESS != 0 {
        needed |= READ;
    }
    if flags & (INSERT | UPDATE | DELETE) != 0 {
        needed |= WRITE;
    }
    needed
}

/// Whether `patterns` allow a channel, or the pattern of a PSUBSCRIBE. A pattern must be equal to
/// an allowed pattern: a pattern that is only matched by an allowed pattern could cover more
/// channels.
pub fn allows_channel(patterns: &[Box<[u8]>], channel: &[u8], is_pattern: bool) -> bool {
    patterns.iter().any(|allowed| match is_pattern {
        true => **allowed == *channel,
        false => glob_match(allowed, channel),
    })
}

fn check_channels(patterns: &[Box<[u8]>], row: &Command, argv: &[&[u8]]) -> Result<(), Denied> {
    let (channels, is_pattern) = match row.name {
        "publish" | "spublish" => (1..2, false),
        "subscribe" | "ssubscribe" => (1..argv.len(), false),
        "psubscribe" => (1..argv.len(), true),
        _ => return Ok(()),
    };
    for at in channels {
        if !allows_channel(patterns, argv[at], is_pattern) {
            return Err(Denied::new(Reason::Channel, at, argv[at]));
        }
    }
    Ok(())
}

/// Checks the databases that a call names, then the database in which it runs.
fn check_databases(allowed: &[u32], call: &Call) -> Result<(), Denied> {
    let row = call.row();
    let current_denied = || {
        let name = call.table.entry(call.id).fullname.as_bytes();
        Err(Denied::new(Reason::Database, 0, name))
    };
    if row.is(command::ALL_DATABASES) {
        let mut all = 0..call.databases as u32;
        return match all.all(|db| allowed.contains(&db)) {
            true => Ok(()),
            false => current_denied(),
        };
    }
    let mut named = Vec::new();
    if let Some(get_databases) = row.get_databases {
        get_databases(call.argv, &mut named);
    }
    let databases = named.iter().map(|&at| Some((at, call.database_at(at)?)));
    // The command itself refuses an argument that names no database.
    for (at, db) in databases.collect::<Option<Vec<_>>>().unwrap_or_default() {
        if !allowed.contains(&db) {
            return Err(Denied::new(Reason::Database, at, call.argv[at]));
        }
    }
    // SWAPDB uses only the databases that its arguments name, not the client's current database.
    let elsewhere = row.get_databases.is_some() && !row.has_keys();
    if !elsewhere && touches_keyspace(row) && !allowed.contains(&call.db) {
        return current_denied();
    }
    Ok(())
}

/// Whether a user may read `key` in one of `databases`, and so may learn the key's name.
pub fn may_read(user: &User, key: &[u8], databases: &[u32]) -> bool {
    user.selectors().iter().any(|selector| {
        let gives = |p: &KeyPattern| p.rights & READ != 0 && glob_match(&p.pattern, key);
        let key = selector.keys.as_ref();
        let allowed = selector.databases.as_ref();
        key.is_none_or(|patterns| patterns.iter().any(gives))
            && allowed.is_none_or(|allowed| databases.iter().any(|db| allowed.contains(db)))
    })
}

/// Whether a user may read all keys in all databases.
pub fn may_read_everything(user: &User) -> bool {
    let open = |selector: &Selector| selector.keys.is_none() && selector.databases.is_none();
    user.selectors().iter().any(open)
}

fn touches_keyspace(row: &Command) -> bool {
    row.has_keys() || row.is(command::WRITE | command::READONLY) || row.acl & KEYSPACE != 0
}
