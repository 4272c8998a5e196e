//! Finds passwords in arguments: MONITOR and SLOWLOG show `(redacted)` in place of a password.
//!
//! Whether an argument is secret depends on the arguments of the command alone, so it is decided
//! when the command is shown.

/// The text that is shown in place of a secret argument.
pub const REDACTED: &[u8] = b"(redacted)";

/// Whether the command's argument at index `at` is a secret, such as a password.
pub fn is_secret(argv: &[&[u8]], at: usize) -> bool {
    let is = |at: usize, word: &str| {
        argv.get(at)
            .is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
    };
    if at == 0 {
        return false;
    }
    if is(0, "auth") {
        true
    } else if is(0, "hello") {
        at >= 3 && is(at - 1, "auth") || at >= 4 && is(at - 2, "auth")
    } else if is(0, "migrate") {
        // MIGRATE host port key db timeout [COPY] [REPLACE] [AUTH password | AUTH2 username
        // password] ...
        at >= 7 && (is(at - 1, "auth") || is(at - 1, "auth2")) || at >= 8 && is(at - 2, "auth2")
    } else if is(0, "config") && is(1, "set") {
        at >= 3 && at % 2 == 1 && SECRET_SETTINGS.iter().any(|name| is(at - 1, name))
    } else if is(0, "acl") {
        at >= 2 && (is(1, "setuser") || is(1, "deluser") || is(1, "getuser"))
    } else {
        false
    }
}

/// The settings that contain a password or its user name.
const SECRET_SETTINGS: [&str; 7] = [
    "requirepass",
    "masterauth",
    "primaryauth",
    "masteruser",
    "primaryuser",
    "tls-key-file-pass",
    "tls-client-key-file-pass",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> String {
        let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let show = |at: usize| {
            if is_secret(&argv, at) {
                "*"
            } else {
                line.split(' ').nth(at).unwrap()
            }
        };
        (0..argv.len()).map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn passwords_are_hidden_and_nothing_else() {
        assert_eq!(shown("AUTH secret"), "AUTH *");
        assert_eq!(shown("auth user secret"), "auth * *");
        assert_eq!(
            shown("HELLO 3 AUTH u p SETNAME n"),
            "HELLO 3 AUTH * * SETNAME n"
        );
        assert_eq!(shown("HELLO 3 SETNAME n"), "HELLO 3 SETNAME n");
        assert_eq!(
            shown("MIGRATE h 1 k 9 500 AUTH p"),
            "MIGRATE h 1 k 9 500 AUTH *"
        );
        assert_eq!(
            shown("MIGRATE h 1 k 9 500 COPY AUTH2 u p"),
            "MIGRATE h 1 k 9 500 COPY AUTH2 * *"
        );
        assert_eq!(
            shown("CONFIG SET port 1 requirepass p"),
            "CONFIG SET port 1 requirepass *"
        );
        assert_eq!(shown("CONFIG GET requirepass"), "CONFIG GET requirepass");
        assert_eq!(shown("ACL SETUSER u on >p"), "ACL SETUSER * * *");
        assert_eq!(shown("SET auth secret"), "SET auth secret");
    }
}
