//! PEM files: certificates and private keys, also keys with a passphrase.
//!
//! ```text
//!   -----BEGIN LABEL-----   ─┐
//!   base64                   ├─> Section { label, der }
//!   -----END LABEL-----     ─┘
//! ```
//!
//! **Limits:** a file has at most [`FILE_MAX`] bytes. An encrypted key must be in PKCS #8, the form
//! that OpenSSL 1.1 and later write; OpenSSL's older form (`Proc-Type: 4,ENCRYPTED`), whose key
//! derivation is one round of MD5, is refused with a text that names the conversion.

use aws_lc_rs::cipher::{
    AES_128, AES_192, AES_256, Algorithm, DecryptionContext, PaddedBlockDecryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::pbkdf2;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use std::io::Read;
use std::num::NonZeroU32;
use std::path::Path;

use crate::sys;

use super::certificate::{Der, tag};

/// The maximum size of a PEM file, in bytes.
const FILE_MAX: u64 = 16 * 1024 * 1024;

struct Section {
    label: String,
    der: Vec<u8>,
    /// Whether the section is a private key with the headers of OpenSSL's old encryption.
    old_encryption: bool,
}

/// The contents of a certificate's or a key's file. `Err` is the error text without the path.
pub fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let text = |e: std::io::Error| sys::error_text(&e);
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(text)?;
    if !file.metadata().map_err(text)?.is_file() {
        return Err("not a regular file".into());
    }
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(text)?;
    match bytes.len() as u64 > FILE_MAX {
        true => Err("file too large".into()),
        false => Ok(bytes),
    }
}

/// All certificates of a PEM text.
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let names = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"];
    let found: Vec<_> = sections(text)?
        .into_iter()
        .filter(|section| names.contains(&section.label.as_str()))
        .map(|section| CertificateDer::from(section.der))
        .collect();
    match found.is_empty() {
        true => Err("no certificate in PEM format".into()),
        false => Ok(found),
    }
}

/// The first private key of a PEM text. `passphrase` decrypts the key if it is encrypted.
pub fn private_key(text: &[u8], passphrase: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    for section in sections(text)? {
        if section.old_encryption {
            return Err(
                "the key has OpenSSL's old encryption; convert it: openssl pkcs8 -topk8 -in KEY -out NEW"
                    .into(),
            );
        }
        let der = section.der;
        return Ok(match section.label.as_str() {
            "PRIVATE KEY" => PrivatePkcs8KeyDer::from(der).into(),
            "RSA PRIVATE KEY" => PrivatePkcs1KeyDer::from(der).into(),
            "EC PRIVATE KEY" => PrivateSec1KeyDer::from(der).into(),
            "ENCRYPTED PRIVATE KEY" => decrypted(&der, passphrase)?,
            _ => continue,
        });
    }
    Err("no private key in PEM format".into())
}

/// Decrypts a private key in the form that OpenSSL writes: PKCS #8's EncryptedPrivateKeyInfo with
/// PBES2, PBKDF2 and AES-CBC.
fn decrypted(der: &[u8], passphrase: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    if passphrase.is_empty() {
        return Err("the key has a passphrase, and none is set".into());
    }
    let sealed = Sealed::read(der).ok_or(
        "the key's encryption is unknown (not PBES2 with PBKDF2 and AES-CBC); convert it: openssl pkcs8 -topk8",
    )?;
    let plain = sealed
        .open(passphrase)
        .ok_or("the key can't be decrypted: wrong passphrase?")?;
    Ok(PrivatePkcs8KeyDer::from(plain).into())
}

/// The parts of an encrypted private key: parameters of the encryption, and encrypted bytes.
struct Sealed<'a> {
    prf: pbkdf2::Algorithm,
    salt: &'a [u8],
    iterations: NonZeroU32,
    cipher: &'static Algorithm,
    key_len: usize,
    iv: [u8; 16],
    data: &'a [u8],
}

/// The maximum number of iterations of PBKDF2, which take about ten seconds.
const ITERATIONS_MAX: u32 = 10_000_000;
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
/// The common beginning of the OIDs of hmacWithSHA1, hmacWithSHA256 and so on; `AES` is that of
/// aes128-CBC and so on.
const HMAC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02];
const AES: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];

impl<'a> Sealed<'a> {
    fn read(der: &'a [u8]) -> Option<Sealed<'a>> {
        let mut info = Der(Der(der).expect(tag::SEQUENCE)?);
        let mut algorithm = Der(info.expect(tag::SEQUENCE)?);
        let data = info.expect(tag::OCTET_STRING)?;
        if algorithm.expect(tag::OID)? != PBES2 {
            return None;
        }
        let mut parameters = Der(algorithm.expect(tag::SEQUENCE)?);
        let mut derivation = Der(parameters.expect(tag::SEQUENCE)?);
        let mut scheme = Der(parameters.expect(tag::SEQUENCE)?);
        if derivation.expect(tag::OID)? != PBKDF2 {
            return None;
        }
        let mut derivation = Der(derivation.expect(tag::SEQUENCE)?);
        let salt = derivation.expect(tag::OCTET_STRING)?;
        let digits = derivation.expect(tag::INTEGER)?;
        let number = digits
            .iter()
            .try_fold(0u32, |n, b| Some(n.checked_mul(256)? + u32::from(*b)));
        let iterations = number.filter(|n| *n <= ITERATIONS_MAX)?;
        derivation.optional(tag::INTEGER);
        let prf = match derivation.optional(tag::SEQUENCE) {
            None => pbkdf2::PBKDF2_HMAC_SHA1,
            Some(prf) => match Der(prf).expect(tag::OID)?.strip_prefix(HMAC)? {
                [7] => pbkdf2::PBKDF2_HMAC_SHA1,
                [9] => pbkdf2::PBKDF2_HMAC_SHA256,
                [10] => pbkdf2::PBKDF2_HMAC_SHA384,
                [11] => pbkdf2::PBKDF2_HMAC_SHA512,
                _ => return None,
            },
        };
        let (cipher, key_len) = match scheme.expect(tag::OID)?.strip_prefix(AES)? {
            [2] => (&AES_128, 16),
            [22] => (&AES_192, 24),
            [42] => (&AES_256, 32),
            _ => return None,
        };
        Some(Sealed {
            prf,
            salt,
            iterations: NonZeroU32::new(iterations)?,
            cipher,
            key_len,
            iv: scheme.expect(tag::OCTET_STRING)?.try_into().ok()?,
            data,
        })
    }

    fn open(&self, passphrase: &[u8]) -> Option<Vec<u8>> {
        let mut key = [0; 32];
        let key = &mut key[..self.key_len];
        pbkdf2::derive(self.prf, self.iterations, self.salt, passphrase, key);
        let key = UnboundCipherKey::new(self.cipher, key).ok()?;
        let key = PaddedBlockDecryptingKey::cbc_pkcs7(key).ok()?;
        let mut data = self.data.to_vec();
        let context = DecryptionContext::Iv128(FixedLength::from(self.iv));
        Some(key.decrypt(&mut data, context).ok()?.to_vec())
    }
}

fn sections(text: &[u8]) -> Result<Vec<Section>, String> {
    let mut found = Vec::new();
    let mut open: Option<(Section, Vec<u8>)> = None;
    for line in text.split(|b| *b == b'\n') {
        let line = line.trim_ascii();
        let marker = |prefix: &[u8]| {
            let label = line.strip_prefix(prefix)?.strip_suffix(b"-----")?;
            Some(String::from_utf8_lossy(label).into_owned())
        };
        if let Some(label) = marker(b"-----BEGIN ") {
            let section = Section {
                label,
                der: Vec::new(),
                old_encryption: false,
            };
            open = Some((section, Vec::new()));
        } else if let Some(label) = marker(b"-----END ") {
            let Some((mut section, digits)) = open.take().filter(|(s, _)| s.label == label) else {
                return Err(format!("PEM: END {label} without its BEGIN"));
            };
            if !section.old_encryption {
                section.der = base64(&digits).ok_or("PEM: bad base64")?;
            }
            found.push(section);
        } else if let Some((section, digits)) = &mut open {
            match line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED") {
                true => section.old_encryption = true,
                false => digits.extend_from_slice(line),
            }
        }
    }
    match open {
        Some((section, _)) => Err(format!("PEM: {} without its END", section.label)),
        None => Ok(found),
    }
}

fn base64(digits: &[u8]) -> Option<Vec<u8>> {
    let padding = digits.iter().rev().take_while(|b| **b == b'=').count();
    if padding > 2 || !digits.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for digit in &digits[..digits.len() - padding] {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded_or_refused() {
        let decode = |text: &str| base64(text.as_bytes());
        assert_eq!(decode("").as_deref(), Some(&b""[..]));
        assert_eq!(decode("Zg==").as_deref(), Some(&b"f"[..]));
        assert_eq!(decode("Zm8=").as_deref(), Some(&b"fo"[..]));
        assert_eq!(decode("Zm9v+/+/").as_deref(), Some(&b"foo\xfb\xff\xbf"[..]));
        for bad in ["Z", "Zg=", "Z===", "Zm9*", "=m9v"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_without_what_is_asked_for_is_an_error() {
        let pem = |label, body| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
        let errors = |text: &str| {
            let key = private_key(text.as_bytes(), b"").err();
            (certificates(text.as_bytes()).is_err(), key)
        };
        assert!(errors("").0);
        let key = pem("PRIVATE KEY", "AAAA");
        assert_eq!(errors(&key), (true, None));
        let old = pem(
            "RSA PRIVATE KEY",
            "Proc-Type: 4,ENCRYPTED\nDEK-Info: A,1\n\nAAAA",
        );
        assert!(errors(&old).1.expect("refused").contains("openssl pkcs8"));
        let locked = pem("ENCRYPTED PRIVATE KEY", "AAAA");
        assert!(errors(&locked).1.expect("refused").contains("passphrase"));
        assert!(private_key(locked.as_bytes(), b"x").is_err());
        for cut in 0..key.len() - 1 {
            assert!(private_key(&key.as_bytes()[..cut], b"").is_err(), "{cut}");
        }
    }
}
