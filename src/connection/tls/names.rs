//! The names of TLS protocols and ciphers in the settings, which are OpenSSL's names, as in Redis
//! and Valkey.

use rustls::crypto::aws_lc_rs::cipher_suite::*;
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

/// The cipher suites of TLS 1.2, by OpenSSL's names, strongest first.
const CIPHERS: [(&str, SupportedCipherSuite); 6] = [
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// The cipher suites of TLS 1.3.
const CIPHERSUITES: [(&str, SupportedCipherSuite); 3] = [
    ("TLS_AES_256_GCM_SHA384", TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", TLS13_AES_128_GCM_SHA256),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        TLS13_CHACHA20_POLY1305_SHA256,
    ),
];

/// Parses `tls-protocols`: returns the versions of TLS, and the names of versions that this server
/// does not support. An empty text means the default, TLS 1.2 and 1.3.
pub fn protocols(
    text: &str,
) -> Result<(Vec<&'static SupportedProtocolVersion>, Vec<&str>), String> {
    let (mut versions, mut missing) = (Vec::new(), Vec::new());
    for word in text.split_ascii_whitespace() {
        match word.to_ascii_lowercase().as_str() {
            "tlsv1.3" => versions.push(&TLS13),
            "tlsv1.2" => versions.push(&TLS12),
            "tlsv1" | "tlsv1.1" => missing.push(word),
            _ => {
                return Err(
                    "Invalid tls-protocols specified. Use a combination of 'TLSv1.2' and 'TLSv1.3'."
                        .into(),
                );
            }
        }
    }
    if versions.is_empty() && missing.is_empty() {
        versions = vec![&TLS13, &TLS12];
    }
    if versions.is_empty() {
        return Err(format!(
            "tls-protocols has {} only: this server speaks TLSv1.2 and TLSv1.3, the older ones are insecure.",
            missing.join(" and ")
        ));
    }
    Ok((versions, missing))
}

/// `tls-ciphersuites` and `tls-ciphers`: the suites of TLS 1.3 and TLS 1.2 in the given order. An
/// empty text stands for all cipher suites of the version.
pub fn suites(ciphersuites: &str, ciphers: &str) -> Result<Vec<SupportedCipherSuite>, String> {
    let mut all = Vec::new();
    let mut unknown = Vec::new();
    for (setting, text, table) in [
        ("ciphersuites", ciphersuites, &CIPHERSUITES[..]),
        ("ciphers", ciphers, &CIPHERS[..]),
    ] {
        let text = match text.trim() {
            "" => "ALL",
            text => text,
        };
        let chosen = choose(text, table, &mut unknown);
        if chosen.is_empty() {
            let known: Vec<&str> = table.iter().map(|row| row.0).collect();
            return Err(format!(
                "Failed to configure {setting}: {text}. This server has {}.",
                known.join(":")
            ));
        }
        all.extend(chosen);
    }
    if !unknown.is_empty() {
        log::warn!(
            "TLS ciphers that this server does not have are left out: {}",
            unknown.join(" ")
        );
    }
    Ok(all)
}

/// The cipher suites that a list in OpenSSL's syntax selects. `X+Y` selects the suites that are in
/// group X and in group Y; `!X` removes the suites of group X for good, `-X` until the list names
/// them again, and `+X` moves them to the end. Words that name no suite or group of `table` go to
/// `unknown`.
fn choose<'a>(
    text: &'a str,
    table: &[(&str, SupportedCipherSuite)],
    unknown: &mut Vec<&'a str>,
) -> Vec<SupportedCipherSuite> {
    let (mut chosen, mut banned) = (Vec::new(), Vec::new());
    for word in text.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        let name = word
            .trim_start_matches(['!', '-', '+'])
            .to_ascii_uppercase();
        let named: Vec<SupportedCipherSuite> = table
            .iter()
            .filter(|row| name.split('+').all(|group| is_in(group, row.0)))
            .map(|row| row.1)
            .collect();
        let rest = |chosen: &mut Vec<SupportedCipherSuite>| {
            chosen
                .extract_if(.., |suite| named.contains(suite))
                .collect::<Vec<_>>()
        };
        match word.as_bytes()[0] {
            // `@SECLEVEL` is ignored: all cipher suites of this server fulfil OpenSSL's security
            // levels.
            b'@' => {}
            b'!' => {
                rest(&mut chosen);
                banned.extend(named);
            }
            b'-' => {
                rest(&mut chosen);
            }
            b'+' => {
                let moved = rest(&mut chosen);
                chosen.extend(moved);
            }
            _ if named.is_empty() => unknown.push(word),
            _ => {
                let is_new = |suite: &SupportedCipherSuite| {
                    !chosen.contains(suite) && !banned.contains(suite)
                };
                let new: Vec<_> = named.into_iter().filter(is_new).collect();
                chosen.extend(new);
            }
        }
    }
    chosen
}

/// Whether the cipher suite `name` is in OpenSSL's group `group`, or `group` is its own name.
fn is_in(group: &str, name: &str) -> bool {
    match group {
        // All cipher suites of TLS 1.2 in this server are in these groups of OpenSSL.
        "ALL" | "DEFAULT" | "HIGH" | "ECDHE" | "EECDH" | "KECDHE" | "KEECDH" | "TLSV1.2" => true,
        "AES" | "AES128" | "AES256" | "CHACHA20" | "ECDSA" => name.contains(group),
        "AESGCM" => name.contains("GCM"),
        "AECDSA" => name.contains("ECDSA"),
        "RSA" | "ARSA" => name.contains("-RSA-"),
        name_of_one => name_of_one == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_without_any_of_ours_are_refused() {
        let count =
            |text| protocols(text).map(|(versions, missing)| (versions.len(), missing.len()));
        assert_eq!(count(""), Ok((2, 0)));
        assert_eq!(count("tlsv1.3"), Ok((1, 0)));
        assert_eq!(count("TLSv1 TLSv1.1 TLSv1.2"), Ok((1, 2)));
        assert!(count("TLSv1.1").is_err() && count("foo").is_err());
    }

    #[test]
    fn ciphers_are_openssl_names_in_their_order() {
        let all = suites("", "").expect("all");
        assert_eq!(all.len(), CIPHERS.len() + CIPHERSUITES.len());
        let two = suites(
            "TLS_AES_128_GCM_SHA256",
            "ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA256",
        );
        let names: Vec<_> = two
            .expect("known")
            .iter()
            .map(|suite| suite.suite())
            .collect();
        assert_eq!(names.len(), 2);
        assert!(suites("", "AES128-SHA256").is_err() && suites("foo", "").is_err());
        assert!(suites("", "DEFAULT:!MEDIUM@SECLEVEL=2").is_ok());
    }

    #[test]
    fn ciphers_are_removed_and_moved_as_by_openssl() {
        let names = |text| {
            let chosen = choose(text, &CIPHERS, &mut Vec::new());
            let name = |suite| CIPHERS.iter().find(|row| row.1 == suite).map(|row| row.0);
            chosen.into_iter().filter_map(name).collect::<Vec<_>>()
        };
        assert_eq!(names("ALL").len(), 6);
        assert_eq!(names("DEFAULT:DEFAULT").len(), 6);
        for (list, chosen) in [
            ("RSA+AES128", &["ECDHE-RSA-AES128-GCM-SHA256"][..]),
            ("aRSA:!AES", &["ECDHE-RSA-CHACHA20-POLY1305"]),
            (
                "ALL:!ECDSA:-CHACHA20:+AES256",
                &["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"],
            ),
            (
                "ALL:-ALL:ECDHE-RSA-AES128-GCM-SHA256",
                &["ECDHE-RSA-AES128-GCM-SHA256"],
            ),
            ("!AES128:RSA+AESGCM", &["ECDHE-RSA-AES256-GCM-SHA384"]),
            ("ALL:!ALL:AES128", &[]),
        ] {
            assert_eq!(names(list), chosen, "{list}");
        }
        assert!(suites("", "ALL:!ALL").is_err());
    }
}
