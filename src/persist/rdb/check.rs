//! `aeris-check-rdb`: reads an RDB file like the loader, keeps no data, and reports where the file
//! is damaged.
//!
//! ```text
//!   [offset 0] Checking RDB file dump.rdb
//!   [offset 27] AUX FIELD redis-ver = '7.2.4'
//!   [offset 82] Selecting DB ID 0
//!   --- RDB ERROR DETECTED ---
//!   [offset 136] Internal error in RDB reading offset 136 -> Listpack integrity check failed.
//!   [additional info] While doing: read-object-value
//!   [additional info] Reading key 'l'
//!   [additional info] Reading type 18 (quicklist-v2)
//!   [info] 4 keys read
//! ```
//!
//! The output has the same lines as that of redis-check-rdb, since scripts read them. The server
//! writes these lines to its log when it can't load its RDB file.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use super::Limits;
use super::decode::{Fault, Result, corrupt};
use super::load::{self, Meta, Refused, Sink, Step};
use crate::clock::unix_us;
use crate::ds::quicklist::ListLimits;
use crate::ds::siphash::HashSeed;
use crate::persist::rio::Reader;
use crate::state::Server;
use crate::sys;
use crate::sys::print::{print_error, print_line, program_name};
use crate::types::New;
use crate::types::hash::HashLimits;
use crate::types::set::SetLimits;
use crate::types::zset::ZsetLimits;

/// The answer to `--help`.
const HELP: &str = "\
Usage: NAME <rdb-file-name>
       NAME -v or --version
       NAME -h or --help

Reads a snapshot (RDB) as the server does, and prints what is in it, or where
it is damaged. The file is not changed. The exit status is 0 if the server can
load the file, 1 otherwise.
";

/// The names of the types of values in an RDB, by the numbers that the file has for them.
const KINDS: [&str; 33] = [
    "string",
    "list-linked",
    "set-hashtable",
    "zset-v1",
    "hash-hashtable",
    "zset-v2",
    "module-pre-release",
    "module-value",
    "",
    "hash-zipmap",
    "list-ziplist",
    "set-intset",
    "zset-ziplist",
    "hash-ziplist",
    "quicklist",
    "stream",
    "hash-listpack",
    "zset-listpack",
    "quicklist-v2",
    "stream-v2",
    "set-listpack",
    "stream-v3",
    "hash-hashtable-md-pre-release",
    "hash-listpack-md-pre-release",
    "hash-hashtable-md",
    "hash-listpack-md",
    "stream-v4",
    "stream-v5",
    "array",
    "hash-compact-listpack-dump",
    "hash-compact-listpack",
    "hash-compact-dump",
    "hash-compact",
];

/// The function that prints a line of the checker's output.
type Print<'p> = &'p mut dyn FnMut(&str);

struct Checker<'p> {
    print: Print<'p>,
    step: Step,
    key: Option<Vec<u8>>,
    kind: Option<u8>,
    keys: u64,
    expires: u64,
    expired: u64,
    now_ms: i64,
    offset: u64,
}

impl<'p> Checker<'p> {
    fn new(print: Print<'p>) -> Checker<'p> {
        Checker {
            print,
            step: Step::Start,
            key: None,
            kind: Some(0),
            keys: 0,
            expires: 0,
            expired: 0,
            now_ms: unix_us() / 1000,
            offset: 0,
        }
    }

    fn line(&mut self, offset: u64, text: &str) {
        (self.print)(&format!("[offset {offset}] {text}"));
    }

    fn counts(&mut self) {
        let counts = [
            (self.keys, "keys read"),
            (self.expires, "expires"),
            (self.expired, "already expired"),
        ];
        for (n, what) in counts {
            (self.print)(&format!("[info] {n} {what}"));
        }
    }

    fn error(&mut self, offset: u64, text: &str) {
        (self.print)("--- RDB ERROR DETECTED ---");
        self.line(offset, text);
        let step = self.step.name();
        (self.print)(&format!("[additional info] While doing: {step}"));
        if let Some(key) = self.key.take() {
            let key = String::from_utf8_lossy(&key);
            (self.print)(&format!("[additional info] Reading key '{key}'"));
        }
        if let Some(kind) = self.kind {
            let name = KINDS.get(usize::from(kind)).unwrap_or(&"unknown");
            (self.print)(&format!("[additional info] Reading type {kind} ({name})"));
        }
        self.counts();
    }

    fn fault(&mut self, offset: u64, fault: &Fault) {
        match (fault, self.step) {
            (Fault::Corrupt(text), Step::Value | Step::Aux) => {
                let text = format!("Internal error in RDB reading offset {offset} -> {text}");
                self.error(offset, &text);
            }
            (fault, _) => self.error(offset, &fault.to_string()),
        }
    }
}

impl Sink for Checker<'_> {
    fn tick(&mut self, _: u64) -> u64 {
        u64::MAX
    }

    fn step(&mut self, step: Step, offset: u64) {
        (self.step, self.offset) = (step, offset);
        match step {
            Step::Type => self.key = None,
            Step::Checksum => self.kind = None,
            _ => {}
        }
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) {
        let (name, value) = (
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value),
        );
        self.line(self.offset, &format!("AUX FIELD {name} = '{value}'"));
    }

    fn select_db(&mut self, db: u64) -> Result<()> {
        self.line(self.offset, &format!("Selecting DB ID {db}"));
        Ok(())
    }

    fn resize_db(&mut self, _: u64, _: u64, _: u64) {}

    fn function(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn key_begins(&mut self, name: &[u8], meta: Meta, kind: u8) {
        self.key = Some(name.to_vec());
        self.kind = Some(kind);
        self.keys += 1;
        if let Some(at) = meta.expire_at {
            self.expires += 1;
            self.expired += u64::from(at < self.now_ms);
        }
    }

    fn key(&mut self, _: &[u8], _: Meta, _: u8, _: New) -> Result<()> {
        self.key = None;
        Ok(())
    }

    fn empty_key(&mut self, _: &[u8]) {
        self.key = None;
    }

    fn skip_module(&mut self, _: &str) -> bool {
        true
    }

    fn skip_foreign(&mut self, name: &[u8], what: &str) -> bool {
        let name = String::from_utf8_lossy(name);
        self.line(
            self.offset,
            &format!("The key '{name}' is {what}, which this server does not have"),
        );
        self.key = None;
        true
    }

    fn footer(&mut self, found: u64, computed: u64) -> Result<()> {
        if found == 0 {
            let text = "RDB file was saved with checksum disabled: no check performed.";
            self.line(self.offset, text);
        } else if found == computed {
            self.line(self.offset, "Checksum OK");
        } else {
            return corrupt("RDB CRC error");
        }
        Ok(())
    }
}

/// Settings of encodings (such as `hash-max-listpack-entries`) that no value exceeds, so that no
/// value changes its encoding while a file is checked.
fn no_limits() -> Limits {
    let seed = HashSeed::new([0, 0]);
    Limits {
        hash: HashLimits {
            max_entries: usize::MAX,
            max_value: usize::MAX,
            seed,
        },
        list: ListLimits::default(),
        set: SetLimits {
            max_intset: usize::MAX,
            max_listpack: usize::MAX,
            max_value: usize::MAX,
            seed,
        },
        zset: ZsetLimits {
            max_entries: usize::MAX,
            max_value: usize::MAX,
            seed,
        },
        // The checker accepts as valid what the server repairs, such as a wrong number of stream
        // entries.
        sanitize: false,
    }
}

/// Checks an RDB file and prints each finding. Returns whether the RDB file is valid.
pub fn check_file(path: &Path, print: Print) -> bool {
    check_preamble(path, print).is_some()
}

/// Checks the RDB at the beginning of an AOF. Returns the offset of the RDB's end; `None` if it is
/// not valid.
pub fn check_preamble(path: &Path, print: Print) -> Option<u64> {
    let mut checker = Checker::new(print);
    checker.line(0, &format!("Checking RDB file {}", path.display()));
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (len, mut file) = match opened {
        Ok(opened) => opened,
        Err(e) => {
            let text = sys::error_text(&e);
            (checker.print)(&format!("Cannot open file: {text}"));
            return None;
        }
    };
    let mut reader = Reader::new(&mut file, Some(len));
    let version = match load::read_version(&mut reader, false) {
        Ok(version) => version,
        Err(refused) => {
            let offset = reader.offset();
            match refused {
                Refused::Signature => {
                    checker.error(offset, "Wrong signature trying to load DB from file");
                }
                Refused::Version(version) => {
                    let text = format!("Can't handle RDB format version {version}");
                    checker.error(offset, &text);
                }
                Refused::Compressed(reason) => {
                    let text = format!("Can't read this compressed file: {reason}");
                    checker.error(offset, &text);
                }
                Refused::Unreadable(fault) => checker.fault(offset, &fault),
            }
            return None;
        }
    };
    match load::read(&mut reader, version, no_limits(), &mut checker) {
        Ok(()) => {
            checker.line(reader.offset(), r"\o/ RDB looks OK! \o/");
            checker.counts();
            Some(reader.offset())
        }
        Err(fault) => {
            checker.fault(reader.offset(), &fault);
            None
        }
    }
}

/// Logs the checker's findings about an RDB file that the server can't load.
pub fn log_findings(path: &Path, _: &Server) {
    check_file(path, &mut |line| log::warn!("{line}"));
}

/// The main function of `aeris-check-rdb <rdb-file-name>`.
pub fn main(args: &[String]) -> ExitCode {
    match args {
        [_, flag] if flag == "-v" || flag == "--version" => {
            print_line(format_args!("redis-check-rdb {}", crate::REDIS_VERSION));
            ExitCode::SUCCESS
        }
        [path, flag] if flag == "-h" || flag == "--help" => {
            print_line(HELP.replace("NAME", program_name(path)).trim_end());
            ExitCode::SUCCESS
        }
        [_, path] => match check_file(Path::new(path), &mut |line| print_line(line)) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
        _ => {
            let name = args.first().map_or("aeris-check-rdb", String::as_str);
            print_error(format_args!("Usage: {name} <rdb-file-name>"));
            ExitCode::FAILURE
        }
    }
}
