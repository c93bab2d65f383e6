//! The first bytes of a connection, read without understanding more of PostgreSQL's protocol than is needed to lead it.
//!
//! They come from anybody: every length is checked before it is believed, and nothing here waits or allocates.

/// What a client's first packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// Too few bytes to tell.
    Incomplete,
    /// A session, or TLS from its first byte on.
    Session,
    /// A question whether to encrypt; the server answers with one byte before anything else is sent.
    Encryption,
    /// A request to cancel another connection's query; this many bytes.
    Cancel(usize),
    /// Nothing that PostgreSQL's clients send.
    Malformed(&'static str),
}

/// The most bytes of a session's first packet that PostgreSQL takes.
const MAX_STARTUP: usize = 10_000;
/// Length, code, process and a key of 4 bytes, or of up to 256 from protocol 3.2 on.
const CANCEL: std::ops::RangeInclusive<usize> = 16..=268;
/// The longest a packet that is read here can be: others are passed on as they come.
pub(super) const MAX_READ: usize = 16 * 1024;
/// First byte of a TLS handshake: PostgreSQL 17 takes one without being asked first.
const TLS_HANDSHAKE: u8 = 0x16;

const CANCEL_REQUEST: (u16, u16) = (1234, 5678);
const SSL_REQUEST: (u16, u16) = (1234, 5679);
const GSS_REQUEST: (u16, u16) = (1234, 5680);

/// Looks at what has come so far.
pub(super) fn look(bytes: &[u8]) -> Opening {
    match bytes.first() {
        None => return Opening::Incomplete,
        Some(&TLS_HANDSHAKE) => return Opening::Session,
        // A length is below 16 MiB whatever it is of.
        Some(0) => {}
        Some(_) if b"PROXY".starts_with(&bytes[..bytes.len().min(5)]) || bytes.starts_with(b"\r\n\r\n\0") => {
            return Opening::Malformed("it begins with a PROXY header, which is not taken from this address");
        }
        Some(_) => return Opening::Malformed("its first packet is not one of PostgreSQL's protocol"),
    }
    let Some(head) = bytes.first_chunk::<8>() else {
        return Opening::Incomplete;
    };
    let [a, b, c, d, e, f, g, h] = *head;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let code = (u16::from_be_bytes([e, f]), u16::from_be_bytes([g, h]));
    match code {
        CANCEL_REQUEST if !CANCEL.contains(&length) => Opening::Malformed("a cancel request has a wrong length"),
        CANCEL_REQUEST if bytes.len() < length => Opening::Incomplete,
        CANCEL_REQUEST => Opening::Cancel(length),
        SSL_REQUEST | GSS_REQUEST if length == 8 => Opening::Encryption,
        SSL_REQUEST | GSS_REQUEST => Opening::Malformed("an encryption request has a wrong length"),
        (2 | 3, _) if (8..=MAX_STARTUP).contains(&length) => Opening::Session,
        (2 | 3, _) => Opening::Malformed("its first packet has a wrong length"),
        _ => Opening::Malformed("its first packet is of an unknown protocol"),
    }
}

/// What the proxy says to a client itself: a fatal error, as a server would.
pub(super) fn fatal(code: &str, message: &str, hint: &str) -> Vec<u8> {
    let mut packet = vec![b'E', 0, 0, 0, 0];
    for (field, text) in [
        (b'S', "FATAL"),
        (b'V', "FATAL"),
        (b'C', code),
        (b'M', message),
        (b'H', hint),
    ] {
        if !text.is_empty() {
            packet.push(field);
            packet.extend(text.bytes().filter(|b| *b != 0));
            packet.push(0);
        }
    }
    packet.push(0);
    let length = u32::try_from(packet.len() - 1).unwrap_or(u32::MAX);
    packet[1..5].copy_from_slice(&length.to_be_bytes());
    packet
}

/// There is no server to lead the client to.
pub(super) const CANNOT_CONNECT_NOW: &str = "57P03";
/// There is no room for the client.
pub(super) const TOO_MANY_CONNECTIONS: &str = "53300";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(length: u32, code: (u16, u16), rest: &[u8]) -> Vec<u8> {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(code.0.to_be_bytes());
        bytes.extend(code.1.to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn first_packets_are_told_apart() {
        assert_eq!(look(&packet(8, SSL_REQUEST, b"")), Opening::Encryption);
        assert_eq!(look(&packet(8, GSS_REQUEST, b"")), Opening::Encryption);
        assert_eq!(look(&packet(41, (3, 0), b"user\0")), Opening::Session);
        assert_eq!(look(&packet(10_000, (3, 2), b"")), Opening::Session);
        assert_eq!(look(&[0x16, 3, 1]), Opening::Session);
        assert_eq!(look(&packet(16, CANCEL_REQUEST, &[1; 8])), Opening::Cancel(16));
        assert_eq!(look(&packet(16, CANCEL_REQUEST, &[1; 7])), Opening::Incomplete);
        assert_eq!(look(&packet(268, CANCEL_REQUEST, &[1; 260])), Opening::Cancel(268));
        for part in 0..8 {
            assert_eq!(look(&packet(8, SSL_REQUEST, b"")[..part]), Opening::Incomplete);
        }
    }

    #[test]
    fn what_is_no_client_is_named() {
        let why = |bytes: &[u8]| match look(bytes) {
            Opening::Malformed(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(why(b"PROXY TCP4").contains("PROXY"));
        assert!(why(b"\r\n\r\n\0\r\nQUIT\n").contains("PROXY"));
        assert!(why(b"GET / HTTP/1.1").contains("not one of"));
        assert!(why(&packet(7, (3, 0), b"")).contains("length"));
        assert!(why(&packet(10_001, (3, 0), b"")).contains("length"));
        assert!(why(&packet(9, SSL_REQUEST, b"")).contains("length"));
        assert!(why(&packet(12, CANCEL_REQUEST, &[0; 4])).contains("length"));
        assert!(why(&packet(300, CANCEL_REQUEST, &[0; 400])).contains("length"));
        assert!(why(&packet(20, (77, 0), b"")).contains("unknown"));
    }

    #[test]
    fn errors_are_packets() {
        let packet = fatal("57P03", "no primary", "look\0at it");
        assert_eq!(packet[0], b'E');
        let length = u32::from_be_bytes(packet[1..5].try_into().unwrap()) as usize;
        assert_eq!(length, packet.len() - 1);
        let fields: Vec<_> = packet[5..].split(|b| *b == 0).collect();
        let expected: [&[u8]; 7] = [b"SFATAL", b"VFATAL", b"C57P03", b"Mno primary", b"Hlookat it", b"", b""];
        assert_eq!(fields, expected);
        assert!(!fatal("57P03", "m", "").windows(2).any(|w| w == b"H\0"));
    }

    proptest! {
        #[test]
        fn anything_is_survived_and_never_unlearned(bytes in proptest::collection::vec(any::<u8>(), 0..400), code in 0..4u8) {
            let mut bytes = bytes;
            if code > 0 && bytes.len() >= 8 {
                bytes[..3].fill(0);
                bytes[4..8].copy_from_slice(&packet(0, (1234, 5677 + u16::from(code)), b"")[4..8]);
            }
            // What was understood of a part is what is understood of the whole.
            let whole = look(&bytes);
            for part in 0..bytes.len() {
                let seen = look(&bytes[..part]);
                prop_assert!(seen == Opening::Incomplete || seen == whole || matches!((seen, whole), (Opening::Malformed(_), Opening::Malformed(_))));
            }
        }
    }
}
