//! aeris-check-aof: is this log sound, and where does it end? All of it is in
//! `persist::aof::check`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    aeris::persist::aof::check::main(&args)
}
