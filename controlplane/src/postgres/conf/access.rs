//! Who may connect: `pg_hba.conf` and `pg_ident.conf` as had writes them.
//!
//! Nodes show their certificates, whose common name is `node:<name>`; a user's has no such name, so that it never passes
//! for a node's, whatever the user is called. The daemon itself comes through the socket as the account it runs as. The
//! lines for applications stand below had's, so that they can neither open nor close what had needs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use super::super::error::{PgError, Result, one_line};

/// The role that standbys stream as.
pub const REPLICATION_ROLE: &str = "had_replication";
/// The role that pg_rewind reads a primary as.
pub const REWIND_ROLE: &str = "had_rewind";
/// The superuser that had connects as through the socket.
pub const SUPERUSER: &str = "postgres";
/// The database that had works in.
pub const DATABASE: &str = "postgres";

const NODES_MAP: &str = "had_nodes";
const LOCAL_MAP: &str = "had_local";
const MAX_LINES: usize = 200;
const MAX_LINE: usize = 1000;

/// The common name of a node's certificate.
pub fn node_common_name(node: &str) -> String {
    format!("node:{node}")
}

/// `pg_hba.conf`. The lines for applications were checked.
pub(super) fn hba(applications: &[String]) -> String {
    let mut text = String::from(
        "# Written by had. Changes are lost: lines for applications are the group's, see hactl db config.\n\
         # The first line that fits decides.\n",
    );
    let _ = write!(
        text,
        "local    all          {SUPERUSER}                     peer map={LOCAL_MAP}\n\
         hostssl  replication  {REPLICATION_ROLE}  all  cert map={NODES_MAP}\n\
         hostssl  {DATABASE}   {REWIND_ROLE}       all  cert map={NODES_MAP}\n\
         local    all,replication  {REPLICATION_ROLE},{REWIND_ROLE}       reject\n\
         host     all,replication  {REPLICATION_ROLE},{REWIND_ROLE}  all  reject\n\
         # Applications\n"
    );
    for line in applications {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// `pg_ident.conf`: which nodes may replicate, and which accounts of this machine are the superuser.
pub(super) fn ident<'a>(nodes: &BTreeSet<String>, accounts: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::from("# Written by had. Changes are lost.\n# map, who is there, role\n");
    for node in nodes {
        let name = node_common_name(node);
        let _ = writeln!(text, "{NODES_MAP}  \"{name}\"  {REPLICATION_ROLE}");
        let _ = writeln!(text, "{NODES_MAP}  \"{name}\"  {REWIND_ROLE}");
    }
    let accounts: BTreeSet<&str> = accounts.into_iter().collect();
    for account in accounts {
        let _ = writeln!(text, "{LOCAL_MAP}  \"{account}\"  {SUPERUSER}");
    }
    text
}

const METHODS: [&str; 14] = [
    "trust",
    "reject",
    "md5",
    "password",
    "scram-sha-256",
    "gss",
    "sspi",
    "ident",
    "peer",
    "pam",
    "bsd",
    "ldap",
    "radius",
    "cert",
];

/// Checks the lines for applications: PostgreSQL refuses to start with a single one that it cannot read.
///
/// # Errors
/// [`PgError::Refused`] with the line.
pub fn checked(lines: &[String]) -> Result<Vec<String>> {
    if lines.len() > MAX_LINES {
        return Err(PgError::refused("lines of pg_hba.conf", format!("at most {MAX_LINES}")));
    }
    let mut good = Vec::new();
    for line in lines {
        let refuse = |why: &str| PgError::refused(format!("line {:?} of pg_hba.conf", one_line(line)), why);
        match check(line) {
            Ok(true) => good.push(line.trim().to_owned()),
            Ok(false) => {}
            Err(why) => return Err(refuse(&why)),
        }
    }
    Ok(good)
}

/// Whether a line says anything; the error is a reason.
fn check(line: &str) -> std::result::Result<bool, String> {
    if line.len() > MAX_LINE || line.trim_end().contains(|c: char| c.is_control() && c != '\t') {
        return Err("it is one line of at most 1000 characters".into());
    }
    let words = words(line)?;
    let [kind, rest @ ..] = words.as_slice() else {
        return Ok(false);
    };
    let rest = match kind.as_str() {
        "local" => match rest {
            [_, _, rest @ ..] => rest,
            _ => return Err("local DATABASE USER METHOD is wanted".into()),
        },
        "host" | "hostssl" | "hostnossl" | "hostgssenc" | "hostnogssenc" => match rest {
            [_, _, address, rest @ ..] => after_address(address, rest)?,
            _ => return Err(format!("{kind} DATABASE USER ADDRESS METHOD is wanted")),
        },
        _ => return Err("it begins with local, host, hostssl or hostnossl".into()),
    };
    let Some((method, options)) = rest.split_first() else {
        return Err("there is no method".into());
    };
    if !METHODS.contains(&method.as_str()) {
        return Err(format!("there is no method {method:?}"));
    }
    let fits = match method.as_str() {
        "cert" => kind == "hostssl",
        "peer" => kind == "local",
        "gss" => kind != "local",
        _ => true,
    };
    if !fits {
        return Err(format!("{method} does not go with {kind}"));
    }
    let option = |o: &&String| o.split_once('=').is_some_and(|(k, v)| !k.is_empty() && !v.is_empty());
    match options.iter().find(|o| !option(o)) {
        Some(o) => Err(format!("{o:?} is no option: NAME=VALUE is wanted")),
        None => Ok(true),
    }
}

/// Checks an address and returns what follows it; an address without a mask's length is followed by its mask.
fn after_address<'a>(address: &str, rest: &'a [String]) -> std::result::Result<&'a [String], String> {
    if ["all", "samehost", "samenet"].contains(&address) {
        return Ok(rest);
    }
    if let Some((ip, length)) = address.split_once('/') {
        let most = match ip.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return Err(format!("{address:?} is no network")),
        };
        return match length.parse::<u8>() {
            Ok(n) if n <= most => Ok(rest),
            _ => Err(format!("{address:?}: the mask has 0 to {most} bits")),
        };
    }
    if let Ok(ip) = address.parse::<IpAddr>() {
        return match rest.split_first() {
            Some((mask, rest)) if mask.parse::<IpAddr>().is_ok_and(|m| m.is_ipv4() == ip.is_ipv4()) => Ok(rest),
            _ => Err(format!("{address:?} wants a mask, as in {address}/32")),
        };
    }
    let host = address.strip_prefix('.').unwrap_or(address);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
    if host.is_empty() || !host.chars().all(plain) {
        return Err(format!("{address:?} is no address"));
    }
    Ok(rest)
}

/// The words of a line; commas keep lists together, quotes keep anything together, `#` begins a comment.
fn words(line: &str) -> std::result::Result<Vec<String>, String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut begun, mut list) = (false, false, false);
    for c in line.chars() {
        match c {
            '"' => (quoted, begun, list) = (!quoted, true, false),
            '#' if !quoted => break,
            c if c.is_whitespace() && !quoted => {
                if begun && !list {
                    words.push(std::mem::take(&mut word));
                    begun = false;
                }
            }
            ',' if !quoted => {
                word.push(c);
                (begun, list) = (true, true);
            }
            c => {
                // A blank ends a word, unless a comma stands on either side of it.
                word.push(c);
                (begun, list) = (true, false);
            }
        }
    }
    if quoted {
        return Err("a quote is not closed".into());
    }
    if begun {
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_applications_are_checked() {
        for good in [
            "host app app 10.0.0.0/8 scram-sha-256",
            "hostssl all all ::/0 scram-sha-256 clientcert=verify-ca",
            "local all all peer map=x",
            "host \"my db\", other app 192.168.1.1 255.255.255.0 md5 # why",
            "hostssl all +staff .example.org cert map=people",
            "host all all samenet ldap ldapserver=l \"ldapprefix=cn= x\"",
            "host all all all reject",
        ] {
            assert_eq!(checked(&[good.to_owned()]).unwrap(), [good], "{good}");
        }
        assert!(checked(&["  # nothing".to_owned(), String::new()]).unwrap().is_empty());
        for (bad, why) in [
            ("host all all 10.0.0.0/33 md5", "0 to 32 bits"),
            ("host all all 10.0.0.1 md5", "wants a mask"),
            ("host all all 10.0.0.0/8", "no method"),
            ("host all all 10.0.0.0/8 secret", "no method \"secret\""),
            ("host all all 10.0.0.0/8 cert", "does not go with host"),
            ("local all all", "no method"),
            ("include other.conf", "it begins with"),
            ("@file all all all md5", "it begins with"),
            ("host all \"all all md5", "not closed"),
            ("host all all all md5 nonsense", "no option"),
            ("host all all all trust\nlocal all all trust", "one line"),
            ("host all all 10.0.0.0/8/8 md5", "bits"),
        ] {
            let e = checked(&[bad.to_owned()]).unwrap_err().to_string();
            assert!(e.contains(why), "{bad}: {e}");
        }
    }

    #[test]
    fn hads_own_lines_come_first_and_end_with_a_refusal() {
        let text = hba(&["host all all all scram-sha-256".to_owned()]);
        let lines: Vec<_> = text.lines().filter(|l| !l.starts_with('#')).collect();
        assert!(lines[0].starts_with("local") && lines[0].ends_with("peer map=had_local"));
        let reject = lines.iter().rposition(|l| l.ends_with("reject")).unwrap();
        let application = lines.iter().position(|l| l.contains("scram")).unwrap();
        assert!(reject < application, "{text}");
        for line in lines {
            assert_eq!(check(line), Ok(true), "{line}");
        }
    }

    #[test]
    fn only_named_nodes_replicate() {
        let text = ident(&["n1".to_owned(), "n2".to_owned()].into(), ["root", "postgres", "root"]);
        assert!(text.contains("had_nodes  \"node:n1\"  had_replication\n"));
        assert!(text.contains("had_nodes  \"node:n2\"  had_rewind\n"));
        assert_eq!(text.matches("had_local").count(), 2);
    }
}
