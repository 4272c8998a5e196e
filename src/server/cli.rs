//! The command line: options that need no server, and the settings.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::acl::file;
use crate::acl::rules::Terms;
use crate::command::table::CommandTable;
use crate::commands;
use crate::config::{Config, Directives, Sources, StartError, Text, load, parse_args};
use crate::observe::logging;
use crate::persist::aof;
use crate::persist::rdb;
use crate::server::{check_system, completions, first_start, record};
use crate::sys::print::{print_error, print_line};
use crate::{REDIS_VERSION, VERSION, build_id, sys};

/// `redis-server` stands for the name under which the program was started.
const USAGE: &str = "\
Usage: ./redis-server [/path/to/redis.conf] [options] [-]
       ./redis-server - (read config from stdin)
       ./redis-server -v or --version
       ./redis-server -h or --help
       ./redis-server --test-memory <megabytes>
       ./redis-server --check-system [--json] [--pid <pid>] [/path/to/redis.conf] [options]
       ./redis-server --gen-password
       ./redis-server --init-acl <users.acl>
       ./redis-server --completion <bash|zsh|fish>
       ./redis-server --replay <recording>

Examples:
       ./redis-server (run the server with default conf)
       echo 'maxmemory 128mb' | ./redis-server -
       ./redis-server /etc/redis/6379.conf
       ./redis-server --port 7777
       ./redis-server --port 7777 --replicaof 127.0.0.1 8888
       ./redis-server /etc/myredis.conf --loglevel verbose -
       ./redis-server /etc/myredis.conf --loglevel verbose
";

/// The end of redis-server's usage text, about sentinels. `aeris-server` can't be a sentinel, so
/// under its own name it leaves this part out.
const USAGE_OF_SENTINEL: &str = "
Sentinel mode:
       ./redis-server /etc/sentinel.conf --sentinel
";

/// The arguments of the command line as text, for INFO and the titles of processes.
pub fn lossy(argv: &[OsString]) -> Vec<String> {
    argv.iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect()
}

/// Runs the tool whose name the program was started under; `None` if the program was started under
/// no tool's name.
pub fn tool(argv: &[OsString]) -> Option<ExitCode> {
    let name = std::path::Path::new(argv.first()?).file_name()?;
    match name.to_str()? {
        "redis-check-rdb" | "aeris-check-rdb" => Some(rdb::check::main(&lossy(argv))),
        "redis-check-aof" | "aeris-check-aof" => Some(aof::check::main(&lossy(argv))),
        _ => None,
    }
}

/// Refuses to start as a sentinel, by the program's name or by `--sentinel`, since Sentinel is not
/// built.
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
        print_error("*** FATAL: this redis-server is built without Sentinel. Exiting...");
    }
    Some(ExitCode::FAILURE)
}

/// Handles options that need no server. `None`: there is no such option, so a server is started.
pub fn answer(argv: &[OsString]) -> Option<ExitCode> {
    let argv = lossy(argv);
    let words: Vec<&str> = argv.iter().skip(1).map(String::as_str).collect();
    match words[..] {
        ["-v" | "--version", ..] => print_line(version_line(is_own_name(&argv))),
        ["-h" | "--help", ..] => {
            print_error(usage(is_own_name(&argv)).trim_end_matches('\n'));
            return Some(ExitCode::FAILURE);
        }
        ["--test-memory", megabytes] => return Some(test_memory(megabytes)),
        ["--test-memory", ..] => {
            print_error("Please specify the amount of memory to test in megabytes.");
            print_error(format_args!("Example: ./redis-server --test-memory 4096\n"));
            return Some(ExitCode::FAILURE);
        }
        ["--gen-password"] => return Some(first_start::print_password()),
        ["--init-acl", file] => return Some(first_start::write_users(file)),
        ["--completion", shell] => return Some(completions::print(shell)),
        ["--replay", file] => return Some(record::replay(file)),
        ["--check-system", ..] => return Some(check_system(&argv[2..])),
        _ => return refuse_sentinel(&argv),
    }
    Some(ExitCode::SUCCESS)
}

/// `--check-system`: checks whether the machine has what the server's settings need.
fn check_system(args: &[String]) -> ExitCode {
    let (options, settings) = match check_system::CheckSystemOptions::parse(args) {
        Ok(parsed) => parsed,
        Err(problem) => {
            print_error(problem);
            return ExitCode::from(2);
        }
    };
    let mut config = Config::default();
    match load(&mut config, &parse_args(&settings), &mut Renaming::new()) {
        Ok(()) => check_system::report(&options, &config),
        Err(error) => {
            print_error(error);
            ExitCode::from(2)
        }
    }
}

/// Whether the program was started under its own name. A program that was started as redis-server
/// prints Redis's name.
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

/// The answer to `--version`: `Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64
/// build=<16 hex>`
fn version_line(own_name: bool) -> String {
    let (name, version) = if own_name {
        ("aeris", VERSION)
    } else {
        ("Redis", REDIS_VERSION)
    };
    format!(
        "{name} server v={version} sha=00000000:0 malloc={} bits={} build={:016x}",
        sys::allocator::allocator_name(),
        usize::BITS,
        build_id(),
    )
}

/// `--test-memory`: writes patterns to `megabytes` of memory and reads them back, address by
/// address.
fn test_memory(megabytes: &str) -> ExitCode {
    let Some(words) = megabytes
        .parse::<usize>()
        .ok()
        .filter(|mb| *mb > 0)
        .and_then(|mb| mb.checked_mul(1 << 17))
    else {
        print_error("Please specify the amount of memory to test in megabytes.");
        return ExitCode::FAILURE;
    };
    let mut memory: Vec<u64> = Vec::new();
    if memory.try_reserve_exact(words).is_err() {
        print_error(format_args!(
            "Unable to allocate {megabytes} megabytes: Cannot allocate memory"
        ));
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
        print_line(format_args!(
            "\n*** MEMORY ERROR DETECTED: {errors} errors ***"
        ));
        return ExitCode::FAILURE;
    }
    print_line(format_args!("\nYour memory passed this test."));
    print_line("Please if you are still in doubt use the following two tools:");
    print_line("1) memtest86: http://www.memtest86.com/");
    print_line("2) memtester: http://pyropus.ca/software/memtester/");
    ExitCode::SUCCESS
}

/// The commands that `rename-command` renames, in the order of its lines: (old name, new name).
pub type Renames = Vec<(Vec<u8>, Vec<u8>)>;

/// The `rename-command` lines are tried on a separate command table, as the server does not exist
/// yet.
struct Renaming {
    table: CommandTable,
    done: Renames,
}

impl Renaming {
    fn new() -> Renaming {
        Renaming {
            table: commands::table(),
            done: Vec::new(),
        }
    }
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

/// Reads the settings from the file, standard input and the options, and configures the server's
/// log.
pub fn configure(argv: &[OsString]) -> Result<(Config, Renames), ExitCode> {
    let loaded = load_settings(&parse_args(&argv[1..]));
    let possible = loaded.and_then(|(config, renames)| {
        config.check_logfile()?;
        match config.refused() {
            Some(reason) => Err(StartError::Whole(reason.into())),
            None => Ok((config, renames)),
        }
    });
    let (config, renames) = possible.map_err(|error| {
        match &error {
            StartError::Open { .. } => log::warn!("{error}"),
            _ => print_error(error),
        }
        ExitCode::FAILURE
    })?;
    logging::configure(&config);
    Ok((config, renames))
}

/// Reads the settings. The only side effect of this function is a change of the working directory.
pub fn load_settings(sources: &Sources) -> Result<(Config, Renames), StartError> {
    let mut config = Config::default();
    let mut renaming = Renaming::new();
    load(&mut config, sources, &mut renaming)?;
    Ok((config, renaming.done))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rename(lines: &[(&str, &str)]) -> Vec<Result<(), String>> {
        let mut renaming = Renaming::new();
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
