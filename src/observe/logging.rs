//! The server's log: the `log` crate's macros, env_logger as the backend, and Redis's form of
//! lines.
//!
//! ```text
//!   12345:M 22 Nov 2026 18:00:00.123 * Ready to accept connections tcp
//!   pid   | local time               |  message
//!         role: C child or starting, M primary, S replica, X sentinel
//!                                    level
//! ```
//!
//! | `loglevel` | shows | macro | sign |
//! |---|---|---|---|
//! | warning | problems that an operator should look at | `warn!`, `error!` | `#` |
//! | notice | rare and important events | `info!` | `*` |
//! | verbose | more frequent events | `debug!` | `-` |
//! | debug | everything | `trace!` | `.` |
//! | nothing | | | |
//!
//! `log-format` has other forms: `logfmt` of Valkey, `json` (one object in each line), and
//! `journal` for systemd's journal, which adds time and pid itself and reads the priority from the
//! beginning of the line: `<5>M Ready to accept connections tcp`.
//!
//! The log file is opened for each line, as in Redis, so a log rotation needs no signal to the
//! server. The log is global, so the log's few settings are global variables of this module; all
//! other settings are fields of `Server`.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Record};

use crate::config::{Config, LogFormat, LogLevel, LogTimestampFormat, SyslogFacility};
use crate::sys::local_time::LocalTime;
use crate::sys::{signals, syslog};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The role of this process, which each line of the log shows as a letter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The role before the server has started, and in forked children.
    Child = b'C' as isize,
    Primary = b'M' as isize,
    Replica = b'S' as isize,
    Sentinel = b'X' as isize,
}

static ROLE: AtomicU8 = AtomicU8::new(Role::Child as u8);
static FORMAT: AtomicU8 = AtomicU8::new(LogFormat::Legacy as u8);
static TIMESTAMP: AtomicU8 = AtomicU8::new(LogTimestampFormat::Legacy as u8);

/// The destination of log lines; it does not change after the settings have been read.
struct Destination {
    /// The path of the log file; empty: standard output.
    file: PathBuf,
    syslog: bool,
}

static DESTINATION: OnceLock<Destination> = OnceLock::new();

/// Logs to standard output until [`configure`] is called. `main` calls this function once; a second
/// call does nothing.
pub fn start() {
    let mut builder = env_logger::Builder::new();
    // Log messages of other crates are dropped.
    builder.filter_module("aeris", LevelFilter::Trace);
    builder.format(write_record);
    builder.target(env_logger::Target::Pipe(Box::new(Sink)));
    if builder.try_init().is_ok() {
        set_level(LogLevel::Notice);
    }
}

/// Applies the settings of the log: file, level, format, syslog.
pub fn configure(config: &Config) {
    let destination = Destination {
        file: config.logfile.as_path().into(),
        syslog: config.syslog_enabled,
    };
    if DESTINATION.set(destination).is_ok() {
        signals::set_log_file(config.logfile.as_path());
        if config.syslog_enabled {
            syslog::open(&config.syslog_ident, facility(config.syslog_facility));
        }
    }
    set_level(config.loglevel);
    set_format(config);
}

/// Applies `loglevel`: the `log` crate drops messages below this level.
pub fn set_level(level: LogLevel) {
    log::set_max_level(match level {
        LogLevel::Debug => LevelFilter::Trace,
        LogLevel::Verbose => LevelFilter::Debug,
        LogLevel::Notice => LevelFilter::Info,
        LogLevel::Warning => LevelFilter::Warn,
        LogLevel::Nothing => LevelFilter::Off,
    });
}

/// Applies `log-format` and `log-timestamp-format`.
pub fn set_format(config: &Config) {
    FORMAT.store(config.log_format as u8, Ordering::Relaxed);
    TIMESTAMP.store(config.log_timestamp_format as u8, Ordering::Relaxed);
}

/// Sets the role of this process that log lines show.
pub fn set_role(role: Role) {
    ROLE.store(role as u8, Ordering::Relaxed);
}

/// Writes a text, such as a report, to the log without the head (pid, role, time) of a line. The
/// text is not sent to syslog.
pub fn raw(text: &str) {
    // An error of the log itself can't be reported anywhere.
    let _ = write_out(text.as_bytes());
}

fn write_record(out: &mut env_logger::fmt::Formatter, record: &Record) -> io::Result<()> {
    if DESTINATION.get().is_some_and(|to| to.syslog) {
        syslog::write(priority(record.level()), &record.args().to_string());
    }
    writeln!(
        out,
        "{}{}",
        Head {
            level: record.level()
        },
        Message(record)
    )
}

/// The part of a log line before the message: pid, role, time and level.
struct Head {
    level: Level,
}

/// The present format of log lines.
fn format() -> LogFormat {
    let all = [LogFormat::Logfmt, LogFormat::Json, LogFormat::Journal];
    let present = FORMAT.load(Ordering::Relaxed);
    let named = all.into_iter().find(|format| *format as u8 == present);
    named.unwrap_or(LogFormat::Legacy)
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid = std::process::id();
        let role = ROLE.load(Ordering::Relaxed);
        let (name, level) = (role_name(role), level_name(self.level));
        match format() {
            LogFormat::Legacy => {
                write!(f, "{pid}:{} {Stamp} {} ", role as char, sign(self.level))
            }
            LogFormat::Logfmt => write!(
                f,
                "pid={pid} role={name} timestamp=\"{Stamp}\" level={level} message="
            ),
            LogFormat::Json => write!(
                f,
                "{{\"pid\":{pid},\"role\":\"{name}\",\"timestamp\":\"{Stamp}\",\"level\":\"{level}\",\"message\":"
            ),
            LogFormat::Journal => write!(f, "<{}>{} ", priority(self.level), role as char),
        }
    }
}

/// The message of a log line, quoted if the log's format needs quotes.
struct Message<'a>(&'a Record<'a>);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Message(record) = self;
        match format() {
            LogFormat::Legacy => f.write_fmt(*record.args()),
            LogFormat::Logfmt => {
                let text = record.args().to_string();
                let text = text.replace('"', "'").replace(['\n', '\r'], " ");
                write!(f, "\"{text}\"")
            }
            LogFormat::Json => {
                let text = serde_json::Value::String(record.args().to_string());
                write!(f, "{text}}}")
            }
            LogFormat::Journal => {
                // systemd's journal makes an entry of each line of a message, so each line needs a
                // priority.
                let next = format!(
                    "\n{}",
                    Head {
                        level: record.level()
                    }
                );
                f.write_str(&record.args().to_string().replace('\n', &next))
            }
        }
    }
}

/// The present time, in the form that `log-timestamp-format` selects.
pub struct Stamp;

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let ms = now.subsec_millis();
        let style = TIMESTAMP.load(Ordering::Relaxed);
        if style == LogTimestampFormat::Milliseconds as u8 {
            return write!(f, "{}", now.as_millis());
        }
        let LocalTime {
            year,
            month,
            day,
            hour,
            minute,
            second,
            offset_minutes,
        } = LocalTime::at(now.as_secs() as i64);
        if style == LogTimestampFormat::Iso8601 as u8 {
            let sign = if offset_minutes < 0 { '-' } else { '+' };
            let (east, month) = (offset_minutes.abs(), month + 1);
            write!(
                f,
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}"
            )?;
            return write!(f, "{sign}{:02}:{:02}", east / 60, east % 60);
        }
        let month = MONTHS[month];
        write!(
            f,
            "{day:02} {month} {year} {hour:02}:{minute:02}:{second:02}.{ms:03}"
        )
    }
}

/// The head of the lines of a crash report: the head of a warning, written without allocation.
pub struct WarningHead;

impl fmt::Display for WarningHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format() {
            // A crash report can't close the quotes of a JSON object, so its lines are plain.
            LogFormat::Json => f.write_str("# "),
            _ => Head { level: Level::Warn }.fmt(f),
        }
    }
}

fn sign(level: Level) -> char {
    match level {
        Level::Error | Level::Warn => '#',
        Level::Info => '*',
        Level::Debug => '-',
        Level::Trace => '.',
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error | Level::Warn => "warning",
        Level::Info => "notice",
        Level::Debug => "info",
        Level::Trace => "debug",
    }
}

fn role_name(role: u8) -> &'static str {
    match role {
        b'M' => "primary",
        b'S' => "replica",
        b'X' => "sentinel",
        _ => "RDB/AOF",
    }
}

fn priority(level: Level) -> i32 {
    match level {
        Level::Error | Level::Warn => libc::LOG_WARNING,
        Level::Info => libc::LOG_NOTICE,
        Level::Debug => libc::LOG_INFO,
        Level::Trace => libc::LOG_DEBUG,
    }
}

fn facility(setting: SyslogFacility) -> i32 {
    match setting {
        SyslogFacility::User => libc::LOG_USER,
        SyslogFacility::Local0 => libc::LOG_LOCAL0,
        SyslogFacility::Local1 => libc::LOG_LOCAL1,
        SyslogFacility::Local2 => libc::LOG_LOCAL2,
        SyslogFacility::Local3 => libc::LOG_LOCAL3,
        SyslogFacility::Local4 => libc::LOG_LOCAL4,
        SyslogFacility::Local5 => libc::LOG_LOCAL5,
        SyslogFacility::Local6 => libc::LOG_LOCAL6,
        SyslogFacility::Local7 => libc::LOG_LOCAL7,
    }
}

/// The writer to which env_logger passes whole lines, for the log file or standard output.
struct Sink;

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_out(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to the log without the buffer of std's standard output, so that no part of a line is left
/// in a buffer when a child is forked.
fn write_out(bytes: &[u8]) -> io::Result<()> {
    match DESTINATION.get() {
        Some(to) if !to.file.as_os_str().is_empty() => OpenOptions::new()
            .append(true)
            .create(true)
            .open(&to.file)?
            .write_all(bytes),
        _ => {
            let mut rest = bytes;
            while !rest.is_empty() {
                let written = nix::unistd::write(io::stdout().as_fd(), rest)?;
                rest = &rest[written..];
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_signs() {
        let signs: String = [Level::Warn, Level::Info, Level::Debug, Level::Trace]
            .map(sign)
            .iter()
            .collect();
        assert_eq!(signs, "#*-.");
    }

    /// The head of a warning has the form `12345:C 22 Nov 2026 18:00:00.123 # `.
    #[test]
    fn a_head_has_redis_s_shape() {
        let head = WarningHead.to_string();
        let words: Vec<&str> = head.split(' ').collect();
        assert_eq!(words.len(), 7, "{head:?}");
        assert_eq!(words[0], format!("{}:C", std::process::id()));
        assert!(MONTHS.contains(&words[2]), "{head:?}");
        assert_eq!((words[4].len(), words[5]), (12, "#"), "{head:?}");
    }
}
