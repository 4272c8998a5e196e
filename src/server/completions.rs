//! Scripts for shells that complete the arguments of the server: `--completion bash|zsh|fish`.
//!
//! The completed words are the rows of the table of settings, so scripts that a package makes when
//! it is built have all settings.

use std::io::Write;
use std::process::ExitCode;

use crate::config::{HIDDEN, SettingKind, TABLE};
use crate::sys::print::print_error;

/// An argument of the server's command line: its name, and its values if there are few.
struct Argument {
    name: &'static str,
    values: Vec<&'static str>,
}

/// The arguments of the server that are not settings.
const OTHERS: [&str; 8] = [
    "version",
    "help",
    "check-system",
    "test-memory",
    "gen-password",
    "init-acl",
    "completion",
    "replay",
];

fn arguments() -> Vec<Argument> {
    let others = OTHERS.map(|name| Argument {
        name,
        values: match name {
            "completion" => vec!["bash", "zsh", "fish"],
            _ => Vec::new(),
        },
    });
    let shown = TABLE.iter().filter(|row| !row.is(HIDDEN));
    let settings = shown.map(|row| Argument {
        name: row.name,
        values: match &row.kind {
            SettingKind::Bool { .. } => vec!["yes", "no"],
            SettingKind::Choice { names, .. } => names(),
            _ => Vec::new(),
        },
    });
    others.into_iter().chain(settings).collect()
}

/// `--completion SHELL`: prints the script that completes arguments in this shell.
pub fn print(shell: &str) -> ExitCode {
    let arguments = arguments();
    let script = match shell {
        "bash" => bash(&arguments),
        "zsh" => zsh(&arguments),
        "fish" => fish(&arguments),
        _ => {
            print_error("--completion takes bash, zsh or fish.");
            return ExitCode::FAILURE;
        }
    };
    // A reader that closed the pipe does not need the rest of the script.
    let _ = std::io::stdout().write_all(script.as_bytes());
    ExitCode::SUCCESS
}

fn bash(arguments: &[Argument]) -> String {
    let mut cases = String::new();
    for argument in arguments.iter().filter(|a| !a.values.is_empty()) {
        let (name, values) = (argument.name, argument.values.join(" "));
        cases += &format!("        --{name}) words=\"{values}\" ;;\n");
    }
    let names: Vec<String> = arguments.iter().map(|a| format!("--{}", a.name)).collect();
    let names = names.join(" ");
    format!(
        "_aeris_server() {{\n    local words= cur=${{COMP_WORDS[COMP_CWORD]}}\n    \
         case ${{COMP_WORDS[COMP_CWORD-1]}} in\n{cases}    esac\n    \
         if [[ $cur == -* ]]; then\n        words=\"{names}\"\n    fi\n    \
         if [[ -n $words ]]; then\n        COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n    \
         else\n        COMPREPLY=($(compgen -f -- \"$cur\"))\n    fi\n}}\n\
         complete -o filenames -F _aeris_server aeris-server\n"
    )
}

fn zsh(arguments: &[Argument]) -> String {
    let mut lines = String::new();
    for Argument { name, values } in arguments {
        let of = match values.is_empty() {
            true => "_files".to_string(),
            false => format!("({})", values.join(" ")),
        };
        lines += &format!("    '*--{name}:{name}:{of}' \\\n");
    }
    format!("#compdef aeris-server\n_arguments \\\n{lines}    '*:file:_files'\n")
}

fn fish(arguments: &[Argument]) -> String {
    let mut out = String::new();
    for Argument { name, values } in arguments {
        let of = match values.is_empty() {
            true => "-r".to_string(),
            false => format!("-x -a '{}'", values.join(" ")),
        };
        out += &format!("complete -c aeris-server -l {name} {of}\n");
    }
    out
}
