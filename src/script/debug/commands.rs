//! The commands of the script debugger, which have a full name and a name of one letter.

use super::{ABORTED, BREAKPOINTS_MAX, Debugger, Next, SHOWN_LEAST, show};
use crate::script::engine::USER_SCRIPT;
use crate::script::redis;
use crate::script::run::Run;
use crate::script::syntax;
use crate::sys::lua::{Frame, LuaType};
use crate::util::number::parse_i64;

/// The number of source lines that `list` shows before and after a line by default.
const CONTEXT: usize = 5;
/// Lua's name for its own temporary variables.
const TEMPORARY: &[u8] = b"(*temporary)";

/// Runs a debugger command. `None`: the debugger replies and waits for the next command.
pub fn run(
    debugger: &mut Debugger,
    run: &mut Run,
    frame: &mut Frame,
    argv: &[Vec<u8>],
) -> Option<Next> {
    let (name, args) = argv.split_first()?;
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    match (name.as_str(), args.len()) {
        ("s" | "step" | "n" | "next", _) => {
            debugger.step = true;
            return Some(Next::GoOn);
        }
        ("c" | "continue", _) => return Some(Next::GoOn),
        ("a" | "abort", _) => {
            debugger.aborted = true;
            return Some(Next::Raise(ABORTED));
        }
        ("h" | "help", _) => HELP.iter().for_each(|line| debugger.append_line(line)),
        ("l" | "list", 0..=2) => {
            let number = |at: usize| args.get(at).map_or(0, |text| number(text));
            let around = match number(0) {
                0 => debugger.current,
                line => usize::try_from(line).unwrap_or(0),
            };
            let context = args.get(1).map_or(CONTEXT, |text| {
                usize::try_from(self::number(text)).unwrap_or(0)
            });
            debugger.list(around, context);
        }
        ("w" | "whole", _) => debugger.list(1, usize::MAX),
        ("p" | "print", 1) => debugger.print(frame, &args[0]),
        ("p" | "print", _) => debugger.print_all(frame),
        ("b" | "break", _) => debugger.change_breakpoints(args),
        ("t" | "trace", _) => debugger.trace(frame),
        ("e" | "eval", _) => evaluate(debugger, run, frame, &args.join(&b' ')),
        ("r" | "redis" | "server", 1..) => command(debugger, run, args),
        ("m" | "maxlen", 0..=1) => debugger.set_shown_max(args),
        _ => debugger.append_line(
            "<error> Unknown Redis Lua debugger command or wrong number of arguments.",
        ),
    }
    None
}

/// Parses a number as C's `atoi` does: text that is not a number counts as 0.
fn number(text: &[u8]) -> i64 {
    let sign = usize::from(text.first() == Some(&b'-'));
    let digits = text[sign..].iter().take_while(|b| b.is_ascii_digit());
    parse_i64(&text[..sign + digits.count()]).unwrap_or(0)
}

impl Debugger {
    /// Appends a line of the script's source to the debugger's reply: an arrow marks the next line
    /// to run, a `#` a breakpoint.
    pub fn append_source(&mut self, line: usize) {
        let text = match line.checked_sub(1).and_then(|at| self.source.get(at)) {
            Some(text) => text.clone(),
            None => b"<out of range source code line>".to_vec(),
        };
        let arrow = if line == self.current { "->" } else { "  " };
        let mark = if self.breakpoints.contains(&line) {
            '#'
        } else {
            ' '
        };
        let mut out = format!("{arrow}{mark}{line:<3} ").into_bytes();
        out.extend_from_slice(&text);
        self.append_line(out);
    }

    fn list(&mut self, around: usize, context: usize) {
        let last = around.saturating_add(context).min(self.source.len());
        for line in around.saturating_sub(context).max(1)..=last {
            self.append_source(line);
        }
    }

    fn print(&mut self, frame: &mut Frame, name: &[u8]) {
        for level in 0.. {
            if frame.place(level).is_none() {
                break;
            }
            for n in 1.. {
                let Some(found) = frame.push_local(level, n) else {
                    break;
                };
                if found == name {
                    return self.append_top(frame, b"<value> ");
                }
                frame.pop(1);
            }
        }
        if matches!(name, b"KEYS" | b"ARGV") && frame.push_global(name) {
            return self.append_top(frame, b"<value> ");
        }
        self.append_line("No such variable.");
    }

    fn print_all(&mut self, frame: &mut Frame) {
        let mut some = false;
        for n in 1.. {
            let Some(name) = frame.push_local(0, n) else {
                break;
            };
            if name.starts_with(TEMPORARY) {
                frame.pop(1);
                continue;
            }
            some = true;
            self.append_top(frame, &[b"<value> ", name.as_slice(), b" = "].concat());
        }
        if !some {
            self.append_line("No local variables in the current context.");
        }
    }

    /// Appends the value on top of Lua's stack to the debugger's reply, and pops it.
    fn append_top(&mut self, frame: &mut Frame, before: &[u8]) {
        let mut line = before.to_vec();
        show::value(frame, -1, &mut line);
        frame.pop(1);
        self.append_value(line);
    }

    fn change_breakpoints(&mut self, args: &[Vec<u8>]) {
        if args.is_empty() {
            return self.list_breakpoints();
        }
        for arg in args {
            let Some(line) = parse_i64(arg) else {
                let shown = String::from_utf8_lossy(arg).into_owned();
                self.append_line(format!("Invalid argument:'{shown}'"));
                continue;
            };
            self.change_breakpoint(line);
        }
    }

    fn change_breakpoint(&mut self, line: i64) {
        let at = line.unsigned_abs() as usize;
        if line == 0 {
            self.breakpoints.clear();
            self.append_line("All breakpoints removed.");
        } else if line < 0 {
            let before = self.breakpoints.len();
            self.breakpoints.retain(|&other| other != at);
            self.append_line(if self.breakpoints.len() < before {
                "Breakpoint removed."
            } else {
                "No breakpoint in the specified line."
            });
        } else if self.breakpoints.len() == BREAKPOINTS_MAX {
            self.append_line("Too many breakpoints set.");
        } else if at > self.source.len() {
            self.append_line("Wrong line number.");
        } else {
            if !self.breakpoints.contains(&at) {
                self.breakpoints.push(at);
            }
            self.list(at, 1);
        }
    }

    fn list_breakpoints(&mut self) {
        let lines = self.breakpoints.clone();
        if lines.is_empty() {
            return self.append_line("No breakpoints set. Use 'b <line>' to add one.");
        }
        self.append_line(format!("{} breakpoints set:", lines.len()));
        lines.into_iter().for_each(|line| self.append_source(line));
    }

    fn trace(&mut self, frame: &mut Frame) {
        let mut word = "In";
        for level in 0.. {
            let Some(place) = frame.place(level) else {
                break;
            };
            if place.source != USER_SCRIPT {
                continue;
            }
            let name = place.name.unwrap_or_else(|| "top level".into());
            self.append_line(format!("{word} {name}:"));
            self.append_source(place.line as usize);
            word = "From";
        }
    }

    fn set_shown_max(&mut self, args: &[Vec<u8>]) {
        if let Some(text) = args.first() {
            self.hinted = true;
            self.shown_max = match usize::try_from(number(text)).unwrap_or(0) {
                0 => 0,
                max => max.max(SHOWN_LEAST),
            };
        }
        self.append_line(match self.shown_max {
            0 => "<value> replies are unlimited.".to_string(),
            max => format!("<value> replies are truncated at {max} bytes."),
        });
    }
}

/// Evaluates an expression or statements in a frame of their own: the script's local variables are
/// not visible.
fn evaluate(debugger: &mut Debugger, run: &mut Run, frame: &mut Frame, code: &[u8]) {
    let expression = [b"return ", code].concat();
    // Code that is not an expression is compiled as statements next, so the error of its
    // translation as an expression is dropped.
    let expression =
        syntax::translate(&expression, b"@ldb_eval").unwrap_or(expression.as_slice().into());
    let ok = frame.evaluate(&expression, code, c"@ldb_eval", run);
    if ok {
        return debugger.append_top(frame, b"<retval> ");
    }
    let mut text = match frame.kind(-1) {
        LuaType::String => frame.bytes(-1).unwrap_or_default().to_vec(),
        _ => Vec::new(),
    };
    if frame.kind(-1) == LuaType::Table {
        if frame.get_field(-1, "err") == LuaType::String {
            text = frame.bytes(-1).unwrap_or_default().to_vec();
        }
        frame.pop(1);
    }
    frame.pop(1);
    debugger.append_line([b"<error> ", text.as_slice()].concat());
}

/// Runs a command of Redis as the script would.
fn command(debugger: &mut Debugger, run: &mut Run, args: &[Vec<u8>]) {
    let argv: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    let start = run.client.reply.mark();
    debugger.step = true;
    debugger.note_command(&argv);
    match redis::run_command(run, &argv) {
        Err(error) => debugger.note_refusal(&error),
        Ok(()) => {
            let reply = run.client.reply.bytes_from(start);
            debugger.note_reply(&reply);
        }
    }
    run.client.reply.truncate(start);
    debugger.step = false;
}

const HELP: [&str; 30] = [
    "Redis Lua debugger help:",
    "[h]elp               Show this help.",
    "[s]tep               Run current line and stop again.",
    "[n]ext               Alias for step.",
    "[c]ontinue           Run till next breakpoint.",
    "[l]ist               List source code around current line.",
    "[l]ist [line]        List source code around [line].",
    "                     line = 0 means: current position.",
    "[l]ist [line] [ctx]  In this form [ctx] specifies how many lines",
    "                     to show before/after [line].",
    "[w]hole              List all source code. Alias for 'list 1 1000000'.",
    "[p]rint              Show all the local variables.",
    "[p]rint <var>        Show the value of the specified variable.",
    "                     Can also show global vars KEYS and ARGV.",
    "[b]reak              Show all breakpoints.",
    "[b]reak <line>       Add a breakpoint to the specified line.",
    "[b]reak -<line>      Remove breakpoint from the specified line.",
    "[b]reak 0            Remove all breakpoints.",
    "[t]race              Show a backtrace.",
    "[e]val <code>        Execute some Lua code (in a different callframe).",
    "[r]edis <cmd>        Execute a Redis command.",
    "[m]axlen [len]       Trim logged Redis replies and Lua var dumps to len.",
    "                     Specifying zero as <len> means unlimited.",
    "[a]bort              Stop the execution of the script. In sync",
    "                     mode dataset changes will be retained.",
    "",
    "Debugger functions you can call from Lua scripts:",
    "redis.debug()        Produce logs in the debugger console.",
    "redis.breakpoint()   Stop execution like if there was a breakpoint in the",
    "                     next line of code.",
];
