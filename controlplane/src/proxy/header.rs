//! The PROXY protocol, versions 1 and 2: who the client of another proxy in front of this one is.
//!
//! Read only from addresses that are named in the settings: from anybody else it would be a way to lie. Every length is
//! checked before it is believed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the beginning of a connection says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// Too few bytes to tell.
    Incomplete,
    /// A header of this many bytes; the client's address unless the other proxy speaks for itself.
    Is(Option<SocketAddr>, usize),
    /// Not a header, or a broken one.
    Malformed(&'static str),
}

/// Begins version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const MAX_LINE: usize = 107;
/// The most that may follow the fixed part of version 2; addresses take 216 bytes, the rest is for extensions.
const MAX_REST: usize = 4096;

/// Reads the header at the beginning of `bytes`.
pub(super) fn read(bytes: &[u8]) -> Header {
    if bytes.starts_with(&SIGNATURE[..bytes.len().min(SIGNATURE.len())]) {
        return if bytes.len() < SIGNATURE.len() {
            Header::Incomplete
        } else {
            version_2(bytes)
        };
    }
    if bytes.starts_with(&b"PROXY "[..bytes.len().min(6)]) {
        return version_1(bytes);
    }
    Header::Malformed("it does not begin with a PROXY header")
}

fn version_1(bytes: &[u8]) -> Header {
    let line = &bytes[..bytes.len().min(MAX_LINE)];
    let Some(end) = line.windows(2).position(|w| w == b"\r\n") else {
        return if line.len() == MAX_LINE {
            Header::Malformed("its PROXY header has no end")
        } else {
            Header::Incomplete
        };
    };
    let Ok(text) = std::str::from_utf8(&line[..end]) else {
        return Header::Malformed("its PROXY header is not text");
    };
    let mut words = text.split(' ').skip(1);
    let four = match words.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => return Header::Is(None, end + 2),
        Some("TCP4") => true,
        Some("TCP6") => false,
        _ => return Header::Malformed("its PROXY header names no known protocol"),
    };
    let mut address = || {
        let address: IpAddr = words.next()?.parse().ok()?;
        (address.is_ipv4() == four).then_some(address)
    };
    let (Some(source), Some(_)) = (address(), address()) else {
        return Header::Malformed("its PROXY header has no addresses");
    };
    let mut port = || {
        let word = words.next()?;
        let digits = word.bytes().all(|b| b.is_ascii_digit());
        word.parse::<u16>().ok().filter(|_| digits)
    };
    let (Some(port), Some(_)) = (port(), port()) else {
        return Header::Malformed("its PROXY header has no ports");
    };
    if words.next().is_some() {
        return Header::Malformed("its PROXY header has something behind the ports");
    }
    Header::Is(Some(SocketAddr::new(source, port)), end + 2)
}

fn version_2(bytes: &[u8]) -> Header {
    let Some(&[version, family, high, low]) = bytes.get(12..16) else {
        return Header::Incomplete;
    };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if version >> 4 != 2 {
        return Header::Malformed("its PROXY header is of an unknown version");
    }
    if rest > MAX_REST {
        return Header::Malformed("its PROXY header is too long");
    }
    let Some(body) = bytes.get(16..16 + rest) else {
        return Header::Incomplete;
    };
    let length = 16 + rest;
    match version & 0xf {
        // The other proxy itself, for instance its health check.
        0 => return Header::Is(None, length),
        1 => {}
        _ => return Header::Malformed("its PROXY header has an unknown command"),
    }
    let port = |at: usize| body.get(at..at + 2).map(|p| u16::from_be_bytes([p[0], p[1]]));
    let source = match family {
        0x11 => body
            .first_chunk::<4>()
            .zip(port(8).filter(|_| rest >= 12))
            .map(|(a, p)| SocketAddr::new(Ipv4Addr::from(*a).into(), p)),
        0x21 => body
            .first_chunk::<16>()
            .zip(port(32).filter(|_| rest >= 36))
            .map(|(a, p)| SocketAddr::new(Ipv6Addr::from(*a).into(), p)),
        // Unspecified, a datagram, a local socket: nothing that could be shown.
        _ => return Header::Is(None, length),
    };
    match source {
        Some(_) => Header::Is(source, length),
        None => Header::Malformed("its PROXY header is too short for its addresses"),
    }
}

/// A network, as `10.0.0.0/8` or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether an address lies in it; an IPv4 address that was mapped into IPv6 counts as what it is.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(a)) => prefix_4(network, self.bits) == prefix_4(a, self.bits),
            (IpAddr::V6(network), IpAddr::V6(a)) => prefix_6(network, self.bits) == prefix_6(a, self.bits),
            _ => false,
        }
    }
}

fn prefix_4(address: Ipv4Addr, bits: u8) -> u32 {
    address.to_bits().checked_shr(32 - u32::from(bits)).unwrap_or_default()
}

fn prefix_6(address: Ipv6Addr, bits: u8) -> u128 {
    address.to_bits().checked_shr(128 - u32::from(bits)).unwrap_or_default()
}

impl std::str::FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(drop)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().ok().filter(|b| *b <= most).ok_or(())?,
            None => most,
        };
        Ok(Self { address, bits })
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn version_1_is_read() {
        let line = b"PROXY TCP4 192.0.2.1 10.0.0.1 5555 5000\r\n\0\0\0\x08";
        assert_eq!(
            read(line),
            Header::Is(Some("192.0.2.1:5555".parse().unwrap()), line.len() - 4)
        );
        let line = b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n";
        assert_eq!(
            read(line),
            Header::Is(Some("[2001:db8::1]:1".parse().unwrap()), line.len())
        );
        assert_eq!(read(b"PROXY UNKNOWN whatever\r\n"), Header::Is(None, 24));
        assert_eq!(read(b"PROXY UNKNOWN\r\n"), Header::Is(None, 15));
        for part in 0..line.len() {
            assert_eq!(read(&line[..part]), Header::Incomplete, "{part}");
        }
        for wrong in [
            &b"PROXY TCP4 192.0.2.1 10.0.0.1 5555\r\n"[..],
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 5555 70000\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 +5 5\r\n",
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2 3\r\n",
            b"PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 \xff\xff\r\n",
            b"PROXI TCP4",
            &[b'P', b'R', b'O', b'X', b'Y', b' ']
                .iter()
                .copied()
                .chain([b'a'; 120])
                .collect::<Vec<_>>(),
        ] {
            assert!(
                matches!(read(wrong), Header::Malformed(_)),
                "{wrong:?}: {:?}",
                read(wrong)
            );
        }
    }

    #[test]
    fn version_2_is_read() {
        let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x15, 0xb3, 0x13, 0x88];
        let bytes = v2(1, 0x11, &four);
        assert_eq!(read(&bytes), Header::Is(Some("192.0.2.1:5555".parse().unwrap()), 28));
        for part in 0..bytes.len() {
            assert_eq!(read(&bytes[..part]), Header::Incomplete, "{part}");
        }
        let mut extended = four.to_vec();
        extended.extend([0x20; 600]);
        assert_eq!(
            read(&v2(1, 0x11, &extended)),
            Header::Is(Some("192.0.2.1:5555".parse().unwrap()), 628)
        );
        let six: Vec<u8> = [[0x20; 16], [0x21; 16]]
            .concat()
            .into_iter()
            .chain([0, 7, 0, 8])
            .collect();
        let Header::Is(Some(source), 52) = read(&v2(1, 0x21, &six)) else {
            panic!()
        };
        assert_eq!(source.port(), 7);
        assert_eq!(read(&v2(0, 0, b"")), Header::Is(None, 16));
        assert_eq!(read(&v2(1, 0x31, &[0; 216])), Header::Is(None, 232));
        assert!(matches!(read(&v2(1, 0x11, &four[..11])), Header::Malformed(_)));
        assert!(matches!(read(&v2(2, 0x11, &four)), Header::Malformed(_)));
        assert!(matches!(read(&v2(1, 0x11, &[0; 5000])), Header::Malformed(_)));
        let mut old = v2(1, 0x11, &four);
        old[12] = 0x11;
        assert!(matches!(read(&old), Header::Malformed(_)));
    }

    #[test]
    fn networks_contain_their_addresses() {
        let contains = |network: &str, address: &str| {
            let network: Network = network.parse().unwrap();
            network.contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.1.2") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.7", "10.0.0.7") && !contains("10.0.0.7", "10.0.0.8"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.1.1"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1") && !contains("2001:db8::/32", "2001:db9::1"));
        assert!(contains("::/0", "fe80::1"));
        for wrong in ["", "10.0.0.0/33", "10.0.0/8", "x", "::/129", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_survived(start in 0..3usize, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut all = [&b""[..], b"PROXY TCP4 ", &SIGNATURE][start].to_vec();
            all.extend(&bytes);
            let whole = read(&all);
            if let Header::Is(_, length) = whole {
                prop_assert!(length <= all.len());
            }
            for part in 0..all.len() {
                prop_assert!(read(&all[..part]) == Header::Incomplete || matches!(read(&all[..part]), Header::Malformed(_)) || read(&all[..part]) == whole);
            }
        }
    }
}
