//! The command line: options that need no server, and the settings.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::acl::file;
use crate::acl::rules::Terms;
use crate::command::table::CommandTable;
use crate::commands;
use crate::config::{Config, Directives, StartError, Text, load, parse_args};
use crate::observe::logging;
use crate::{REDIS_VERSION, VERSION, sys};

/// `redis-server` stands for the name under which the program was started.
const USAGE: &str = "\
Usage: ./redis-server [/path/to/redis.conf] [options] [-]
       ./redis-server - (read config from stdin)
       ./redis-server -v or --version
       ./redis-server -h or --help
       ./redis-server --test-memory <megabytes>
       ./redis-server --check-system

Examples:
       ./redis-server (run the server with default conf)
       echo 'maxmemory 128mb' | ./redis-server -
       ./redis-server /etc/redis/6379.conf
       ./redis-server --port 7777
       ./redis-server --port 7777 --replicaof 127.0.0.1 8888
       ./redis-server /etc/myredis.conf --loglevel verbose -
       ./redis-server /etc/myredis.conf --loglevel verbose
";

/// The rest of redis-server's text. This program is not a sentinel, so its own text ends before it.
const USAGE_OF_SENTINEL: &str = "
Sentinel mode:
       ./redis-server /etc/sentinel.conf --sentinel
";

/// Arguments as text, for INFO and titles.
pub fn lossy(argv: &[OsString]) -> Vec<String> {
    argv.iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect()
}

/// Runs the tool whose name the program was started under; `None` if it was started under no tool's
/// name.
pub fn tool(argv: &[OsString]) -> Option<ExitCode> {
    let name = std::path::Path::new(argv.first()?).file_name()?;
    match name.to_str()? {
        "redis-check-rdb" | "aeris-check-rdb" => {
            Some(crate::persist::rdb::check::main(&lossy(argv)))
        }
        "redis-check-aof" | "aeris-check-aof" => {
            Some(crate::persist::aof::check::main(&lossy(argv)))
        }
        _ => None,
    }
}

/// Refuses to start as a sentinel, by name or by option, since this program has none.
fn refuse_sentinel(words: &[String]) -> Option<ExitCode> {
    let (name, rest) = words.split_first()?;
    if !name.contains("redis-sentinel") && !rest.iter().any(|word| word == "--sentinel") {
        return None;
    }
    if rest.iter().all(|word| word.starts_with('-')) {
        logging::start();
        logging::set_role(logging::Role::Sentinel);
        log::warn!("Sentinel needs config file on disk to save state. Exiting...");
    } else {
        eprintln!("*** FATAL: this redis-server is built without Sentinel. Exiting...");
    }
    Some(ExitCode::FAILURE)
}

/// Handles options that need no server. `None`: start a server.
pub fn answer(argv: &[OsString]) -> Option<ExitCode> {
    let argv = lossy(argv);
    let words: Vec<&str> = argv.iter().skip(1).map(String::as_str).collect();
    match words[..] {
        ["-v" | "--version", ..] => println!("{}", version_line(is_own_name(&argv))),
        ["-h" | "--help", ..] => {
            eprint!("{}", usage(is_own_name(&argv)));
            return Some(ExitCode::FAILURE);
        }
        ["--test-memory", megabytes] => return Some(test_memory(megabytes)),
        ["--test-memory", ..] => {
            eprintln!("Please specify the amount of memory to test in megabytes.");
            eprintln!("Example: ./redis-server --test-memory 4096\n");
            return Some(ExitCode::FAILURE);
        }
        ["--check-system", ..] => return Some(crate::server::check_system::report()),
        _ => return refuse_sentinel(&argv),
    }
    Some(ExitCode::SUCCESS)
}

/// Whether the program was started under its own name; started as redis-server, it prints that
/// name.
fn is_own_name(argv: &[String]) -> bool {
    let name = argv.first().map(std::path::Path::new);
    let name = name.and_then(std::path::Path::file_name);
    name.is_some_and(|name| name.to_string_lossy().starts_with("aeris"))
}

fn usage(own_name: bool) -> String {
    if own_name {
        format!("aeris {VERSION}\n") + &USAGE.replace("redis-server", "aeris-server")
    } else {
        [USAGE, USAGE_OF_SENTINEL].concat()
    }
}

/// `Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=<16 hex>`
fn version_line(own_name: bool) -> String {
    let (name, version) = if own_name {
        ("aeris", VERSION)
    } else {
        ("Redis", REDIS_VERSION)
    };
    format!(
        "{name} server v={version} sha=00000000:0 malloc={} bits={} build={}",
        sys::allocator::allocator_name(),
        usize::BITS,
        build_id(),
    )
}

/// A hash of the version, which package tools compare.
pub fn build_id() -> String {
    let digest = crc_fast::checksum(
        crc_fast::CrcAlgorithm::Crc64Redis,
        concat!(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")).as_bytes(),
    );
    format!("{digest:016x}")
}

/// Writes patterns to `megabytes` of memory and reads them back, address by address.
fn test_memory(megabytes: &str) -> ExitCode {
    let Some(words) = megabytes
        .parse::<usize>()
        .ok()
        .filter(|mb| *mb > 0)
        .and_then(|mb| mb.checked_mul(1 << 17))
    else {
        eprintln!("Please specify the amount of memory to test in megabytes.");
        return ExitCode::FAILURE;
    };
    let mut memory: Vec<u64> = Vec::new();
    if memory.try_reserve_exact(words).is_err() {
        eprintln!("Unable to allocate {megabytes} megabytes: Cannot allocate memory");
        return ExitCode::FAILURE;
    }
    memory.resize(words, 0);
    let mut errors = 0u64;
    for pattern in [0u64, u64::MAX, 0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa] {
        // The address is part of the pattern, so that a faulty address line is detected.
        let wanted = |at: usize| pattern ^ at as u64;
        memory
            .iter_mut()
            .enumerate()
            .for_each(|(at, word)| *word = wanted(at));
        let memory = std::hint::black_box(&memory);
        errors += memory
            .iter()
            .enumerate()
            .filter(|(at, word)| **word != wanted(*at))
            .count() as u64;
    }
    if errors > 0 {
        println!("\n*** MEMORY ERROR DETECTED: {errors} errors ***");
        return ExitCode::FAILURE;
    }
    println!("\nYour memory passed this test.");
    println!("Please if you are still in doubt use the following two tools:");
    println!("1) memtest86: http://www.memtest86.com/");
    println!("2) memtester: http://pyropus.ca/software/memtester/");
    ExitCode::SUCCESS
}

/// Renamed commands in the order of their lines: (old, new).
pub type Renames = Vec<(Vec<u8>, Vec<u8>)>;

/// The `rename-command` lines are tried on a separate table, as the server does not exist yet.
struct Renaming {
    table: CommandTable,
    done: Renames,
}

impl Directives for Renaming {
    fn rename_command(&mut self, from: &[u8], to: &[u8]) -> Result<(), String> {
        if self.table.lookup(from).is_none() {
            return Err("No such command in rename-command".into());
        }
        if !self.table.rename(from, to) {
            return Err("Target command name already exists".into());
        }
        self.done.push((from.to_vec(), to.to_vec()));
        Ok(())
    }

    fn user(&mut self, args: &[Text]) -> Result<(), String> {
        let terms = Terms {
            commands: &self.table,
            all_channels: false,
        };
        file::check_line(&terms, args)
    }
}

/// Reads file, standard input and options, and configures the server's log.
pub fn configure(argv: &[OsString]) -> Result<(Config, Renames), ExitCode> {
    let mut config = Config::default();
    let mut renaming = Renaming {
        table: commands::table(),
        done: Vec::new(),
    };
    let loaded = load(&mut config, &parse_args(&argv[1..]), &mut renaming);
    let possible =
        loaded
            .and_then(|()| config.check_logfile())
            .and_then(|()| match config.not_built() {
                Some(reason) => Err(StartError::Whole(reason.into())),
                None => Ok(()),
            });
    if let Err(error) = possible {
        match &error {
            StartError::Open { .. } => log::warn!("{error}"),
            _ => eprintln!("{error}"),
        }
        return Err(ExitCode::FAILURE);
    }
    logging::configure(&config);
    Ok((config, renaming.done))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rename(lines: &[(&str, &str)]) -> Vec<Result<(), String>> {
        let mut renaming = Renaming {
            table: commands::table(),
            done: Vec::new(),
        };
        lines
            .iter()
            .map(|(from, to)| renaming.rename_command(from.as_bytes(), to.as_bytes()))
            .collect()
    }

    #[test]
    fn renamed_commands() {
        assert_eq!(rename(&[("get", "fetch"), ("fetch", "")]), [Ok(()), Ok(())]);
        let twice = [("get", "fetch"), ("fetch", "bring"), ("bring", "get")];
        assert_eq!(rename(&twice), [Ok(()), Ok(()), Ok(())]);
        assert_eq!(
            rename(&[("nope", "x")]),
            [Err("No such command in rename-command".into())]
        );
        assert_eq!(
            rename(&[("get", "set")]),
            [Err("Target command name already exists".into())]
        );
    }

    #[test]
    fn version_has_redis_s_shape() {
        let own = version_line(true);
        assert!(own.starts_with("aeris server v="), "{own}");
        let line = version_line(false);
        assert!(
            line.starts_with("Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-"),
            "{line}"
        );
        assert_eq!(line.rsplit("build=").next().unwrap().len(), 16);
    }
}
