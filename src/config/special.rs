//! The settings whose values have a form of their own: lists, rules, masks. Each setting has
//! functions of its own that print the value, parse the value and set the default.
//!
//! The module `check` has the conditions on the values of text settings.

use super::Config;
use super::enums::*;
use super::row::{Origin, Reason, not_one_of};
use crate::texts;
use crate::util::byte_size::parse_memory;
use crate::util::number::{parse_f64, parse_i64};

/// A function that sets a field from the arguments of a setting's line, or returns an error and
/// leaves the field unchanged.
pub type SetFn = fn(&mut Config, &[&[u8]], Origin) -> Result<(), Reason>;

/// The functions of a setting whose values have a form of their own.
pub struct Special {
    /// The setting's value as CONFIG GET shows it.
    pub get: fn(&Config) -> Vec<u8>,
    pub set: SetFn,
    pub put_default: fn(&mut Config),
    /// The values that CONFIG REWRITE writes after the setting's name, one for each line; empty if
    /// the setting gets no line.
    pub lines: fn(&Config) -> Vec<Vec<u8>>,
    /// Whether a line of the setting adds to the earlier lines instead of replacing them
    /// (`save`, `client-output-buffer-limit`).
    pub adds_up: bool,
}

fn wrong_number() -> Reason {
    "wrong number of arguments".into()
}

fn join<T: ToString>(items: &[T]) -> Vec<u8> {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    items.join(" ").into_bytes()
}

/// The maximum number of addresses of `bind`, as in Redis.
const MAX_BIND_ADDRESSES: usize = 16;

/// `bind`: addresses to listen on.
pub static BIND: Special = Special {
    get: |c| join(&c.bind),
    set: |c, args, _| set_addresses(&mut c.bind, args),
    put_default: |c| c.bind = vec!["*".into(), "-::*".into()],
    lines: |c| vec![address_line(&c.bind)],
    adds_up: false,
};

/// `monitor-bind`: addresses of the monitor port.
pub static MONITOR_BIND: Special = Special {
    get: |c| join(&c.monitor_bind),
    set: |c, args, _| set_addresses(&mut c.monitor_bind, args),
    put_default: |c| c.monitor_bind = vec!["127.0.0.1".into(), "-::1".into()],
    lines: |c| vec![address_line(&c.monitor_bind)],
    adds_up: false,
};

fn set_addresses(addresses: &mut Vec<String>, args: &[&[u8]]) -> Result<(), Reason> {
    if args.len() > MAX_BIND_ADDRESSES {
        return Err("Too many bind addresses specified.".into());
    }
    // With one empty argument, `bind ""`, the server listens on no address.
    let args = if args == [b""] { &[] } else { args };
    let texts = args.iter().map(|a| String::from_utf8_lossy(a).into_owned());
    *addresses = texts.collect();
    Ok(())
}

fn address_line(addresses: &[String]) -> Vec<u8> {
    match addresses.is_empty() {
        true => b"\"\"".to_vec(),
        false => join(addresses),
    }
}

/// `save`: the save points.
pub static SAVE: Special = Special {
    get: |c| {
        let rules: Vec<String> = c.save.iter().map(SavePoint::to_string).collect();
        join(&rules)
    },
    set: set_save,
    put_default: |c| {
        let rules = [(3600, 1), (300, 100), (60, 10000)];
        c.save = rules
            .map(|(seconds, changes)| SavePoint { seconds, changes })
            .to_vec();
    },
    lines: |c| {
        if c.save.is_empty() {
            return vec![b"\"\"".to_vec()];
        }
        c.save
            .iter()
            .map(|rule| rule.to_string().into_bytes())
            .collect()
    },
    adds_up: true,
};

impl std::fmt::Display for SavePoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.seconds, self.changes)
    }
}

/// save seconds changes [seconds changes ...]; save ""
fn set_save(c: &mut Config, args: &[&[u8]], origin: Origin) -> Result<(), Reason> {
    let invalid = || Reason::from("Invalid save parameters");
    let mut rules = Vec::new();
    let nothing = args.is_empty() || args == [b""];
    if !nothing {
        if !args.len().is_multiple_of(2) {
            return Err(invalid());
        }
        for pair in args.chunks_exact(2) {
            let seconds = parse_i64(pair[0]).filter(|n| *n >= 1).ok_or_else(invalid)?;
            let changes = parse_i64(pair[1]).filter(|n| *n >= 0).ok_or_else(invalid)?;
            rules.push(SavePoint {
                seconds: seconds as u64,
                changes: changes as u64,
            });
        }
    }
    let adds = origin == Origin::Load && c.save_seen && !nothing;
    c.save_seen |= origin == Origin::Load;
    if !adds {
        c.save.clear();
    }
    c.save.append(&mut rules);
    Ok(())
}

/// The modifiers of `shutdown-on-sigint` and `shutdown-on-sigterm`, each with its field, in the
/// order of the error text.
fn shutdown_modifiers(flags: &mut ShutdownFlags) -> [(&'static str, &mut bool); 5] {
    let ShutdownFlags {
        save,
        nosave,
        now,
        force,
        failover,
    } = flags;
    [
        ("save", save),
        ("nosave", nosave),
        ("now", now),
        ("force", force),
        ("failover", failover),
    ]
}

fn show_shutdown(mut flags: ShutdownFlags) -> Vec<u8> {
    let on = shutdown_modifiers(&mut flags)
        .into_iter()
        .filter(|(_, on)| **on);
    let names: Vec<&str> = on.map(|(name, _)| name).collect();
    if names.is_empty() {
        b"default".to_vec()
    } else {
        names.join(" ").into_bytes()
    }
}

fn parse_shutdown(args: &[&[u8]]) -> Result<ShutdownFlags, Reason> {
    let mut flags = ShutdownFlags::default();
    let unknown = || not_one_of(&["default", "save", "nosave", "now", "force"]);
    if args.is_empty() {
        return Err(unknown());
    }
    for arg in args {
        if arg.eq_ignore_ascii_case(b"default") {
            continue;
        }
        let mut modifiers = shutdown_modifiers(&mut flags).into_iter();
        let found = modifiers.find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(arg));
        *found.ok_or_else(unknown)?.1 = true;
    }
    if flags.save && flags.nosave {
        return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
    }
    Ok(flags)
}

macro_rules! shutdown_on {
    ($field:ident) => {
        Special {
            get: |c| show_shutdown(c.$field),
            set: |c, args, _| parse_shutdown(args).map(|flags| c.$field = flags),
            put_default: |c| c.$field = ShutdownFlags::default(),
            lines: |c| vec![show_shutdown(c.$field)],
            adds_up: false,
        }
    };
}

/// The setting `shutdown-on-sigint`: the modifiers of the SHUTDOWN that a SIGINT causes.
pub static SHUTDOWN_ON_SIGINT: Special = shutdown_on!(shutdown_on_sigint);
/// The setting `shutdown-on-sigterm`: the modifiers of the SHUTDOWN that a SIGTERM causes.
pub static SHUTDOWN_ON_SIGTERM: Special = shutdown_on!(shutdown_on_sigterm);

/// The setting `replicaof`: host and port of the primary, or none.
pub static REPLICAOF: Special = Special {
    get: show_replicaof,
    set: set_replicaof,
    put_default: |c| c.replicaof = None,
    lines: |c| {
        // In cluster mode there is no line `replicaof`: nodes.conf has the primary of each node.
        if c.replicaof.is_none() || c.cluster_enabled {
            vec![]
        } else {
            vec![show_replicaof(c)]
        }
    },
    adds_up: false,
};

fn show_replicaof(c: &Config) -> Vec<u8> {
    let Some(primary) = &c.replicaof else {
        return Vec::new();
    };
    [&primary.host[..], b" ", primary.port.to_string().as_bytes()].concat()
}

/// replicaof host port; replicaof no one
fn set_replicaof(c: &mut Config, args: &[&[u8]], _: Origin) -> Result<(), Reason> {
    let &[host, port] = args else {
        return Err(wrong_number());
    };
    if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
        c.replicaof = None;
        return Ok(());
    }
    let port = parse_i64(port).and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or(c.text(texts::REPLICAOF_PORT))?;
    c.replicaof = (!host.is_empty()).then(|| HostPort {
        host: host.into(),
        port,
    });
    Ok(())
}

/// `maxmemory-clients`: bytes or a percentage.
pub static MAXMEMORY_CLIENTS: Special = Special {
    get: |c| c.maxmemory_clients.to_string().into_bytes(),
    set: |c, args, _| {
        let &[text] = args else {
            return Err(wrong_number());
        };
        c.maxmemory_clients = parse_clients_limit(text)?;
        Ok(())
    },
    put_default: |c| c.maxmemory_clients = ClientsLimit::default(),
    lines: |c| vec![c.maxmemory_clients.to_string().into_bytes()],
    adds_up: false,
};

impl std::fmt::Display for ClientsLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClientsLimit::Bytes(bytes) => write!(f, "{bytes}"),
            ClientsLimit::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

fn parse_clients_limit(text: &[u8]) -> Result<ClientsLimit, Reason> {
    let not_a_limit = || Reason::from("argument must be a memory or percent value");
    let Some(percent) = text.strip_suffix(b"%") else {
        let bytes = parse_memory(text).filter(|bytes| i64::try_from(*bytes).is_ok());
        return bytes.map(ClientsLimit::Bytes).ok_or_else(not_a_limit);
    };
    let percent = parse_i64(percent).and_then(|p| u64::try_from(p).ok());
    match percent.ok_or_else(not_a_limit)? {
        0 => Ok(ClientsLimit::Bytes(0)),
        percent @ 1..=100 => Ok(ClientsLimit::Percent(percent as u8)),
        _ => Err("percentage argument must be less or equal to 100".into()),
    }
}

/// The names of the classes of `client-output-buffer-limit` as CONFIG GET prints them, in the order
/// of `ClientClass`. `replica` is accepted for `slave`.
const OBUF_CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

fn show_obuf_limits(c: &Config) -> Vec<Vec<u8>> {
    let classes = OBUF_CLASSES.iter().zip(c.client_output_buffer_limit);
    let line = |(name, limit): (&&str, ObufLimit)| {
        format!(
            "{name} {} {} {}",
            limit.hard, limit.soft, limit.soft_seconds
        )
        .into_bytes()
    };
    classes.map(line).collect()
}

/// The setting `client-output-buffer-limit`: the limits of output for each class of clients.
pub static CLIENT_OUTPUT_BUFFER_LIMIT: Special = Special {
    get: |c| show_obuf_limits(c).join(&b' '),
    set: set_obuf_limits,
    put_default: |c| {
        let limit = |hard, soft, soft_seconds| ObufLimit {
            hard,
            soft,
            soft_seconds,
        };
        let (replica, pubsub) = (limit(256 << 20, 64 << 20, 60), limit(32 << 20, 8 << 20, 60));
        c.client_output_buffer_limit = [limit(0, 0, 0), replica, pubsub];
    },
    // A line changes only the classes that it names, so classes at their default need no line.
    lines: |c| {
        let (now, default) = (show_obuf_limits(c), show_obuf_limits(&Config::default()));
        now.into_iter()
            .filter(|line| !default.contains(line))
            .collect()
    },
    adds_up: true,
};

/// client-output-buffer-limit class hard soft soft-seconds [...]; classes that are not named keep
/// their limits
fn set_obuf_limits(c: &mut Config, args: &[&[u8]], _: Origin) -> Result<(), Reason> {
    let args = if args == [b""] { &[] } else { args };
    if !args.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".into());
    }
    let mut limits = c.client_output_buffer_limit;
    for rule in args.chunks_exact(4) {
        let class = obuf_class(rule[0])
            .ok_or("Invalid client class specified in buffer limit configuration.")?;
        let limit = parse_obuf_limit(&rule[1..]);
        limits[class] = limit
            .ok_or("Error in hard, soft or soft_seconds setting in buffer limit configuration.")?;
    }
    c.client_output_buffer_limit = limits;
    Ok(())
}

fn obuf_class(name: &[u8]) -> Option<usize> {
    if name.eq_ignore_ascii_case(b"replica") {
        return Some(ClientClass::Replica as usize);
    }
    OBUF_CLASSES
        .iter()
        .position(|class| class.as_bytes().eq_ignore_ascii_case(name))
}

fn parse_obuf_limit(args: &[&[u8]]) -> Option<ObufLimit> {
    let soft_seconds = std::str::from_utf8(args[2]).ok()?.parse().ok()?;
    Some(ObufLimit {
        hard: parse_memory(args[0])?,
        soft: parse_memory(args[1])?,
        soft_seconds,
    })
}

/// The setting `oom-score-adj-values`: a value each for a primary, a replica and a child.
pub static OOM_SCORE_ADJ_VALUES: Special = Special {
    get: |c| join(&c.oom_score_adj_values),
    set: |c, args, _| {
        let args: &[&[u8]; 3] = args.try_into().map_err(|_| wrong_number())?;
        let mut values = [0; 3];
        for (value, text) in values.iter_mut().zip(args) {
            let parsed = std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse().ok());
            *value = parsed
                .filter(|n| (-2000..=2000).contains(n))
                .ok_or("Invalid oom-score-adj-values, elements must be between -2000 and 2000.")?;
        }
        c.oom_score_adj_values = values;
        Ok(())
    },
    put_default: |c| c.oom_score_adj_values = [0, 200, 800],
    lines: |c| vec![join(&c.oom_score_adj_values)],
    adds_up: false,
};

fn show_percentiles(c: &Config) -> Vec<u8> {
    let six_digits = |percentile: &f64| {
        let text = format!("{percentile:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    };
    let percentiles: Vec<String> = c
        .latency_tracking_info_percentiles
        .iter()
        .map(six_digits)
        .collect();
    join(&percentiles)
}

/// The setting `latency-tracking-info-percentiles`: the percentiles in INFO's latencystats.
pub static LATENCY_TRACKING_INFO_PERCENTILES: Special = Special {
    get: show_percentiles,
    set: |c, args, _| {
        let args = if args == [b""] { &[] } else { args };
        let mut percentiles = Vec::with_capacity(args.len());
        for text in args {
            let percentile =
                parse_f64(text).ok_or("Invalid latency-tracking-info-percentiles parameters")?;
            if !(0.0..=100.0).contains(&percentile) {
                return Err(
                    "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]"
                        .into(),
                );
            }
            percentiles.push(percentile);
        }
        c.latency_tracking_info_percentiles = percentiles;
        Ok(())
    },
    put_default: |c| c.latency_tracking_info_percentiles = vec![50.0, 99.0, 99.9],
    lines: |c| {
        let text = show_percentiles(c);
        vec![if text.is_empty() {
            b"\"\"".to_vec()
        } else {
            text
        }]
    },
    adds_up: false,
};

/// The setting `notify-keyspace-events`: a letter for each class of events.
pub static NOTIFY_KEYSPACE_EVENTS: Special = Special {
    get: |c| c.notify_keyspace_events.to_string().into_bytes(),
    set: |c, args, _| {
        let &[text] = args else {
            return Err(wrong_number());
        };
        c.notify_keyspace_events = NotifyFlags::parse(text)
            .ok_or("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")?;
        Ok(())
    },
    put_default: |c| c.notify_keyspace_events = NotifyFlags::default(),
    lines: |c| vec![format!("\"{}\"", c.notify_keyspace_events).into_bytes()],
    adds_up: false,
};

/// The conditions on the values of text settings.
pub mod check {
    use std::net::{Ipv4Addr, Ipv6Addr};

    type Verdict = Result<(), &'static str>;

    fn require(condition: bool, complaint: &'static str) -> Verdict {
        if condition { Ok(()) } else { Err(complaint) }
    }

    fn parses<T: std::str::FromStr>(text: &[u8]) -> bool {
        text.is_empty() || std::str::from_utf8(text).is_ok_and(|text| text.parse::<T>().is_ok())
    }

    /// Accepts every text, for settings without a condition.
    pub fn anything(_: &[u8]) -> Verdict {
        Ok(())
    }

    /// Checks the name of a file or folder in `dir`, which must not be empty or a path; `if_empty`
    /// and `if_path` are the error texts.
    fn name(text: &[u8], if_empty: &'static str, if_path: &'static str) -> Verdict {
        require(!text.is_empty(), if_empty)?;
        require(!text.contains(&b'/'), if_path)
    }

    /// Checks the value of `dbfilename`, which must not be a path.
    pub fn dbfilename(text: &[u8]) -> Verdict {
        require(
            !text.contains(&b'/'),
            "dbfilename can't be a path, just a filename",
        )
    }

    /// Checks the value of `appendfilename`, which must not be empty or a path.
    pub fn appendfilename(text: &[u8]) -> Verdict {
        name(
            text,
            "appendfilename can't be empty",
            "appendfilename can't be a path, just a filename",
        )
    }

    /// Checks the value of `appenddirname`, which must not be empty or a path.
    pub fn appenddirname(text: &[u8]) -> Verdict {
        name(
            text,
            "appenddirname can't be empty",
            "appenddirname can't be a path, just a dirname",
        )
    }

    /// Checks the value of `cluster-config-file`, which must not be empty.
    pub fn cluster_config_file(text: &[u8]) -> Verdict {
        require(!text.is_empty(), "cluster-config-file can't be empty")
    }

    /// Accepts an IPv4 address.
    pub fn ipv4(text: &[u8]) -> Verdict {
        require(parses::<Ipv4Addr>(text), "Invalid IPv4 address")
    }

    /// Accepts an IPv6 address.
    pub fn ipv6(text: &[u8]) -> Verdict {
        require(parses::<Ipv6Addr>(text), "Invalid IPv6 address")
    }

    /// The size in bytes of a host name in packets of the cluster bus, with its final NUL.
    const HOSTNAME_SIZE: usize = 256;

    /// Checks the value of `cluster-announce-hostname`: its length and its characters.
    pub fn hostname(text: &[u8]) -> Verdict {
        require(
            text.len() < HOSTNAME_SIZE,
            "Hostnames must be less than 256 characters",
        )?;
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
        let complaint = "Hostnames may only contain alphanumeric characters, hyphens or dots";
        require(text.iter().all(allowed), complaint)
    }

    /// Checks the value of `unixsocket-users`: words of the form `user=acl-user`.
    pub fn unixsocket_users(text: &[u8]) -> Verdict {
        let mut words = text.split(|b| *b == b' ').filter(|word| !word.is_empty());
        let is_pair = |word: &[u8]| {
            let at = word.iter().position(|b| *b == b'=');
            at.is_some_and(|at| at > 0 && at + 1 < word.len())
        };
        require(
            words.all(is_pair),
            "unixsocket-users takes pairs of a user of the system and an ACL user: root=default 1000=metrics",
        )
    }

    /// Checks the value of `cluster-announce-human-nodename`: printable characters, without those
    /// that would break a line of `nodes.conf`.
    pub fn human_nodename(text: &[u8]) -> Verdict {
        require(
            is_word_of_nodes_conf(text),
            "Announced human node name contained invalid character",
        )
    }

    /// Checks the value of `availability-zone`. Valkey 9.1 accepts a text with which the node does
    /// not start again.
    pub fn availability_zone(text: &[u8]) -> Verdict {
        require(
            is_word_of_nodes_conf(text),
            "availability-zone contains invalid character",
        )
    }

    /// Whether a text can stand in a line of `nodes.conf`.
    fn is_word_of_nodes_conf(text: &[u8]) -> bool {
        let breaks =
            |b: &u8| b"!#$%&()*+:;<>?@[]^{|}~,='\"`\\/".contains(b) || !b.is_ascii_graphic();
        !text.iter().any(breaks)
    }

    /// The size in bytes of an address in packets of the cluster bus, with its final NUL.
    const ADDRESS_SIZE: usize = 46;

    /// Checks the value of `cluster-announce-ip`, which other nodes get in packets of limited size.
    pub fn announced_ip(text: &[u8]) -> Verdict {
        require(text.len() < ADDRESS_SIZE, "cluster-announce-ip is too long")?;
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || b".:_-".contains(b);
        require(
            text.iter().all(allowed),
            "cluster-announce-ip contains invalid character",
        )
    }

    const TITLE_VARIABLES: [&str; 7] = [
        "title",
        "listen-addr",
        "server-mode",
        "port",
        "tls-port",
        "unixsocket",
        "config-file",
    ];

    /// Checks the value of `proc-title-template`: not empty, and every `{` opens the name of a
    /// variable.
    pub fn proc_title_template(text: &[u8]) -> Verdict {
        let complaint = "template format is invalid or contains unknown variables";
        require(!text.is_empty(), complaint)?;
        let mut rest = text;
        while let Some(open) = rest.iter().position(|b| *b == b'{') {
            rest = &rest[open + 1..];
            let close = rest.iter().position(|b| *b == b'}').ok_or(complaint)?;
            let name = &rest[..close];
            require(
                TITLE_VARIABLES.iter().any(|known| known.as_bytes() == name),
                complaint,
            )?;
            rest = &rest[close + 1..];
        }
        Ok(())
    }
}
