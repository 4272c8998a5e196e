//! A parser of Lua 5.1 in front of LuaJIT's compiler: it refuses code that is not Lua 5.1, with the
//! error texts of the compiler of 5.1, and changes code that LuaJIT reads differently.
//!
//! ```text
//!   source ──> lexer ──> parser ──┬──> error: user_script:1: unexpected symbol near '~'
//!                          │      └──> edits ──> the source for LuaJIT, each line where it was
//!                        scope
//! ```
//!
//! The parser changes the source in six cases:
//!
//! - `"\."` and `"\x41"` become `"."` and `"x41"`: 5.1 has no such escapes.
//! - `return string.rep({})` is a tail call, for which LuaJIT drops the frame of the caller even if
//!   a library function is called. An error message then lacks the function's name and the line,
//!   which scripts and clients expect. So a returned call of a library function is put in
//!   parentheses, or passed through another function if it may return a number of values other than
//!   one:
//!
//! ```text
//!   return redis.call('get', k)   ->   return (redis.call('get', k))
//!   return unpack(list)           ->   return (function(...)return ... end)(unpack(list))
//! ```
//!
//! - A returned call of a variable or field may call a library function or a function of the
//!   script. The call is written twice, and a test chooses one: only a call of a library function
//!   keeps the caller's frame, since a script that recurses by tail calls would otherwise run out
//!   of stack:
//!
//! ```text
//!   return o.m(k)   ->   if native(o.m) then return (function(...)return ... end)(o.m(k)) end
//!                        return o.m(k)                               (on the same line)
//! ```
//!
//! - The step of a loop, unless it is a number other than 0, goes through a function: with a step
//!   of 0 LuaJIT counts upwards for ever.
//! - For any other returned call, the called function and its arguments are passed to a function
//!   that tests whether a library function is called; see `tail`.
//!
//! - A function with `...` that uses the variable `arg` gets this variable, as 5.1 defines it:
//!
//! ```text
//!   function(...) return arg.n end
//!           ->   function(...) local arg={n=select('#',...),...}; return arg.n end
//! ```
//!
//! Library functions are recognised by their names and by local variables initialised with them.

mod lexer;
mod scope;
mod tail;

use std::borrow::Cow;

use lexer::{Edit, Lexer, Message, Token, TokenKind, spelled};
use scope::{Path, Scope, TooMany};
use tail::{Label, Site};

/// The maximum nesting of blocks and expressions in a script, as in Lua 5.1.
const LEVELS_MAX: usize = 200;
/// The precedence of the unary operators `not`, `-` and `#`.
const UNARY: u8 = 8;

/// Changes the source to the form for LuaJIT's compiler, or returns the error of Lua 5.1. `chunk`
/// is the name of the source in messages.
pub fn translate<'a>(source: &'a [u8], chunk: &[u8]) -> Result<Cow<'a, [u8]>, Message> {
    let mut lexer = Lexer::new(source, chunk);
    let token = lexer.next()?;
    let mut parser = Parser {
        lexer,
        token,
        ahead: None,
        last_end: 0,
        last_line: 1,
        levels: 0,
        scope: Scope::new(),
        edits: Vec::new(),
    };
    parser.chunk()?;
    parser.check(TokenKind::End)?;
    let mut edits = parser.edits;
    edits.append(&mut parser.lexer.edits);
    Ok(apply(source, edits))
}

/// The name of a chunk in messages: the file for `@name`, the text for `=text`, otherwise the first
/// line of the source.
pub fn shown_name(name: &[u8]) -> Vec<u8> {
    const MAX: usize = 60;
    match name.split_first() {
        Some((b'=', text)) => text[..text.len().min(MAX - 1)].to_vec(),
        Some((b'@', file)) => {
            let room = MAX - 8;
            match file.len().checked_sub(room) {
                None | Some(0) => file.to_vec(),
                Some(cut) => [b"...", &file[cut..]].concat(),
            }
        }
        _ => {
            let line = name.iter().position(|b| b"\r\n\0".contains(b));
            let room = MAX - 17;
            let len = line.unwrap_or(name.len()).min(room);
            let dots: &[u8] = if len < name.len() { b"..." } else { b"" };
            [b"[string \"", &name[..len], dots, b"\"]"].concat()
        }
    }
}

fn apply(source: &[u8], mut edits: Vec<Edit>) -> Cow<'_, [u8]> {
    if edits.is_empty() {
        return Cow::Borrowed(source);
    }
    edits.sort_by_key(|edit| edit.at);
    let mut out = Vec::with_capacity(source.len() + 40 * edits.len());
    let mut done = 0;
    for edit in edits {
        out.extend_from_slice(&source[done..edit.at]);
        out.extend_from_slice(&edit.inserted);
        done = edit.at + edit.removed;
    }
    out.extend_from_slice(&source[done..]);
    Cow::Owned(out)
}

/// The kinds of expressions that the grammar of assignments and calls distinguishes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A variable or a field, to which a value can be assigned.
    Variable,
    Call,
    Value,
}

/// A Lua expression that was parsed.
#[derive(Clone, Copy)]
struct Expression<'a> {
    shape: Shape,
    /// The name of the variable or of the called function, if it is known.
    path: Path<'a>,
    /// The position of the variable or of the called function in the source, if it consists of
    /// names only and is not known to be written in Lua.
    callee: Option<(usize, usize)>,
    /// The name and kind (`local`, `field` ...) by which error messages call the variable.
    label: Option<Label<'a>>,
    /// The parts of the call, if the expression is a call.
    site: Option<Site<'a>>,
    /// Whether the value is certainly a string.
    is_text: bool,
}

const VALUE: Expression = Expression {
    shape: Shape::Value,
    path: None,
    callee: None,
    label: None,
    site: None,
    is_text: false,
};

/// Turns a loop's step of 0 into -0, with which LuaJIT counts downwards as Lua 5.1 does with 0.
const DOWNWARDS: &[u8] = b"(function(s)return s==0 and-0 or s end)(";

type Parsed<T = ()> = Result<T, Message>;

struct Parser<'a> {
    lexer: Lexer<'a>,
    token: Token,
    ahead: Option<Token>,
    /// The end of the previous token, and the line at which the lexer had then arrived.
    last_end: usize,
    last_line: usize,
    levels: usize,
    scope: Scope<'a>,
    edits: Vec<Edit>,
}

const fn other(byte: u8) -> TokenKind {
    TokenKind::Other(byte)
}

const fn word(text: &'static str) -> TokenKind {
    TokenKind::Word(text)
}

impl<'a> Parser<'a> {
    fn advance(&mut self) -> Parsed {
        self.last_line = self.lexer.line;
        self.last_end = self.token.end;
        self.token = match self.ahead.take() {
            Some(token) => token,
            None => self.lexer.next()?,
        };
        Ok(())
    }

    fn is(&self, kind: TokenKind) -> bool {
        self.token.kind == kind
    }

    fn accept(&mut self, kind: TokenKind) -> Parsed<bool> {
        let found = self.is(kind);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn error<T>(&self, text: &str) -> Parsed<T> {
        Err(self.lexer.error(text, Some(self.token.kind)))
    }

    fn too_many(&self, problem: &TooMany) -> Message {
        self.lexer.error(&problem.text(), None)
    }

    fn check(&self, kind: TokenKind) -> Parsed {
        if self.is(kind) {
            return Ok(());
        }
        let wanted = String::from_utf8_lossy(&spelled(kind)).into_owned();
        self.error(&format!("'{wanted}' expected"))
    }

    fn expect(&mut self, kind: TokenKind) -> Parsed {
        self.check(kind)?;
        self.advance()
    }

    /// Consumes the token `kind`, such as `end`, which closes what the token `opened` began at
    /// `line`.
    fn close(&mut self, kind: TokenKind, opened: &str, line: usize) -> Parsed {
        if self.is(kind) || line == self.lexer.line {
            return self.expect(kind);
        }
        let wanted = String::from_utf8_lossy(&spelled(kind)).into_owned();
        self.error(&format!(
            "'{wanted}' expected (to close '{opened}' at line {line})"
        ))
    }

    fn name(&mut self) -> Parsed<&'a [u8]> {
        self.check(TokenKind::Name)?;
        let name = &self.lexer.source[self.token.start..self.token.end];
        self.advance()?;
        Ok(name)
    }

    fn declare(&mut self, name: &'a [u8]) -> Parsed {
        let declared = self.scope.declare(name);
        declared.map_err(|problem| self.too_many(&problem))
    }

    fn enter(&mut self) -> Parsed {
        self.levels += 1;
        if self.levels > LEVELS_MAX {
            return Err(self.lexer.error("chunk has too many syntax levels", None));
        }
        Ok(())
    }

    // The methods below parse statements.

    fn block_ends(&self) -> bool {
        matches!(
            self.token.kind,
            TokenKind::End | TokenKind::Word("else" | "elseif" | "end" | "until")
        )
    }

    fn chunk(&mut self) -> Parsed {
        self.enter()?;
        let mut last = false;
        while !last && !self.block_ends() {
            last = self.statement()?;
            self.accept(other(b';'))?;
        }
        self.levels -= 1;
        Ok(())
    }

    fn block(&mut self) -> Parsed {
        self.scope.open_block(false);
        self.chunk()?;
        self.scope.close_block();
        Ok(())
    }

    /// Parses a statement. Returns whether the statement must be the last one of its block.
    fn statement(&mut self) -> Parsed<bool> {
        let line = self.lexer.line;
        match self.token.kind {
            TokenKind::Word("if") => self.conditional(line)?,
            TokenKind::Word("while") => self.while_loop(line)?,
            TokenKind::Word("do") => {
                self.advance()?;
                self.block()?;
                self.close(word("end"), "do", line)?;
            }
            TokenKind::Word("for") => self.for_loop(line)?,
            TokenKind::Word("repeat") => self.repeat_loop(line)?,
            TokenKind::Word("function") => self.function_statement(line)?,
            TokenKind::Word("local") => {
                self.advance()?;
                if self.accept(word("function"))? {
                    self.local_function()?;
                } else {
                    self.locals()?;
                }
            }
            TokenKind::Word("return") => {
                self.return_statement()?;
                return Ok(true);
            }
            TokenKind::Word("break") => {
                self.advance()?;
                if !self.scope.is_in_loop() {
                    return self.error("no loop to break");
                }
                return Ok(true);
            }
            _ => self.expression_statement()?,
        }
        Ok(false)
    }

    fn conditional(&mut self, line: usize) -> Parsed {
        loop {
            self.advance()?;
            self.expression()?;
            self.expect(word("then"))?;
            self.block()?;
            if !self.is(word("elseif")) {
                break;
            }
        }
        if self.accept(word("else"))? {
            self.block()?;
        }
        self.close(word("end"), "if", line)
    }

    fn while_loop(&mut self, line: usize) -> Parsed {
        self.advance()?;
        self.expression()?;
        self.scope.open_block(true);
        self.expect(word("do"))?;
        self.block()?;
        self.close(word("end"), "while", line)?;
        self.scope.close_block();
        Ok(())
    }

    fn repeat_loop(&mut self, line: usize) -> Parsed {
        self.scope.open_block(true);
        self.scope.open_block(false);
        self.advance()?;
        self.chunk()?;
        self.close(word("until"), "repeat", line)?;
        self.expression()?;
        self.scope.close_block();
        self.scope.close_block();
        Ok(())
    }

    fn for_loop(&mut self, line: usize) -> Parsed {
        self.scope.open_block(true);
        self.advance()?;
        let first = self.name()?;
        // A `for` loop has three hidden variables in Lua 5.1, which count against the limit of
        // local variables.
        match self.token.kind {
            TokenKind::Other(b'=') => {
                self.hidden_locals()?;
                self.declare(first)?;
                self.numeric_range()?;
            }
            TokenKind::Other(b',') | TokenKind::Word("in") => {
                self.hidden_locals()?;
                self.declare(first)?;
                while self.accept(other(b','))? {
                    let name = self.name()?;
                    self.declare(name)?;
                }
                self.expect(word("in"))?;
                self.expressions()?;
            }
            _ => return self.error("'=' or 'in' expected"),
        }
        self.expect(word("do"))?;
        self.scope.open_block(false);
        self.scope.show(&[]);
        self.block()?;
        self.scope.close_block();
        self.close(word("end"), "for", line)?;
        self.scope.close_block();
        Ok(())
    }

    fn hidden_locals(&mut self) -> Parsed {
        (0..3).try_for_each(|_| self.declare(b"(for)"))
    }

    /// Parses the range of a numeric `for` loop. With a step of 0 Lua 5.1 counts downwards, as
    /// LuaJIT does with -0.
    fn numeric_range(&mut self) -> Parsed {
        self.advance()?;
        self.expression()?;
        self.expect(other(b','))?;
        self.expression()?;
        if self.accept(other(b','))? {
            let start = self.token.start;
            self.expression()?;
            let step = &self.lexer.source[start..self.last_end];
            let is_number = step.iter().all(|b| b"-.0123456789".contains(b));
            if !(is_number && step.iter().any(|b| (b'1'..=b'9').contains(b))) {
                self.insert(start, DOWNWARDS);
                self.insert(self.last_end, b")".as_slice());
            }
        }
        Ok(())
    }

    fn function_statement(&mut self, line: usize) -> Parsed {
        self.advance()?;
        let name = self.name()?;
        self.resolve(name)?;
        let mut method = false;
        while self.is(other(b'.')) {
            self.advance()?;
            self.name()?;
        }
        if self.accept(other(b':'))? {
            self.name()?;
            method = true;
        }
        self.body(method, line)
    }

    fn local_function(&mut self) -> Parsed {
        let name = self.name()?;
        self.declare(name)?;
        self.scope.show_function();
        self.body(false, self.lexer.line)
    }

    fn locals(&mut self) -> Parsed {
        loop {
            let name = self.name()?;
            self.declare(name)?;
            if !self.accept(other(b','))? {
                break;
            }
        }
        let mut origins = Vec::new();
        if self.accept(other(b'='))? {
            origins = self.expressions()?;
        }
        let made_from = |made: &Expression<'a>| match made.shape {
            Shape::Variable => made.path,
            _ => None,
        };
        let origins: Vec<Path> = origins.iter().map(made_from).collect();
        self.scope.show(&origins);
        Ok(())
    }

    fn return_statement(&mut self) -> Parsed {
        let (begin, line) = (self.token.start, self.lexer.line);
        self.advance()?;
        if self.block_ends() || self.is(other(b';')) {
            return Ok(());
        }
        let start = self.token.start;
        let (functions, edits) = (self.scope.opened(), self.lexer.edits.len());
        let returned = self.expressions()?;
        let [only] = returned[..] else {
            return Ok(());
        };
        let Some(site) = only.site else {
            return Ok(());
        };
        let can_be_copied = self.last_line == line
            && functions == self.scope.opened()
            && edits == self.lexer.edits.len();
        if let Some(opening) = tail::kept_frame(only.path) {
            self.insert(start, opening);
            self.insert(self.last_end, b")".as_slice());
        } else if site.is_lua_function
            || matches!(only.path, Some((_, None))) && self.last_line == line
        {
            // A global that is not a library function does not exist, or can't be called, so its
            // returned call is not changed.
        } else if let Some(callee) = only.callee.filter(|_| can_be_copied) {
            let source = self.lexer.source;
            let copy = tail::copied(&source[callee.0..callee.1], &source[start..self.last_end]);
            self.insert(begin, copy);
        } else {
            tail::pass_on(&site, start, self.lexer.source, &mut self.edits);
        }
        Ok(())
    }

    fn insert(&mut self, at: usize, inserted: impl Into<Cow<'static, [u8]>>) {
        let inserted = inserted.into();
        self.edits.push(Edit {
            at,
            removed: 0,
            inserted,
        });
    }

    fn expression_statement(&mut self) -> Parsed {
        let first = self.primary()?;
        if first.shape == Shape::Call {
            return Ok(());
        }
        self.assignment(first, 1)
    }

    fn assignment(&mut self, target: Expression<'a>, count: usize) -> Parsed {
        if target.shape != Shape::Variable {
            return self.error("syntax error");
        }
        if self.accept(other(b','))? {
            let next = self.primary()?;
            if count >= LEVELS_MAX - self.levels {
                let text = TooMany::targets(LEVELS_MAX - self.levels, self.scope.function());
                return Err(self.too_many(&text));
            }
            return self.assignment(next, count + 1);
        }
        self.expect(other(b'='))?;
        self.expressions()?;
        Ok(())
    }

    // The methods below parse expressions.

    fn expressions(&mut self) -> Parsed<Vec<Expression<'a>>> {
        let mut list = vec![self.expression()?];
        while self.accept(other(b','))? {
            list.push(self.expression()?);
        }
        Ok(list)
    }

    fn expression(&mut self) -> Parsed<Expression<'a>> {
        self.operation(0)
    }

    /// Parses an operand and the binary operators behind it that have a higher precedence than
    /// `limit`.
    fn operation(&mut self, limit: u8) -> Parsed<Expression<'a>> {
        self.enter()?;
        let mut read = match self.token.kind {
            TokenKind::Word("not") | TokenKind::Other(b'-' | b'#') => {
                self.advance()?;
                self.operation(UNARY)?;
                VALUE
            }
            _ => self.simple()?,
        };
        while let Some((left, right)) = binding(self.token.kind)
            && left > limit
        {
            self.advance()?;
            self.operation(right)?;
            read = VALUE;
        }
        self.levels -= 1;
        Ok(read)
    }

    fn simple(&mut self) -> Parsed<Expression<'a>> {
        match self.token.kind {
            TokenKind::Number | TokenKind::String | TokenKind::Word("nil" | "true" | "false") => {
                self.advance()?
            }
            TokenKind::Word("...") => {
                if !self.scope.function().variadic {
                    return self.error("cannot use '...' outside a vararg function");
                }
                self.scope.function().reads_arguments = true;
                self.advance()?;
            }
            TokenKind::Other(b'{') => self.table()?,
            TokenKind::Word("function") => {
                self.advance()?;
                self.body(false, self.lexer.line)?;
            }
            _ => return self.primary(),
        }
        Ok(VALUE)
    }

    fn resolve(&mut self, name: &'a [u8]) -> Parsed<Path<'a>> {
        let resolved = self.scope.resolve(name);
        resolved.map_err(|problem| self.too_many(&problem))
    }

    /// Parses a name, or an expression in parentheses, with the fields, indexes and calls that
    /// follow.
    fn primary(&mut self) -> Parsed<Expression<'a>> {
        let start = self.token.start;
        let mut is_lua_function;
        let mut read = match self.token.kind {
            TokenKind::Other(b'(') => {
                let (inner, is_function) = self.parenthesised()?;
                is_lua_function = is_function;
                inner
            }
            TokenKind::Name => {
                let name = self.name()?;
                is_lua_function = self.scope.is_lua_function(name);
                self.variable(name, start)?
            }
            _ => return self.error("unexpected symbol"),
        };
        loop {
            let callee = read.callee.filter(|_| read.shape == Shape::Variable);
            read = match self.token.kind {
                TokenKind::Other(b'.') => {
                    self.advance()?;
                    let field = self.name()?;
                    let path = match (read.shape, read.path) {
                        (Shape::Variable, Some((table, None))) => Some((table, Some(field))),
                        _ => None,
                    };
                    Expression {
                        shape: Shape::Variable,
                        path,
                        callee: callee.map(|_| (start, self.last_end)),
                        label: Some(Label::field(field)),
                        ..VALUE
                    }
                }
                TokenKind::Other(b'[') => {
                    let label = self.index()?;
                    Expression {
                        shape: Shape::Variable,
                        label: Some(label),
                        ..VALUE
                    }
                }
                TokenKind::Other(b':' | b'(' | b'{') | TokenKind::String => {
                    self.call(&read, callee, start, is_lua_function)?
                }
                _ => return Ok(read),
            };
            is_lua_function = false;
        }
    }

    /// Parses an expression in parentheses. Also returns whether the expression begins with
    /// `function`, so is written in Lua.
    fn parenthesised(&mut self) -> Parsed<(Expression<'a>, bool)> {
        let line = self.lexer.line;
        self.advance()?;
        let first = self.token;
        let inner = self.expression()?;
        let is_text = first.kind == TokenKind::String && first.end == self.last_end;
        self.close(other(b')'), "(", line)?;
        let label = inner.label.filter(|_| inner.shape == Shape::Variable);
        let inner = Expression {
            label,
            is_text,
            ..VALUE
        };
        Ok((inner, first.kind == word("function")))
    }

    fn variable(&mut self, name: &'a [u8], start: usize) -> Parsed<Expression<'a>> {
        let callee = (!self.scope.is_lua_function(name)).then_some((start, self.last_end));
        Ok(Expression {
            shape: Shape::Variable,
            path: self.resolve(name)?,
            callee,
            label: Some(Label::variable(name, self.scope.kind(name))),
            ..VALUE
        })
    }

    /// Parses the arguments of a call, preceded by `:` and a method's name in a call of a method.
    fn call(
        &mut self,
        read: &Expression<'a>,
        callee: Option<(usize, usize)>,
        start: usize,
        is_lua_function: bool,
    ) -> Parsed<Expression<'a>> {
        let head_end = self.last_end;
        let mut method = None;
        if self.accept(other(b':'))? {
            method = Some(self.name()?);
        }
        let callee = callee.map(|_| (start, self.last_end));
        let path = match method {
            Some(_) => read.is_text.then_some((&b"string"[..], method)),
            None => read.path.filter(|_| read.shape == Shape::Variable),
        };
        let arguments = self.token.start;
        self.arguments()?;
        Ok(Expression {
            shape: Shape::Call,
            path,
            callee,
            site: Some(Site {
                head_end,
                label: read.label,
                method,
                arguments: (arguments, self.last_end),
                is_lua_function: is_lua_function && method.is_none(),
            }),
            is_text: tail::gives_text(path),
            ..VALUE
        })
    }

    /// Parses an index in brackets, and returns the name by which error messages call the element.
    fn index(&mut self) -> Parsed<Label<'a>> {
        self.advance()?;
        let key = self.token;
        self.expression()?;
        let is_constant = key.kind == TokenKind::String && key.end == self.last_end;
        let written = &self.lexer.source[key.start..key.end];
        self.expect(other(b']'))?;
        Ok(Label::element(is_constant.then_some(written)))
    }

    fn arguments(&mut self) -> Parsed {
        let line = self.lexer.line;
        match self.token.kind {
            TokenKind::Other(b'(') => {
                if line != self.last_line {
                    return self.error("ambiguous syntax (function call x new statement)");
                }
                self.advance()?;
                if !self.is(other(b')')) {
                    self.expressions()?;
                }
                self.close(other(b')'), "(", line)
            }
            TokenKind::Other(b'{') => self.table(),
            TokenKind::String => self.advance(),
            _ => self.error("function arguments expected"),
        }
    }

    fn table(&mut self) -> Parsed {
        let line = self.lexer.line;
        self.expect(other(b'{'))?;
        while !self.is(other(b'}')) {
            match self.token.kind {
                TokenKind::Name => {
                    let ahead = self.lexer.next()?;
                    self.ahead = Some(ahead);
                    if ahead.kind == other(b'=') {
                        self.advance()?;
                        self.advance()?;
                    }
                    self.expression()?;
                }
                TokenKind::Other(b'[') => {
                    self.index()?;
                    self.expect(other(b'='))?;
                    self.expression()?;
                }
                _ => {
                    self.expression()?;
                }
            }
            if !self.accept(other(b','))? && !self.accept(other(b';'))? {
                break;
            }
        }
        self.close(other(b'}'), "{", line)
    }

    /// Parses a function from its parameters on.
    fn body(&mut self, method: bool, line: usize) -> Parsed {
        self.scope.open_function(line);
        self.expect(other(b'('))?;
        if method {
            self.declare(b"self")?;
        }
        if !self.is(other(b')')) {
            self.parameters()?;
        }
        self.scope.show_parameters();
        let has_select = self.scope.kind(b"select") == "global";
        self.expect(other(b')'))?;
        let begin = self.last_end;
        self.chunk()?;
        self.define_arg(begin, has_select);
        self.close(word("end"), "function", line)?;
        self.scope.close_function();
        Ok(())
    }

    /// Gives the function whose body begins at `begin` the variable `arg`, if the function uses
    /// `arg`. In Lua 5.1 `arg` is nil in a function that uses `...`.
    fn define_arg(&mut self, begin: usize, has_select: bool) {
        let function = self.scope.function();
        if !function.uses_arg {
            return;
        }
        let text = match (function.reads_arguments, has_select) {
            (true, _) => " local arg;",
            (false, true) => " local arg={n=select('#',...),...};",
            (false, false) => " local arg={n=#{...},...};",
        };
        self.insert(begin, text.as_bytes());
    }

    fn parameters(&mut self) -> Parsed {
        loop {
            match self.token.kind {
                TokenKind::Name => {
                    let name = self.name()?;
                    self.declare(name)?;
                }
                TokenKind::Word("...") => {
                    self.advance()?;
                    self.scope.function().variadic = true;
                    return self.declare(b"arg");
                }
                _ => return self.error("<name> or '...' expected"),
            }
            if !self.accept(other(b','))? {
                return Ok(());
            }
        }
    }
}

/// The precedence of a binary operator over operators to its left and to its right.
fn binding(kind: TokenKind) -> Option<(u8, u8)> {
    Some(match kind {
        TokenKind::Other(b'+' | b'-') => (6, 6),
        TokenKind::Other(b'*' | b'/' | b'%') => (7, 7),
        TokenKind::Other(b'^') => (10, 9),
        TokenKind::Word("..") => (5, 4),
        TokenKind::Word("==" | "~=" | "<=" | ">=") | TokenKind::Other(b'<' | b'>') => (3, 3),
        TokenKind::Word("and") => (2, 2),
        TokenKind::Word("or") => (1, 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
