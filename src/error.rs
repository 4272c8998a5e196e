//! What a client did wrong, as the text that it will read.
//!
//! A command returns `Err(Error)`; `call()` writes it as a `-` reply, in one place, and counts it
//! by its first word (`ERR`, `WRONGTYPE`, ...) for INFO's errorstats. The texts are the protocol's:
//! clients match on them, so they are byte for byte those of Redis 7.2. Those that Valkey spells
//! differently stand in `texts`.

use std::borrow::Cow;

/// An error reply without its leading `-` and without its line end, e.g. `ERR syntax error`.
///
/// Each character is one byte of the reply (ISO 8859-1): what a client said comes back as it was,
/// whatever bytes it is made of ([`excerpt`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    text: Cow<'static, str>,
    /// It is in the statistics already: the error of a script's command, which the script hands on.
    counted: bool,
}

impl Error {
    pub const SYNTAX: Error = Error::of("ERR syntax error");
    pub const WRONGTYPE: Error =
        Error::of("WRONGTYPE Operation against a key holding the wrong kind of value");
    pub const NOT_INTEGER: Error = Error::of("ERR value is not an integer or out of range");
    pub const NOT_FLOAT: Error = Error::of("ERR value is not a valid float");
    pub const OUT_OF_RANGE: Error = Error::of("ERR value is out of range");
    pub const I32_RANGE: Error =
        Error::of("ERR value is out of range, value must between -2147483648 and 2147483647");
    /// Of a count that may be negated.
    pub const LONG_RANGE: Error = Error::of(
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
    );
    pub const OUT_OF_RANGE_POSITIVE: Error =
        Error::of("ERR value is out of range, must be positive");
    pub const NO_SUCH_KEY: Error = Error::of("ERR no such key");
    pub const INCR_OVERFLOW: Error = Error::of("ERR increment or decrement would overflow");
    pub const INCR_NAN: Error = Error::of("ERR increment would produce NaN or Infinity");
    pub const INDEX_OUT_OF_RANGE: Error = Error::of("ERR index out of range");
    pub const OFFSET_OUT_OF_RANGE: Error = Error::of("ERR offset is out of range");
    pub const STRING_TOO_LONG: Error =
        Error::of("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    pub const SAME_OBJECT: Error = Error::of("ERR source and destination objects are the same");
    pub const DB_INDEX: Error = Error::of("ERR DB index is out of range");
    pub const TIMEOUT_NOT_FLOAT: Error = Error::of("ERR timeout is not a float or out of range");
    pub const TIMEOUT_NEGATIVE: Error = Error::of("ERR timeout is negative");
    pub const TIMEOUT_RANGE: Error = Error::of("ERR timeout is out of range");
    pub const TIMEOUT_NOT_INTEGER: Error =
        Error::of("ERR timeout is not an integer or out of range");
    pub const NOAUTH: Error = Error::of("NOAUTH Authentication required.");
    pub const OOM: Error = Error::of("OOM command not allowed when used memory > 'maxmemory'.");
    pub const MASTERDOWN: Error = Error::of(
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    );
    pub const READONLY: Error = Error::of("READONLY You can't write against a read only replica.");
    pub const NOREPLICAS: Error = Error::of("NOREPLICAS Not enough good replicas to write.");
    pub const EXECABORT: Error =
        Error::of("EXECABORT Transaction discarded because of previous errors.");
    pub const BAD_FORMAT: Error = Error::of("ERR Bad data format");

    /// A fixed text.
    pub const fn of(text: &'static str) -> Error {
        Error {
            text: Cow::Borrowed(text),
            counted: false,
        }
    }

    /// A text made for the occasion. Line ends, which would break the protocol, become spaces when
    /// it is written.
    pub fn new(text: impl Into<String>) -> Error {
        Error {
            text: Cow::Owned(text.into()),
            counted: false,
        }
    }

    /// The whole text, code word included.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same error, not to be counted again.
    pub fn counted(self) -> Error {
        Error {
            counted: true,
            ..self
        }
    }

    pub fn is_counted(&self) -> bool {
        self.counted
    }

    /// The text as it is sent: one line, without what would end it early.
    pub fn bytes(&self) -> impl Iterator<Item = u8> {
        let text = self.text.trim_end_matches(['\r', '\n']).chars();
        text.map(|c| match c {
            '\r' | '\n' => b' ',
            c => u8::try_from(c).unwrap_or(b'?'),
        })
    }

    /// The first word, by which errors are counted.
    pub fn code(&self) -> &str {
        self.text.split(' ').next().unwrap_or("ERR")
    }

    /// `ERR invalid expire time in 'set' command`
    pub fn invalid_expire(command: &str) -> Error {
        Error::new(format!("ERR invalid expire time in '{command}' command"))
    }

    /// `ERR unknown subcommand or wrong number of arguments for 'channels'. Try PUBSUB HELP.`
    pub fn subcommand_syntax(container: &str, said: &[u8]) -> Error {
        let said = excerpt(said, 128);
        Error::new(format!(
            "ERR unknown subcommand or wrong number of arguments for '{said}'. Try {container} HELP."
        ))
    }

    /// `ERR wrong number of arguments for 'get' command`
    pub fn arity(command: &str) -> Error {
        Error::new(format!(
            "ERR wrong number of arguments for '{command}' command"
        ))
    }
}

/// Bytes from a client inside an error text, each as the character of that number. They end at a
/// NUL, as C's `%s` ends them.
pub fn said(bytes: &[u8]) -> String {
    excerpt(bytes, usize::MAX)
}

/// The same of `max` bytes at most, as C's `%.128s` cuts them.
pub fn excerpt(bytes: &[u8], max: usize) -> String {
    let shown = bytes.iter().take(max).take_while(|&&byte| byte != 0);
    shown.map(|&byte| char::from(byte)).collect()
}
