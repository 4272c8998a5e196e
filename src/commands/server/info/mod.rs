//! INFO: figures of the server, as lines `name:value` under headings.
//!
//! ```text
//!   # Server                one file for each family of sections:
//!   redis_version:7.2.4       process   server, clients, cpu, tls
//!   ...                       memory    memory
//!                             data      persistence, replication, modules, cluster, keyspace, keysizes
//!   # Clients                 stats     stats, hotkeys, bigkeys, debug
//!   ...                       commands  commandstats, errorstats, latencystats
//! ```
//!
//! Tools parse these lines, so names and order are those of Redis 7.2; fields that Valkey 8 and
//! Redis 8 added stand where those servers show them. Client libraries recognise servers by
//! `server_name`, and some refuse unknown names, so that field is omitted; `aeris_version`
//! identifies this server.
//!
//! **Invariant:** each section appears once, in the order of [`SECTIONS`], for any arguments
//! (`sections_come_once_and_in_order`).

mod commands;
mod data;
mod memory;
mod process;
mod stats;

use std::cell::OnceCell;
use std::fmt::{Display, Write};

use crate::client::Client;
use crate::observe::memory_report::Census;
use crate::state::Server;
use crate::util::byte_size;

/// The data from which the sections of INFO are written.
struct View<'a> {
    server: &'a Server,
    client: &'a Client,
    census: OnceCell<Census>,
}

impl View<'_> {
    /// The counts and sums over all clients, computed once for all sections of INFO.
    fn census(&self) -> &Census {
        self.census
            .get_or_init(|| Census::take(self.server, self.client))
    }
}

/// The text to which a section writes its fields.
#[derive(Default)]
struct Report(String);

impl Report {
    fn field(&mut self, name: &str, value: impl Display) {
        // Writing to a String can't fail.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// Writes a field with a fixed number of decimals.
    fn decimal(&mut self, name: &str, value: f64, digits: usize) {
        let _ = write!(self.0, "{name}:{value:.digits$}\r\n");
    }

    /// Writes two fields: `name` with the number of bytes, and `name_human` with a rounded one such
    /// as `1.50M`.
    fn bytes(&mut self, name: &str, bytes: usize) {
        let human = byte_size::format_bytes_human(bytes as u64);
        let _ = write!(self.0, "{name}:{bytes}\r\n{name}_human:{human}\r\n");
    }
}

struct Section {
    name: &'static str,
    title: &'static str,
    shown: Shown,
    /// Returns whether INFO has the section; a section that does not exist is left out even if INFO
    /// names it.
    exists: fn(&Server) -> bool,
    write: fn(&View, &mut Report),
}

/// The arguments of INFO with which a section is shown: a later variant is shown in more cases.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shown {
    /// The section is shown if INFO names it.
    Named,
    /// The section is shown if INFO names it, and with `all`.
    All,
    Default,
}

const fn section(
    name: &'static str,
    title: &'static str,
    shown: Shown,
    write: fn(&View, &mut Report),
) -> Section {
    Section {
        name,
        title,
        shown,
        exists: |_| true,
        write,
    }
}

impl Section {
    const fn when(mut self, exists: fn(&Server) -> bool) -> Section {
        self.exists = exists;
        self
    }
}

const SECTIONS: [Section; 18] = [
    section("server", "Server", Shown::Default, process::server),
    section("clients", "Clients", Shown::Default, process::clients),
    section("memory", "Memory", Shown::Default, memory::memory),
    section(
        "persistence",
        "Persistence",
        Shown::Default,
        data::persistence,
    ),
    section("stats", "Stats", Shown::Default, stats::stats),
    section(
        "replication",
        "Replication",
        Shown::Default,
        data::replication,
    ),
    section("cpu", "CPU", Shown::Default, process::cpu),
    section("modules", "Modules", Shown::Default, data::modules),
    section(
        "commandstats",
        "Commandstats",
        Shown::All,
        commands::commandstats,
    ),
    section(
        "errorstats",
        "Errorstats",
        Shown::Default,
        commands::errorstats,
    ),
    section(
        "latencystats",
        "Latencystats",
        Shown::All,
        commands::latencystats,
    ),
    section("tls", "TLS", Shown::All, process::tls),
    section("cluster", "Cluster", Shown::Default, data::cluster),
    section("keyspace", "Keyspace", Shown::Default, data::keyspace),
    section("keysizes", "Keysizes", Shown::Default, data::keysizes),
    section("hotkeys", "Hotkeys", Shown::Default, stats::hotkeys)
        .when(|server| server.hotkeys.session.is_some() || server.hotkeys.monitor.is_some()),
    section("bigkeys", "Bigkeys", Shown::Default, stats::bigkeys)
        .when(|server| server.bigkeys.is_some()),
    section("debug", "Debug", Shown::Named, stats::debug),
];

/// The text of INFO. `wanted` has names of sections or of sets of sections (such as `all`); unknown
/// names are ignored. `client` is the client of the command INFO, which is moved out of the table
/// of clients.
pub fn info(server: &mut Server, client: &Client, wanted: &[&[u8]]) -> String {
    server.note_peak_memory();
    describe(server, client, wanted)
}

/// The text of INFO, made without changing the server, for a crash report.
pub fn describe(server: &Server, client: &Client, wanted: &[&[u8]]) -> String {
    let view = View {
        server,
        client,
        census: OnceCell::new(),
    };
    let mut report = Report::default();
    let shown = |section: &&Section| (section.exists)(server) && is_wanted(section, wanted);
    for section in SECTIONS.iter().filter(shown) {
        if !report.0.is_empty() {
            report.0.push_str("\r\n");
        }
        let _ = write!(report.0, "# {}\r\n", section.title);
        (section.write)(&view, &mut report);
    }
    report.0
}

fn is_wanted(section: &Section, wanted: &[&[u8]]) -> bool {
    let by = |said: &[u8]| match said.to_ascii_lowercase().as_slice() {
        b"default" => section.shown >= Shown::Default,
        b"all" | b"everything" => section.shown >= Shown::All,
        name => name == section.name.as_bytes(),
    };
    if wanted.is_empty() {
        by(b"default")
    } else {
        wanted.iter().any(|said| by(said))
    }
}

#[cfg(test)]
mod tests;
