//! The flags that a script declares: `#!lua flags=no-writes,allow-oom` on its first line, or the
//! `flags` of a function. A script without a line `#!` is in compatibility mode: its flags are not
//! checked before it runs, but each of its commands is checked.

use crate::command;
use crate::error::{Error, excerpt};
use crate::texts::{self, Words};
use crate::util::quote::split_args;

/// Flags of a script, as bits.
pub type Flags = u8;

/// The script does not write.
pub const NO_WRITES: Flags = 1 << 0;
/// The script may run when memory is full.
pub const ALLOW_OOM: Flags = 1 << 1;
/// The script may run on a replica that has lost its primary.
pub const ALLOW_STALE: Flags = 1 << 2;
/// The script does not run in a cluster.
pub const NO_CLUSTER: Flags = 1 << 3;
/// The script's commands may use keys of several slots.
pub const ALLOW_CROSS_SLOT: Flags = 1 << 4;
/// The script has no line `#!`, so its commands are checked one by one.
pub const COMPATIBILITY: Flags = 1 << 5;

/// The names of the flags, by bit.
pub const NAMES: [&str; 5] = [
    "no-writes",
    "allow-oom",
    "allow-stale",
    "no-cluster",
    "allow-cross-slot-keys",
];

/// The script flag with this name.
pub fn by_name(name: &[u8]) -> Option<Flags> {
    let bit = NAMES.iter().position(|flag| flag.as_bytes() == name)?;
    Some(1 << bit)
}

/// The flags of a script, and the position of its code. The code begins with the line end after
/// `#!...`, so that line numbers in error messages remain correct.
pub fn of_script(source: &[u8], words: Words) -> Result<(Flags, usize), Error> {
    if !source.starts_with(b"#!") {
        return Ok((COMPATIBILITY, 0));
    }
    let end = first_line(source).ok_or(Error::of("ERR Invalid script shebang"))?;
    let no_engine = Error::of("ERR Invalid engine in script shebang");
    let line = split_args(&source[..end]).ok_or(no_engine.clone())?;
    let (engine, options) = line.split_first().ok_or(no_engine)?;
    let engine = &engine[2..];
    let is_lua = match words {
        Words::Redis => engine == b"lua",
        Words::Valkey => engine.eq_ignore_ascii_case(b"lua"),
    };
    if !is_lua {
        let engine = excerpt(engine, 128);
        return Err(Error::new(
            texts::UNKNOWN_ENGINE.fill(words, &[("engine", &engine)]),
        ));
    }
    let mut flags = 0;
    for option in options {
        let Some(list) = option.strip_prefix(b"flags=") else {
            return Err(Error::new(format!(
                "ERR Unknown lua shebang option: {}",
                excerpt(option, 128)
            )));
        };
        // The empty list `flags=` has no names, as in Redis.
        for name in list.split(|&b| b == b',').filter(|_| !list.is_empty()) {
            flags |= by_name(name).ok_or_else(|| {
                Error::new(format!(
                    "ERR Unexpected flag in script shebang: {}",
                    excerpt(name, 128)
                ))
            })?;
        }
    }
    Ok((flags, end))
}

/// The length in bytes of a script's first line, without its line end. `None` if the line has no
/// end or holds a NUL.
pub fn first_line(source: &[u8]) -> Option<usize> {
    let end = source.iter().position(|&b| b == b'\n' || b == 0)?;
    (source[end] == b'\n').then_some(end)
}

/// The command flags of EVAL or FCALL for a script with these flags.
pub fn of_command(row: command::Flags, script: Flags) -> command::Flags {
    let mut out = row & !(command::STALE | command::DENYOOM | command::WRITE);
    if script & NO_WRITES == 0 {
        out |= command::WRITE;
    } else {
        out &= !command::MAY_REPLICATE;
    }
    if script & (ALLOW_OOM | NO_WRITES) == 0 {
        out |= command::DENYOOM;
    }
    if script & ALLOW_STALE != 0 {
        out |= command::STALE;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_script(source: &[u8]) -> Result<(Flags, usize), Error> {
        super::of_script(source, Words::Redis)
    }

    #[test]
    fn a_script_says_what_it_needs() {
        assert_eq!(of_script(b"return 1"), Ok((COMPATIBILITY, 0)));
        assert_eq!(of_script(b"#!lua\nreturn 1"), Ok((0, 5)));
        assert_eq!(of_script(b"#!lua flags=\nreturn 1"), Ok((0, 12)));
        let (flags, at) = of_script(b"#!lua flags=no-writes,allow-cross-slot-keys\n").unwrap();
        assert_eq!((flags, at), (NO_WRITES | ALLOW_CROSS_SLOT, 43));
    }

    #[test]
    fn wrong_first_lines_are_refused() {
        let text = |source: &[u8]| of_script(source).unwrap_err().text().to_string();
        assert_eq!(text(b"#!lua"), "ERR Invalid script shebang");
        assert_eq!(text(b"#!\n"), "ERR Unexpected engine in script shebang: #!");
        assert_eq!(
            text(b"#!LUA\n"),
            "ERR Unexpected engine in script shebang: #!LUA"
        );
        assert_eq!(
            text(b"#!py\n"),
            "ERR Unexpected engine in script shebang: #!py"
        );
        assert_eq!(
            text(b"#!lua name=x\n"),
            "ERR Unknown lua shebang option: name=x"
        );
        assert_eq!(
            text(b"#!lua flags=no-writes,\n"),
            "ERR Unexpected flag in script shebang: "
        );
    }
}
