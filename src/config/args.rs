//! The command line: `aeris-server [file] [--name value ...] [-]`.
//!
//! Options of the command line become lines of configuration, which are appended to the text of the
//! file. So one parser reads file and options, and a later line overrides an earlier one. `--port
//! 7777 --save 900 1` is `port "7777"` and `save "900" "1"`.
//!
//! An argument that starts with `--` is a name, except directly after a name without a value: then
//! the argument is that option's value (`--proc-title-template --x--`). A name and its values may
//! share one argument (`"--maxmemory 1gb"`). `--save`, followed by another option or by nothing,
//! means `save ""`.

use crate::util::quote::{split_args, write_repr};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The sources of the configuration, in the order in which they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// Whether `-` was given: configuration is read from standard input.
    pub stdin: bool,
    /// The options as lines of configuration; the first line is empty, so that line numbers in
    /// error texts are equal to Redis's.
    pub options: Vec<u8>,
}

/// Parses the arguments after the program's name. The caller handles options that are not settings
/// (`--version`, `--help`).
pub fn parse_args<T: AsRef<OsStr>>(args: &[T]) -> Sources {
    let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_ref().as_bytes()).collect();
    let mut sources = Sources::default();
    let mut rest = 0;
    if let Some(first) = args.first().filter(|first| !first.starts_with(b"-")) {
        // An empty name of a file counts as none, as scripts pass `"$CONFIG"` even if that variable
        // is empty.
        sources.file = Some(PathBuf::from(OsStr::from_bytes(first))).filter(|_| !first.is_empty());
        rest = 1;
    }
    let mut options = Vec::new();
    let mut name_may_follow = true;
    for (i, &arg) in args.iter().enumerate().skip(rest) {
        if arg == b"-" && (i == 0 || i + 1 == args.len()) {
            sources.stdin = true;
        } else if let Some(line) = arg.strip_prefix(b"--").filter(|_| name_may_follow) {
            if !options.is_empty() {
                options.push(b'\n');
            }
            options.extend_from_slice(line);
            options.push(b' ');
            let stands_alone = split_args(arg).is_some_and(|words| words.len() == 1);
            let next = args.get(i + 1);
            if arg.eq_ignore_ascii_case(b"--save")
                && next.is_none_or(|next| next.starts_with(b"--"))
            {
                options.extend_from_slice(b"\"\" ");
            } else {
                name_may_follow = !stands_alone;
            }
        } else {
            write_repr(&mut options, arg);
            options.push(b' ');
            name_may_follow = true;
        }
    }
    if !options.is_empty() {
        sources.options = [b"\n", &options[..]].concat();
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(args: &[&str]) -> String {
        String::from_utf8(parse_args(args).options).unwrap()
    }

    #[test]
    fn options_become_lines() {
        assert_eq!(
            lines(&[
                "--port", "7777", "--save", "900", "1", "--save", "300", "10"
            ]),
            "\nport \"7777\" \nsave \"900\" \"1\" \nsave \"300\" \"10\" "
        );
    }

    #[test]
    fn an_empty_file_name_is_none() {
        let sources = parse_args(&["", "--port", "7777"]);
        assert_eq!(sources.file, None);
        assert_eq!(sources.options, b"\nport \"7777\" ");
    }

    #[test]
    fn a_value_may_look_like_a_name() {
        assert_eq!(
            lines(&[
                "--proc-title-template",
                "--my--title",
                "--loglevel",
                "verbose"
            ]),
            "\nproc-title-template \"--my--title\" \nloglevel \"verbose\" "
        );
        assert_eq!(
            lines(&["--port", "--loglevel", "verbose"]),
            "\nport \"--loglevel\" \"verbose\" "
        );
    }

    #[test]
    fn save_without_values_is_empty() {
        assert_eq!(
            lines(&["--save", "--loglevel", "verbose"]),
            "\nsave \"\" \nloglevel \"verbose\" "
        );
        assert_eq!(
            lines(&["--loglevel", "verbose", "--save"]),
            "\nloglevel \"verbose\" \nsave \"\" "
        );
        assert_eq!(lines(&["--save", ""]), "\nsave \"\" ");
        assert_eq!(
            lines(&["--proc-title-template", "--save", "--save", ""]),
            "\nproc-title-template \"--save\" \nsave \"\" "
        );
    }

    #[test]
    fn name_and_values_may_share_an_argument() {
        assert_eq!(
            lines(&["--maxmemory '700mb'", "--loglevel verbose"]),
            "\nmaxmemory '700mb' \nloglevel verbose "
        );
    }

    #[test]
    fn file_and_standard_input() {
        let sources = parse_args(&["a.conf", "loglevel", "verbose", "-"]);
        assert_eq!(sources.file, Some(PathBuf::from("a.conf")));
        assert!(sources.stdin);
        assert_eq!(sources.options, b"\n\"loglevel\" \"verbose\" ");
        assert_eq!(
            parse_args(&["-"]),
            Sources {
                stdin: true,
                ..Sources::default()
            }
        );
        assert_eq!(parse_args::<&str>(&[]), Sources::default());
        // `-` means standard input only as the first or the last argument.
        assert!(!parse_args(&["a.conf", "-", "--port", "1"]).stdin);
    }
}
