//! Access control: users, their rights, and the log of refusals.
//!
//! ```text
//!   Acl.users   0: default   1: alice   2: (free)   3: bob        a client holds the number of its user (UserRef)
//!   user        passwords, selectors                              user.rs
//!   selector    a bit for each command, keys, channels, databases selector.rs, rules.rs
//!
//!   a call ──> armed::ACL? ──no──> allowed                        no user is limited: one predictable branch
//!                  │yes
//!                  └─> user unlimited? ──> its bit, keys, channels    check.rs
//!                                              └─ refused: log.rs, INFO, NOPERM
//! ```
//!
//! Each client has a user from its first byte on: `default`, until AUTH names another. A client
//! without a connection (the AOF being replayed, the link to a primary) acts as the server and is
//! allowed everything. Users come from redis.conf, from the file that `aclfile` names (`file.rs`),
//! or from ACL SETUSER.
//!
//! **Invariant:** `users[0]` is the user `default`, which can't be deleted.
//! **Invariant:** a [`UserRef`] that a client holds names a user that exists: deleting a user
//! disconnects its clients ([`delete`]). Test: `clients_of_a_deleted_user_are_cut_off`.
//! **Invariant:** `armed::ACL` is set exactly when some user is limited: code that changes users
//! calls [`Server::update_armed`]. Test: `the_switch_is_on_while_a_user_is_limited`.
//!
//! Rejected: sharing a user between its clients by counted references. A change of a user would
//! have to find all references to it, and each check of a call would follow one more pointer.

use std::collections::BTreeMap;

use crate::armed;
use crate::client::UserRef;
use crate::client::subscriptions::Subscriptions;
use crate::client::{Client, flag};
use crate::clients::describe::describe_running;
use crate::command::table::CommandTable;
use crate::config::{AclPubsubDefault, Config, Text};
use crate::error::{Error, said};
use crate::execute::disconnect;
use crate::state::Server;
use crate::util::quote::repr;

pub mod check;
pub mod file;
pub mod log;
pub mod rules;
pub mod selector;
pub mod user;

use check::{Call, Denied, Reason};
use log::{Context, Event, FailedLogins, Log};
use rules::Terms;
use user::User;

/// The user of clients that have not authenticated.
pub const DEFAULT_NAME: &[u8] = b"default";

/// The state of access control: all users, and ACL LOG.
pub struct Acl {
    users: Vec<Option<User>>,
    by_name: BTreeMap<Box<[u8]>, u32>,
    pub log: Log,
    failed_logins: FailedLogins,
}

impl Acl {
    /// The users at the start of the server: only `default`, which is allowed everything.
    pub fn new(terms: &Terms) -> Acl {
        let mut acl = Acl {
            users: Vec::new(),
            by_name: BTreeMap::new(),
            log: Log::default(),
            failed_logins: FailedLogins::default(),
        };
        acl.put(User::open(terms, DEFAULT_NAME));
        acl
    }

    /// The context in which ACL rules are parsed: the table of commands, and the setting
    /// `acl-pubsub-default`.
    pub fn terms<'a>(commands: &'a CommandTable, config: &Config) -> Terms<'a> {
        Terms {
            commands,
            all_channels: config.acl_pubsub_default == AclPubsubDefault::Allchannels,
        }
    }

    /// Adds a user, or replaces the user of the same name.
    fn put(&mut self, user: User) {
        let slot = self.by_name.get(&user.name).copied().unwrap_or_else(|| {
            let free = self.users.iter().position(Option::is_none);
            let slot = free.unwrap_or_else(|| {
                self.users.push(None);
                self.users.len() - 1
            }) as u32;
            self.by_name.insert(user.name.clone(), slot);
            slot
        });
        self.users[slot as usize] = Some(user);
    }

    /// The user that a reference names; `None` for the server itself.
    #[inline]
    pub fn user(&self, r: UserRef) -> Option<&User> {
        self.users.get(r.0 as usize)?.as_ref()
    }

    /// The user whose name is `name`; `None` if there is none.
    pub fn lookup(&self, name: &[u8]) -> Option<&User> {
        self.user(self.reference(name)?)
    }

    fn reference(&self, name: &[u8]) -> Option<UserRef> {
        self.by_name.get(name).copied().map(UserRef)
    }

    /// The name of a client's user in CLIENT LIST.
    pub fn name_of(&self, r: UserRef) -> &[u8] {
        self.user(r).map_or(b"(superuser)", |user| &user.name)
    }

    /// All users in the order of their names.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.by_name
            .values()
            .filter_map(|&slot| self.user(UserRef(slot)))
    }

    /// The user `default`, which always exists.
    pub fn default_user(&self) -> &User {
        self.users[0].as_ref().expect("default can't be deleted")
    }

    /// Whether new connections act as the default user without AUTH.
    pub fn default_user_is_open(&self) -> bool {
        let user = self.default_user();
        user.no_password && user.enabled
    }

    /// Whether a client must authenticate before it may run commands.
    pub fn auth_required(&self) -> bool {
        !self.default_user_is_open()
    }

    /// Whether the rights of at least one user are limited.
    pub fn limits_a_user(&self) -> bool {
        self.users().any(|user| !user.is_unlimited())
    }

    /// `requirepass`: sets the only password of the default user; an empty password removes all
    /// passwords.
    pub fn set_default_password(&mut self, terms: &Terms, password: &[u8]) {
        let mut user = self.default_user().clone();
        let rule = match password {
            b"" => b"nopass".to_vec(),
            _ => [b">", password].concat(),
        };
        for rule in [b"resetpass", &rule[..]] {
            let applied = user.apply(terms, rule);
            debug_assert_eq!(applied, Ok(()));
        }
        self.put(user);
    }
}

/// ACL SETUSER, ACL LOAD: adds or replaces a user. Clients of the user with subscriptions that its
/// new rights do not allow are disconnected.
pub fn set_user(server: &mut Server, current: &mut Client, user: User) {
    let r = server.acl.reference(&user.name);
    let was = r.and_then(|r| server.acl.user(r)).cloned();
    server.acl.put(user);
    server.update_armed();
    let Some(user) = r.and_then(|r| server.acl.user(r)).cloned() else {
        return;
    };
    if was.is_some_and(|was| had_no_channels(&was)) {
        return;
    }
    cut_off(server, current, |c| {
        let lost = |subs: &Subscriptions| !may_keep(&user, subs);
        Some(c.user) == r && c.pubsub.as_deref().is_some_and(lost)
    });
}

/// Deletes a user and disconnects its clients. Returns false if no user has this name.
pub fn delete(server: &mut Server, current: &mut Client, name: &[u8]) -> bool {
    let Some(slot) = server.acl.by_name.remove(name) else {
        return false;
    };
    server.acl.users[slot as usize] = None;
    server.update_armed();
    cut_off(server, current, |c| {
        let gone = c.user == UserRef(slot);
        if gone {
            c.user = UserRef::DEFAULT;
            c.authenticated = false;
        }
        gone
    });
    true
}

/// Closes the clients for which `wanted` holds. The client whose command runs gets its reply first.
fn cut_off(server: &mut Server, current: &mut Client, mut wanted: impl FnMut(&mut Client) -> bool) {
    if wanted(current) {
        current.set(flag::CLOSE_AFTER_REPLY);
    }
    for r in server.net.clients.refs() {
        let Some(mut c) = server.net.clients.take_ref(r) else {
            continue;
        };
        if wanted(&mut c) {
            disconnect::kill(server, &mut c);
        }
        server.net.clients.put(c);
    }
}

/// Whether a user had no right to any channel before a change. The clients of such a user keep
/// their subscriptions, which they made before AUTH, as another user.
fn had_no_channels(was: &User) -> bool {
    let none = |channels: &Option<_>| channels.as_ref().is_some_and(Vec::is_empty);
    was.selectors()
        .iter()
        .all(|selector| none(&selector.channels))
}

/// Whether the rights of a user allow all subscriptions in `subscriptions`.
fn may_keep(user: &User, subscriptions: &Subscriptions) -> bool {
    let allows = |name: &[u8], is_pattern| {
        user.selectors().iter().any(|selector| {
            let channels = selector.channels.as_ref();
            channels.is_none_or(|allowed| check::allows_channel(allowed, name, is_pattern))
        })
    };
    subscriptions.patterns.iter().all(|name| allows(name, true))
        && subscriptions
            .channels
            .iter()
            .all(|name| allows(name, false))
        && subscriptions.shards.iter().all(|name| allows(name, false))
}

/// AUTH: logs the client in as the user `name`; WRONGPASS if the user does not exist, is off, or
/// has another password. `argv` is the client's command, for ACL LOG.
pub fn log_in(
    server: &mut Server,
    c: &mut Client,
    argv: &[&[u8]],
    name: &[u8],
    password: &[u8],
) -> Result<(), Error> {
    let found = server.acl.reference(name);
    let user = found.and_then(|r| server.acl.user(r));
    let Some(r) = found.filter(|_| user.is_some_and(|user| user.accepts(password))) else {
        let event = Event {
            reason: Reason::Auth,
            context: context_of(c),
            object: argv[0].to_vec(),
            user: name.into(),
        };
        remember(server, c, argv, event);
        return Err(Error::of(
            "WRONGPASS invalid username-password pair or user is disabled.",
        ));
    };
    c.user = r;
    c.authenticated = true;
    c.set(flag::EVER_AUTHENTICATED);
    Ok(())
}

/// Logs the client in as the first user of `names` that exists and is on. Each earlier name is
/// counted and logged as a refusal.
pub fn log_in_by_certificate(server: &mut Server, c: &mut Client, names: &[Vec<u8>]) {
    for name in names {
        if become_user(server, c, name) {
            return;
        }
        log_refused_name(server, c, name, Reason::Certificate);
    }
}

/// Logs the client of a unix socket in as the user `name`, if that user exists and is on.
pub fn log_in_by_socket(server: &mut Server, c: &mut Client, name: &[u8]) {
    if !become_user(server, c, name) {
        log_refused_name(server, c, name, Reason::Auth);
    }
}

fn become_user(server: &Server, c: &mut Client, name: &[u8]) -> bool {
    let found = server.acl.reference(name);
    let user = found.and_then(|r| server.acl.user(r));
    let Some(r) = found.filter(|_| user.is_some_and(|user| user.enabled)) else {
        return false;
    };
    c.user = r;
    c.authenticated = true;
    c.set(flag::EVER_AUTHENTICATED);
    true
}

fn log_refused_name(server: &mut Server, c: &Client, name: &[u8], reason: Reason) {
    let event = Event {
        reason,
        context: context_of(c),
        object: Vec::new(),
        user: name.into(),
    };
    remember(server, c, &[], event);
}

fn context_of(c: &Client) -> Context {
    if c.has(flag::SCRIPT) {
        Context::Script
    } else if c.has(flag::MULTI | flag::IN_EXEC) {
        Context::Multi
    } else {
        Context::TopLevel
    }
}

/// Counts a refused call or login in the statistics and adds it to ACL LOG.
fn remember(server: &mut Server, c: &Client, argv: &[&[u8]], event: Event) {
    let stats = &mut server.stats;
    *match event.reason {
        Reason::Command => &mut stats.acl_denied_cmd,
        Reason::Key => &mut stats.acl_denied_key,
        Reason::Channel => &mut stats.acl_denied_channel,
        Reason::Database => &mut stats.acl_denied_db,
        Reason::Auth => &mut stats.acl_denied_auth,
        Reason::Certificate => &mut stats.acl_denied_certificate,
    } += 1;
    if matches!(event.reason, Reason::Auth | Reason::Certificate) {
        report_failed_login(server, c, &event.user);
    }
    let mut log = std::mem::take(&mut server.acl.log);
    let (now_ms, max) = (server.clock.now_ms, server.config.acllog_max_len);
    log.add(event, now_ms, max, || describe_running(server, c, argv));
    server.acl.log = log;
}

/// The maximum bytes of a refused name in the server's log; a client could fill the log with longer
/// names.
const LOGGED_NAME_MAX: usize = 64;

/// Writes a failed login to the server's log, at most one line a second.
fn report_failed_login(server: &mut Server, c: &Client, name: &[u8]) {
    let Some(others) = server.acl.failed_logins.add(server.clock.now_ms) else {
        return;
    };
    let shown = &name[..name.len().min(LOGGED_NAME_MAX)];
    let peer = &c.peer;
    let others = match others {
        0 => String::new(),
        count => format!(", and {count} more since the last such line"),
    };
    ::log::warn!("Failed login as {} from {peer}{others}", repr(shown));
}

/// Whether a user may call a command in the database `db`, for ACL DRYRUN and
/// `redis.acl_check_cmd`: a refusal is neither counted nor logged.
pub fn check_without_log(
    server: &Server,
    r: UserRef,
    db: u32,
    argv: &[&[u8]],
    id: u16,
) -> Result<(), Denied> {
    match server.acl.user(r) {
        Some(user) => check::check(user, &mut Call::new(server, id, argv, db)),
        None => Ok(()),
    }
}

/// Whether the client's user may call the command with the arguments `argv`. A refusal is counted,
/// logged in ACL LOG and returned as a NOPERM error.
#[inline]
pub fn check_command(
    server: &mut Server,
    c: &Client,
    argv: &[&[u8]],
    id: u16,
) -> Result<(), Error> {
    if server.armed & armed::ACL == 0 {
        return Ok(());
    }
    check_limited(server, c, c, argv, id)
}

/// Checks a command of a script, as [`check_command`] does. `caller` is the client that runs the
/// script and that ACL LOG describes.
pub fn check_script(
    server: &mut Server,
    caller: &Client,
    script: &Client,
    argv: &[&[u8]],
    id: u16,
) -> Result<(), Error> {
    if server.armed & armed::ACL == 0 {
        return Ok(());
    }
    check_limited(server, caller, script, argv, id)
}

fn check_limited(
    server: &mut Server,
    caller: &Client,
    c: &Client,
    argv: &[&[u8]],
    id: u16,
) -> Result<(), Error> {
    let db = database_of(c);
    let Err(denied) = check_without_log(server, c.user, db, argv, id) else {
        return Ok(());
    };
    Err(refuse(server, caller, c, argv, denied))
}

/// The database in which a client's command will run: inside MULTI the database that a queued
/// SELECT chooses, unless the transaction will not run.
fn database_of(c: &Client) -> u32 {
    let runs = c.multi.as_ref().filter(|_| !c.has(flag::DIRTY_EXEC));
    runs.and_then(|state| state.db).unwrap_or(c.db)
}

#[cold]
fn refuse(
    server: &mut Server,
    caller: &Client,
    c: &Client,
    argv: &[&[u8]],
    denied: Denied,
) -> Error {
    let text = match server.acl.user(c.user) {
        Some(user) => said(&denied.text(user, None)),
        None => String::new(),
    };
    let event = Event {
        reason: denied.reason,
        context: context_of(c),
        object: denied.object.clone(),
        user: server.acl.name_of(c.user).into(),
    };
    remember(server, caller, argv, event);
    Error::new(if c.has(flag::SCRIPT) {
        format!("ERR ACL failure in script: {text}")
    } else if c.has(flag::IN_EXEC) {
        format!(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This \
             command is no longer allowed for the following reason: {}",
            denied.text_in_exec()
        )
    } else {
        format!("NOPERM {text}")
    })
}

/// Whether the client's user may call the command and also read every existing key.
pub fn may_read_all_keys(server: &Server, c: &Client, argv: &[&[u8]], id: u16) -> bool {
    let call = &mut Call::new(server, id, argv, c.db);
    let user = server.acl.user(c.user);
    user.is_none_or(|user| check::check_reading_all_keys(user, call))
}

/// The users as `user` lines of redis.conf; no lines if the users are in an `aclfile`.
pub fn config_lines(server: &Server) -> Vec<Vec<Text>> {
    if !server.config.aclfile.is_empty() {
        return Vec::new();
    }
    let line = |user: &User| {
        let rules = user.describe();
        let mut words = vec![Text::from(&user.name[..])];
        words.extend(rules.split(|&b| b == b' ').map(Text::from));
        words
    };
    server.acl.users().map(line).collect()
}

#[cfg(test)]
mod tests;
