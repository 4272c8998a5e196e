//! Passwords that can't be guessed: `--gen-password`, and the users of a package's first start.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use sha2::{Digest, Sha256};

use crate::sys::error_text;
use crate::sys::print::{print_error, print_line};
use crate::util::random::Random;

/// The number of hexadecimal digits of a password: 256 bits, as ACL GENPASS gives.
const DIGITS: usize = 64;

/// `--gen-password`: prints a password.
pub fn print_password() -> ExitCode {
    match Random::secret_hex(DIGITS) {
        Some(password) => {
            print_line(password);
            ExitCode::SUCCESS
        }
        None => {
            print_error("The system has no source of randomness.");
            ExitCode::FAILURE
        }
    }
}

/// `--init-acl FILE`: if the file does not exist, writes users with a random password for the
/// default user. The password is written to `FILE.password`, which only the user that runs the
/// program, and root, may read.
pub fn write_users(file: &str) -> ExitCode {
    let path = Path::new(file);
    if path.exists() {
        return ExitCode::SUCCESS;
    }
    let Some(password) = Random::secret_hex(DIGITS) else {
        print_error("The system has no source of randomness.");
        return ExitCode::FAILURE;
    };
    let beside = format!("{file}.password");
    match write_both(path, Path::new(&beside), &password) {
        Ok(()) => {
            print_line(format_args!(
                "The password of the default user is in {beside}"
            ));
            ExitCode::SUCCESS
        }
        Err(e) => {
            print_error(format_args!("Can't write {file}: {}", error_text(&e)));
            ExitCode::FAILURE
        }
    }
}

/// Writes the password first: if the process ends before the users are written, the next start
/// begins again.
fn write_both(users: &Path, beside: &Path, password: &str) -> io::Result<()> {
    write_secret(beside, &format!("{password}\n"))?;
    let hash: String = Sha256::digest(password.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let new = users.with_extension("new");
    write_secret(
        &new,
        &format!("user default on sanitize-payload #{hash} ~* &* +@all\n"),
    )?;
    std::fs::rename(&new, users)
}

fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    // A file of an earlier attempt may be readable by other users.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
