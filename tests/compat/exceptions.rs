//! When two replies count as equal, and the known differences to the real servers: intended, still
//! open, or faults of the real server.

use super::common::{Reply, parse_reply};
use super::grammar::Compare;
use super::jury::in_capitals;
use aeris::util::glob::glob_match;

/// Intended differences between aeris and the real servers: (pattern of the command in capitals,
/// reason).
pub const ON_PURPOSE: &[(&str, &str)] = &[
    (
        "CLIENT LIST",
        "other connections, and fields of newer versions",
    ),
    (
        "COMMAND",
        "there are the newer commands too; compat/tables.rs compares the others",
    ),
    ("COMMAND COUNT", "the same"),
    ("COMMAND INFO", "the same"),
    ("COMMAND LIST", "the same"),
    ("COMMAND LIST FILTERBY [AP]*", "the same"),
    ("COMMAND DOCS", "the summaries are our own"),
    ("COMMAND DOCS *HELLO*", "the same"),
    (
        "COMMAND GETKEYS* GEORADIUS* STORE*",
        "of several destinations the last one is written, so the others are no keys of the command",
    ),
    (
        "[SZ]RANDMEMBER * -?????????*",
        "what repeats elements beyond proto-max-bulk-len is refused, see commands/random_elements.rs",
    ),
    ("HRANDFIELD * -?????????*", "the same"),
    (
        "FUNCTION LOAD *SERVER.REGISTER*",
        "Valkey's libraries load too: `server` is another name of `redis`",
    ),
];

/// Differences that are still open: (pattern of the command in capitals, pattern of our reply,
/// reason).
pub const OPEN: &[(&str, &str, &str)] = &[
    (
        "GEO*",
        "*e-6*",
        "a double of a script has three forms in four servers",
    ),
    (
        "GEOPOS *",
        "*,0.00499973748679139\r*",
        "the shortest digits, as in Valkey 8.0; Redis 8.2 writes one more, 7.0 two",
    ),
    (
        "EVAL* 0 HRANDFIELD *",
        "[*~%]*",
        "the order of a table, which a script does not sort",
    ),
];

/// Requests that aeris refuses on purpose: (pattern of the command in capitals, pattern of our
/// reply, reason).
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "REPLCONF *IP-ADDRESS *",
        "-ERR Invalid REPLCONF ip-address\r\n",
        "an address with a line end or a comma would forge fields of INFO",
    ),
    (
        "REPLCONF *LISTENING-PORT *",
        "-ERR value is not an integer or out of range\r\n",
        "a port of more than 32 bits: the others keep a part of it",
    ),
];

/// Error texts that differ on purpose: (pattern of the command in capitals, reason).
const TEXTS_ON_PURPOSE: &[(&str, &str)] = &[
    ("MSETEX *", "Redis 8.4 has it too; the texts are Redis's"),
    (
        "CONFIG SET MAXMEMORY-POLICY *",
        "the list of policies has the two of Redis 8.6",
    ),
    (
        "CLIENT KILL ID [1-9]* [-0-9]*",
        "only Valkey takes several IDs; one that is no ID is refused in Redis's words",
    ),
];

/// Prefixes of errors for which Valkey has its own text even with Redis's texts switched on, and
/// Redis's texts for them.
const VALKEYS_WORDS: &[(&str, &str)] = &[
    ("-ERR This Valkey command", "-ERR This Redis command"),
    (
        "-ERR Wrong number of args calling command",
        "-ERR Wrong number of args calling Redis command",
    ),
    (
        "-NOSCRIPT No matching script.\r",
        "-NOSCRIPT No matching script. Please use EVAL.\r",
    ),
];

pub fn matches(pattern: &str, text: &[u8]) -> bool {
    glob_match(pattern.as_bytes(), text)
}

/// Whether a difference between two replies is known: intended, open, or a fault of the real
/// server.
pub fn excused(argv: &[Vec<u8>], ours: &[u8], theirs: &[u8]) -> bool {
    let command = in_capitals(argv);
    let command = command.as_bytes();
    let is_error = ours.starts_with(b"-") && theirs.starts_with(b"-");
    on_purpose(argv)
        || is_error && TEXTS_ON_PURPOSE.iter().any(|(of, _)| matches(of, command))
        || OPEN
            .iter()
            .chain(REFUSED)
            .any(|(of, reply, _)| matches(of, command) && matches(reply, ours))
        || merges_corrupt(argv, ours)
        || remembers_errno(ours, theirs)
        || has_times_to_live(argv, theirs)
}

pub fn same(compare: Compare, ours: &[u8], theirs: &[u8]) -> bool {
    if errors_alike(ours, theirs) {
        return true;
    }
    match compare {
        Compare::Bytes => ours == theirs,
        Compare::Sorted => parse_reply(ours).sorted() == parse_reply(theirs).sorted(),
        Compare::Shape => shape(&parse_reply(ours)) == shape(&parse_reply(theirs)),
        Compare::Sets => sort_sets(parse_reply(ours)) == sort_sets(parse_reply(theirs)),
        Compare::UpToNul => up_to_nul(parse_reply(ours)) == up_to_nul(parse_reply(theirs)),
    }
}

/// Sorts the sets and maps in a reply; arrays keep their order.
fn sort_sets(reply: Reply) -> Reply {
    match reply {
        Reply::Many(kind @ (b'%' | b'~'), items) => Reply::Many(kind, items).sorted(),
        Reply::Many(kind, items) => Reply::Many(kind, items.into_iter().map(sort_sets).collect()),
        other => other,
    }
}

fn up_to_nul(reply: Reply) -> Reply {
    match reply {
        Reply::Bulk(mut text) => {
            text.truncate(text.iter().position(|&b| b == 0).unwrap_or(text.len()));
            Reply::Bulk(text)
        }
        Reply::Many(kind, items) => Reply::Many(kind, items.into_iter().map(up_to_nul).collect()),
        other => other,
    }
}

/// Whether two errors are equal except for line ends: Redis sends line ends in the texts of some
/// errors; in aeris an error is always one line.
fn errors_alike(ours: &[u8], theirs: &[u8]) -> bool {
    let space = |&b: &u8| if b"\r\n".contains(&b) { b' ' } else { b };
    let theirs = in_redis_words(theirs);
    ours.starts_with(b"-") && ours.iter().map(space).eq(theirs.iter().map(space))
}

fn in_redis_words(reply: &[u8]) -> Vec<u8> {
    let in_words = |(valkey, redis): &(&str, &str)| {
        let rest = reply.strip_prefix(valkey.as_bytes())?;
        Some([redis.as_bytes(), rest].concat())
    };
    VALKEYS_WORDS
        .iter()
        .find_map(in_words)
        .unwrap_or_else(|| reply.to_vec())
}

/// The form of a reply: its type and number of elements, not its content.
fn shape(reply: &Reply) -> String {
    match reply {
        Reply::Line(line) if line.starts_with(b":") && line.get(1) != Some(&b'-') => ":n".into(),
        Reply::Line(line) => String::from_utf8_lossy(line).into_owned(),
        Reply::Bulk(_) => "$".into(),
        Reply::Many(kind, items) => format!("{}{}", char::from(*kind), items.len()),
    }
}

pub fn on_purpose(argv: &[Vec<u8>]) -> bool {
    let text = in_capitals(argv);
    ON_PURPOSE
        .iter()
        .any(|(pattern, _)| matches(pattern, text.as_bytes()))
}

/// SORT in Redis turns a small sorted set into a skiplist, whose scores ZSCAN returns with 17
/// digits. In aeris, SORT does not change the set.
pub fn stays_small(argv: &[Vec<u8>], replies: &[&[u8]; 2]) -> bool {
    let is = |name: &str| argv[0].eq_ignore_ascii_case(name.as_bytes());
    is("OBJECT") && replies[0].ends_with(b"listpack\r\n") && replies[1].ends_with(b"skiplist\r\n")
        || is("ZSCAN") && numbers(replies[0]) == numbers(replies[1])
}

/// The elements of a reply of ZSCAN in any order, with numbers compared by value.
fn numbers(reply: &[u8]) -> Vec<Reply> {
    fn add(reply: Reply, out: &mut Vec<Reply>) {
        match reply {
            Reply::Many(_, items) => items.into_iter().for_each(|item| add(item, out)),
            Reply::Bulk(text) => {
                let number = std::str::from_utf8(&text)
                    .ok()
                    .and_then(|t| t.parse::<f64>().ok());
                out.push(Reply::Bulk(
                    number.map_or(text, |n| n.to_string().into_bytes()),
                ));
            }
            line => out.push(line),
        }
    }
    let mut out = Vec::new();
    add(parse_reply(reply), &mut out);
    out.sort();
    out
}

/// Redis 8.2 reports another encoding (`listpackex`) for small hashes whose fields have times to
/// live.
pub fn has_times_to_live(argv: &[Vec<u8>], theirs: &[u8]) -> bool {
    argv[0].eq_ignore_ascii_case(b"OBJECT") && theirs == b"$10\r\nlistpackex\r\n"
}

/// OBJECT REFCOUNT: a copy of a shared integer is not shared in Redis. aeris shares no integers,
/// and reports all small ones as shared.
pub fn is_shared(argv: &[Vec<u8>], replies: &[&[u8]; 2]) -> bool {
    argv[0].eq_ignore_ascii_case(b"OBJECT")
        && replies[0] == b":2147483647\r\n"
        && replies[1] == b":1\r\n"
}

/// A HyperLogLog with runs behind its last register is refused since CVE-2025-32023; Valkey 8.0.1
/// does not check for such runs when it merges. Replies about a HyperLogLog that was merged from
/// such a value differ, too.
pub fn merges_corrupt(argv: &[Vec<u8>], ours: &[u8]) -> bool {
    let is = |name: &str| argv[0].eq_ignore_ascii_case(name.as_bytes());
    let merges = is("PFMERGE") || is("PFCOUNT") && argv.len() > 2;
    merges && ours.starts_with(b"-INVALIDOBJ")
}

/// SORT in Redis reports an error for an element if C's `errno` is still set from an earlier
/// command. If the SORT had STORE, the servers have different lists from then on.
pub fn remembers_errno(ours: &[u8], theirs: &[u8]) -> bool {
    let reports_it = |reply: &[u8]| {
        contains(
            reply,
            b"-ERR One or more scores can't be converted into double",
        )
    };
    reports_it(theirs) && !reports_it(ours)
}

pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
