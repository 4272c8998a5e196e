//! The error replies of commands.
//!
//! The function of a command returns `Err(Error)`. `execute::call` writes the error as a `-` reply
//! and counts it by its first word (`ERR`, `WRONGTYPE`, ...) for INFO's errorstats. Clients compare
//! the texts of errors, so the texts are byte for byte those of Redis 7.2. The error texts that
//! Valkey spells differently are in `src/texts.rs`.

use std::borrow::Cow;

/// An error reply without its leading `-` and its line end, e.g. `ERR syntax error`.
///
/// Each character of the text is one byte of the reply (ISO 8859-1), so that bytes of a request can
/// be part of the text ([`excerpt`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    text: Cow<'static, str>,
    /// Whether the error has been counted in the statistics. The error of a command that a script
    /// calls is counted before the script returns this error.
    counted: bool,
}

impl Error {
    /// `ERR syntax error`
    pub const SYNTAX: Error = Error::of("ERR syntax error");
    /// `WRONGTYPE Operation against a key holding the wrong kind of value`
    pub const WRONGTYPE: Error =
        Error::of("WRONGTYPE Operation against a key holding the wrong kind of value");
    /// `ERR value is not an integer or out of range`
    pub const NOT_INTEGER: Error = Error::of("ERR value is not an integer or out of range");
    /// `ERR value is not a valid float`
    pub const NOT_FLOAT: Error = Error::of("ERR value is not a valid float");
    /// `ERR value is out of range`
    pub const OUT_OF_RANGE: Error = Error::of("ERR value is out of range");
    /// `ERR value is out of range, value must between -2147483648 and 2147483647`
    pub const I32_RANGE: Error =
        Error::of("ERR value is out of range, value must between -2147483648 and 2147483647");
    /// The error for a count argument that a command may negate, so that the least 64-bit integer
    /// is refused.
    pub const LONG_RANGE: Error = Error::of(
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
    );
    /// `ERR value is out of range, must be positive`
    pub const OUT_OF_RANGE_POSITIVE: Error =
        Error::of("ERR value is out of range, must be positive");
    /// `ERR no such key`
    pub const NO_SUCH_KEY: Error = Error::of("ERR no such key");
    /// `ERR increment or decrement would overflow`
    pub const INCR_OVERFLOW: Error = Error::of("ERR increment or decrement would overflow");
    /// `ERR increment would produce NaN or Infinity`
    pub const INCR_NAN: Error = Error::of("ERR increment would produce NaN or Infinity");
    /// `ERR index out of range`
    pub const INDEX_OUT_OF_RANGE: Error = Error::of("ERR index out of range");
    /// `ERR offset is out of range`
    pub const OFFSET_OUT_OF_RANGE: Error = Error::of("ERR offset is out of range");
    /// `ERR string exceeds maximum allowed size (proto-max-bulk-len)`
    pub const STRING_TOO_LONG: Error =
        Error::of("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    /// `ERR source and destination objects are the same`
    pub const SAME_OBJECT: Error = Error::of("ERR source and destination objects are the same");
    /// `ERR DB index is out of range`
    pub const DB_INDEX: Error = Error::of("ERR DB index is out of range");
    /// `ERR timeout is not a float or out of range`
    pub const TIMEOUT_NOT_FLOAT: Error = Error::of("ERR timeout is not a float or out of range");
    /// `ERR timeout is negative`
    pub const TIMEOUT_NEGATIVE: Error = Error::of("ERR timeout is negative");
    /// `ERR timeout is out of range`
    pub const TIMEOUT_RANGE: Error = Error::of("ERR timeout is out of range");
    /// `ERR timeout is not an integer or out of range`
    pub const TIMEOUT_NOT_INTEGER: Error =
        Error::of("ERR timeout is not an integer or out of range");
    /// `NOAUTH Authentication required.`
    pub const NOAUTH: Error = Error::of("NOAUTH Authentication required.");
    /// `OOM command not allowed when used memory > 'maxmemory'.`
    pub const OOM: Error = Error::of("OOM command not allowed when used memory > 'maxmemory'.");
    /// `READONLY You can't write against a read only replica.`
    pub const READONLY: Error = Error::of("READONLY You can't write against a read only replica.");
    /// `MASTERDOWN Link with MASTER is down ..`, the same text in Redis and Valkey.
    pub const MASTERDOWN: Error = Error::of(
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    );
    /// `NOREPLICAS Not enough good replicas to write.`
    pub const NOREPLICAS: Error = Error::of("NOREPLICAS Not enough good replicas to write.");
    /// `EXECABORT Transaction discarded because of previous errors.`
    pub const EXECABORT: Error =
        Error::of("EXECABORT Transaction discarded because of previous errors.");
    /// `ERR Bad data format`
    pub const BAD_FORMAT: Error = Error::of("ERR Bad data format");

    /// An error with a fixed text.
    pub const fn of(text: &'static str) -> Error {
        Error {
            text: Cow::Borrowed(text),
            counted: false,
        }
    }

    /// An error with a text that is made at run time. Line ends in the text, which would break the
    /// protocol, become spaces in the reply.
    pub fn new(text: impl Into<String>) -> Error {
        Error {
            text: Cow::Owned(text.into()),
            counted: false,
        }
    }

    /// The whole text, including the code at its beginning (`ERR`, `WRONGTYPE`, ...).
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Marks the error as counted in errorstats, so that it is not counted again.
    pub fn counted(self) -> Error {
        Error {
            counted: true,
            ..self
        }
    }

    /// Whether the error has been counted in errorstats.
    pub fn is_counted(&self) -> bool {
        self.counted
    }

    /// The text as it is sent: one line, in which spaces replace line ends.
    pub fn bytes(&self) -> impl Iterator<Item = u8> {
        let text = self.text.trim_end_matches(['\r', '\n']).chars();
        text.map(|c| match c {
            '\r' | '\n' => b' ',
            c => u8::try_from(c).unwrap_or(b'?'),
        })
    }

    /// The code, which is the first word of the text and is counted in errorstats.
    pub fn code(&self) -> &str {
        self.text.split(' ').next().unwrap_or("ERR")
    }

    /// The error `ERR invalid expire time in 'set' command`.
    pub fn invalid_expire(command: &str) -> Error {
        Error::new(format!("ERR invalid expire time in '{command}' command"))
    }

    /// The error `ERR unknown subcommand or wrong number of arguments for 'channels'. Try PUBSUB
    /// HELP.`
    pub fn subcommand_syntax(container: &str, said: &[u8]) -> Error {
        let said = excerpt(said, 128);
        Error::new(format!(
            "ERR unknown subcommand or wrong number of arguments for '{said}'. Try {container} HELP."
        ))
    }

    /// The error `ERR wrong number of arguments for 'get' command`.
    pub fn arity(command: &str) -> Error {
        Error::new(format!(
            "ERR wrong number of arguments for '{command}' command"
        ))
    }
}

/// Bytes of a request as a part of an error text: each byte becomes the character with its number.
/// A NUL ends the text, as with C's `%s` in Redis.
pub fn said(bytes: &[u8]) -> String {
    excerpt(bytes, usize::MAX)
}

/// At most `max` bytes of a request as a part of an error text, as with C's `%.128s` in Redis.
pub fn excerpt(bytes: &[u8], max: usize) -> String {
    let shown = bytes.iter().take(max).take_while(|&&byte| byte != 0);
    shown.map(|&byte| char::from(byte)).collect()
}
