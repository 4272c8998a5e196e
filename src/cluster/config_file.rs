//! Reads and writes nodes.conf, with which a node knows its cluster after a restart, in the form of
//! Redis and Valkey.
//!
//! ```text
//!   <name> <ip>:<port>@<bus port>[,<host name>[,<key>=<value>]...] <flags> <primary or -> <ping sent ms>
//!          <pong received ms> <config epoch> <connected|disconnected> [<slot> | <first>-<last>]...
//!          [[<slot>->-<target>] | [<slot>-<-<source>]]...           only on the line of the node itself
//!   vars currentEpoch <n> lastVoteEpoch <n>
//! ```
//!
//! Keys of the fields behind the host name: `shard-id nodename tcp-port tls-port`, and in Valkey 9
//! `availability-zone` and `client-ipv4 client-ipv6 client-tcp-port client-tls-port`. Redis 7.0
//! writes no `key=value` fields. Fields with keys that aeris does not know are kept and written
//! again.
//!
//! nodes.conf is replaced by a rename, so an incomplete file is a fault of the disk or of an
//! editor. The line `vars` is the last line of nodes.conf and ends with a newline. A nodes.conf
//! without the line `vars` was cut off, and is refused: it would describe a smaller cluster with
//! lower epochs.
//!
//! **Invariant:** [`NodesConf::parse`] turns the text that [`NodesConf::render`] writes into an
//! equal value, and refuses each proper prefix of that text (`tests::no_prefix_of_a_file_is_read`,
//! fuzz target `nodes_conf`).
//! **Limits:** a cluster has at most [`NODES_MAX`] nodes.

use std::collections::HashSet;
use std::fmt::{self, Write};

use super::name::{Ip, Name, is_valid_text};
use super::packet::flag;
use crate::db::slot::SLOTS;

/// The maximum number of nodes of a cluster: the table of slots stores the owner of a slot in two
/// bytes.
pub const NODES_MAX: usize = 65_000;

/// A slot that is being moved to or from this node, as nodes.conf has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenSlot {
    pub slot: u16,
    /// Whether the slot moves to this node; otherwise the slot moves from this node.
    pub importing: bool,
    /// The other node of the slot's move: the source or the target.
    pub node: Name,
}

/// The line of a node in nodes.conf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeLine {
    pub name: Name,
    pub ip: Ip,
    pub port: u16,
    pub bus_port: u16,
    /// The host name of the node; `None` if the field is not there or empty.
    pub host_name: Option<Box<[u8]>>,
    /// The `key=value` fields of the node's line, behind the host name, in order.
    pub fields: Vec<(Box<str>, Box<str>)>,
    /// The flags of the node, as bits of [`flag`].
    pub flags: u16,
    pub primary: Option<Name>,
    pub ping_sent_ms: u64,
    pub pong_received_ms: u64,
    pub config_epoch: u64,
    pub connected: bool,
    /// The node's slots as ranges, both ends included.
    pub slots: Vec<(u16, u16)>,
    pub open: Vec<OpenSlot>,
}

/// The content of nodes.conf.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodesConf {
    pub nodes: Vec<NodeLine>,
    pub current_epoch: u64,
    pub last_vote_epoch: u64,
}

/// The reason why a nodes.conf is refused, with the number of the line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfError {
    /// The number of the invalid line, from 1.
    pub line: usize,
    pub reason: &'static str,
}

impl fmt::Display for ConfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// The words of the node flags in nodes.conf, in the order of Redis and Valkey.
const FLAG_WORDS: [(u16, &str); 8] = [
    (flag::MYSELF, "myself"),
    (flag::PRIMARY, "master"),
    (flag::REPLICA, "slave"),
    (flag::PFAIL, "fail?"),
    (flag::FAIL, "fail"),
    (flag::HANDSHAKE, "handshake"),
    (flag::NO_ADDR, "noaddr"),
    (flag::NO_FAILOVER, "nofailover"),
];

/// The flags of a node as a text such as `myself,master`.
pub fn flag_words(flags: u16) -> String {
    let words = FLAG_WORDS.iter().filter(|(bit, _)| flags & bit != 0);
    let words: Vec<&str> = words.map(|(_, word)| *word).collect();
    if words.is_empty() {
        "noflags".to_string()
    } else {
        words.join(",")
    }
}

impl NodesConf {
    /// Parses the text of a nodes.conf.
    pub fn parse(text: &[u8]) -> Result<NodesConf, ConfError> {
        let at = |line: usize| move |reason| ConfError { line, reason };
        let text = std::str::from_utf8(text).map_err(|_| at(1)("not a text"))?;
        let mut conf = NodesConf::default();
        let mut vars = false;
        let lines = text.split_inclusive('\n').count();
        for (number, line) in (1..).zip(text.split_inclusive('\n')) {
            let at = at(number);
            let Some(line) = line.strip_suffix('\n') else {
                return Err(at("the file was cut"));
            };
            let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
            match words.as_slice() {
                [] => {}
                ["vars", pairs @ ..] => {
                    conf.read_vars(pairs).map_err(at)?;
                    vars = true;
                }
                words => conf.nodes.push(NodeLine::parse(words).map_err(at)?),
            }
        }
        if !vars {
            return Err(at(lines)(
                "the file was cut: its last line, vars, is missing",
            ));
        }
        conf.check().map_err(at(lines))?;
        Ok(conf)
    }

    fn read_vars(&mut self, pairs: &[&str]) -> Result<(), &'static str> {
        for pair in pairs.chunks(2) {
            let [key, value] = pair else {
                return Err("a variable without a value");
            };
            let value = value
                .parse()
                .map_err(|_| "a variable that is not a number")?;
            match *key {
                "currentEpoch" => self.current_epoch = value,
                "lastVoteEpoch" => self.last_vote_epoch = value,
                // A variable of a newer version is ignored.
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that one line has the flag `myself`, and that no node and no slot occurs twice.
    fn check(&self) -> Result<(), &'static str> {
        if self.nodes.len() > NODES_MAX {
            return Err("too many nodes");
        }
        let is_myself = |node: &&NodeLine| node.flags & flag::MYSELF != 0;
        if self.nodes.iter().filter(is_myself).count() != 1 {
            return Err("not exactly one line has the flag myself");
        }
        let mut names = HashSet::new();
        if !self.nodes.iter().all(|node| names.insert(node.name)) {
            return Err("a node has two lines");
        }
        let mut owned = vec![false; SLOTS];
        for &(first, last) in self.nodes.iter().flat_map(|node| &node.slots) {
            for owned in &mut owned[usize::from(first)..=usize::from(last)] {
                if std::mem::replace(owned, true) {
                    return Err("a slot has two owners");
                }
            }
        }
        Ok(())
    }

    /// The text of nodes.conf.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for node in &self.nodes {
            node.render(&mut out);
            out.push('\n');
        }
        let _ = writeln!(
            out,
            "vars currentEpoch {} lastVoteEpoch {}",
            self.current_epoch, self.last_vote_epoch
        );
        out
    }
}

impl NodeLine {
    fn parse(words: &[&str]) -> Result<NodeLine, &'static str> {
        let [
            name,
            address,
            flags,
            primary,
            ping,
            pong,
            epoch,
            link,
            slots @ ..,
        ] = words
        else {
            return Err("a line with less than eight words");
        };
        let number = |word: &str| word.parse::<u64>().map_err(|_| "an invalid number");
        let name = Name::parse(name.as_bytes()).ok_or("an invalid name of a node")?;
        let mut fields = address.split(',');
        let (ip, port, bus_port) = parse_address(fields.next().unwrap_or(""))?;
        let host_name = fields.next().filter(|host| !host.is_empty());
        if host_name.is_some_and(|host| !is_valid_text(host.as_bytes())) {
            return Err("an invalid host name");
        }
        let mut node = NodeLine {
            name,
            ip,
            port,
            bus_port,
            host_name: host_name.map(|host| host.as_bytes().into()),
            fields: fields.map(parse_field).collect::<Result<_, _>>()?,
            flags: parse_flags(flags)?,
            primary: match *primary {
                "-" => None,
                name => Some(Name::parse(name.as_bytes()).ok_or("an invalid primary")?),
            },
            ping_sent_ms: number(ping)?,
            pong_received_ms: number(pong)?,
            config_epoch: number(epoch)?,
            connected: *link == "connected",
            slots: Vec::new(),
            open: Vec::new(),
        };
        if node.primary.is_some() != (node.flags & flag::REPLICA != 0) {
            return Err("a primary and the flag slave do not belong together");
        }
        for word in slots {
            match word.strip_prefix('[') {
                None => node.slots.push(parse_range(word)?),
                Some(open) => node.open.push(parse_open(open)?),
            }
        }
        if !node.open.is_empty() && node.flags & flag::MYSELF == 0 {
            return Err("an open slot of another node");
        }
        Ok(node)
    }

    /// Appends the node's line to `out`, without a newline. CLUSTER NODES replies such lines with
    /// `fields` empty.
    pub fn render(&self, out: &mut String) {
        let (ip, host) = (self.ip.as_str(), self.host_name.as_deref().unwrap_or(b""));
        let _ = write!(out, "{} {ip}:{}@{}", self.name, self.port, self.bus_port);
        if !host.is_empty() || !self.fields.is_empty() {
            let _ = write!(out, ",{}", host.escape_ascii());
        }
        for (key, value) in &self.fields {
            let _ = write!(out, ",{key}={value}");
        }
        let _ = write!(out, " {}", flag_words(self.flags));
        match &self.primary {
            Some(primary) => drop(write!(out, " {primary}")),
            None => out.push_str(" -"),
        }
        let link = if self.connected {
            "connected"
        } else {
            "disconnected"
        };
        let (ping, pong) = (self.ping_sent_ms, self.pong_received_ms);
        let _ = write!(out, " {ping} {pong} {} {link}", self.config_epoch);
        for &(first, last) in &self.slots {
            let _ = match first == last {
                true => write!(out, " {first}"),
                false => write!(out, " {first}-{last}"),
            };
        }
        for open in &self.open {
            let arrow = if open.importing { "-<-" } else { "->-" };
            let _ = write!(out, " [{}{arrow}{}]", open.slot, open.node);
        }
    }
}

/// Parses the address of a node, `ip:port@bus port`; a missing bus port is 10,000 above the port.
fn parse_address(text: &str) -> Result<(Ip, u16, u16), &'static str> {
    const INVALID: &str = "an invalid address";
    let (ip, ports) = text.rsplit_once(':').ok_or(INVALID)?;
    let ip = Ip::parse(ip.as_bytes()).ok_or(INVALID)?;
    let number = |word: &str| word.parse::<u16>().map_err(|_| INVALID);
    match ports.split_once('@') {
        Some((port, bus_port)) => Ok((ip, number(port)?, number(bus_port)?)),
        None => {
            let port = number(ports)?;
            Ok((ip, port, port.checked_add(10_000).ok_or(INVALID)?))
        }
    }
}

fn parse_field(text: &str) -> Result<(Box<str>, Box<str>), &'static str> {
    let (key, value) = text.split_once('=').ok_or("a field without a value")?;
    let is_key = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_value = |byte: u8| byte.is_ascii_graphic() && byte != b'=';
    if key.is_empty() || !key.bytes().all(is_key) || !value.bytes().all(is_value) {
        return Err("an invalid field");
    }
    Ok((key.into(), value.into()))
}

fn parse_flags(text: &str) -> Result<u16, &'static str> {
    let mut flags = 0;
    for word in text.split(',').filter(|word| *word != "noflags") {
        let found = FLAG_WORDS.iter().find(|(_, known)| *known == word);
        flags |= found.ok_or("an unknown flag")?.0;
    }
    Ok(flags)
}

fn parse_slot(text: &str) -> Result<u16, &'static str> {
    let slot = text.parse().ok().filter(|slot| usize::from(*slot) < SLOTS);
    slot.ok_or("an invalid slot")
}

fn parse_range(text: &str) -> Result<(u16, u16), &'static str> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (parse_slot(first)?, parse_slot(last)?);
    if range.0 > range.1 {
        Err("a range of slots that runs down")
    } else {
        Ok(range)
    }
}

/// Parses an open slot behind its `[`: `slot->-target]` or `slot-<-source]`.
fn parse_open(text: &str) -> Result<OpenSlot, &'static str> {
    const INVALID: &str = "an invalid open slot";
    let text = text.strip_suffix(']').ok_or(INVALID)?;
    let (slot, rest) = text.split_once('-').ok_or(INVALID)?;
    let (importing, node) = match (rest.strip_prefix("<-"), rest.strip_prefix(">-")) {
        (Some(node), _) => (true, node),
        (None, Some(node)) => (false, node),
        (None, None) => return Err(INVALID),
    };
    Ok(OpenSlot {
        slot: parse_slot(slot)?,
        importing,
        node: Name::parse(node.as_bytes()).ok_or(INVALID)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nodes.conf files that Redis 7.0 and 8.2 and Valkey 8.0 and 9.1 wrote.
    const GOLDEN: [&str; 4] = [
        include_str!("golden/redis-7.0.conf"),
        include_str!("golden/redis-8.2.conf"),
        include_str!("golden/valkey-8.0.conf"),
        include_str!("golden/valkey-9.1.conf"),
    ];

    #[test]
    fn files_of_real_servers_are_written_as_they_were_read() {
        for file in GOLDEN {
            let conf = NodesConf::parse(file.as_bytes()).expect("a file of a real server");
            assert_eq!(conf.render(), file);
            assert!(conf.nodes.len() >= 4 && conf.current_epoch > 0);
        }
    }

    #[test]
    fn no_prefix_of_a_file_is_read() {
        for file in GOLDEN {
            for len in 0..file.len() {
                assert!(
                    NodesConf::parse(&file.as_bytes()[..len]).is_err(),
                    "{len} bytes"
                );
            }
        }
    }

    #[test]
    fn a_damaged_file_is_refused_with_the_number_of_the_line() {
        let file = GOLDEN[3];
        let cases: [(&str, &str, &str); 9] = [
            ("0-5460", "0-16384", "an invalid slot"),
            ("0-5460", "5460-0", "a range of slots that runs down"),
            ("0-5460", "0-5461", "a slot has two owners"),
            ("myself,", "", "an open slot of another node"),
            (
                " slave ",
                " myself,slave ",
                "not exactly one line has the flag myself",
            ),
            ("@", "", "an invalid address"),
            ("master", "ruler", "an unknown flag"),
            (
                "vars currentEpoch",
                "vars currentEpoch x",
                "a variable that is not a number",
            ),
            (" connected", "", "a line with less than eight words"),
        ];
        for (old, new, reason) in cases {
            let damaged = file.replace(old, new);
            assert_ne!(damaged, file, "{old}");
            let error = NodesConf::parse(damaged.as_bytes()).expect_err(reason);
            assert_eq!(error.reason, reason, "{old} -> {new}");
            assert!(error.line > 0);
        }
    }
}
