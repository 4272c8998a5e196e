//! Users in files: the `user` lines of redis.conf, and the file that `aclfile` names.
//!
//! ```text
//!   user alice on #2bd8… ~cache:* resetchannels -@all +@read
//!   user default on nopass ~* &* +@all
//! ```
//!
//! Users are defined either in the ACL file or in redis.conf: with an `aclfile` there must be no
//! `user` lines in redis.conf. ACL LOAD applies the whole file or nothing of it, and its error
//! lists all faults of the file. ACL LOAD deletes users that are not in the file; `default`, if it
//! is not in the file, gets its initial rights. ACL SAVE writes a temporary file and renames it, so
//! that a crash leaves either the old file or the new one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::acl::rules::{RuleError, Terms, is_user_name, merge_selectors};
use crate::acl::user::User;
use crate::acl::{self, Acl, DEFAULT_NAME};
use crate::client::Client;
use crate::config::Text;
use crate::error::said;
use crate::state::Server;
use crate::sys::{self, error_text};
use crate::texts;

/// The most bytes of an ACL file. A longer file is refused: `aclfile` names a data file by mistake.
const MAX_BYTES: u64 = 64 << 20;

/// Checks a `user` line while redis.conf is read: everything except whether its commands exist.
/// `Err` is an error message for the administrator.
pub fn check_line(terms: &Terms, args: &[Text]) -> Result<(), String> {
    let words: Vec<&[u8]> = args.iter().map(|arg| &arg[..]).collect();
    let error = |rule: &[u8], text: &str| {
        let rule = String::from_utf8_lossy(rule);
        Err(format!("Error in user declaration '{rule}': {text}"))
    };
    let (name, rules) = words.split_first().ok_or("a user has a name")?;
    let rules = match merge_selectors(rules) {
        Ok(rules) => rules,
        Err(at) => return error(rules[at], "Unmatched parenthesis in acl selector"),
    };
    let mut user = User::new(terms, name);
    for rule in rules {
        match user.apply(terms, &rule) {
            Ok(()) | Err(RuleError::Unknown) => {}
            Err(e) => return error(&rule, e.text()),
        }
    }
    Ok(())
}

/// Loads the users at start, from redis.conf or from `aclfile`. `Err` is an error message for the
/// server's log.
pub fn load_at_start(server: &mut Server) -> Result<(), String> {
    if server.config.aclfile.is_empty() {
        return load_config_lines(server);
    }
    if !server.config.user.is_empty() {
        return Err(server.config.text(texts::LOG_TWO_SOURCES_OF_USERS).into());
    }
    let words = server.config.words();
    let users = read(server).map_err(|e| texts::LOG_ACL_ERRORS.fill(words, &[("reason", &e)]))?;
    users.into_values().for_each(|user| server.acl.put(user));
    server.update_armed();
    Ok(())
}

fn load_config_lines(server: &mut Server) -> Result<(), String> {
    let terms = Acl::terms(&server.commands, &server.config);
    for line in &server.config.user {
        let (name, rules) = line.split_first().ok_or("a user has a name")?;
        if !is_user_name(name) {
            return Err("Spaces not allowed in ACL usernames".into());
        }
        let words: Vec<&[u8]> = rules.iter().map(|rule| &rule[..]).collect();
        let rules = merge_selectors(&words)
            .map_err(|at| format!("Unmatched parenthesis in '{}'", rules[at]))?;
        let mut user = User::new(&terms, name);
        user.apply_all(&terms, &rules).map_err(|(at, e)| {
            format!(
                "Error loading ACL rule '{}' for the user named '{name}': {}",
                String::from_utf8_lossy(&rules[at]),
                e.text()
            )
        })?;
        server.acl.put(user);
    }
    server.update_armed();
    Ok(())
}

/// ACL LOAD: the users of the file replace the existing ones. `Err` lists all faults of the file;
/// if the file has a fault, no user is changed.
pub fn load(server: &mut Server, current: &mut Client) -> Result<(), String> {
    let users = read(server)?;
    let before: Vec<Box<[u8]>> = server.acl.users().map(|user| user.name.clone()).collect();
    for gone in before.iter().filter(|name| !users.contains_key(*name)) {
        acl::delete(server, current, gone);
    }
    for user in users.into_values() {
        acl::set_user(server, current, user);
    }
    Ok(())
}

type Users = BTreeMap<Box<[u8]>, User>;

/// Reads the users of the ACL file; `default` is added if the file lacks it. `Err` lists all faults
/// of the file.
fn read(server: &Server) -> Result<Users, String> {
    let path = &server.config.aclfile;
    let text = File::open(path.as_path())
        .and_then(|file| sys::read_at_most(file, MAX_BYTES))
        .map_err(|e| {
            format!(
                "Error loading ACLs, opening file '{path}': {}",
                error_text(&e)
            )
        })?;
    let terms = Acl::terms(&server.commands, &server.config);
    parse(&terms, &path.to_str_lossy(), &text)
}

fn parse(terms: &Terms, path: &str, text: &[u8]) -> Result<Users, String> {
    let mut users = Users::new();
    let mut errors = String::new();
    for (at, line) in text.split(|&b| b == b'\n').enumerate() {
        let line = line.trim_ascii();
        if !line.is_empty()
            && let Err(error) = parse_line(
                terms,
                &mut users,
                &format!("{path}:{}", at + 1),
                at + 1,
                line,
            )
        {
            errors += &error;
        }
    }
    if !errors.is_empty() {
        errors += "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";
        return Err(errors);
    }
    users
        .entry(DEFAULT_NAME.into())
        .or_insert_with(|| User::open(terms, DEFAULT_NAME));
    Ok(users)
}

fn parse_line(
    terms: &Terms,
    users: &mut Users,
    place: &str,
    number: usize,
    line: &[u8],
) -> Result<(), String> {
    let words: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let [b"user", name, rules @ ..] = &words[..] else {
        return Err(format!(
            "{place} should start with user keyword followed by the username. "
        ));
    };
    let shown = said(name);
    if users.contains_key(*name) {
        return Err(format!(
            "WARNING: Duplicate user '{shown}' found on line {number}. "
        ));
    }
    if !is_user_name(name) {
        return Err(format!(
            "'{place}: username '{shown}' contains invalid characters. "
        ));
    }
    let rules = merge_selectors(rules)
        .map_err(|_| format!("{place}: Unmatched parenthesis in selector definition."))?;
    let mut user = User::new(terms, name);
    let mut errors = String::new();
    let mut malformed = false;
    for rule in &rules {
        match user.apply(terms, rule) {
            Ok(()) => {}
            Err(RuleError::Unknown) => {
                let rule = said(rule);
                errors += &format!(
                    "{place}: Error in applying operation '{rule}': {}. ",
                    RuleError::Unknown.text()
                );
            }
            // Of a line's malformed rules only the first is reported, as the first malformed rule
            // may have caused the others.
            Err(_) if malformed => {}
            Err(e) => {
                malformed = true;
                errors += &format!("{place}: {}. ", e.text());
            }
        }
    }
    users.insert((*name).into(), user);
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// ACL SAVE: writes all users to the file that `aclfile` names.
pub fn save(server: &Server) -> io::Result<()> {
    let mut text = Vec::new();
    for user in server.acl.users() {
        let line = [b"user ", &user.name[..], b" ", &user.describe()[..], b"\n"];
        text.extend_from_slice(&line.concat());
    }
    let path = server.config.aclfile.as_path();
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".tmp-{}", server.run.pid));
    let temporary = PathBuf::from(temporary);
    let replaced = replace(path, &temporary, &text);
    if replaced.is_err() {
        // An error of the removal is ignored: the temporary file may not exist.
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

fn replace(path: &Path, temporary: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    if let Ok(old) = fs::metadata(path) {
        file.set_permissions(old.permissions())?;
    }
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}
