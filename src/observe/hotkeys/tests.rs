use super::summary::Hot;
use super::*;
use crate::ds::siphash::HashSeed;
use crate::testing::{self, on_one_line};

const AGEING: Ageing = Ageing {
    ratio: 1,
    half_life_s: 10,
};

/// A server whose client has sent `lines`, each answered with OK.
fn server(lines: &[&str]) -> Server {
    let mut server = testing::server_with(1);
    // Update the clock first, so that it does not jump from 0 between two commands.
    server.clock.update();
    for line in lines {
        assert_eq!(say(&mut server, line), "+OK");
    }
    server
}

/// The settings with which every command is sampled.
const TRACK: [&str; 2] = [
    "config set hotkeys-sample-ratio 1",
    "config set hotkeys-tracking yes",
];

fn say(server: &mut Server, line: &str) -> String {
    on_one_line(testing::say(server, 0, &[line]))
}

/// The key, database and weight of each counted key. While no time passes, the weight of a key is
/// the number of its uses.
fn uses(summary: &Summary) -> Vec<(String, u32, u32)> {
    let top = summary.top(99);
    let mut uses: Vec<_> = top
        .iter()
        .map(|hot| {
            let key = String::from_utf8(hot.name.shown()).expect("text");
            (key, hot.name.db, hot.at_least.round() as u32)
        })
        .collect();
    uses.sort();
    uses
}

fn of(key: &str, db: u32, n: u32) -> (String, u32, u32) {
    (key.to_string(), db, n)
}

#[test]
fn reads_writes_and_misses_are_distinguished() {
    let mut server = server(&TRACK);
    for line in [
        "set a 1",
        "get a",
        "mget a b",
        "incr a",
        "get b",
        "sunionstore d s t",
        "exists b",
        "get",
        "ping",
        "watch a",
    ] {
        say(&mut server, line);
    }
    let monitor = server.hotkeys.monitor.as_ref().unwrap();
    let reads = [of("a", 0, 2), of("b", 0, 3), of("s", 0, 1), of("t", 0, 1)];
    assert_eq!(uses(&monitor.reads), reads);
    assert_eq!(uses(&monitor.writes), [of("a", 0, 2), of("d", 0, 1)]);
    let misses = [of("b", 0, 3), of("s", 0, 1), of("t", 0, 1)];
    assert_eq!(uses(&monitor.misses), misses);
}

#[test]
fn a_key_is_a_key_of_its_database() {
    let mut server = server(&TRACK);
    for line in ["set a 1", "select 3", "set a 1", "set a 2", "get a"] {
        say(&mut server, line);
    }
    let monitor = server.hotkeys.monitor.as_ref().unwrap();
    assert_eq!(uses(&monitor.writes), [of("a", 0, 1), of("a", 3, 2)]);
    assert_eq!(uses(&monitor.misses), []);
}

/// The monitor counts the commands of a script, not the keys of EVAL; of a transaction it counts
/// each command.
#[test]
fn scripts_and_transactions_count_what_they_run() {
    let mut server = server(&TRACK);
    for line in [
        "eval \"redis.call('get','in'); return redis.call('set',KEYS[1],1)\" 2 k unused",
        "multi",
        "set m 1",
        "get m",
        "exec",
    ] {
        say(&mut server, line);
    }
    let monitor = server.hotkeys.monitor.as_ref().unwrap();
    assert_eq!(uses(&monitor.writes), [of("k", 0, 1), of("m", 0, 1)]);
    assert_eq!(uses(&monitor.reads), [of("in", 0, 1), of("m", 0, 1)]);
}

#[test]
fn off_is_never_due() {
    let mut server = server(&[]);
    assert_eq!(server.hotkeys.next, u64::MAX);
    say(&mut server, TRACK[1]);
    assert!(server.hotkeys.next < 100_000);
    assert!(server.hotkeys.memory() < 100_000);
    say(&mut server, "hotkeys start metrics 1 net");
    say(&mut server, "config set hotkeys-tracking no");
    assert!(server.hotkeys.next < 100, "the session goes on");
    say(&mut server, "hotkeys stop");
    assert_eq!(server.hotkeys.next, u64::MAX);
}

/// CONFIG RESETSTAT sets the number of processed commands, by which sampled commands are picked, to
/// zero; sampling goes on.
#[test]
fn resetting_statistics_stops_nothing() {
    let mut server = server(&TRACK);
    say(&mut server, "hotkeys start metrics 2 cpu net");
    (0..50).for_each(|_| _ = say(&mut server, "get a"));
    say(&mut server, "config resetstat");
    say(&mut server, "get a");
    let used = |server: &Server| {
        let session = server.hotkeys.session.as_ref().unwrap();
        session.used(Totals::now(server)).command_ticks
    };
    let monitor = server.hotkeys.monitor.as_ref().unwrap();
    assert_eq!(uses(&monitor.reads), [of("a", 0, 51)]);
    let ticks = used(&server);
    assert!(ticks > 0 && ticks < u64::MAX / 2);
}

#[test]
fn a_session_adds_up_bytes() {
    let mut server = server(&["set a 1234567890"]);
    assert_eq!(say(&mut server, "hotkeys start metrics 1 net"), "+OK");
    say(&mut server, "get a");
    say(&mut server, "mget a b");
    let session = server.hotkeys.session.as_ref().unwrap();
    // GET has a request of 20 bytes and a reply of 17; MGET has 28 and 26 bytes, half of them for
    // each key.
    let net = session.net.as_ref().unwrap();
    assert_eq!(uses(net), [of("a", 0, 37 + 27), of("b", 0, 27)]);
    assert!(session.cpu.is_none());
    let stopped = say(&mut server, "hotkeys stop");
    assert_eq!(stopped, "+OK");
    say(&mut server, "get a");
    let net = server
        .hotkeys
        .session
        .as_ref()
        .unwrap()
        .net
        .as_ref()
        .unwrap();
    assert_eq!(uses(net), [of("a", 0, 64), of("b", 0, 27)]);
}

/// A script's time and bytes are counted for the keys that it declares (KEYS), not for the keys
/// that its commands use.
#[test]
fn a_script_is_one_command_for_a_session() {
    let mut server = server(&["hotkeys start metrics 2 cpu net"]);
    let line = "eval \"redis.call('set','x',1) return redis.call('set',KEYS[1],1)\" 1 k";
    say(&mut server, line);
    let session = server.hotkeys.session.as_ref().unwrap();
    for summary in [&session.cpu, &session.net] {
        let keys: Vec<String> = uses(summary.as_ref().unwrap())
            .into_iter()
            .map(|(key, _, _)| key)
            .collect();
        assert_eq!(keys, ["k"]);
    }
}

#[test]
fn a_session_ends_when_its_time_is_over() {
    let mut server = server(&["hotkeys start metrics 1 cpu duration 5"]);
    let active = |server: &mut Server, after_ms: i64| {
        server.clock.now_ms += after_ms;
        cron(server);
        server.hotkeys.session.as_ref().unwrap().is_active()
    };
    assert!(active(&mut server, 4000));
    assert!(!active(&mut server, 1500));
    assert_eq!(say(&mut server, "hotkeys reset"), "+OK");
    assert_eq!(say(&mut server, "hotkeys get"), "$-1");
}

/// The weights that are kept relative to a moving landmark equal those of a naive model that ages
/// every use.
#[test]
fn ageing_is_exact_across_landmarks() {
    let mut monitor = Monitor::new(AGEING, 0);
    let uses: Vec<(u32, i64)> = (0..400)
        .map(|n: i64| ((n % 7) as u32, n * n * 37))
        .collect();
    for &(key, at_ms) in &uses {
        let weight = monitor.weight(at_ms);
        let name = Name {
            db: key,
            hash: 1,
            key: b"k",
        };
        monitor.access(name, true, false, weight);
    }
    let (_, now_ms) = uses[399];
    assert!(monitor.landmark_ms > 0, "the landmark has moved");
    let today = monitor.half_lives(now_ms - monitor.landmark_ms).exp2();
    for hot in monitor.reads.top(99) {
        let ages = uses.iter().filter(|(key, _)| *key == hot.name.db);
        let truth: f64 = ages
            .map(|(_, at_ms)| (-monitor.half_lives(now_ms - at_ms)).exp2())
            .sum();
        assert!((hot.at_least / today - truth).abs() < 1e-9 * truth.max(1e-6));
    }
}

/// A clock that jumps by years makes no rate of HOTKEYS infinite or zero.
#[test]
fn a_clock_may_jump() {
    let mut monitor = Monitor::new(AGEING, 0);
    for now_ms in [0, i64::MAX / 4, 1000, 2000, -(i64::MAX / 4), 0] {
        let weight = monitor.weight(now_ms);
        let name = Name {
            db: 0,
            hash: 1,
            key: b"k",
        };
        monitor.access(name, true, true, weight);
        let rate = monitor.reads.top(1)[0].at_least * monitor.per_second(now_ms);
        assert!(rate.is_finite() && rate > 0.0, "{now_ms}: {rate}");
    }
}

/// Ten uses of a key in each second are shown as a rate of ten, soon after the beginning and much
/// later; the rate of a key that is not used any more falls.
#[test]
fn rates_are_right_from_the_beginning() {
    let mut monitor = Monitor::new(AGEING, 0);
    let name = |key| Name {
        db: 0,
        hash: SEED.hash(key),
        key,
    };
    const SEED: HashSeed = HashSeed::new([1, 2]);
    for tick in 1..=30_000i64 {
        let weight = monitor.weight(tick * 100);
        monitor.access(name(b"steady"), true, false, weight);
        if tick <= 600 {
            monitor.access(name(b"ended"), true, false, 2.0 * weight);
        }
        let rate = |key: &[u8]| {
            let top = monitor.reads.top(2);
            let hot = top.iter().find(|hot| hot.name.shown() == key);
            hot.map_or(0.0, |hot| hot.at_least * monitor.per_second(tick * 100))
        };
        match tick {
            20 | 600 | 30_000 => assert!((rate(b"steady") - 10.0).abs() < 0.5, "{tick}"),
            700 => assert!(
                (rate(b"ended") - 10.0).abs() < 0.5,
                "half after a half-life"
            ),
            _ => {}
        }
        if tick == 30_000 {
            assert!(rate(b"ended") < 0.001);
        }
    }
}

/// For each ratio, every event is picked with the same chance: the gaps between picked events are
/// geometrically distributed.
#[test]
fn gaps_are_geometric() {
    let mut rng = Random::from_seed(11);
    assert!((0..100).all(|_| gap(1, &mut rng) == 1));
    for ratio in [2u64, 10, 128] {
        const DRAWS: u64 = 100_000;
        let gaps: Vec<u64> = (0..DRAWS).map(|_| gap(ratio, &mut rng)).collect();
        let mean = gaps.iter().sum::<u64>() as f64 / DRAWS as f64;
        let at_once = gaps.iter().filter(|&&gap| gap == 1).count() as f64 / DRAWS as f64;
        assert!((mean / ratio as f64 - 1.0).abs() < 0.02, "{ratio}: {mean}");
        assert!(
            (at_once * ratio as f64 - 1.0).abs() < 0.15,
            "{ratio}: {at_once}"
        );
    }
}

/// A sample of a stream shows the same frequent keys as the whole, and similar rates.
#[test]
fn a_sample_estimates_the_whole() {
    let mut server = server(&[
        "config set hotkeys-sample-ratio 20",
        "config set hotkeys-tracking yes",
    ]);
    let mut batch = String::new();
    for n in 0..40_000 {
        let key = match n % 8 {
            0..=3 => "hot".to_string(),
            4 | 5 => "warm".to_string(),
            _ => format!("cold:{n}"),
        };
        batch.push_str(&format!("get {key}\r\n"));
    }
    testing::say(&mut server, 0, &[&batch]);
    let monitor = server.hotkeys.monitor.as_ref().unwrap();
    let top = monitor.reads.top(2);
    let names: Vec<Vec<u8>> = top.iter().map(|hot| hot.name.shown()).collect();
    assert_eq!(names, [b"hot".to_vec(), b"warm".to_vec()]);
    let share = |hot: &Hot| hot.at_least / monitor.reads.total();
    assert!((share(&top[0]) - 0.5).abs() < 0.06, "{}", share(&top[0]));
    assert!((share(&top[1]) - 0.25).abs() < 0.06);
}
