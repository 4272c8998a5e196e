//! The fuzz targets without a fuzzer: their seeds, and mutations of them under a fixed seed.
//!
//! This runs without a nightly compiler; `make fuzz` searches by coverage. `FUZZ_MUTATIONS` sets
//! the number of mutations for each target.

#[path = "fuzz/targets/mod.rs"]
mod targets;

use aeris::util::random::Random;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use targets::ALL;

/// The maximum length of an input of a fuzz target, in bytes.
const MAX_LEN: usize = 4096;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = folder().join("seeds").join(target);
    let entries = fs::read_dir(&dir).unwrap_or_else(|_| panic!("{} has seeds", dir.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| fs::read(path).expect("a seed"))
        .collect()
}

fn check(name: &str, input: &[u8]) {
    if catch_unwind(|| targets::run(name, input)).is_err() {
        panic!(
            "target {name} fails on {:?}",
            input.escape_ascii().to_string()
        );
    }
}

/// Makes one small random change to an input, as fuzzers do.
fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    const EDGES: [u8; 12] = [
        0, 1, 2, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xF0, 0xFD, 0xFE, 0xFF,
    ];
    let mut below = |n: usize| random.below(n as u64) as usize;
    let at = below(input.len() + 1);
    match below(8) {
        0 => input.truncate(at),
        1 => input.insert(at, EDGES[below(EDGES.len())]),
        2 if at < input.len() => drop(input.remove(at)),
        3 if at < input.len() => input[at] ^= 1 << below(8),
        4 if at < input.len() => input[at] = EDGES[below(EDGES.len())],
        5 if at < input.len() => input[at] = input[at].wrapping_add(1),
        6 => {
            let end = (at + below(16)).min(input.len());
            let copy = input[at..end].to_vec();
            let to = below(input.len() + 1);
            input.splice(to..to, copy);
        }
        7 => input
            .splice(at.., other[below(other.len() + 1)..].iter().copied())
            .for_each(drop),
        _ => input.push(below(256) as u8),
    }
    input.truncate(MAX_LEN);
}

#[test]
fn seeds_and_their_mutations() {
    let mutations = std::env::var("FUZZ_MUTATIONS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(8000);
    for (at, (name, _)) in ALL.iter().enumerate() {
        let seeds = seeds(name);
        assert!(seeds.len() > 1, "{name} has seeds");
        seeds.iter().for_each(|seed| check(name, seed));
        let mut random = Random::from_seed(at as u64);
        let mut input = Vec::new();
        for round in 0..mutations {
            // After four changes, the mutations begin with another seed.
            if round % 4 == 0 {
                input.clone_from(&seeds[random.below(seeds.len() as u64) as usize]);
            }
            let other = &seeds[random.below(seeds.len() as u64) as usize];
            mutate(&mut input, other, &mut random);
            check(name, &input);
        }
    }
}

#[test]
fn each_target_has_its_program() {
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("the manifest");
    for (name, _) in ALL {
        let program = folder().join(format!("fuzz_targets/{name}.rs"));
        let text = fs::read_to_string(program).expect("a program for the target");
        assert!(text.contains(&format!("\"{name}\"")));
        assert!(manifest.contains(&format!("\nname = \"{name}\"\n")));
    }
    assert_eq!(manifest.matches("[[bin]]").count(), ALL.len());
}
