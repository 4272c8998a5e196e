//! Libraries of functions: loaded once, called by name, saved with the data set.
//!
//! ```text
//!   #!lua name=mylib                                   libraries: name -> source, its functions' names
//!   redis.register_function('f', function(keys, args)  functions: name in lower case -> function, flags
//!     ...                                              two tables, so that FCALL looks up once
//!   end)
//! ```
//!
//! The source of a library runs when it is loaded, with access to the registration API only, and
//! for at most half a second. The library's functions are added only if the whole source succeeds.
//!
//! **Invariant:** every function belongs to a library that names it, and no two libraries have a
//! function of the same name.

use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, excerpt, said};
use crate::keyspace::top_level::TopLevel;
use crate::script::engine::{Engine, api};
use crate::script::flags::{self, Flags};
use crate::script::{ScriptKind, convert, redis};
use crate::state::Server;
use crate::sys::lua::{Arguments, Frame, FunctionRef, Host, LuaType, Outcome};
use crate::sys::ticks;
use crate::texts::{self, Words};
use crate::util::quote::split_args;

/// The time limit in milliseconds for running the source of a library.
const LOAD_TIMEOUT_MS: u64 = 500;
/// The name that error messages of a library begin with.
const CHUNK_NAME: &std::ffi::CStr = c"@user_function";

/// A library of functions.
pub struct Library {
    pub source: Box<[u8]>,
    /// The names of the library's functions, in lower case.
    pub functions: Vec<Box<[u8]>>,
}

/// A function that a library has registered.
#[derive(Clone)]
pub struct Function {
    /// The function's name as the library registered it, in upper and lower case.
    pub name: Box<[u8]>,
    pub description: Option<Box<[u8]>>,
    pub function: FunctionRef,
    pub flags: Flags,
}

/// All libraries of a data set, or some that are about to be added to it.
#[derive(Default)]
pub struct Libraries {
    pub libraries: BTreeMap<Box<[u8]>, Library>,
    pub functions: HashMap<Box<[u8]>, Function>,
}

/// What FUNCTION RESTORE does with existing libraries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    Flush,
    /// APPEND: a library whose name exists already is an error.
    Append,
    /// REPLACE: a library whose name exists already replaces the existing one.
    Replace,
}

impl Libraries {
    /// The function of this name; upper and lower case are equal.
    pub fn find(&self, name: &[u8]) -> Option<&Function> {
        if name.iter().any(u8::is_ascii_uppercase) {
            return self.functions.get(name.to_ascii_lowercase().as_slice());
        }
        self.functions.get(name)
    }

    /// The memory of the sources and the tables in bytes, without that of the Lua interpreter.
    pub fn memory(&self) -> usize {
        let sources: usize = self.libraries.values().map(|l| l.source.len()).sum();
        sources
            + self.libraries.len() * size_of::<Library>()
            + self.functions.len() * size_of::<Function>()
    }

    fn add(&mut self, name: Box<[u8]>, source: &[u8], functions: Vec<Function>) {
        let keys: Vec<Box<[u8]>> = functions
            .iter()
            .map(|f| f.name.to_ascii_lowercase().into())
            .collect();
        self.functions.extend(keys.iter().cloned().zip(functions));
        let library = Library {
            source: source.into(),
            functions: keys,
        };
        self.libraries.insert(name, library);
    }

    /// Removes a library and returns its functions.
    fn remove(&mut self, name: &[u8]) -> Option<Vec<Function>> {
        let library = self.libraries.remove(name)?;
        let functions = &mut self.functions;
        Some(
            library
                .functions
                .iter()
                .filter_map(|key| functions.remove(key))
                .collect(),
        )
    }

    /// The name of a function of `functions` that a library other than those in `leaving` has too.
    fn clash(
        &self,
        functions: &HashMap<Box<[u8]>, Function>,
        leaving: &[Box<[u8]>],
    ) -> Option<Box<[u8]>> {
        let leaves = |key: &[u8]| {
            leaving
                .iter()
                .filter_map(|name| self.libraries.get(name))
                .any(|library| library.functions.iter().any(|name| **name == *key))
        };
        functions
            .iter()
            .find(|(key, _)| self.functions.contains_key(*key) && !leaves(key))
            .map(|(_, function)| function.name.clone())
    }
}

/// The contents of a library's first line, `#!lua name=mylib`.
struct Metadata {
    name: Box<[u8]>,
    /// The position of the library's code: the end of the first line, so that line numbers in error
    /// messages remain correct.
    begin: usize,
}

fn parse_metadata(source: &[u8]) -> Result<Metadata, Error> {
    if !source.starts_with(b"#!") {
        return Err(Error::of("ERR Missing library metadata"));
    }
    let invalid = Error::of("ERR Invalid library metadata");
    let begin = flags::first_line(source).ok_or(invalid.clone())?;
    let words = split_args(&source[..begin]).ok_or(invalid.clone())?;
    let (engine, options) = words.split_first().ok_or(invalid)?;
    let mut name = None;
    for option in options {
        const NAME: &[u8] = b"name=";
        let (start, value) = option.split_at(option.len().min(NAME.len()));
        if !start.eq_ignore_ascii_case(NAME) {
            let option = excerpt(option, 128);
            return Err(Error::new(format!(
                "ERR Invalid metadata value given: {option}"
            )));
        };
        if name.replace(value).is_some() {
            return Err(Error::of(
                "ERR Invalid metadata value, name argument was given multiple times",
            ));
        }
    }
    let name = name.ok_or(Error::of("ERR Library name was not given"))?;
    if !is_name(name) {
        return Err(Error::of(
            "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character \
             long",
        ));
    }
    if !engine[2..].eq_ignore_ascii_case(b"lua") {
        let engine = excerpt(&engine[2..], 128);
        return Err(Error::new(format!("ERR Engine '{engine}' not found")));
    }
    Ok(Metadata {
        name: name.into(),
        begin,
    })
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A library that is being loaded, and the functions that it has registered.
struct Loader {
    functions: Vec<Function>,
    started: u64,
    timeout: u64,
    words: Words,
}

impl Host for Loader {
    fn call(&mut self, function: u8, frame: &mut Frame) -> Outcome {
        match function {
            api::LOG => redis::log(frame, self.words),
            api::REGISTER_FUNCTION => match self.register(frame) {
                Ok(()) => Outcome::Return(0),
                Err(text) => redis::raise(frame, text),
            },
            _ => redis::raise(frame, "can only be called inside a script invocation"),
        }
    }

    fn tick(&mut self, frame: &mut Frame) -> bool {
        let late = ticks::now().wrapping_sub(self.started) > self.timeout;
        if late {
            redis::push_error(frame, "FUNCTION LOAD timeout");
        }
        late
    }
}

/// The text of an error in `redis.register_function`.
type Refusal = &'static str;

impl Loader {
    /// redis.register_function(name, function), or redis.register_function{function_name=...,
    /// callback=..., ...}.
    fn register(&mut self, frame: &mut Frame) -> Result<(), Refusal> {
        let words = self.words;
        let function = match frame.len() {
            1 => named_arguments(frame, words)?,
            2 => {
                let name = redis::text_of(frame, 1)
                    .ok_or(texts::REGISTER_FIRST.of(words))?
                    .into();
                if frame.kind(2) != LuaType::Function {
                    return Err(texts::REGISTER_SECOND.of(words));
                }
                Function {
                    name,
                    description: None,
                    function: frame.keep_function(),
                    flags: 0,
                }
            }
            _ => return Err(texts::REGISTER_ARGUMENTS.of(words)),
        };
        if !is_name(&function.name) {
            return Err(
                "Library names can only contain letters, numbers, or underscores(_) and must be at least one \
                 character long",
            );
        }
        let same = |other: &Function| other.name.eq_ignore_ascii_case(&function.name);
        if self.functions.iter().any(same) {
            return Err("Function already exists in the library");
        }
        self.functions.push(function);
        Ok(())
    }
}

fn named_arguments(frame: &mut Frame, words: Words) -> Result<Function, Refusal> {
    if frame.kind(1) != LuaType::Table {
        return Err(texts::REGISTER_TABLE.of(words));
    }
    let (mut name, mut description, mut flags, mut callback) = (None, None, 0, None);
    frame.push_nil();
    while frame.next(1) {
        let Some(key) = redis::text_of(frame, -2) else {
            return Err(texts::REGISTER_KEY.of(words));
        };
        match key.as_slice() {
            b"function_name" => {
                name = Some(
                    redis::text_of(frame, -1)
                        .map(Box::<[u8]>::from)
                        .ok_or(texts::REGISTER_NAME.of(words))?,
                );
            }
            b"description" => {
                description = Some(
                    redis::text_of(frame, -1)
                        .map(Box::<[u8]>::from)
                        .ok_or(texts::REGISTER_DESCRIPTION.of(words))?,
                );
            }
            b"callback" => {
                if frame.kind(-1) != LuaType::Function {
                    return Err(texts::REGISTER_CALLBACK.of(words));
                }
                frame.push_value(-1);
                callback = Some(frame.keep_function());
            }
            b"flags" => flags = flags_of(frame, words)?,
            _ => return Err(texts::REGISTER_UNKNOWN.of(words)),
        }
        frame.pop(1);
    }
    Ok(Function {
        name: name.ok_or(texts::REGISTER_WITHOUT_NAME.of(words))?,
        description,
        function: callback.ok_or(texts::REGISTER_WITHOUT_CALLBACK.of(words))?,
        flags,
    })
}

/// The function flags whose names are in the table on top of Lua's stack.
fn flags_of(frame: &mut Frame, words: Words) -> Result<Flags, Refusal> {
    if frame.kind(-1) != LuaType::Table {
        return Err(texts::REGISTER_FLAGS.of(words));
    }
    let mut found = 0;
    for n in 1.. {
        let kind = frame.get_element(-1, n);
        let flag = frame.bytes(-1).and_then(flags::by_name);
        frame.pop(1);
        match (kind, flag) {
            (LuaType::Nil, _) => break,
            (_, Some(flag)) => found |= flag,
            (_, None) => return Err("unknown flag given"),
        }
    }
    Ok(found)
}

/// The functions of a data set: the libraries, and the interpreter with their code.
#[derive(Default)]
pub struct Functions {
    pub all: Libraries,
    /// The Lua interpreter, created when it is needed; `None` while a function runs or a library is
    /// loaded.
    pub engine: Option<Box<Engine>>,
}

/// The settings that loading a library depends on.
#[derive(Clone, Copy)]
pub struct LoadRules {
    words: Words,
    insecure_api: bool,
    timeout_ticks: u64,
}

impl LoadRules {
    /// The rules for loading libraries that follow from the server's settings.
    pub fn of(server: &Server) -> LoadRules {
        LoadRules {
            words: server.config.words(),
            insecure_api: server.config.lua_enable_insecure_api,
            timeout_ticks: server.clock.ticks_of_us(LOAD_TIMEOUT_MS * 1000),
        }
    }
}

impl Functions {
    /// Loads a library and returns its name. With `replace`, a library of the same name is
    /// replaced.
    pub fn load_library(
        &mut self,
        rules: LoadRules,
        source: &[u8],
        replace: bool,
    ) -> Result<Box<[u8]>, Error> {
        let name = parse_metadata(source)?.name;
        if !replace && self.all.libraries.contains_key(&name) {
            let name = excerpt(&name, 128);
            return Err(Error::new(format!("ERR Library '{name}' already exists")));
        }
        let loaded = self.load_aside(rules, &[source])?;
        self.join(loaded, Policy::Replace)?;
        Ok(name)
    }

    /// FUNCTION RESTORE: loads the libraries of all `sources`, or, with an error, none of them.
    fn restore(
        &mut self,
        rules: LoadRules,
        sources: &[&[u8]],
        policy: Policy,
    ) -> Result<(), Error> {
        let loaded = self.load_aside(rules, sources)?;
        if policy == Policy::Flush {
            // With FLUSH the old libraries are removed one by one: the new functions are in the
            // same interpreter, which must stay.
            let names: Vec<_> = self.all.libraries.keys().cloned().collect();
            names.iter().for_each(|name| _ = self.delete_library(name));
        }
        self.join(loaded, policy)
    }

    /// Removes a library. Returns false if no library has the name.
    fn delete_library(&mut self, name: &[u8]) -> bool {
        let Some(functions) = self.all.remove(name) else {
            return false;
        };
        self.release(functions);
        true
    }

    fn release(&mut self, functions: impl IntoIterator<Item = Function>) {
        if let Some(engine) = &mut self.engine {
            functions
                .into_iter()
                .for_each(|function| engine.vm.release(function.function));
        }
    }

    /// Compiles and runs libraries in the Lua interpreter without adding them to the existing
    /// libraries.
    fn load_aside(&mut self, rules: LoadRules, sources: &[&[u8]]) -> Result<Libraries, Error> {
        let mut engine = self.take_engine(rules.insecure_api)?;
        let mut loaded = Libraries::default();
        let mut result = Ok(());
        for source in sources {
            result = load_one(rules, &mut engine, source, &mut loaded);
            if result.is_err() {
                break;
            }
        }
        self.engine = Some(engine);
        if let Err(error) = result {
            self.release(loaded.functions.into_values());
            return Err(error);
        }
        Ok(loaded)
    }

    /// Takes the Lua interpreter out of its field; one is created if there is none.
    fn take_engine(&mut self, insecure_api: bool) -> Result<Box<Engine>, Error> {
        match self.engine.take() {
            Some(engine) => Ok(engine),
            None => Engine::new(ScriptKind::Function, insecure_api),
        }
    }

    /// Adds libraries that were loaded to the existing libraries, or drops them if one of their
    /// names is in use.
    fn join(&mut self, loaded: Libraries, policy: Policy) -> Result<(), Error> {
        let here = &self.all;
        let same: Vec<Box<[u8]>> = loaded
            .libraries
            .keys()
            .filter(|name| here.libraries.contains_key(*name))
            .cloned()
            .collect();
        let problem = match same.first() {
            Some(name) if policy != Policy::Replace => {
                Some(format!("ERR Library {} already exists", excerpt(name, 128)))
            }
            _ => here
                .clash(&loaded.functions, &same)
                .map(|name| format!("ERR Function {} already exists", excerpt(&name, 128))),
        };
        if let Some(text) = problem {
            self.release(loaded.functions.into_values());
            return Err(Error::new(text));
        }
        same.iter().for_each(|name| _ = self.delete_library(name));
        self.all.libraries.extend(loaded.libraries);
        self.all.functions.extend(loaded.functions);
        Ok(())
    }

    /// The sources of all libraries.
    pub fn sources(&self) -> impl Iterator<Item = &[u8]> {
        self.all.libraries.values().map(|library| &*library.source)
    }

    /// The memory of the interpreter in bytes.
    pub fn engine_memory(&self) -> usize {
        self.engine.as_ref().map_or(0, |engine| engine.vm.memory())
    }
}

impl Server {
    /// FUNCTION LOAD: returns the library's name; an error if its source fails or a name is in use.
    pub fn load_library(&mut self, source: &[u8], replace: bool) -> Result<Box<[u8]>, Error> {
        self.refuse_while_running()?;
        let rules = LoadRules::of(self);
        self.data.functions.load_library(rules, source, replace)
    }

    /// FUNCTION RESTORE: adds all of the libraries, or, with an error, none.
    pub fn restore_libraries(&mut self, sources: &[&[u8]], policy: Policy) -> Result<(), Error> {
        self.refuse_while_running()?;
        let rules = LoadRules::of(self);
        self.data.functions.restore(rules, sources, policy)
    }

    /// FUNCTION DELETE: removes a library. Returns false if no library has the name.
    pub fn delete_library(&mut self, name: &[u8]) -> bool {
        self.data.functions.delete_library(name)
    }

    /// Loads all libraries again into a new Lua interpreter, whose globals may differ
    /// (`lua-enable-insecure-api`).
    pub fn reload_libraries(&mut self) -> Result<(), String> {
        let sources: Vec<Vec<u8>> = self.function_sources().map(<[u8]>::to_vec).collect();
        let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
        self.data.functions = Functions::default();
        if sources.is_empty() {
            return Ok(());
        }
        let result = self.restore_libraries(&sources, Policy::Append);
        result.map_err(|e| e.text().to_string())
    }

    /// FUNCTION FLUSH: removes all libraries and the interpreter.
    pub fn flush_libraries(&mut self, _: &TopLevel) {
        self.data.functions = Functions::default();
    }

    /// Takes the Lua interpreter of functions out of its field; one is created if there is none.
    pub fn take_function_engine(&mut self) -> Result<Box<Engine>, Error> {
        self.refuse_while_running()?;
        let insecure_api = self.config.lua_enable_insecure_api;
        self.data.functions.take_engine(insecure_api)
    }

    /// Returns an error while a script or a function runs, as its interpreter must not be replaced.
    pub fn refuse_while_running(&self) -> Result<(), Error> {
        match self.scripting.running {
            Some(_) => Err(Error::of("ERR A script is running already")),
            None => Ok(()),
        }
    }

    /// The sources of all libraries, for a snapshot or the AOF.
    pub fn function_sources(&self) -> impl Iterator<Item = &[u8]> {
        self.data.functions.sources()
    }
}

/// Compiles a library, runs its source, and adds its registrations to `loaded`.
fn load_one(
    rules: LoadRules,
    engine: &mut Engine,
    source: &[u8],
    loaded: &mut Libraries,
) -> Result<(), Error> {
    let Metadata { name, begin } = parse_metadata(source)?;
    if loaded.libraries.contains_key(&name) {
        let name = excerpt(&name, 128);
        return Err(Error::new(format!("ERR Library {name} already exists")));
    }
    let chunk = engine
        .compile(&source[begin..], CHUNK_NAME)
        .map_err(|message| {
            let message = said(&message);
            Error::new(format!("ERR Error compiling function: {message}"))
        })?;
    let mut loader = Loader {
        functions: Vec::new(),
        started: ticks::now(),
        timeout: rules.timeout_ticks,
        words: rules.words,
    };
    let result = run_source(engine, chunk, &mut loader);
    engine.vm.release(chunk);
    let functions = loader.functions;
    let taken = functions
        .iter()
        .find(|f| loaded.find(&f.name).is_some())
        .map(|f| excerpt(&f.name, 128));
    let problem = match (result, taken) {
        (Err(text), _) => text,
        (Ok(()), Some(name)) => format!("ERR Function {name} already exists"),
        (Ok(()), None) if functions.is_empty() => "ERR No functions registered".to_string(),
        (Ok(()), None) => {
            loaded.add(name, source, functions);
            return Ok(());
        }
    };
    for function in functions {
        engine.vm.release(function.function);
    }
    Err(Error::new(problem))
}

fn run_source(engine: &mut Engine, chunk: FunctionRef, loader: &mut Loader) -> Result<(), String> {
    engine.set_loading(true).map_err(|e| e.text().to_string())?;
    let mut finished = engine.vm.call(chunk, loader, Arguments::None);
    let result = if finished.ok {
        Ok(())
    } else {
        let error = match finished.frame.kind(-1) {
            LuaType::Table => convert::error_of(&mut finished.frame),
            _ => None,
        };
        let text = error.map_or("unknown error".into(), |e| e.text().to_string());
        Err(format!("ERR Error registering functions: {text}"))
    };
    drop(finished);
    engine.vm.watch();
    engine
        .set_loading(false)
        .map_err(|e| e.text().to_string())?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn server() -> Server {
        Server::new(Config::default(), Vec::new())
    }

    fn library(name: &str, function: &str) -> Vec<u8> {
        format!("#!lua name={name}\nredis.register_function('{function}', function() return 1 end)")
            .into_bytes()
    }

    #[test]
    fn a_library_that_fails_leaves_the_others_alone() {
        let mut server = server();
        server.load_library(&library("a", "f"), false).unwrap();
        let text = |e: Error| e.text().to_string();
        assert_eq!(
            server.load_library(&library("a", "g"), false).map_err(text),
            Err("ERR Library 'a' already exists".into())
        );
        assert_eq!(
            server.load_library(&library("b", "F"), false).map_err(text),
            Err("ERR Function F already exists".into())
        );
        assert!(server.load_library(b"#!lua name=a\nx(", true).is_err());
        assert!(server.data.functions.all.find(b"F").is_some());
        assert_eq!(server.data.functions.all.libraries.len(), 1);
        server.load_library(&library("a", "g"), true).unwrap();
        assert!(server.data.functions.all.find(b"f").is_none());
        assert!(server.data.functions.all.find(b"g").is_some());
    }

    #[test]
    fn libraries_are_restored_all_or_none() {
        let mut server = server();
        server.load_library(&library("a", "f"), false).unwrap();
        let (same, other) = (library("a", "f"), library("b", "g"));
        let both: [&[u8]; 2] = [&other, &same];
        assert!(server.restore_libraries(&both, Policy::Append).is_err());
        assert_eq!(server.function_sources().count(), 1);
        assert!(server.restore_libraries(&both, Policy::Replace).is_ok());
        assert_eq!(server.function_sources().count(), 2);
        assert!(server.restore_libraries(&[&other], Policy::Flush).is_ok());
        assert_eq!(server.function_sources().count(), 1);
    }

    #[test]
    fn a_source_that_never_ends_is_stopped() {
        let mut server = server();
        let error = server
            .load_library(b"#!lua name=a\nwhile true do end", false)
            .unwrap_err();
        assert_eq!(
            error.text(),
            "ERR Error registering functions: ERR FUNCTION LOAD timeout"
        );
        server.load_library(&library("a", "f"), false).unwrap();
    }
}
