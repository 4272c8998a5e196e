//! Splits a source into the tokens of Lua 5.1, with the errors that its compiler reports.
//!
//! An error message ends with the token at which reading stopped. For names, strings and numbers
//! the message has the text read so far, with escapes resolved, up to the first zero byte.

use std::borrow::Cow;

use crate::script::native::strtod;

/// An error message about the source: `user_script:1: unexpected symbol near '~'`.
pub type Message = Vec<u8>;

/// The kind of a token of Lua. Reserved words and operators carry their text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenKind {
    End,
    Name,
    Number,
    String,
    Word(&'static str),
    /// Any other character of the source, whether Lua uses it or not.
    Other(u8),
}

/// A token of Lua source.
#[derive(Clone, Copy, Debug)]
pub struct Token {
    pub kind: TokenKind,
    /// The positions of the token's beginning and end in the source, in bytes.
    pub start: usize,
    pub end: usize,
}

/// A change of the source that makes LuaJIT's compiler read it as Lua 5.1 would.
pub struct Edit {
    pub at: usize,
    pub removed: usize,
    pub inserted: Cow<'static, [u8]>,
}

const RESERVED: [&str; 21] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

/// Whether a text can be the name of a variable in Lua.
pub fn is_name(text: &[u8]) -> bool {
    let begins = text.first().is_some_and(|b| !b.is_ascii_digit());
    let is_reserved = || RESERVED.iter().any(|word| word.as_bytes() == text);
    begins && text.iter().all(|&b| b.is_ascii_alphanumeric() || b == b'_') && !is_reserved()
}

/// Splits a source into tokens.
pub struct Lexer<'a> {
    pub source: &'a [u8],
    chunk: &'a [u8],
    at: usize,
    /// The number of the source line in which the next character is.
    pub line: usize,
    /// The text of the last token that is a name, a string or a number.
    text: Vec<u8>,
    pub edits: Vec<Edit>,
}

impl<'a> Lexer<'a> {
    /// A lexer at the beginning of the source. `chunk` is the name of the source in messages.
    pub fn new(source: &'a [u8], chunk: &'a [u8]) -> Lexer<'a> {
        Lexer {
            source,
            chunk,
            at: 0,
            line: 1,
            text: Vec::new(),
            edits: Vec::new(),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.source.get(self.at).copied()
    }

    fn take_if(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn take_any(&mut self, wanted: &[u8]) -> bool {
        let found = self.peek().is_some_and(|b| wanted.contains(&b));
        self.at += usize::from(found);
        found
    }

    /// The text of an error: the name of the source, the line, `text`, and the token `near` if
    /// there is one.
    pub fn error(&self, text: &str, near: Option<TokenKind>) -> Message {
        let mut message = self.chunk.to_vec();
        message.extend_from_slice(format!(":{}: {text}", self.line).as_bytes());
        // A message does not show a zero byte, since C takes it for the end of a text.
        if let Some(kind) = near.filter(|kind| *kind != TokenKind::Other(0)) {
            message.extend_from_slice(b" near '");
            match kind {
                TokenKind::Name | TokenKind::Number | TokenKind::String => {
                    let end = memchr::memchr(0, &self.text).unwrap_or(self.text.len());
                    message.extend_from_slice(&self.text[..end]);
                }
                kind => message.extend_from_slice(&spelled(kind)),
            }
            message.push(b'\'');
        }
        message
    }

    /// Reads the next token of the source.
    pub fn next(&mut self) -> Result<Token, Message> {
        loop {
            let start = self.at;
            let Some(byte) = self.peek() else {
                return Ok(self.token(TokenKind::End, start));
            };
            match byte {
                b'\n' | b'\r' => self.line_end(),
                b' ' | b'\t' | b'\x0b' | b'\x0c' => self.at += 1,
                b'-' if self.source.get(self.at + 1) == Some(&b'-') => {
                    self.at += 2;
                    self.comment()?;
                }
                _ => {
                    let kind = self.word(byte)?;
                    return Ok(self.token(kind, start));
                }
            }
        }
    }

    fn token(&self, kind: TokenKind, start: usize) -> Token {
        Token {
            kind,
            start,
            end: self.at,
        }
    }

    fn word(&mut self, byte: u8) -> Result<TokenKind, Message> {
        match byte {
            b'[' => self.bracket(),
            b'"' | b'\'' => self.quoted(byte),
            b'0'..=b'9' => self.number(),
            b'.' => self.dots(),
            b'=' => Ok(self.operator(byte, "==")),
            b'<' => Ok(self.operator(byte, "<=")),
            b'>' => Ok(self.operator(byte, ">=")),
            b'~' => Ok(self.operator(byte, "~=")),
            b if b.is_ascii_alphabetic() || b == b'_' => Ok(self.name()),
            other => {
                self.at += 1;
                Ok(TokenKind::Other(other))
            }
        }
    }

    fn operator(&mut self, byte: u8, with_equals: &'static str) -> TokenKind {
        self.at += 1;
        if self.take_if(b'=') {
            TokenKind::Word(with_equals)
        } else {
            TokenKind::Other(byte)
        }
    }

    fn dots(&mut self) -> Result<TokenKind, Message> {
        if self.source.get(self.at + 1).is_some_and(u8::is_ascii_digit) {
            return self.number();
        }
        self.at += 1;
        if !self.take_if(b'.') {
            return Ok(TokenKind::Other(b'.'));
        }
        Ok(TokenKind::Word(if self.take_if(b'.') {
            "..."
        } else {
            ".."
        }))
    }

    fn name(&mut self) -> TokenKind {
        let start = self.at;
        self.skip(|b| b.is_ascii_alphanumeric() || b == b'_');
        let text = &self.source[start..self.at];
        if let Some(word) = RESERVED.iter().find(|word| word.as_bytes() == text) {
            return TokenKind::Word(word);
        }
        self.text = text.to_vec();
        TokenKind::Name
    }

    fn skip(&mut self, belongs: impl Fn(u8) -> bool) {
        while self.peek().is_some_and(&belongs) {
            self.at += 1;
        }
    }

    /// Reads a number; letters that follow a number belong to it and make it invalid. Lua 5.1 takes
    /// a zero byte for the letter of an exponent or for its sign, and reads the number up to that
    /// byte.
    fn number(&mut self) -> Result<TokenKind, Message> {
        let start = self.at;
        self.skip(|b| b.is_ascii_digit() || b == b'.');
        if self.take_any(b"eE\0") {
            self.take_any(b"+-\0");
        }
        self.skip(|b| b.is_ascii_alphanumeric() || b == b'_');
        let taken = &self.source[start..self.at];
        let len = memchr::memchr(0, taken).unwrap_or(taken.len());
        if len < taken.len() {
            self.edits.push(Edit {
                at: start + len,
                removed: taken.len() - len,
                inserted: b" ".into(),
            });
        }
        self.text = taken[..len].to_vec();
        match strtod(&self.text) {
            Some((_, len)) if len == self.text.len() => Ok(TokenKind::Number),
            _ => Err(self.error("malformed number", Some(TokenKind::Number))),
        }
    }

    /// Skips a line end; `\r\n` and `\n\r` are one line end.
    fn line_end(&mut self) {
        let first = self.source[self.at];
        self.at += 1;
        if let Some(second @ (b'\n' | b'\r')) = self.peek()
            && second != first
        {
            self.at += 1;
        }
        self.line += 1;
    }

    fn comment(&mut self) -> Result<(), Message> {
        if self.peek() == Some(b'[')
            && let Some(level) = self.level()
        {
            return self.long_text(level, "unfinished long comment");
        }
        self.skip(|b| b != b'\n' && b != b'\r');
        Ok(())
    }

    /// The number of `=` between the two brackets at the lexer's position, if they open a long
    /// string (`[==[`).
    fn level(&self) -> Option<usize> {
        let rest = &self.source[self.at + 1..];
        let level = rest.iter().take_while(|&&b| b == b'=').count();
        (rest.get(level) == Some(&b'[')).then_some(level)
    }

    fn bracket(&mut self) -> Result<TokenKind, Message> {
        let start = self.at;
        if let Some(level) = self.level() {
            self.long_text(level, "unfinished long string")?;
            self.text = self.source[start..self.at].to_vec();
            return Ok(TokenKind::String);
        }
        self.at += 1;
        if self.peek() != Some(b'=') {
            return Ok(TokenKind::Other(b'['));
        }
        self.skip(|b| b == b'=');
        self.text = self.source[start..self.at].to_vec();
        Err(self.error("invalid long string delimiter", Some(TokenKind::String)))
    }

    fn long_text(&mut self, level: usize, unfinished: &str) -> Result<(), Message> {
        self.at += level + 2;
        loop {
            match self.peek() {
                None => return Err(self.error(unfinished, Some(TokenKind::End))),
                Some(b'\n' | b'\r') => self.line_end(),
                Some(b']') => {
                    self.at += 1;
                    let rest = &self.source[self.at..];
                    let equals = rest.iter().take_while(|&&b| b == b'=').count();
                    if equals == level && rest.get(level) == Some(&b']') {
                        self.at += level + 1;
                        return Ok(());
                    }
                    self.at += equals;
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn quoted(&mut self, quote: u8) -> Result<TokenKind, Message> {
        self.text = vec![quote];
        self.at += 1;
        loop {
            match self.peek() {
                None => return Err(self.error("unfinished string", Some(TokenKind::End))),
                Some(b'\n' | b'\r') => {
                    return Err(self.error("unfinished string", Some(TokenKind::String)));
                }
                Some(b'\\') => self.escape()?,
                Some(byte) => {
                    self.text.push(byte);
                    self.at += 1;
                    if byte == quote {
                        return Ok(TokenKind::String);
                    }
                }
            }
        }
    }

    /// Lua 5.1 reads an unknown escape as the character itself. LuaJIT gives some of the escapes
    /// unknown to 5.1 a meaning and refuses the rest, so the backslash is removed.
    fn escape(&mut self) -> Result<(), Message> {
        let start = self.at;
        self.at += 1;
        let Some(byte) = self.peek() else {
            return Ok(());
        };
        let meant = match byte {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'\n' | b'\r' => {
                self.line_end();
                self.text.push(b'\n');
                return Ok(());
            }
            b'0'..=b'9' => return self.decimal_escape(),
            b'\\' | b'"' | b'\'' => byte,
            _ => {
                self.edits.push(Edit {
                    at: start,
                    removed: 1,
                    inserted: Cow::Borrowed(b""),
                });
                byte
            }
        };
        self.text.push(meant);
        self.at += 1;
        Ok(())
    }

    fn decimal_escape(&mut self) -> Result<(), Message> {
        let mut number = 0_u16;
        for _ in 0..3 {
            let Some(digit @ b'0'..=b'9') = self.peek() else {
                break;
            };
            number = number * 10 + u16::from(digit - b'0');
            self.at += 1;
        }
        match u8::try_from(number) {
            Ok(byte) => {
                self.text.push(byte);
                Ok(())
            }
            Err(_) => Err(self.error("escape sequence too large", Some(TokenKind::String))),
        }
    }
}

/// The text by which error messages name a kind of token.
pub fn spelled(kind: TokenKind) -> Vec<u8> {
    match kind {
        TokenKind::End => b"<eof>".to_vec(),
        TokenKind::Name => b"<name>".to_vec(),
        TokenKind::Number => b"<number>".to_vec(),
        TokenKind::String => b"<string>".to_vec(),
        TokenKind::Word(word) => word.as_bytes().to_vec(),
        TokenKind::Other(byte) if byte.is_ascii_control() => format!("char({byte})").into_bytes(),
        TokenKind::Other(byte) => vec![byte],
    }
}
