//! Names and addresses that may enter the cluster's state: they become paths, host names and terminal output.

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub &'static str);

/// Checks the name of a cluster, node or user: 1 to 63 lower-case letters, digits and hyphens, beginning with a letter
/// and not ending with a hyphen.
///
/// # Errors
/// [`NameError`] with what is wrong.
pub fn valid_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > 63 {
        return Err(NameError("a name has 1 to 63 characters"));
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return Err(NameError("a name has lower-case letters, digits and hyphens only"));
    }
    if !name.as_bytes()[0].is_ascii_lowercase() {
        return Err(NameError("a name begins with a letter"));
    }
    if name.ends_with('-') {
        return Err(NameError("a name does not end with a hyphen"));
    }
    Ok(())
}

/// Greatest length of a node's name. PostgreSQL cuts names at 63 bytes: that of a replication slot has `had_` before it, that
/// of a connection `_e` and the epoch behind it, of up to eleven digits; a certificate's has `node:` before it.
pub const NODE_NAME: usize = 50;

/// Checks a node's name: a name that fits everything that is made of it.
///
/// # Errors
/// [`NameError`] with what is wrong.
pub fn valid_node_name(name: &str) -> Result<(), NameError> {
    valid_name(name)?;
    if name.len() > NODE_NAME {
        return Err(NameError(
            "a node's name has at most 50 characters, for replication slots and connections of PostgreSQL are named after it",
        ));
    }
    Ok(())
}

/// Checks a label's key or value, or a scenario: 1 to 63 letters, digits and `.-_/`.
///
/// # Errors
/// [`NameError`] with what is wrong.
pub fn valid_label(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text.len() > 63 {
        return Err(NameError("a label has 1 to 63 characters"));
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_/".contains(&b)) {
        return Err(NameError("a label has letters, digits and . - _ / only"));
    }
    Ok(())
}

/// Checks `host:port`; the host is a name, an IPv4 address or an IPv6 address in brackets.
///
/// # Errors
/// [`NameError`] with what is wrong.
pub fn valid_address(address: &str) -> Result<(), NameError> {
    let Some((host, port)) = address.rsplit_once(':') else {
        return Err(NameError("an address is HOST:PORT"));
    };
    if port.parse::<u16>().map_or(true, |p| p == 0) {
        return Err(NameError("the port is a number from 1 to 65535"));
    }
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let ok = match bare {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
        }
    };
    if ok {
        Ok(())
    } else {
        Err(NameError(
            "the host is a name, an IPv4 address or an IPv6 address in brackets",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_fit_what_is_made_of_them() {
        let longest = "n".repeat(NODE_NAME);
        assert!(valid_node_name(&longest).is_ok());
        assert!(crate::database::names::application_name(&longest, 99_999_999_999).len() <= 63);
        let long = "n".repeat(NODE_NAME + 1);
        assert!(valid_name(&long).is_ok() && valid_node_name(&long).is_err());
        assert!(valid_node_name("N").is_err());
    }

    #[test]
    fn names() {
        for good in ["n1", "a", "node-1", "db-eu-west-1a"] {
            assert!(valid_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "1n",
            "-a",
            "a-",
            "A",
            "a_b",
            "a/b",
            "a.b",
            "\u{1b}[31m",
            &"a".repeat(64),
        ] {
            assert!(valid_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        for good in ["10.0.0.1:7400", "db1.example.org:1", "[::1]:65535"] {
            assert!(valid_address(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "a:", ":1", "a:0", "a:70000", "::1:7400", "a b:1", "[x]:1"] {
            assert!(valid_address(bad).is_err(), "{bad}");
        }
    }
}
