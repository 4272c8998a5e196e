//! The manifest: the files of the AOF, in their order.
//!
//! ```text
//!   appendonlydir/
//!     appendonly.aof.manifest            file appendonly.aof.2.base.rdb seq 2 type b
//!                                        file appendonly.aof.1.incr.aof seq 1 type h
//!                                        file appendonly.aof.2.incr.aof seq 2 type i
//!     appendonly.aof.2.base.rdb     b    the data set at the time of the last rewrite
//!     appendonly.aof.2.incr.aof     i    what was written since, in the order of the sequence numbers
//!     appendonly.aof.1.incr.aof     h    history: no longer needed, about to be deleted
//! ```
//!
//! A rewrite begins with a new incremental file, and ends with a new base; the files that the base
//! replaces become history. Each step of a rewrite replaces the manifest once (temporary file,
//! fsync, rename, fsync of the directory), so a crash leaves either the old or the new manifest.
//!
//! The manifest has the format of Redis 7. A name with spaces or quotes is quoted as in redis.conf;
//! unknown keys are skipped, so a later version may add some; a line that begins with `#` is a
//! comment.
//!
//! **Invariant:** [`Manifest::parse`] reads what [`Manifest::render`] writes as an equal manifest
//! (`tests::what_is_written_is_read`).
//! **Invariant:** no bytes make `parse` panic (`tests::any_bytes_are_an_answer`).
//! Limits: a line of the manifest has at most [`LINE_MAX`] bytes, as in Redis; there is at most one
//! base.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::util::number::parse_i64;
use crate::util::quote::{needs_repr, split_args, write_repr};

/// The maximum length in bytes of a line of the manifest, including its line end.
pub const LINE_MAX: usize = 1024;

/// A file of the AOF: its name and its sequence number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    pub name: Vec<u8>,
    /// The sequence number of the file, from 1 on.
    pub seq: i64,
}

impl Part {
    /// The path of the file in the AOF's directory `dir`.
    pub fn path(&self, dir: &Path) -> PathBuf {
        dir.join(super::os_name(&self.name))
    }
}

/// The manifest: the files of the AOF, in the order in which they are loaded.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Manifest {
    pub base: Option<Part>,
    /// The files that a rewrite has replaced and that are to be deleted, the latest first.
    pub history: Vec<Part>,
    /// The incremental files, in the order in which they are loaded.
    pub incr: Vec<Part>,
    /// The highest sequence number that a base was given so far.
    pub base_seq: i64,
    /// The highest sequence number that an incremental file was given so far.
    pub incr_seq: i64,
}

/// The reason why a manifest can't be parsed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// The number of the faulty line, from 1; 0 if the error is not about a line.
    pub line_number: usize,
    pub line: Vec<u8>,
    pub text: &'static str,
}

const INVALID: &str = "Invalid AOF manifest file format";

impl Manifest {
    /// Whether the manifest names no file that is loaded.
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.incr.is_empty()
    }

    /// The files that are loaded, in order: the base, then the incremental files.
    pub fn loaded(&self) -> impl Iterator<Item = &Part> {
        self.base.iter().chain(&self.incr)
    }

    /// Parses the text of a manifest. An error has the faulty line and Redis's text for the fault.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, ParseError> {
        let mut manifest = Manifest::default();
        if bytes.is_empty() {
            return Err(ParseError {
                line_number: 0,
                line: Vec::new(),
                text: "Found an empty AOF manifest",
            });
        }
        for (at, line) in bytes.split_inclusive(|&b| b == b'\n').enumerate() {
            manifest.read_line(line).map_err(|text| ParseError {
                line_number: at + 1,
                line: line.trim_ascii().to_vec(),
                text,
            })?;
        }
        Ok(manifest)
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if line.starts_with(b"#") {
            return Ok(());
        }
        if line.len() > LINE_MAX || !line.ends_with(b"\n") {
            return Err("The AOF manifest file contains too long line");
        }
        let words = split_args(line.trim_ascii()).ok_or(INVALID)?;
        if words.len() < 6 || !words.len().is_multiple_of(2) {
            return Err(INVALID);
        }
        let (mut name, mut seq, mut kind) = (Vec::new(), 0, 0);
        for pair in words.chunks_exact(2) {
            match pair[0].to_ascii_lowercase().as_slice() {
                b"file" => name = pair[1].clone(),
                b"seq" => seq = parse_i64(&pair[1]).unwrap_or(0),
                b"type" => kind = pair[1].first().copied().unwrap_or(0),
                _ => {}
            }
        }
        if !is_base_name(&name) {
            return Err("File can't be a path, just a filename");
        }
        if name.is_empty() || seq <= 0 || kind == 0 {
            return Err(INVALID);
        }
        self.add(Part { name, seq }, kind)
    }

    fn add(&mut self, part: Part, kind: u8) -> Result<(), &'static str> {
        match kind {
            b'b' if self.base.is_some() => return Err("Found duplicate base file information"),
            b'b' => {
                self.base_seq = part.seq;
                self.base = Some(part);
            }
            b'h' => self.history.push(part),
            b'i' if part.seq <= self.incr_seq => {
                return Err("Found a non-monotonic sequence number");
            }
            b'i' => {
                self.incr_seq = part.seq;
                self.incr.push(part);
            }
            _ => return Err("Unknown AOF file type"),
        }
        Ok(())
    }

    /// The text of the manifest: a line for each file.
    pub fn render(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let parts = [
            (self.base.as_slice(), 'b'),
            (&self.history[..], 'h'),
            (&self.incr[..], 'i'),
        ];
        for (parts, kind) in parts {
            for part in parts {
                out.extend_from_slice(b"file ");
                if needs_repr(&part.name) {
                    write_repr(&mut out, &part.name);
                } else {
                    out.extend_from_slice(&part.name);
                }
                out.extend_from_slice(format!(" seq {} type {kind}\n", part.seq).as_bytes());
            }
        }
        out
    }

    /// Skips the sequence numbers of files that exist although the manifest does not name them,
    /// because the manifest was lost or a crash came between two steps. No new file gets the name
    /// of such a file. Returns the names of the files that the manifest does not name. Empty files
    /// are not skipped, since their names can be used again.
    pub fn skip_unnamed(&mut self, dir: &Path, file_name: &[u8]) -> Vec<Vec<u8>> {
        let Manifest {
            base_seq,
            incr_seq,
            history,
            ..
        } = self;
        let has_bytes = |name: &Vec<u8>| {
            let meta = std::fs::symlink_metadata(dir.join(super::os_name(name)));
            meta.is_ok_and(|meta| meta.len() > 0)
        };
        let there = |seq: i64, suffixes: &[&str]| -> Vec<Vec<u8>> {
            let names = suffixes
                .iter()
                .map(|suffix| [file_name, format!(".{seq}.{suffix}").as_bytes()].concat());
            names.filter(has_bytes).collect()
        };
        let mut found = Vec::new();
        for (seq, suffixes) in [
            (base_seq, &["base.rdb", "base.aof"][..]),
            (incr_seq, &["incr.aof"]),
        ] {
            while let Some(next) = seq.checked_add(1) {
                let names = there(next, suffixes);
                if names.is_empty() {
                    break;
                }
                let is_old = |name: &Vec<u8>| history.iter().any(|part| part.name == *name);
                found.extend(names.into_iter().filter(|name| !is_old(name)));
                *seq = next;
            }
        }
        found
    }

    /// Adds a new base file with the next sequence number; the old base becomes history. `rdb` says
    /// whether the new base has the format of an RDB.
    pub fn new_base(&mut self, file_name: &[u8], rdb: bool) -> &Part {
        if let Some(old) = self.base.take() {
            self.history.insert(0, old);
        }
        self.base_seq = self.base_seq.saturating_add(1);
        let format = if rdb { "rdb" } else { "aof" };
        let name = [
            file_name,
            format!(".{}.base.{format}", self.base_seq).as_bytes(),
        ]
        .concat();
        self.base.insert(Part {
            name,
            seq: self.base_seq,
        })
    }

    /// Adds a new incremental file with the next sequence number.
    pub fn new_incr(&mut self, file_name: &[u8]) -> &Part {
        self.incr_seq = self.incr_seq.saturating_add(1);
        let name = [file_name, format!(".{}.incr.aof", self.incr_seq).as_bytes()].concat();
        self.incr.push(Part {
            name,
            seq: self.incr_seq,
        });
        &self.incr[self.incr.len() - 1]
    }

    /// Moves all incremental files, except the last `keep` files, to history, since the new base
    /// replaces them.
    pub fn retire_incr(&mut self, keep: usize) {
        let retired = self.incr.len().saturating_sub(keep);
        self.history.splice(0..0, self.incr.drain(..retired));
    }

    /// Writes the manifest to its file, in place of the old manifest. A crash leaves the old or the
    /// new manifest.
    pub fn store(&self, dir: &Path, file_name: &[u8]) -> Result<(), NotStored> {
        self.replace(dir, file_name).map_err(NotStored::Kept)?;
        sync_dir(dir).map_err(NotStored::Unsure)
    }

    fn replace(&self, dir: &Path, file_name: &[u8]) -> io::Result<()> {
        let temp = dir.join(super::os_name(
            &[b"temp-", file_name, b".manifest"].concat(),
        ));
        let mut file = File::create(&temp)?;
        file.write_all(&self.render())?;
        file.sync_all()?;
        std::fs::rename(&temp, path(dir, file_name))
    }
}

/// Why a new manifest is not stored for certain.
#[derive(Debug)]
pub enum NotStored {
    /// The old manifest is still in place, and the new manifest is not.
    Kept(io::Error),
    /// The new manifest is in place, but its rename is not durable, so a power cut may bring the
    /// old manifest back. So all files that the old or the new manifest names must stay.
    Unsure(io::Error),
}

impl NotStored {
    /// Removes a file that only the new manifest names, unless the new manifest may be in place.
    pub fn discard(&self, file: &Path) {
        if let NotStored::Kept(_) = self {
            discard(file);
        }
    }
}

/// Removes a new file that no manifest names. An error is ignored, since the file is harmless: its
/// name is skipped, or it is empty and the next attempt uses it.
pub fn discard(file: &Path) {
    let _ = std::fs::remove_file(file);
}

impl From<NotStored> for io::Error {
    fn from(reason: NotStored) -> io::Error {
        match reason {
            NotStored::Kept(e) | NotStored::Unsure(e) => e,
        }
    }
}

/// The path of the manifest's file in the AOF's directory `dir`.
pub fn path(dir: &Path, file_name: &[u8]) -> PathBuf {
    dir.join(super::os_name(&[file_name, b".manifest"].concat()))
}

/// Makes renames in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    File::open(dir)?.sync_all()
}

fn is_base_name(name: &[u8]) -> bool {
    !name.contains(&b'/') && !name.contains(&b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let name = proptest::collection::vec(any::<u8>(), 1..20)
            .prop_filter("a name", |name| is_base_name(name) && !name.contains(&0));
        proptest::collection::vec(name, 0..5)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            base in parts(), history in parts(), incr in parts(), step in 1..1000i64,
        ) {
            let mut manifest = Manifest::default();
            for (name, seq) in base.into_iter().zip([step]) {
                manifest.base = Some(Part { name, seq });
                manifest.base_seq = seq;
            }
            manifest.history = history.into_iter().map(|name| Part { name, seq: step }).collect();
            for (at, name) in incr.into_iter().enumerate() {
                manifest.incr_seq = step * (at as i64 + 1);
                manifest.incr.push(Part { name, seq: manifest.incr_seq });
            }
            let text = manifest.render();
            if !text.is_empty() {
                prop_assert_eq!(Manifest::parse(&text), Ok(manifest));
            }
        }

        #[test]
        fn any_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Manifest::parse(&bytes);
        }

        #[test]
        fn nearly_right_lines_are_an_answer(text in "(file|seq|type|[a-z0-9\"]{1,3}| |\n|b|i|#){0,40}") {
            if let Ok(manifest) = Manifest::parse(text.as_bytes()) {
                prop_assert!(manifest.incr.windows(2).all(|pair| pair[0].seq < pair[1].seq));
            }
        }
    }

    fn refused(text: &str) -> &'static str {
        Manifest::parse(text.as_bytes()).expect_err(text).text
    }

    #[test]
    fn what_is_wrong_is_said_in_redis_s_words() {
        let base = "file a.1.base.aof seq 1 type b\n";
        assert_eq!(refused(""), "Found an empty AOF manifest");
        assert_eq!(refused(&format!("{base}\n")), INVALID);
        assert_eq!(refused("filx a seq 1 type b\n"), INVALID);
        assert_eq!(refused("file a seq 1 type b key\n"), INVALID);
        assert_eq!(refused("file a type i\n"), INVALID);
        assert_eq!(refused("file a seq 0 type i\n"), INVALID);
        assert_eq!(refused("file a seq 1 type x\n"), "Unknown AOF file type");
        assert_eq!(
            refused("file ../a seq 1 type b\n"),
            "File can't be a path, just a filename"
        );
        assert_eq!(
            refused(&base.repeat(2)),
            "Found duplicate base file information"
        );
        let two = "file b seq 2 type i\nfile a seq 1 type i\n";
        assert_eq!(refused(two), "Found a non-monotonic sequence number");
        let long = format!("file {} seq 1 type b\n", "x".repeat(LINE_MAX));
        assert_eq!(
            refused(&long),
            "The AOF manifest file contains too long line"
        );
        let error = Manifest::parse(b"# note\nfile a seq 1 type b k v\n!\n").expect_err("line 3");
        assert_eq!((error.line_number, &error.line[..]), (3, &b"!"[..]));
    }

    #[test]
    fn rewrites_turn_files_into_history() {
        let mut manifest = Manifest::default();
        manifest.new_base(b"a", true);
        manifest.new_incr(b"a");
        for _ in 0..2 {
            manifest.new_incr(b"a");
            manifest.new_base(b"a", true);
            manifest.retire_incr(1);
        }
        let text = "file a.3.base.rdb seq 3 type b\n\
                    file a.2.incr.aof seq 2 type h\n\
                    file a.2.base.rdb seq 2 type h\n\
                    file a.1.incr.aof seq 1 type h\n\
                    file a.1.base.rdb seq 1 type h\n\
                    file a.3.incr.aof seq 3 type i\n";
        assert_eq!(String::from_utf8_lossy(&manifest.render()), text);
    }
}
