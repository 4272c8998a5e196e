//! Selects the clients that CLIENT LIST shows and CLIENT KILL kills.
//!
//! A client must match all options of the filter; most options can be negated with `NOT-`. If an
//! option is repeated, its last value counts, but repeated IDs are collected.

use std::collections::HashSet;

use crate::client::{Client, flag};
use crate::clients::describe;
use crate::config::ClientClass;
use crate::error::{Error, said};
use crate::state::Server;
use crate::texts::Words;
use crate::util::number::parse_i64;

/// The values of the option TYPE: the classes of clients that output limits have, and the link to a
/// primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClientType {
    Normal,
    Replica,
    Pubsub,
    Primary,
}

impl ClientType {
    fn parse(words: Words, text: &[u8]) -> Result<ClientType, Error> {
        match text.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(ClientType::Normal),
            b"slave" | b"replica" => Ok(ClientType::Replica),
            b"pubsub" => Ok(ClientType::Pubsub),
            b"master" => Ok(ClientType::Primary),
            b"primary" if words == Words::Valkey => Ok(ClientType::Primary),
            _ => Err(Error::new(format!(
                "ERR Unknown client type '{}'",
                said(text)
            ))),
        }
    }

    fn of(c: &Client) -> ClientType {
        if c.has(flag::PRIMARY) {
            return ClientType::Primary;
        }
        match c.class() {
            ClientClass::Normal => ClientType::Normal,
            ClientClass::Replica => ClientType::Replica,
            ClientClass::Pubsub => ClientType::Pubsub,
        }
    }
}

/// One property that a filter compares, with the value of its option.
#[derive(PartialEq, Eq, Debug)]
enum Property<'a> {
    Id(HashSet<u64>),
    Type(ClientType),
    Addr(&'a [u8]),
    Laddr(&'a [u8]),
    Ip(&'a [u8]),
    User(&'a [u8]),
    Name(&'a [u8]),
    LibName(&'a [u8]),
    LibVer(&'a [u8]),
    Db(u32),
    /// The client's flags in CLIENT LIST contain all letters of the value.
    Flags(&'a [u8]),
    Capa(&'a [u8]),
    /// The client connected at least this number of seconds ago.
    MaxAge(i64),
    /// The client sent its last request at least this number of seconds ago.
    Idle(i64),
}

/// The parsed options of CLIENT LIST or CLIENT KILL.
#[derive(Default)]
pub struct Filter<'a> {
    /// The properties to compare; for each, true if a client must have the property, false if it
    /// must not (`NOT-`).
    properties: Vec<(Property<'a>, bool)>,
    /// The value of the option SKIPME; `None` if the option was not given.
    pub skip_me: Option<bool>,
}

impl<'a> Filter<'a> {
    /// The filter of CLIENT KILL ip:port, which may also kill the calling client.
    pub fn by_address(address: &'a [u8]) -> Filter<'a> {
        Filter {
            properties: vec![(Property::Addr(address), true)],
            skip_me: Some(false),
        }
    }

    /// Parses all options of CLIENT LIST. Redis has only ID, followed by ids, and a single TYPE:
    /// with `extended-redis-compatibility yes`, options that begin with ID or TYPE fail as in
    /// Redis, and an id may be any number.
    pub fn parse_for_list(server: &Server, argv: &[&'a [u8]]) -> Result<Filter<'a>, Error> {
        if server.config.words() == Words::Valkey {
            return Filter::parse_options(server, argv, 1);
        }
        match argv {
            [option, _, ..] if option.eq_ignore_ascii_case(b"id") => {
                Filter::parse_options(server, argv, i64::MIN)
                    .map_err(|_| Error::of("ERR Invalid client ID"))
            }
            [option, _, _, ..] if option.eq_ignore_ascii_case(b"type") => {
                Filter::parse_options(server, argv, 1).map_err(|_| Error::SYNTAX)
            }
            _ => Filter::parse_options(server, argv, 1),
        }
    }

    /// Parses all options of CLIENT KILL.
    pub fn parse(server: &Server, argv: &[&'a [u8]]) -> Result<Filter<'a>, Error> {
        Filter::parse_options(server, argv, 1)
    }

    /// Parses the options of CLIENT LIST or CLIENT KILL. An id must be at least `lowest_id`.
    fn parse_options(
        server: &Server,
        argv: &[&'a [u8]],
        lowest_id: i64,
    ) -> Result<Filter<'a>, Error> {
        let mut filter = Filter::default();
        let mut rest = argv;
        while let [option, tail @ ..] = rest {
            let option = option.to_ascii_lowercase();
            let [value, after @ ..] = tail else {
                return Err(Error::SYNTAX);
            };
            rest = after;
            if option == b"skipme" {
                filter.skip_me = Some(parse_yes_no(value)?);
                continue;
            }
            let (name, wanted) = match option.strip_prefix(b"not-") {
                // MAXAGE and IDLE are limits and can't be negated.
                Some(b"maxage" | b"idle") => return Err(Error::SYNTAX),
                Some(name) => (name, false),
                None => (option.as_slice(), true),
            };
            let property = if name == b"id" {
                let (ids, after) = parse_ids(server, tail, lowest_id)?;
                rest = after;
                Property::Id(ids)
            } else {
                parse_property(server, name, value)?
            };
            filter.add(property, wanted);
        }
        Ok(filter)
    }

    fn add(&mut self, property: Property<'a>, wanted: bool) {
        let kind = std::mem::discriminant(&property);
        let said = self
            .properties
            .iter_mut()
            .find(|(other, sense)| std::mem::discriminant(other) == kind && *sense == wanted);
        match (said, property) {
            (Some((Property::Id(old), _)), Property::Id(more)) => old.extend(more),
            (Some((old, _)), property) => *old = property,
            (None, property) => self.properties.push((property, wanted)),
        }
    }

    /// Whether a client matches all properties of the filter.
    pub fn matches(&self, server: &Server, c: &Client) -> bool {
        self.properties
            .iter()
            .all(|(property, wanted)| property.holds(server, c) == *wanted)
    }
}

fn parse_yes_no(value: &[u8]) -> Result<bool, Error> {
    if value.eq_ignore_ascii_case(b"yes") {
        Ok(true)
    } else if value.eq_ignore_ascii_case(b"no") {
        Ok(false)
    } else {
        Err(Error::SYNTAX)
    }
}

/// Parses one or more ids of clients, up to the first argument that is no number. The second result
/// is the list of arguments behind the ids.
fn parse_ids<'s, 'a>(
    server: &Server,
    argv: &'s [&'a [u8]],
    lowest: i64,
) -> Result<(HashSet<u64>, &'s [&'a [u8]]), Error> {
    const RANGE: Error = Error::of("ERR client-id should be greater than 0");
    let mut ids = HashSet::new();
    let mut rest = argv;
    while let [text, after @ ..] = rest
        && let Some(id) = parse_i64(text)
    {
        if id < lowest {
            return Err(RANGE);
        }
        ids.insert(id as u64);
        rest = after;
    }
    match server.config.words() {
        _ if !ids.is_empty() => Ok((ids, rest)),
        Words::Redis => Err(RANGE),
        Words::Valkey => Err(Error::SYNTAX),
    }
}

fn parse_property<'a>(
    server: &Server,
    name: &[u8],
    value: &'a [u8],
) -> Result<Property<'a>, Error> {
    Ok(match name {
        b"type" => Property::Type(ClientType::parse(server.config.words(), value)?),
        b"addr" => Property::Addr(value),
        b"laddr" => Property::Laddr(value),
        b"ip" => Property::Ip(value),
        b"user" if server.acl.lookup(value).is_some() => Property::User(value),
        b"user" => {
            return Err(Error::new(format!("ERR No such user '{}'", said(value))));
        }
        b"name" => Property::Name(value),
        b"lib-name" => Property::LibName(value),
        b"lib-ver" => Property::LibVer(value),
        b"db" => {
            let index = parse_i64(value).ok_or(Error::NOT_INTEGER)?;
            match u32::try_from(index) {
                Ok(index) if (index as usize) < server.data.dbs.len() => Property::Db(index),
                _ => {
                    let last = server.data.dbs.len() - 1;
                    return Err(Error::new(format!(
                        "ERR DB number should be between 0 and {last}"
                    )));
                }
            }
        }
        b"flags" if value.iter().all(|b| describe::is_flag_letter(*b)) => Property::Flags(value),
        b"flags" => return Err(Error::of("ERR Unknown flags found in the provided filter")),
        b"capa" if value.iter().all(|b| *b == b'r') => Property::Capa(value),
        b"capa" => return Err(Error::of("ERR Unknown capa found in the provided filter")),
        b"maxage" => Property::MaxAge(parse_seconds(value, "maxage")?),
        b"idle" => Property::Idle(parse_seconds(value, "idle")?),
        _ => return Err(Error::SYNTAX),
    })
}

fn parse_seconds(value: &[u8], what: &str) -> Result<i64, Error> {
    match parse_i64(value) {
        None => Err(Error::new(format!(
            "ERR {what} is not an integer or out of range"
        ))),
        Some(seconds) if seconds <= 0 => {
            Err(Error::new(format!("ERR {what} should be greater than 0")))
        }
        Some(seconds) => Ok(seconds),
    }
}

impl Property<'_> {
    fn holds(&self, server: &Server, c: &Client) -> bool {
        let same = |own: Option<&[u8]>, wanted: &[u8]| own.unwrap_or_default() == wanted;
        let now = server.clock.now_ms;
        match self {
            Property::Id(ids) => ids.contains(&c.id),
            Property::Type(kind) => ClientType::of(c) == *kind,
            Property::Addr(addr) => c.peer.as_bytes() == *addr,
            Property::Laddr(addr) => c.local.as_bytes() == *addr,
            Property::Ip(ip) => peer_ip(&c.peer).as_bytes() == *ip,
            Property::User(name) => server.acl.name_of(c.user) == *name,
            Property::Name(name) => same(c.name.as_deref(), name),
            Property::LibName(name) => same(c.lib_name.as_deref(), name),
            Property::LibVer(version) => same(c.lib_ver.as_deref(), version),
            Property::Db(index) => c.db == *index,
            Property::Flags(letters) => {
                let own = describe::flags_text(c);
                letters.iter().all(|letter| own.as_bytes().contains(letter))
            }
            Property::Capa(letters) => letters.is_empty() || c.has(flag::CAPA_REDIRECT),
            Property::MaxAge(seconds) => (now - c.created_ms) / 1000 >= *seconds,
            Property::Idle(seconds) => (now - c.last_interaction_ms) / 1000 >= *seconds,
        }
    }
}

/// The IP address in the address of a client: `127.0.0.1` of `127.0.0.1:4711`, `::1` of
/// `[::1]:4711`.
fn peer_ip(peer: &str) -> &str {
    let host = peer.rsplit_once(':').map_or(peer, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn server() -> Server {
        Server::new(Config::default(), Vec::new())
    }

    fn parse(line: &str) -> Result<Filter<'_>, Error> {
        let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        Filter::parse(&server(), &argv)
    }

    fn refusal(line: &str) -> String {
        parse(line)
            .err()
            .map_or("accepted".into(), |e| e.text().to_string())
    }

    #[test]
    fn each_option_is_checked() {
        assert_eq!(refusal("id 10 wrong"), "ERR syntax error");
        assert_eq!(refusal("id x"), "ERR client-id should be greater than 0");
        assert_eq!(refusal("id 0"), "ERR client-id should be greater than 0");
        assert_eq!(refusal("type x"), "ERR Unknown client type 'x'");
        assert_eq!(refusal("user x"), "ERR No such user 'x'");
        assert_eq!(refusal("skipme x"), "ERR syntax error");
        assert_eq!(
            refusal("maxage x"),
            "ERR maxage is not an integer or out of range"
        );
        assert_eq!(refusal("maxage 0"), "ERR maxage should be greater than 0");
        assert_eq!(refusal("not-maxage 1"), "ERR syntax error");
        assert_eq!(refusal("db 16"), "ERR DB number should be between 0 and 15");
        assert_eq!(refusal("name"), "ERR syntax error");
        assert_eq!(
            refusal("id 1 2 type normal not-id 3 db 1 skipme yes"),
            "accepted"
        );
    }

    #[test]
    fn options_are_combined_with_and_and_can_be_negated() {
        let server = server();
        let mut c = Client::detached(7, server.clock.now_ms);
        c.user = crate::client::UserRef::DEFAULT;
        c.peer = "[::1]:4711".into();
        c.name = Some(b"worker"[..].into());
        c.db = 3;
        let yes = |line| assert!(parse(line).unwrap().matches(&server, &c), "{line}");
        let no = |line| assert!(!parse(line).unwrap().matches(&server, &c), "{line}");
        yes("id 6 7");
        yes("id 6 id 7");
        no("not-id 7");
        yes("addr [::1]:4711 ip ::1 name worker db 3 flags N user default");
        yes("not-name other not-db 2 not-flags b");
        no("db 3 name other");
        yes("name other name worker");
        no("not-type normal");
        no("idle 5");
        yes("not-capa r");
        no("capa r");
    }
}
