//! The databases that the arguments of a call name, for ACL checks of databases.
//!
//! ```text
//!   SELECT 1      SWAPDB 0 1      MOVE k 1      COPY a b DB 1 REPLACE
//!          ^             ^ ^             ^                ^
//! ```
//!
//! The row of a command whose arguments name databases refers to a function of
//! `src/command/databases.rs`. The command COPY and the ACL check read COPY's options by the same
//! function ([`copy_options`]), so that repeated options have the same meaning in both.

/// Appends the indexes in argv of the databases that a call names. The argument at the index of a
/// database may be invalid.
pub type GetDatabases = fn(argv: &[&[u8]], out: &mut Vec<usize>);

/// The database of SELECT index.
pub fn select(_: &[&[u8]], out: &mut Vec<usize>) {
    out.push(1);
}

/// The databases of SWAPDB index1 index2.
pub fn swapdb(_: &[&[u8]], out: &mut Vec<usize>) {
    out.extend([1, 2]);
}

/// The database of MOVE key db.
pub fn move_key(_: &[&[u8]], out: &mut Vec<usize>) {
    out.push(2);
}

/// The databases of COPY source destination [DB database] [REPLACE]: those of all DB options,
/// although the command uses only the last option.
pub fn copy(argv: &[&[u8]], out: &mut Vec<usize>) {
    out.extend(copy_options(argv).filter_map(|option| match option {
        CopyOption::Database(at) => Some(at),
        CopyOption::Replace | CopyOption::Unknown => None,
    }));
}

/// An option in the arguments of COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyOption {
    /// The option DB, with the index of its value in argv.
    Database(usize),
    Replace,
    /// An unknown option, which is a syntax error.
    Unknown,
}

/// The options in the arguments of a COPY, in order.
pub fn copy_options(argv: &[&[u8]]) -> impl Iterator<Item = CopyOption> {
    let mut at = 3;
    std::iter::from_fn(move || {
        let name = argv.get(at)?;
        at += 1;
        if name.eq_ignore_ascii_case(b"replace") {
            return Some(CopyOption::Replace);
        }
        if name.eq_ignore_ascii_case(b"db") && at < argv.len() {
            at += 1;
            return Some(CopyOption::Database(at - 1));
        }
        Some(CopyOption::Unknown)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn databases_of_copy(line: &str) -> Vec<usize> {
        let argv: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut out = Vec::new();
        copy(&argv, &mut out);
        out
    }

    #[test]
    fn every_db_clause_of_copy_is_found() {
        assert!(databases_of_copy("copy a b").is_empty());
        assert!(databases_of_copy("copy db db").is_empty());
        assert_eq!(databases_of_copy("copy a b db 1"), [4]);
        assert_eq!(databases_of_copy("copy a b DB 0 replace Db 1"), [4, 7]);
        assert_eq!(databases_of_copy("copy a b db db db 1"), [4, 6]);
        assert!(databases_of_copy("copy a b db").is_empty());
    }
}
