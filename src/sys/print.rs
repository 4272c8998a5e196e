//! Lines on the standard output and the standard error, for the tools and for DEBUG.
//!
//! A write that fails is ignored: a full disk or a closed pipe must not end a server, as it would
//! with `println!`.

use std::fmt::Display;
use std::io::{Write, stderr, stdout};
use std::path::Path;

/// Prints a text and a line end on the standard output.
pub fn print_line(text: impl Display) {
    let _ = writeln!(stdout().lock(), "{text}");
}

/// The file name of the path by which a program was started, for the program's help.
pub fn program_name(path: &str) -> &str {
    let name = Path::new(path).file_name();
    name.and_then(|name| name.to_str()).unwrap_or(path)
}

/// Prints a text and a line end on the standard error.
pub fn print_error(text: impl Display) {
    let _ = writeln!(stderr().lock(), "{text}");
}
