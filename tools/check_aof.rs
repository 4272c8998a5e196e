//! aeris-check-aof: checks an AOF and finds the end of its valid part. The code is in
//! `persist::aof::check`.

use std::process::ExitCode;

fn main() -> ExitCode {
    aeris::server::crash_report::abort_on_panic();
    let args: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    aeris::persist::aof::check::main(&args)
}
