//! A password becomes PostgreSQL's SCRAM-SHA-256 verifier here, on the operator's machine: the cluster never sees it.

use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ha_proto::codes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::error::{CliError, file_error};

/// Iterations, as PostgreSQL's own.
const ITERATIONS: u32 = 4096;
/// A password file is a line; a larger file is another one by mistake.
const FILE_MAX: u64 = 4096;

/// The password in a file, without the end of its line. `-` is standard input.
///
/// # Errors
/// `HA0002` if it cannot be read.
pub(super) fn read_password(path: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(FILE_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text))
    };
    read.map_err(|e| file_error("read", path, &e))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The verifier of a password, with a salt of its own.
///
/// # Errors
/// `HA0009` for a password that is empty or would be prepared differently by different programs.
pub(crate) fn verifier(password: &str) -> Result<String, CliError> {
    let bad = |why: &str| CliError::new(codes::BAD_VALUE, "the password cannot be used").why(why);
    if password.is_empty() {
        return Err(bad("it is empty"));
    }
    if !password.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(bad(
            "it has other characters than those of ASCII, which clients prepare differently",
        ));
    }
    with_salt(password, &rand::random::<[u8; 16]>()).ok_or_else(|| bad("it is too long"))
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Option<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    for part in parts {
        mac.update(part);
    }
    Some(mac.finalize().into_bytes().into())
}

fn with_salt(password: &str, salt: &[u8]) -> Option<String> {
    // PBKDF2 with one block, which is all that SHA-256's length takes.
    let mut block = hmac(password.as_bytes(), &[salt, &1_u32.to_be_bytes()])?;
    let mut salted = block;
    for _ in 1..ITERATIONS {
        block = hmac(password.as_bytes(), &[&block])?;
        for (sum, byte) in salted.iter_mut().zip(block) {
            *sum ^= byte;
        }
    }
    let client = hmac(&salted, &[b"Client Key"])?;
    let stored: [u8; 32] = Sha256::digest(client).into();
    let server = hmac(&salted, &[b"Server Key"])?;
    Some(format!(
        "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
        BASE64.encode(salt),
        BASE64.encode(stored),
        BASE64.encode(server)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3, as PostgreSQL writes it.
    #[test]
    fn it_is_what_the_standard_says() {
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = with_salt("pencil", &salt).unwrap();
        assert_eq!(
            verifier,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
             wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn salts_differ_and_bad_passwords_are_refused() {
        assert_ne!(verifier("pencil").unwrap(), verifier("pencil").unwrap());
        for bad in ["", "pässword", "a\tb"] {
            assert!(verifier(bad).is_err(), "{bad:?}");
        }
    }
}
