//! The few facts of a certificate that the server shows or uses: serial number, validity, the
//! common name and the URIs of its subject. Reads certificates in DER, but skips all fields that
//! contain none of these facts.
//!
//! ```text
//!   Certificate ─> TBSCertificate ─> [0] version, serial, algorithm, issuer, validity, subject,
//!                                    public key, [1] [2], [3] extensions ─> subjectAltName
//! ```
//!
//! **Invariant:** any bytes give a value or `None`, never a panic
//! (`tests::damaged_certificates_do_not_panic`).
//! **Limits:** names in certificates are compared as bytes. A name with a NUL byte is ignored, as
//! other software may take the part before the NUL for the whole name.

/// The facts of one certificate that the server shows or uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The certificate's serial number in capital hexadecimal digits.
    pub serial: String,
    /// The first second in which the certificate is valid, as Unix time; `not_after_s` is the last
    /// one.
    pub not_before_s: i64,
    pub not_after_s: i64,
    /// The last common name (CN) of the certificate's subject.
    pub common_name: Option<Vec<u8>>,
    /// The URIs among the alternative names of the certificate's subject.
    pub uris: Vec<Vec<u8>>,
}

/// The tags of DER's types of values that this server reads.
pub mod tag {
    /// The tag of an integer.
    pub const INTEGER: u8 = 0x02;
    /// The tag of a string of bytes.
    pub const OCTET_STRING: u8 = 0x04;
    /// The tag of an object identifier, which names an algorithm or a field.
    pub const OID: u8 = 0x06;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERALIZED_TIME: u8 = 0x18;
    /// The tag of a sequence: values in a fixed order.
    pub const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    pub(super) const VERSION: u8 = 0xa0;
    pub(super) const EXTENSIONS: u8 = 0xa3;
    pub(super) const URI: u8 = 0x86;
}

use self::tag::*;

/// The OID of the common name, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// The OID of the extension subjectAltName, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// A reader of consecutive DER values in a slice of bytes.
pub struct Der<'a>(pub &'a [u8]);

impl<'a> Der<'a> {
    /// The next DER value: its tag and its contents; `None` at the end or if the value is
    /// malformed.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut len = first as usize;
        if first & 0x80 != 0 {
            let digits = (first & 0x7f) as usize;
            if digits == 0 || digits > 4 || digits > rest.len() {
                return None;
            }
            let (figures, after) = rest.split_at(digits);
            len = figures.iter().fold(0, |len, b| len << 8 | *b as usize);
            rest = after;
        }
        if len > rest.len() {
            return None;
        }
        let (contents, rest) = rest.split_at(len);
        self.0 = rest;
        Some((tag, contents))
    }

    /// The contents of the next DER value, which must have the given tag.
    pub fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|(found, _)| *found == tag)
            .map(|(_, contents)| contents)
    }

    /// The contents of the next DER value, if it has the given tag; otherwise nothing is read.
    pub fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        match self.0.first() {
            Some(&found) if found == tag => self.expect(tag),
            _ => None,
        }
    }
}

/// The facts of a certificate in DER; `None` if it is malformed.
pub fn read(der: &[u8]) -> Option<Facts> {
    let mut certificate = Der(Der(der).expect(SEQUENCE)?);
    let mut tbs = Der(certificate.expect(SEQUENCE)?);
    tbs.optional(VERSION);
    let serial = tbs.expect(INTEGER)?;
    tbs.expect(SEQUENCE)?;
    tbs.expect(SEQUENCE)?;
    let mut validity = Der(tbs.expect(SEQUENCE)?);
    let (not_before_s, not_after_s) = (time(validity.next()?)?, time(validity.next()?)?);
    let subject = tbs.expect(SEQUENCE)?;
    tbs.expect(SEQUENCE)?;
    let mut uris = Vec::new();
    while let Some((tag, contents)) = tbs.next() {
        if tag == EXTENSIONS {
            uris = alternative_uris(contents);
        }
    }
    Some(Facts {
        serial: hexadecimal(serial),
        not_before_s,
        not_after_s,
        common_name: common_name(subject),
        uris,
    })
}

fn hexadecimal(serial: &[u8]) -> String {
    let zeros = serial.iter().take_while(|b| **b == 0).count();
    let digits: String = serial[zeros..].iter().map(|b| format!("{b:02X}")).collect();
    if digits.is_empty() {
        "0".into()
    } else {
        digits
    }
}

/// The common name of a certificate's subject. Of several common names the first one counts, as in
/// Valkey 9.1.
fn common_name(subject: &[u8]) -> Option<Vec<u8>> {
    let mut names = Der(subject);
    let mut found = None;
    while let Some(set) = names.optional(SET) {
        let mut set = Der(set);
        while let Some(pair) = set.optional(SEQUENCE) {
            let mut pair = Der(pair);
            if pair.expect(OID) == Some(COMMON_NAME)
                && let Some((_, value)) = pair.next()
            {
                found = found.or(Some(value));
            }
        }
    }
    found.filter(|name| is_name(name)).map(<[u8]>::to_vec)
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&0)
}

fn alternative_uris(extensions: &[u8]) -> Vec<Vec<u8>> {
    let mut uris = Vec::new();
    let Some(list) = Der(extensions).expect(SEQUENCE) else {
        return uris;
    };
    let mut list = Der(list);
    while let Some(extension) = list.optional(SEQUENCE) {
        let mut extension = Der(extension);
        if extension.expect(OID) != Some(SUBJECT_ALT_NAME) {
            continue;
        }
        while let Some((tag, value)) = extension.next() {
            if tag == OCTET_STRING
                && let Some(names) = Der(value).expect(SEQUENCE)
            {
                let mut names = Der(names);
                while let Some((tag, name)) = names.next() {
                    if tag == URI && is_name(name) {
                        uris.push(name.to_vec());
                    }
                }
            }
        }
    }
    uris
}

/// Parses a time in a certificate, `YYMMDDhhmmssZ` or with four digits of the year, as Unix
/// seconds.
fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let digits = match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    };
    if text.len() != digits + 11 || text.last() != Some(&b'Z') {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        text[range].iter().try_fold(0, |n: i64, b| {
            b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0'))
        })
    };
    let mut year = number(0..digits)?;
    if digits == 2 {
        year += if year < 50 { 2000 } else { 1900 };
    }
    let at = |i: usize| number(digits + 2 * i..digits + 2 * i + 2);
    let (month, day) = (at(0)?, at(1)?);
    if !(1..=12).contains(&month) {
        return None;
    }
    // The number of days since 1970 is computed from the date, with years that begin in March, so
    // that a leap day ends its year.
    let shifted = (month + 9) % 12;
    let years = if month <= 2 { year - 1 } else { year };
    let days = 365 * years + years / 4 - years / 100 + years / 400 + (153 * shifted + 2) / 5 + day
        - 1
        - 719_468;
    Some(days * 86_400 + at(2)? * 3600 + at(3)? * 60 + at(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_unix_seconds() {
        for (tag, text, seconds) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "240229235959Z", Some(1_709_251_199)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (UTC_TIME, "240029235959Z", None),
            (UTC_TIME, "24022923595Z", None),
            (INTEGER, "700101000000Z", None),
        ] {
            assert_eq!(time((tag, text.as_bytes())), seconds, "{text}");
        }
    }

    /// The part of a subject with this common name.
    fn named(value: &[u8]) -> Vec<u8> {
        let mut pair = vec![OID, 3];
        pair.extend_from_slice(COMMON_NAME);
        pair.extend_from_slice(&[0x0c, value.len() as u8]);
        pair.extend_from_slice(value);
        let mut subject = vec![SET, pair.len() as u8 + 2, SEQUENCE, pair.len() as u8];
        subject.extend_from_slice(&pair);
        subject
    }

    #[test]
    fn the_first_of_two_common_names_counts() {
        let subject = [named(b"alice"), named(b"bob")].concat();
        assert_eq!(common_name(&subject).as_deref(), Some(&b"alice"[..]));
    }

    #[test]
    fn a_name_with_a_nul_is_no_name() {
        let cn = |value: &[u8]| common_name(&named(value));
        assert_eq!(cn(b"alice").as_deref(), Some(&b"alice"[..]));
        assert_eq!(cn(b"alice\0.example"), None);
        assert_eq!(cn(b""), None);
    }

    #[test]
    fn damaged_certificates_do_not_panic() {
        // Random bytes after a valid beginning of a certificate, from tags and lengths that the
        // reader handles in different branches.
        let mut random = 12345u32;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..24)
                .map(|i| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let some = [SEQUENCE, INTEGER, UTC_TIME, SET, 2, 4, 20, 0x81, 0x84, 0xff];
                    match i < 4 {
                        true => [SEQUENCE, 22, SEQUENCE, 20][i],
                        false => some[(random >> 16) as usize % some.len()],
                    }
                })
                .collect();
            read(&bytes);
            common_name(&bytes);
            alternative_uris(&bytes);
        }
    }

    #[test]
    fn serials_have_no_leading_zeros() {
        assert_eq!(hexadecimal(&[0, 0xab, 1]), "AB01");
        assert_eq!(hexadecimal(&[0]), "0");
    }
}
