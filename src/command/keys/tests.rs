use crate::command;
use crate::command::keys::*;
use crate::command::{
    INCOMPLETE, INSERT, KEYSPACE, NONE, READONLY, STREAM, VARIABLE_FLAGS, cmd, container,
    counted_keys, index, key, key_at, keynum, keyword, range, unknown_begin, unknown_find,
};
use proptest::prelude::*;

const ROWS: &[Command] = &[
    cmd("get", container, 2, READONLY, 0).keys(&[key_at(1, RO | ACCESS)]),
    cmd("mset", container, -3, NONE, 0).keys(&[key(OW | UPDATE, index(1), range(-1, 2, 0))]),
    cmd("blpop", container, -3, NONE, 0).keys(&[key(
        RW | ACCESS | DELETE,
        index(1),
        range(-2, 1, 0),
    )]),
    cmd("xread", container, -4, NONE, STREAM).keys(&[key(
        RO | ACCESS,
        keyword("STREAMS", 1),
        range(-1, 1, 2),
    )]),
    cmd("zunionstore", container, -4, NONE, 0)
        .keys(&[key_at(1, OW | UPDATE), counted_keys(2, RO | ACCESS)]),
    cmd("eval", container, -3, NO_MANDATORY_KEYS, 0).keys(&[counted_keys(2, RW | ACCESS | UPDATE)]),
    cmd("msetex", container, -4, NONE, 0).keys(&[key(OW | UPDATE, index(1), keynum(0, 1, 2))]),
    cmd("last", container, -2, NONE, 0).keys(&[key(
        RW | INSERT,
        keyword("KEYS", -2),
        range(-1, 1, 0),
    )]),
    cmd("pfmerge", container, -2, NONE, 0).keys(&[
        key_at(1, RW | ACCESS | INSERT),
        key(RO | ACCESS, index(2), range(-1, 1, 0)),
    ]),
    cmd("spublish", container, 3, NONE, 0).keys(&[key_at(1, NOT_KEY)]),
    cmd("set", container, -3, NONE, 0)
        .keys(&[key_at(1, RW | ACCESS | UPDATE | VARIABLE_FLAGS)])
        .get_keys(set),
    cmd("bitfield", container, -2, NONE, 0)
        .keys(&[key_at(1, RW | VARIABLE_FLAGS)])
        .get_keys(bitfield),
    cmd("sort", container, -2, NONE, KEYSPACE)
        .keys(&[
            key_at(1, RO | ACCESS),
            key(OW | UPDATE, unknown_begin(), unknown_find()),
        ])
        .get_keys(sort),
    cmd("georadius", container, -6, NONE, 0)
        .keys(&[key_at(1, RO | ACCESS)])
        .get_keys(georadius),
    cmd("georadiusbymember", container, -5, NONE, 0)
        .keys(&[key_at(1, RO | ACCESS)])
        .get_keys(georadiusbymember),
    cmd("migrate", container, -6, NONE, KEYSPACE)
        .keys(&[
            key_at(3, RW | ACCESS | DELETE),
            key(RW | INCOMPLETE, keyword("KEYS", -2), range(-1, 1, 0)),
        ])
        .get_keys(migrate),
];

/// The keys of the call `line` with their flags, in the form of COMMAND GETKEYSANDFLAGS, or
/// `invalid`. In `line`, `''` is an empty argument.
fn keys_of(line: &str) -> String {
    let argv: Vec<&[u8]> = line
        .split(' ')
        .map(|arg| if arg == "''" { b"" } else { arg.as_bytes() })
        .collect();
    let cmd = ROWS
        .iter()
        .find(|row| row.name.as_bytes() == argv[0])
        .expect("a row of this test");
    assert!(cmd.check_arity(argv.len()), "{line}");
    let mut out = Vec::new();
    if get_keys(cmd, &argv, &mut out).is_err() {
        return "invalid".to_string();
    }
    let show = |key: &KeyRef| {
        let names: Vec<_> = command::key_flag_names(key.flags).collect();
        format!(
            "{}:{}",
            String::from_utf8_lossy(argv[key.pos as usize]),
            names.join("+")
        )
    };
    out.iter().map(show).collect::<Vec<_>>().join(" ")
}

#[test]
fn ranges_end_where_argv_or_the_spec_says() {
    assert_eq!(keys_of("get a"), "a:RO+access");
    assert_eq!(keys_of("mset a 1 b 2"), "a:OW+update b:OW+update");
    assert_eq!(
        keys_of("blpop a b 0"),
        "a:RW+access+delete b:RW+access+delete"
    );
    assert_eq!(keys_of("spublish a b"), "a:not_key");
}

#[test]
fn a_limit_takes_a_share_of_the_rest() {
    assert_eq!(keys_of("xread streams a b 1 2"), "a:RO+access b:RO+access");
    assert_eq!(keys_of("xread streams a b 1"), "a:RO+access");
    assert_eq!(
        keys_of("xread count streams streams a 1"),
        "streams:RO+access"
    );
    assert_eq!(keys_of("xread block 0 streams a"), "invalid");
}

#[test]
fn a_keyword_that_is_absent_or_last_finds_no_keys() {
    assert_eq!(keys_of("xread a b c"), "invalid");
    assert_eq!(keys_of("xread a b streams"), "invalid");
    assert_eq!(keys_of("last keys"), "invalid");
    assert_eq!(keys_of("last keys a b"), "a:RW+insert b:RW+insert");
    assert_eq!(keys_of("last keys a keys b"), "b:RW+insert");
}

#[test]
fn a_number_of_keys_has_to_fit() {
    assert_eq!(
        keys_of("zunionstore d 2 a b weights 1 2"),
        "d:OW+update a:RO+access b:RO+access"
    );
    assert_eq!(keys_of("msetex 2 a 1 b 2 ex 9"), "a:OW+update b:OW+update");
    assert_eq!(keys_of("zunionstore d 0 a"), "invalid");
    for line in [
        "zunionstore d 3 a",
        "zunionstore d -1 a",
        "zunionstore d x a",
        "zunionstore d 18446744073709551616 a",
    ] {
        assert_eq!(keys_of(line), "invalid", "{line}");
    }
    assert_eq!(keys_of("msetex 9223372036854775808 a 1"), "invalid");
}

#[test]
fn a_script_may_go_without_keys() {
    assert_eq!(keys_of("eval s 1 a b"), "a:RW+access+update");
    for line in ["eval s 0", "eval s 2 a", "eval s -1 a", "eval s x a"] {
        assert_eq!(keys_of(line), "", "{line}");
    }
}

#[test]
fn an_error_leaves_no_keys() {
    let argv: [&[u8]; 4] = [b"zunionstore", b"d", b"9", b"a"];
    let cmd = ROWS
        .iter()
        .find(|row| row.name == "zunionstore")
        .expect("a row of this test");
    let earlier = KeyRef { pos: 7, flags: RO };
    let mut out = vec![earlier];
    assert_eq!(get_keys(cmd, &argv, &mut out), Err(InvalidKeys));
    assert_eq!(out, [earlier]);
}

#[test]
fn a_series_at_the_end_of_a_call_may_be_empty_beside_other_keys() {
    assert_eq!(keys_of("pfmerge d"), "d:RW+access+insert");
    assert_eq!(keys_of("pfmerge d s"), "d:RW+access+insert s:RO+access");
}

#[test]
fn set_reads_the_old_value_only_with_get() {
    assert_eq!(keys_of("set a b"), "a:OW+update");
    assert_eq!(keys_of("set get get"), "get:OW+update");
    assert_eq!(keys_of("set a b ex 10 GeT"), "a:RW+access+update");
}

#[test]
fn bitfield_reads_only_with_nothing_but_get() {
    for reads in [
        "bitfield a",
        "bitfield a get u8 0",
        "bitfield a overflow wrap",
        "bitfield a get u8 0 overflow fail",
    ] {
        assert_eq!(keys_of(reads), "a:RO+access", "{reads}");
    }
    for writes in [
        "bitfield a get",
        "bitfield a overflow",
        "bitfield a set u8 0 1",
        "bitfield a get u8 0 foo",
        "bitfield a get get get get",
    ] {
        assert_eq!(keys_of(writes), "a:RW+access+update", "{writes}");
    }
}

#[test]
fn sort_steps_over_the_values_of_its_options() {
    assert_eq!(keys_of("sort a"), "a:RO+access");
    assert_eq!(keys_of("sort a store"), "a:RO+access");
    assert_eq!(
        keys_of("sort a by store store b"),
        "a:RO+access b:OW+update"
    );
    assert_eq!(keys_of("sort a limit store store b"), "a:RO+access");
    assert_eq!(
        keys_of("sort a store get store b"),
        "a:RO+access b:OW+update"
    );
    assert_eq!(
        keys_of("sort a store invalid store stillbad store b"),
        "a:RO+access b:OW+update"
    );
}

#[test]
fn georadius_writes_to_the_last_store() {
    assert_eq!(keys_of("georadius a 1 2 3 m withcoord"), "a:RO+access");
    assert_eq!(keys_of("georadius a 1 2 3 m store"), "a:RO+access");
    assert_eq!(
        keys_of("georadius a 1 2 3 m storedist b"),
        "a:RO+access b:OW+update"
    );
    assert_eq!(
        keys_of("georadius a 1 2 3 m store b store c"),
        "a:RO+access c:OW+update"
    );
    assert_eq!(
        keys_of("georadiusbymember a b 1 m STORE c"),
        "a:RO+access c:OW+update"
    );
}

#[test]
fn migrate_takes_one_key_or_those_behind_keys() {
    assert_eq!(keys_of("migrate h 1 a 0 10 copy"), "a:RW+access+delete");
    assert_eq!(
        keys_of("migrate h 1 '' 0 10 copy keys b c"),
        "b:RW+access+delete c:RW+access+delete"
    );
    assert_eq!(
        keys_of("migrate h 1 '' 0 10 auth2 keys keys keys b"),
        "b:RW+access+delete"
    );
    assert_eq!(
        keys_of("migrate h 1 '' 0 10 keys keys b"),
        "keys:RW+access+delete b:RW+access+delete"
    );
    assert_eq!(
        keys_of("migrate h 1 a 0 10 auth keys x"),
        "a:RW+access+delete"
    );
    assert_eq!(keys_of("migrate h 1 a 0 10 keys"), "a:RW+access+delete");
    assert_eq!(keys_of("migrate h 1 a 0 10 keys b"), "invalid");
}

proptest! {
    /// For any arguments of a valid number, the positions of the found keys are inside argv, and no
    /// code panics.
    #[test]
    fn keys_are_arguments(row in 0..ROWS.len(), words in prop::collection::vec(
        prop::sample::select(vec!["a", "", "0", "2", "-1", "65535", "18446744073709551615", "get", "store", "STREAMS",
            "keys", "auth2", "limit", "overflow", "storedist"]), 0..12))
    {
        let cmd = &ROWS[row];
        let mut argv: Vec<&[u8]> = vec![cmd.name.as_bytes()];
        argv.extend(words.iter().map(|word| word.as_bytes()));
        prop_assume!(cmd.check_arity(argv.len()));
        let mut out = Vec::new();
        let found = get_keys(cmd, &argv, &mut out);
        prop_assert!(out.iter().all(|key| (1..argv.len()).contains(&(key.pos as usize))));
        prop_assert!(found.is_ok() || out.is_empty());
    }
}
