//! Connection strings of libpq's for what one node does on another: always by certificate, never with a password.

use std::net::IpAddr;
use std::path::Path;

use ha_core::database::names::parse_application_name;

use super::super::tls;
use super::access::{DATABASE, REPLICATION_ROLE, REWIND_ROLE};
use super::text::conninfo_value;

/// An instance on another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The node.
    pub node: String,
    /// Its host: a name, or an IP address without brackets.
    pub host: String,
    /// PostgreSQL's port there.
    pub port: u16,
}

/// Whom an instance streams from, and under the name of which epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upstream {
    /// The node.
    pub node: String,
    /// The epoch in its own `application_name`.
    pub epoch: u64,
}

impl Source {
    fn pairs(&self, tls: &Path, cluster: &str) -> Vec<(&'static str, String)> {
        let path = |p: &Path| p.display().to_string();
        let mut all = match self.host.parse::<IpAddr>() {
            // The certificate names the node, and only this node's will do.
            Ok(_) => vec![
                ("host", format!("{}.had.{cluster}", self.node)),
                ("hostaddr", self.host.clone()),
                ("sslmode", "verify-full".to_owned()),
            ],
            // One of the cluster's nodes, at least: the name that leads there is not in its certificate.
            Err(_) => vec![("host", self.host.clone()), ("sslmode", "verify-ca".to_owned())],
        };
        all.extend([
            ("port", self.port.to_string()),
            ("sslcert", path(&tls::own_file(tls))),
            ("sslkey", path(&tls::own_file(tls))),
            ("sslrootcert", path(&tls::authority_file(tls))),
            ("gssencmode", "disable".to_owned()),
            ("connect_timeout", "3".to_owned()),
            ("keepalives_idle", "5".to_owned()),
            ("keepalives_interval", "2".to_owned()),
            ("keepalives_count", "3".to_owned()),
        ]);
        all
    }

    fn text(pairs: &[(&'static str, String)]) -> String {
        let words: Vec<_> = pairs
            .iter()
            .map(|(k, v)| format!("{k}={}", conninfo_value(v)))
            .collect();
        words.join(" ")
    }

    /// For streaming. `name` carries the epoch (protocol R4). The upstream's own name stands where libpq keeps it without
    /// using it (Kerberos is off), for [`Upstream::parse`].
    pub(super) fn replication(&self, tls: &Path, cluster: &str, name: &str) -> String {
        let mut pairs = self.pairs(tls, cluster);
        pairs.push(("user", REPLICATION_ROLE.to_owned()));
        pairs.push(("application_name", name.to_owned()));
        pairs.push(("krbsrvname", self.node.clone()));
        Self::text(&pairs)
    }

    /// For base backups and their WAL: under a name that no rule can have.
    pub(in crate::postgres) fn backup(&self, tls: &Path, cluster: &str) -> String {
        let mut pairs = self.pairs(tls, cluster);
        pairs.push(("user", REPLICATION_ROLE.to_owned()));
        pairs.push(("application_name", "had copy".to_owned()));
        Self::text(&pairs)
    }

    /// For pg_rewind and questions.
    pub(in crate::postgres) fn rewind(&self, tls: &Path, cluster: &str) -> String {
        let mut pairs = self.pairs(tls, cluster);
        pairs.push(("user", REWIND_ROLE.to_owned()));
        pairs.push(("dbname", DATABASE.to_owned()));
        pairs.push(("application_name", "had rewind".to_owned()));
        Self::text(&pairs)
    }
}

impl Upstream {
    /// Whom a `primary_conninfo` of had's leads to; `None` if it is empty or somebody else's.
    pub fn parse(conninfo: &str) -> Option<Self> {
        let (mut node, mut epoch) = (None, None);
        for (key, value) in pairs(conninfo)? {
            match key.as_str() {
                "krbsrvname" => node = Some(value),
                "application_name" => epoch = parse_application_name(&value).map(|(_, e)| e),
                _ => {}
            }
        }
        Some(Self {
            node: node?,
            epoch: epoch?,
        })
    }
}

/// The words of a connection string, `key=value` or `key='value'`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut all = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Some(all);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=') {
            key.push(c);
        }
        chars.next()?;
        let mut value = String::new();
        let quoted = chars.next_if_eq(&'\'').is_some();
        loop {
            match chars.next() {
                Some('\\') => value.push(chars.next()?),
                Some('\'') if quoted => break,
                Some(c) if c.is_whitespace() && !quoted => break,
                Some(c) => value.push(c),
                None if quoted => return None,
                None => break,
            }
        }
        all.push((key.trim().to_owned(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conninfo_leads_back_to_its_upstream() {
        let source = Source {
            node: "n2".into(),
            host: "10.0.0.2".into(),
            port: 5432,
        };
        let text = source.replication(Path::new("/a 'b'/tls"), "prod", "n1_e7");
        assert!(
            text.contains("host='n2.had.prod' hostaddr='10.0.0.2' sslmode='verify-full'"),
            "{text}"
        );
        assert!(!text.to_lowercase().contains("password"));
        let expected = Upstream {
            node: "n2".into(),
            epoch: 7,
        };
        assert_eq!(Upstream::parse(&text), Some(expected));
        let named = Source {
            host: "db2.example.org".into(),
            ..source
        };
        let text = named.backup(Path::new("/tls"), "prod");
        assert!(text.contains("host='db2.example.org' sslmode='verify-ca'"), "{text}");
        assert_eq!(Upstream::parse(&text), None, "a copy streams for nobody's epoch");
    }

    #[test]
    fn somebody_elses_conninfo_is_nobodys() {
        for text in [
            "",
            "host=x",
            "host=x application_name=n1_e3",
            "a='",
            "application_name=x krbsrvname=y",
        ] {
            assert_eq!(Upstream::parse(text), None, "{text}");
        }
    }
}
