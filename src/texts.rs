//! A table of the texts that Redis and Valkey spell differently, in both spellings.
//!
//! `extended-redis-compatibility yes`, the default, selects Redis's texts, `no` Valkey's. The
//! setting may change while the server runs, so a text is selected where it is used:
//! `config.text(texts::NO_SCRIPT)`. The selection costs a comparison; only [`Text::fill`]
//! allocates, for the few texts that contain bytes of a request.
//!
//! Texts that are equal in both servers are not in this table. Log lines that name a primary have
//! `MASTER` in Redis's form and `PRIMARY` in Valkey's.
//!
//! Two kinds of lines always have Redis's form: those written before the settings are read, and the
//! crash report, which must not read the server's state.
//!
//! **Invariant:** the two spellings of a row differ, and no row has an open brace
//! (`tests::each_row_has_two_spellings`).

use std::fmt::Display;

/// The server, Redis or Valkey, whose texts are used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Words {
    #[default]
    Redis,
    Valkey,
}

impl Words {
    /// A log line about the link to a primary; each `{}` is replaced by the next argument.
    /// Templates are in Redis's form; Valkey's form differs only in the name of the role.
    pub fn line(self, template: &str, arguments: &[&dyn Display]) -> String {
        let spelled = match self {
            Words::Redis => template.to_string(),
            Words::Valkey => {
                let roles = [
                    ("MASTER", "PRIMARY"),
                    ("Master", "Primary"),
                    ("master", "primary"),
                ];
                let replace =
                    |text: String, (redis, valkey): (&str, &str)| text.replace(redis, valkey);
                roles.into_iter().fold(template.to_string(), replace)
            }
        };
        let mut pieces = spelled.split("{}");
        let mut out = pieces.next().unwrap_or("").to_string();
        for (piece, argument) in pieces.zip(arguments) {
            out.push_str(&argument.to_string());
            out.push_str(piece);
        }
        out
    }
}

/// A text in Redis's and in Valkey's form. `{name}` stands for an argument, see [`Text::fill`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Text {
    redis: &'static str,
    valkey: &'static str,
}

impl Text {
    /// The spelling of the text in one server's form.
    #[inline]
    pub const fn of(self, words: Words) -> &'static str {
        match words {
            Words::Redis => self.redis,
            Words::Valkey => self.valkey,
        }
    }

    /// The spelling of the text in one server's form, with each `{name}` replaced by the argument
    /// of that name.
    pub fn fill(self, words: Words, arguments: &[(&str, &str)]) -> String {
        let mut out = String::new();
        let mut rest = self.of(words);
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').unwrap_or((behind, ""));
            let argument = arguments.iter().find(|(known, _)| *known == name);
            out.push_str(before);
            out.push_str(argument.map_or("", |(_, text)| text));
            rest = after;
        }
        out.push_str(rest);
        out
    }
}

/// `differ!("a" / "b" in "x", "y")` is `xay` in Redis's form and `xby` in Valkey's.
macro_rules! differ {
    ($redis:literal / $valkey:literal in $first:literal $(, $rest:literal)*) => {
        Text {
            redis: concat!($first $(, $redis, $rest)*),
            valkey: concat!($first $(, $valkey, $rest)*),
        }
    };
}

/// A text that is given twice: as in Redis, and as in Valkey.
const fn both(redis: &'static str, valkey: &'static str) -> Text {
    Text { redis, valkey }
}

macro_rules! table {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$doc])* pub const $name: Text = $text;)*

        /// All texts, with their names.
        pub const ALL: &[(&str, Text)] = &[$((stringify!($name), $name)),*];
    };
}

table! {
    // Texts of replies.

    LOADING = differ!("Redis" / "Valkey" in "LOADING ", " is loading the dataset in memory");
    BUSY_SCRIPT = differ!("Redis" / "Valkey" in
        "BUSY ", " is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.");
    BUSY_FUNCTION = differ!("Redis" / "Valkey" in
        "BUSY ", " is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.");
    SCRIPT_KILLED = both(
        "Script killed by user with SCRIPT KILL...",
        "Script killed by user with SCRIPT KILL.",
    );
    FUNCTION_KILLED = both(
        "Script killed by user with FUNCTION KILL...",
        "Script killed by user with FUNCTION KILL.",
    );
    MISCONF_RDB = differ!("Redis" / "Valkey" in
        "MISCONF ", " is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that \
         may modify the data set are disabled, because this instance is configured to report errors during writes if \
         RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the ", " logs for details about the \
         RDB error.");
    PROTECTED_MODE = both(
        "DENIED Redis is running in protected mode because protected mode is enabled and no password is set for the \
         default user. In this mode connections are only accepted from the loopback interface. If you want to connect \
         from external computers to Redis you may adopt one of the following solutions: 1) Just disable protected mode \
         sending the command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis from \
         the same host the server is running, however MAKE SURE Redis is not publicly accessible from internet if you \
         do so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively you can just disable the protected \
         mode by editing the Redis configuration file, and setting the protected mode option to 'no', and then \
         restarting the server. 3) If you started the server manually just for testing, restart it with the \
         '--protected-mode no' option. 4) Set up an authentication password for the default user. NOTE: You only need \
         to do one of the above things in order for the server to start accepting connections from the outside.",
        "DENIED Running in protected mode because protected mode is enabled and no password is set for the default \
         user. In this mode connections are only accepted from the loopback interface. If you want to connect from \
         external computers, you may adopt one of the following solutions: 1) Just disable protected mode sending the \
         command 'CONFIG SET protected-mode no' from the loopback interface by connecting from the same host the \
         server is running, however MAKE SURE it's not publicly accessible from internet if you do so. Use CONFIG \
         REWRITE to make this change permanent. 2) Alternatively you can just disable the protected mode by editing \
         the configuration file, and setting the protected mode option to 'no', and then restarting the server. 3) If \
         you started the server manually just for testing, restart it with the '--protected-mode no' option. 4) Set \
         up an authentication password for the default user. NOTE: You only need to do one of the above things in \
         order for the server to start accepting connections from the outside.",
    );
    NO_ACL_FILE = both(
        "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL \
         SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order \
         to store users in the Redis configuration.",
        "ERR This instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER \
         command and then issue a CONFIG REWRITE (assuming you have a configuration file set) in order to store users \
         in the configuration.",
    );

    /// The ids that XREAD accepts for a stream, as an error lists them; Redis 8.2 also has `+`.
    XREAD_IDS = both("ID, '+', or '$'", "ID or '$'");
    REPLICAOF_PORT = differ!("master" / "primary" in "Invalid ", " port");

    // Texts of INFO.

    /// The name in INFO errorstats of the counter for error codes beyond the limit, see
    /// `observe::stats`.
    ERRORSTATS_BEYOND_LIMIT = differ!("DISABLED" / "OVERFLOW" in "ERRORSTATS_", "");

    // Texts of errors in scripts.

    NO_SCRIPT = both(
        "NOSCRIPT No matching script. Please use EVAL.",
        "NOSCRIPT No matching script.",
    );
    UNKNOWN_ENGINE = both(
        "ERR Unexpected engine in script shebang: #!{engine}",
        "ERR Could not find scripting engine '{engine}'",
    );
    CALL_WITHOUT_ARGUMENTS = differ!("this redis lib call" / "this call" in
        "Please specify at least one argument for ", "");
    CALL_ARGUMENTS = differ!("Lua redis lib command" / "Command" in
        "", " arguments must be strings or integers");
    UNKNOWN_COMMAND_IN_SCRIPT = differ!("Redis command" / "command" in
        "ERR Unknown ", " called from script");
    ARITY_IN_SCRIPT = differ!("Redis command" / "command" in
        "ERR Wrong number of args calling ", " from script");
    LOG_ARGUMENTS = differ!("redis" / "server" in "", ".log() requires two arguments or more.");
    SETRESP_ARGUMENTS = differ!("redis" / "server" in "", ".setresp() requires one argument.");
    SET_REPL_ARGUMENTS = differ!("redis" / "server" in "", ".set_repl() requires one argument.");
    ACL_CHECK_CMD_COMMAND = differ!("redis" / "server" in
        "Invalid command passed to ", ".acl_check_cmd()");
    REPLY_TOO_DEEP = differ!("redis" / "server" in
        "lua stack limit reach when parsing ", ".call reply");
    BREAKPOINT_CALLED = differ!("redis" / "server" in "", ".breakpoint() called");

    // Texts of errors in redis.register_function.

    REGISTER_OUTSIDE_LOAD = differ!("redis" / "server" in
        "", ".register_function can only be called on FUNCTION LOAD command");
    REGISTER_ARGUMENTS = differ!("redis" / "server" in
        "wrong number of arguments to ", ".register_function");
    REGISTER_FIRST = differ!("redis" / "server" in
        "first argument to ", ".register_function must be a string");
    REGISTER_SECOND = differ!("redis" / "server" in
        "second argument to ", ".register_function must be a function");
    REGISTER_TABLE = differ!("redis" / "server" in
        "calling ", ".register_function with a single argument is only applicable to Lua table (representing named \
         arguments).");
    REGISTER_KEY = differ!("redis" / "server" in
        "named argument key given to ", ".register_function is not a string");
    REGISTER_UNKNOWN = differ!("redis" / "server" in
        "unknown argument given to ", ".register_function");
    REGISTER_NAME = differ!("redis" / "server" in
        "function_name argument given to ", ".register_function must be a string");
    REGISTER_DESCRIPTION = differ!("redis" / "server" in
        "description argument given to ", ".register_function must be a string");
    REGISTER_CALLBACK = differ!("redis" / "server" in
        "callback argument given to ", ".register_function must be a function");
    REGISTER_FLAGS = differ!("redis" / "server" in
        "flags argument to ", ".register_function must be a table representing function flags");
    REGISTER_WITHOUT_NAME = differ!("redis" / "server" in
        "", ".register_function must get a function name argument");
    REGISTER_WITHOUT_CALLBACK = differ!("redis" / "server" in
        "", ".register_function must get a callback argument");

    // Lines of the replies to HELP.

    HELP_CLIENT_TYPES = differ!("MASTER" / "PRIMARY" in
        "    * TYPE (NORMAL|", "|REPLICA|PUBSUB)");
    HELP_COMMAND_ALL = differ!("all Redis commands" / "all commands" in "    Return details about ", ".");
    HELP_COMMAND_COUNT = differ!("this Redis server" / "this server" in
        "    Return the total number of commands in ", ".");
    HELP_COMMAND_LIST = differ!("this Redis server" / "this server" in
        "    Return a list of all commands in ", ".");
    HELP_COMMAND_INFO = differ!("multiple Redis commands" / "multiple commands" in
        "    Return details about ", ".");
    HELP_COMMAND_DOCS = differ!("multiple Redis commands" / "multiple commands" in
        "    Return documentation details about ", ".");
    HELP_COMMAND_GETKEYS = differ!("a full Redis command" / "a full command" in
        "    Return the keys from ", ".");
    HELP_COMMAND_GETKEYS_FLAGS = differ!("a full Redis command" / "a full command" in
        "    Return the keys and the access flags from ", ".");
    HELP_SCRIPT_FLUSH_1 = differ!(" by the" / "" in
        "    When called without the optional mode argument, the behavior is determined", "");
    HELP_SCRIPT_FLUSH_2 = differ!("    " / "     by the " in
        "", "lazyfree-lazy-user-flush configuration directive. Valid modes are:");

    // Lines of the server's log.

    LOG_STARTING = differ!("Redis" / "Valkey" in "oO0OoO0OoO0Oo ", " is starting oO0OoO0OoO0Oo");
    LOG_BYE = differ!("Redis" / "Valkey" in "", " is now ready to exit, bye bye...");
    LOG_AOF_WRITES_AGAIN = both(
        "AOF write error looks solved, Redis can write again.",
        "AOF write error looks solved. The server can write again.",
    );
    LOG_AOF_SLOW_FSYNC = differ!("Redis" / "the server" in
        "Asynchronous AOF fsync is taking too long (disk is busy?). Writing the AOF buffer without waiting for fsync \
         to complete, this may slow down ", ".");
    /// `{error}` is the error that `find_command` returns for the unknown command.
    LOG_AOF_UNKNOWN_COMMAND = both(
        "Unknown command '{command}' reading the append only file {file}",
        "Error reading the append only file {file}, error: {error}",
    );
    LOG_RDB_BY_REDIS = differ!("" / "Redis " in "Loading RDB produced by ", "version {version}");
    LOG_TOO_FEW_DATABASES = differ!("Redis" / "Valkey" in
        "FATAL: Data file was created with a ", " server configured to handle more than {databases} databases. Exiting");
    LOG_ACL_ERRORS = differ!("Redis" / "Valkey" in "Aborting ", " startup because of ACL errors: {reason}");
    LOG_TWO_SOURCES_OF_USERS = differ!("Redis" / "Valkey" in
        "Configuring ", " with users defined in redis.conf and at the same setting an ACL file path is invalid. This \
         setup is very likely to lead to configuration errors and security holes, please define either an ACL file or \
         declare users directly in your redis.conf, but not both.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_two_spellings() {
        for (name, text) in ALL {
            let (redis, valkey) = (text.of(Words::Redis), text.of(Words::Valkey));
            assert_ne!(redis, valkey, "{name}");
            for spelling in [redis, valkey] {
                let braces = |brace: char| spelling.matches(brace).count();
                assert_eq!(braces('{'), braces('}'), "{name}");
            }
            assert!(!redis.contains("Valkey"), "{name}");
        }
        let names: std::collections::HashSet<_> = ALL.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn arguments_go_by_name_and_are_not_read_again() {
        assert_eq!(
            UNKNOWN_ENGINE.fill(Words::Valkey, &[("engine", "{engine}")]),
            "ERR Could not find scripting engine '{engine}'"
        );
        let arguments = [("file", "f"), ("error", "e"), ("command", "c")];
        assert_eq!(
            LOG_AOF_UNKNOWN_COMMAND.fill(Words::Redis, &arguments),
            "Unknown command 'c' reading the append only file f"
        );
        assert_eq!(
            LOG_AOF_UNKNOWN_COMMAND.fill(Words::Valkey, &arguments),
            "Error reading the append only file f, error: e"
        );
    }
}
