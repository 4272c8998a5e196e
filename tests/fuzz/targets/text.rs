//! The texts that people and clients type: requests, lines of redis.conf, patterns, numbers.

use aeris::client::resp::{Limits, Open, ParseTable, Status, parse};
use aeris::config::{Config, Sources, load};
use aeris::util::byte_size::parse_memory;
use aeris::util::glob::{glob_match, glob_match_nocase, is_literal};
use aeris::util::number::{
    DoubleBuf, parse_f64, parse_f64_lenient, parse_i64, parse_u64, parse_u64_lenient,
};
use aeris::util::quote::{repr, split_args};

const LIMITS: Limits = Limits {
    max_bulk_len: 512 * 1024 * 1024,
    unauthenticated: false,
    max_commands: 16,
};

/// The commands that a connection has parsed, and the protocol error that ended it.
#[derive(Default, PartialEq, Debug)]
struct Heard {
    commands: Vec<Vec<Vec<u8>>>,
    error: Option<String>,
}

/// One connection with its parser, as `networking::query` keeps it.
#[derive(Default)]
struct Connection {
    buffer: Vec<u8>,
    open: Option<Box<Open>>,
    heard: Heard,
}

impl Connection {
    fn receive(&mut self, mut piece: &[u8], limits: Limits) {
        if let Some(big) = self.open.as_mut().and_then(|open| open.big.as_mut()) {
            let now = big.missing().min(piece.len());
            big.bytes.extend_from_slice(&piece[..now]);
            piece = &piece[now..];
            if big.missing() > 0 {
                return;
            }
            self.parse(limits);
        }
        self.buffer.extend_from_slice(piece);
        self.parse(limits);
    }

    fn parse(&mut self, limits: Limits) {
        let mut pos = 0;
        while self.heard.error.is_none() {
            let mut table = ParseTable::default();
            let status = parse(&self.buffer, &mut pos, limits, &mut table, &mut self.open);
            for command in &table.commands {
                let ranges = &table.args[command.first..command.first + command.argc];
                let argv = ranges
                    .iter()
                    .map(|&range| table.slice(&self.buffer, range).to_vec());
                self.heard.commands.push(argv.collect());
            }
            match status {
                Status::Full => continue,
                Status::Partial => break,
                Status::Invalid(text) => self.heard.error = Some(text),
            }
        }
        if let Some(kept) = self.open.as_ref().and_then(|open| open.kept()) {
            self.buffer.truncate(pos + kept);
        }
        self.buffer.drain(..pos);
        let held = self.open.as_ref().map_or(0, |open| open.memory());
        assert!(held < 4 << 20, "{held} bytes held for a short message");
    }
}

fn hear(pieces: &[&[u8]], limits: Limits) -> Heard {
    let mut connection = Connection::default();
    for piece in pieces {
        connection.receive(piece, limits);
        if connection.heard.error.is_some() {
            break;
        }
    }
    connection.heard
}

/// A message is parsed into the same commands wherever it is split. The first byte of the input
/// chooses whether the client is authenticated.
pub fn resp(bytes: &[u8]) {
    let Some((&mode, message)) = bytes.split_first() else {
        return;
    };
    let limits = Limits {
        unauthenticated: mode & 1 == 1,
        ..LIMITS
    };
    let whole = hear(&[message], limits);
    for at in 0..message.len().min(200) {
        let (head, tail) = message.split_at(at);
        assert_eq!(hear(&[head, tail], limits), whole, "split at {at}");
    }
    let single: Vec<&[u8]> = message.chunks(1).collect();
    assert_eq!(hear(&single, limits), whole, "byte by byte");
}

/// Words and quotes of an inline request: `repr` writes the arguments that `split_args` has read,
/// and `split_args` reads them again.
pub fn inline(bytes: &[u8]) {
    assert_eq!(
        split_args(repr(bytes).as_bytes()),
        Some(vec![bytes.to_vec()])
    );
    let Some(words) = split_args(bytes) else {
        return;
    };
    let line: Vec<String> = words.iter().map(|word| repr(word)).collect();
    assert_eq!(split_args(line.join(" ").as_bytes()), Some(words));
}

/// Loads a configuration file. Its settings, written to a file as CONFIG GET shows them, are read
/// back unchanged.
pub fn config(bytes: &[u8]) {
    let lower = bytes.to_ascii_lowercase();
    // The settings `include` and `dir` access the file system.
    let banned: [&[u8]; 2] = [b"include", b"dir"];
    if banned
        .iter()
        .any(|word| lower.windows(word.len()).any(|window| window == *word))
    {
        return;
    }
    let read = |text: &[u8]| {
        let sources = Sources {
            options: text.to_vec(),
            ..Sources::default()
        };
        let mut config = Config::default();
        load(&mut config, &sources, &mut ()).map(|()| config)
    };
    let config = match read(bytes) {
        Ok(config) => config,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let untouched = Config::default().get(&[b"*"]);
    let changed = config.get(&[b"*"]);
    for (name, value) in changed.into_iter().filter(|pair| !untouched.contains(pair)) {
        let again = |value: &[u8]| {
            let name = String::from_utf8_lossy(name.as_bytes());
            let config = read(format!("{name} {}\n", repr(value)).as_bytes()).ok()?;
            config.get(&[name.as_bytes()]).pop().map(|(_, value)| value)
        };
        // A setting that is a list may lose its empty members the first time.
        if let Some(written) = again(&value) {
            assert_eq!(again(&written).as_ref(), Some(&written), "{name:?}");
        }
    }
}

/// Matches a glob pattern with a text; a NUL in the input separates them.
pub fn glob(bytes: &[u8]) {
    let at = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    let (pattern, text) = (&bytes[..at], bytes.get(at + 1..).unwrap_or_default());
    let matches = glob_match(pattern, text);
    if is_literal(pattern) {
        assert_eq!(matches, pattern == text);
    }
    if pattern
        .iter()
        .chain(text)
        .all(|byte| !byte.is_ascii_alphabetic())
    {
        assert_eq!(glob_match_nocase(pattern, text), matches);
    }
    // As in Redis, the empty string is matched by the empty pattern alone.
    assert_ne!(glob_match(b"*", text), text.is_empty());
}

/// Reads integers, doubles and sizes in bytes: an accepted number is printed as a text that is read
/// as the same number.
pub fn number(bytes: &[u8]) {
    if let Some(int) = parse_i64(bytes) {
        assert_eq!(int.to_string().as_bytes(), bytes);
        assert_eq!(parse_f64(bytes), Some(int as f64));
    }
    if let Some(int) = parse_u64(bytes) {
        assert_eq!(parse_u64_lenient(bytes), Some(int));
    }
    parse_u64_lenient(bytes);
    parse_memory(bytes);
    for value in [parse_f64(bytes), parse_f64_lenient(bytes)]
        .into_iter()
        .flatten()
    {
        let mut text = DoubleBuf::new();
        let text = text.format(value);
        let again = parse_f64(text).expect("a number's text");
        assert_eq!(
            again.to_bits(),
            value.to_bits(),
            "{}",
            String::from_utf8_lossy(text)
        );
    }
}
