//! Four real servers judge each reply: Redis 7.0 and 8.2, Valkey 8.0 and 9.1 with Redis's texts.
//!
//! ```text
//!   command ──> aeris ─────────────────────> reply
//!           ├─> Redis 7.0 ┐  known to Redis: one of the two says the same; where they agree, both do
//!           ├─> Redis 8.2 ┘
//!           ├─> Valkey 8.0 ┐ unknown to Redis: 9.1 says the same, or 8.0 if 9.1 lacks the command
//!           └─> Valkey 9.1 ┘
//! ```
//!
//! A real server whose reply differs may have different data from then on. It takes no further part
//! in the history of commands, unless the command changed nothing (it only reads, or both replies
//! are errors). When one of the two Redis servers has left the history, a difference to the other
//! one is not an error.

use super::common::{Peer, Reply};
use super::tables::{Rows, rows};
use aeris::util::glob::glob_match;
use std::collections::BTreeMap;
use std::sync::Mutex;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Name {
    Redis7,
    Redis8,
    Valkey8,
    Valkey9,
}

/// A function that starts a real server with these arguments; `None` if it is not installed.
type Start = fn(&[&str]) -> Option<Peer>;

impl Name {
    fn is_redis(self) -> bool {
        matches!(self, Name::Redis7 | Name::Redis8)
    }
}

pub struct Judge {
    pub name: Name,
    start: fn(&[&str]) -> Option<Peer>,
    pub peer: Peer,
    pub rows: Rows,
}

/// aeris, and the real servers that judge its replies.
pub struct Jury {
    pub aeris: Peer,
    /// The rows of COMMAND in aeris, by name.
    pub ours: Rows,
    pub judges: Vec<Judge>,
    /// The number of differences to a judge that are not errors by the rule, by the command's name.
    open: Mutex<BTreeMap<(Name, String), (u32, String)>>,
}

/// Options that only one server has, as patterns of the command in capitals; only that server
/// judges them.
const NEW_OPTIONS: &[(&str, Name)] = &[
    ("SET * IFEQ *", Name::Valkey9),
    ("CLIENT CAPA *", Name::Valkey9),
    ("CLIENT LIST NOT-*", Name::Valkey9),
    ("CLIENT KILL ID [1-9]* [-0-9]*", Name::Valkey9),
    ("SCRIPT SHOW*", Name::Valkey9),
    ("ZSCAN * NOSCORES*", Name::Valkey9),
    ("X[AT][DR]* KEEPREF*", Name::Redis8),
    ("X[AT][DR]* DELREF*", Name::Redis8),
    ("X[AT][DR]* ACKED*", Name::Redis8),
    ("BITOP DIFF*", Name::Redis8),
    ("BITOP ANDOR *", Name::Redis8),
    ("BITOP ONE *", Name::Redis8),
];

/// Behaviour that Redis 8.2 changed against Redis 7.0 and Valkey 8.0, so that Redis 8.2 alone can't
/// judge it: (pattern of the command in capitals, reason).
const SINCE_REDIS8: &[(&str, &str)] = &[
    (
        "BITCOUNT *",
        "the arguments are read before the key is looked up",
    ),
    ("XREAD *", "the text of unbalanced streams names +"),
    ("EXEC", "it carries what Redis 7.0 alone answers otherwise"),
];

impl Jury {
    /// Starts the servers. `None` if Redis 7.0 or Valkey 8.0 is missing; the newer two are
    /// optional.
    pub fn start() -> Option<Jury> {
        let starts: [(Name, Start); 4] = [
            (Name::Redis7, Peer::redis),
            (Name::Redis8, Peer::redis8),
            (Name::Valkey8, Peer::valkey),
            (Name::Valkey9, Peer::valkey9),
        ];
        let judges = starts.into_iter().filter_map(|(name, start)| {
            let peer = start(&[])?;
            let rows = rows(&mut peer.connect());
            Some(Judge {
                name,
                start,
                peer,
                rows,
            })
        });
        let judges: Vec<Judge> = judges.collect();
        let older = [Name::Redis7, Name::Valkey8];
        let complete = older
            .iter()
            .all(|name| judges.iter().any(|judge| judge.name == *name));
        if !complete {
            return None;
        }
        let aeris = Peer::aeris(&[]);
        let ours = rows(&mut aeris.connect());
        Some(Jury {
            aeris,
            ours,
            judges,
            open: Mutex::default(),
        })
    }

    /// Starts a crashed judge again: real servers crash sometimes.
    pub fn revive(&mut self) {
        for judge in &mut self.judges {
            if !judge.peer.alive() {
                eprintln!("{:?} has crashed: it is started again", judge.name);
                judge.peer = (judge.start)(&[]).expect("the program that was there");
            }
        }
    }

    /// The judges that have the command and its options; all judges if no server has the command.
    fn knowing(&self, argv: &[Vec<u8>]) -> Vec<&Judge> {
        if let Some(only) = only_judge(argv) {
            return self
                .judges
                .iter()
                .filter(|judge| judge.name == only)
                .collect();
        }
        let command = self.command_name(argv);
        let knows = |judge: &&Judge| judge.rows.contains_key(&command);
        let knowing: Vec<_> = self.judges.iter().filter(knows).collect();
        if knowing.is_empty() && !self.ours.contains_key(&command) {
            return self.judges.iter().collect();
        }
        knowing
    }

    /// Whether a running judge has the command and its options.
    pub fn can_judge(&self, argv: &[Vec<u8>]) -> bool {
        !self.knowing(argv).is_empty()
    }

    /// The name of a command or subcommand, as in COMMAND.
    pub fn command_name(&self, argv: &[Vec<u8>]) -> String {
        let lower = |arg: &[u8]| String::from_utf8_lossy(arg).to_lowercase();
        let name = lower(&argv[0]);
        let sub = argv.get(1).map(|arg| format!("{name}|{}", lower(arg)));
        let mut all = self.judges.iter().map(|judge| &judge.rows);
        sub.filter(|sub| self.ours.contains_key(sub) || all.any(|rows| rows.contains_key(sub)))
            .unwrap_or(name)
    }

    /// Whether our reply is right, given the judges that compared it: (judge, whether it agrees).
    pub fn is_right(&self, argv: &[Vec<u8>], opinions: &[(Name, bool)]) -> bool {
        let knowing = self.knowing(argv);
        let opinion = |name: Name| {
            opinions
                .iter()
                .find(|(of, _)| *of == name)
                .map(|(_, agrees)| *agrees)
        };
        let says = |judge: &&Judge| opinion(judge.name);
        let (redis, valkey): (Vec<&Judge>, Vec<&Judge>) = knowing
            .iter()
            .copied()
            .partition(|judge| judge.name.is_redis());
        if !self.has(Name::Redis8) {
            let voices: Vec<bool> = knowing.iter().filter_map(says).collect();
            let divided = voices.len() < knowing.len() || voices.contains(&true);
            return divided
                || redis.is_empty()
                || SINCE_REDIS8.iter().any(|(of, _)| is_like(of, argv));
        }
        if redis.is_empty() {
            let newest = valkey.iter().filter(|judge| opinion(judge.name).is_some());
            let newest = newest.max_by_key(|judge| judge.name);
            return newest.is_none_or(|judge| opinion(judge.name) == Some(true));
        }
        // The reply of Redis 7.0 or 8.2 is unknown if this server was excluded after an earlier
        // difference.
        let voices: Vec<bool> = redis.iter().filter_map(says).collect();
        voices.len() < redis.len() || voices.contains(&true)
    }

    fn has(&self, name: Name) -> bool {
        self.judges.iter().any(|judge| judge.name == name)
    }

    /// Whether the command leaves the data of two servers equal although their replies differ.
    pub fn changes_nothing(&self, argv: &[Vec<u8>], ours: &[u8], theirs: &[u8]) -> bool {
        let is_error = |reply: &[u8]| reply.starts_with(b"-") || reply.starts_with(b"!");
        let command = self.command_name(argv);
        let readonly = Reply::Line(b"+readonly".to_vec());
        let reads = self.judges.iter().any(|judge| {
            let flags = judge.rows.get(&command).map(|row| &row[2].1);
            matches!(flags, Some(Reply::Many(_, flags)) if flags.contains(&readonly))
        });
        let looks = [
            "command",
            "object",
            "pubsub",
            "xinfo",
            "memory",
            "acl|getuser",
            "acl|list",
            "config|get",
        ]
        .iter()
        .any(|start| command.starts_with(start));
        is_error(ours) && is_error(theirs) || reads || looks
    }

    /// Records a difference to a judge that is not an error, for [`Jury::report`].
    pub fn note(&self, judge: Name, argv: &[Vec<u8>], ours: &[u8], theirs: &[u8]) {
        let mut open = self.open.lock().expect("no test panics with the lock");
        let entry = open.entry((judge, self.command_name(argv))).or_default();
        entry.0 += 1;
        if entry.1.is_empty() {
            let text = |bytes: &[u8]| bytes[..bytes.len().min(120)].escape_ascii().to_string();
            entry.1 = format!(
                "{}\n      we   {}\n      they {}",
                super::show(argv),
                text(ours),
                text(theirs)
            );
        }
    }

    /// With `COMPAT_OPEN=1`, prints how often each command differed from each judge without being
    /// an error, and the first difference.
    pub fn report(&self) {
        if std::env::var_os("COMPAT_OPEN").is_some() {
            let open = self.open.lock().expect("no test panics with the lock");
            for ((judge, command), (count, first)) in open.iter() {
                eprintln!("{judge:?} {command} {count} times: {first}");
            }
        }
    }
}

/// The only server that has an option of this command, if there is one.
pub fn only_judge(argv: &[Vec<u8>]) -> Option<Name> {
    let found = NEW_OPTIONS.iter().find(|(of, _)| is_like(of, argv));
    found.map(|(_, only)| *only)
}

fn is_like(pattern: &str, argv: &[Vec<u8>]) -> bool {
    glob_match(pattern.as_bytes(), in_capitals(argv).as_bytes())
}

/// A command as one text in capitals, to which the patterns of exceptions are compared.
pub fn in_capitals(argv: &[Vec<u8>]) -> String {
    let words = argv
        .iter()
        .map(|arg| String::from_utf8_lossy(arg).to_uppercase());
    words.collect::<Vec<_>>().join(" ")
}
