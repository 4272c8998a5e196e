//! The fields of a server's reports (INFO and others), with the values that each field has had.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{Conn, Reply, multibulk, parse_reply};

/// Fields that exist once for each database, replica, command, error or listener: a prefix of their
/// names. The rest of the name identifies the database, replica and so on.
const FAMILIES: [&str; 7] = [
    "db",
    "slave",
    "cmdstat_",
    "errorstat_",
    "latency_percentiles_usec_",
    "listener",
    "bigkeys-",
];

/// The values of a field of one instance, such as a server or one of its databases.
type Values = BTreeMap<String, BTreeSet<String>>;

/// All fields, each with its values by instance (server, database and so on).
#[derive(Default)]
pub struct Seen(BTreeMap<String, Values>);

impl Seen {
    /// Reads all reports of a server, which is called `node`.
    pub fn sample(&mut self, node: &str, conn: &mut Conn) {
        self.sample_behind(node, conn, &[]);
        // CLIENT LIST is also sent behind a PING, so that it shows the client's buffers in use.
        conn.send(b"PING\r\nCLIENT LIST\r\n");
        conn.reply();
        let behind = String::from_utf8(conn.reply()).expect("text");
        let list = conn.line("CLIENT LIST");
        for line in list.lines().chain(behind.lines()) {
            for (name, value) in line.split(' ').filter_map(|word| word.split_once('=')) {
                self.add(format!("client {name}"), node, value);
            }
        }
        // Only RESP3 has a type for maps.
        conn.line("HELLO 3");
        self.map(
            node,
            "memory",
            &parse_reply(&conn.cmd(&["MEMORY", "STATS"])),
        );
        let key = "stream";
        for (what, argv) in [
            ("xinfo stream", &["XINFO", "STREAM", key][..]),
            ("xinfo full", &["XINFO", "STREAM", key, "FULL"]),
            ("xinfo groups", &["XINFO", "GROUPS", key]),
            ("xinfo consumers", &["XINFO", "CONSUMERS", key, "group"]),
        ] {
            self.map(node, what, &parse_reply(&conn.cmd(argv)));
        }
        conn.line("HELLO 2");
    }

    /// Sends commands and INFO together, so that they run in the same turn, and adds the fields of
    /// INFO.
    pub fn sample_behind(&mut self, node: &str, conn: &mut Conn, requests: &[&[&str]]) {
        let mut bytes: Vec<u8> = requests.iter().flat_map(|argv| multibulk(argv)).collect();
        bytes.extend(multibulk(&["INFO", "everything", "debug"]));
        conn.send(&bytes);
        requests.iter().for_each(|_| _ = conn.reply());
        let text = conn.reply();
        for line in String::from_utf8_lossy(&text).lines() {
            if let Some((name, value)) = line.split_once(':') {
                self.info(node, name, value);
            }
        }
    }

    fn info(&mut self, node: &str, name: &str, value: &str) {
        if let Some((db, histogram)) = name.split_once("_distrib_") {
            return self.add(format!("db* {histogram}"), &format!("{node} {db}"), value);
        }
        let family = FAMILIES.iter().find(|family| {
            name.starts_with(*family) && value.contains('=') && !value.starts_with('=')
        });
        let Some(family) = family else {
            return self.add(name.into(), node, value);
        };
        for (part, value) in value.split(',').filter_map(|part| part.split_once('=')) {
            let part = part.trim_end_matches(|c: char| c == '.' || c.is_ascii_digit());
            self.add(
                format!("{family}* {part}"),
                &format!("{node} {name}"),
                value,
            );
        }
    }

    /// Adds the fields of a map in a reply, and of the maps in it. The maps of a list count as one
    /// instance.
    fn map(&mut self, node: &str, what: &str, reply: &Reply) {
        let (items, is_map) = match reply {
            Reply::Many(kind, items) => (items, *kind == b'%'),
            _ => return,
        };
        if !is_map {
            return items.iter().for_each(|item| self.map(node, what, item));
        }
        for pair in items.chunks_exact(2) {
            let Reply::Bulk(name) = &pair[0] else {
                continue;
            };
            let name = String::from_utf8_lossy(name);
            let database = name.strip_prefix("db.");
            let is_database = database.is_some_and(|n| n.parse::<u32>().is_ok());
            let field = format!("{what} {}", if is_database { "db" } else { &name });
            match &pair[1] {
                Reply::Many(_, inner) if is_database || is_list_of_maps(inner) => {
                    self.map(node, &field, &pair[1]);
                }
                // A list without elements, such as that of a stream without groups, shows no
                // fields.
                Reply::Many(_, inner) if inner.is_empty() => {}
                value => self.add(field, node, &format!("{value:?}")),
            }
        }
    }

    fn add(&mut self, field: String, instance: &str, value: &str) {
        let values = self.0.entry(field).or_default();
        let values = values.entry(instance.into()).or_default();
        // Two different values of a field prove that the field changes.
        if values.len() < 2 {
            values.insert(value.into());
        }
    }

    /// Whether a field has had two values on one instance.
    pub fn changed(&self, field: &str) -> bool {
        let values = self.0.get(field);
        values.is_some_and(|values| values.values().any(|values| values.len() > 1))
    }

    /// The names of all fields that were sampled.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn is_list_of_maps(items: &[Reply]) -> bool {
    matches!(items.first(), Some(Reply::Many(b'%', _)))
}
