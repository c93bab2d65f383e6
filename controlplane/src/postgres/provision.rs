//! Roles and databases: had's own, and those that a group's spec wants.
//!
//! Only what differs is changed, and nothing is ever dropped. A password is set as its verifier alone, on a connection
//! whose statements the server does not log.

use std::collections::BTreeMap;
use std::time::Duration;

use ha_core::database::spec::{DatabaseSpec, RoleSpec};

use super::connection::{Connection, identifier, literal};
use super::error::{PgError, Result, one_line};
use super::place::Place;

const LIMIT: Duration = Duration::from_secs(30);
/// A database is a copy of a template.
const DATABASE_LIMIT: Duration = Duration::from_secs(300);

/// Makes the roles that standbys and rewinds come as. On a primary only.
///
/// # Errors
/// [`PgError::Query`], [`PgError::Disconnected`], [`PgError::TimedOut`].
pub async fn own_roles(connection: &mut Connection) -> Result<()> {
    connection
        .run("making had's own roles", include_str!("sql/own_roles.sql"), LIMIT)
        .await
}

/// PostgreSQL's verifier of a password: what the spec holds in its place.
pub fn verifier(password: &str) -> String {
    postgres_protocol::password::scram_sha_256(password.as_bytes())
}

/// Whether a text is such a verifier. A password in its place would reach ZooKeeper and the server's catalogs in the
/// clear.
pub fn is_verifier(text: &str) -> bool {
    let base64 = |t: &str, bytes: usize| {
        use base64::Engine as _;
        let read = base64::engine::general_purpose::STANDARD.decode(t);
        read.is_ok_and(|b| if bytes == 0 { !b.is_empty() } else { b.len() == bytes })
    };
    let parts: Vec<&str> = text.split('$').collect();
    let [kind, salted, keys] = parts.as_slice() else {
        return false;
    };
    let (Some((rounds, salt)), Some((stored, server))) = (salted.split_once(':'), keys.split_once(':')) else {
        return false;
    };
    *kind == "SCRAM-SHA-256"
        && rounds.parse::<u32>().is_ok_and(|n| n >= 4096)
        && base64(salt, 0)
        && base64(stored, 32)
        && base64(server, 32)
}

/// Checks the name of a role or database of a group.
///
/// # Errors
/// [`PgError::Refused`].
pub fn checked_name(kind: &str, name: &str) -> Result<()> {
    let refuse = |why: &str| Err(PgError::refused(format!("{kind} {:?}", one_line(name)), why));
    if name.is_empty() || name.len() > 63 || name.contains(|c: char| c.is_control()) {
        return refuse("a name has 1 to 63 bytes and no control characters");
    }
    if name.starts_with("pg_") || name.starts_with("had_") || name == "had" {
        return refuse("names that begin with pg_ or had_ are not for applications");
    }
    if ["postgres", "public", "none", "template0", "template1"].contains(&name) {
        return refuse("it belongs to PostgreSQL itself");
    }
    Ok(())
}

/// A role as the server has it.
#[derive(Debug, PartialEq, Eq)]
struct Present {
    login: bool,
    createdb: bool,
    createrole: bool,
    verifier: Option<String>,
}

/// Makes and changes the roles that a spec wants. On a primary only. Returns what was done, a line each.
///
/// # Errors
/// [`PgError::Refused`] for a name or verifier that cannot be used; [`PgError::Query`] and the like. What was done before
/// stays done.
pub async fn roles(connection: &mut Connection, wanted: &BTreeMap<String, RoleSpec>) -> Result<Vec<String>> {
    for (name, role) in wanted {
        checked_name("role", name)?;
        if role.verifier.as_deref().is_some_and(|v| !is_verifier(v)) {
            return Err(PgError::refused(
                format!("role {name}"),
                "its password is not a SCRAM-SHA-256 verifier",
            ));
        }
    }
    let mut done = Vec::new();
    let present = present_roles(connection).await?;
    for (name, role) in wanted {
        let statement = match present.get(name) {
            None => format!("CREATE ROLE {} {}", identifier(name), options(role)),
            Some(p) if differs(p, role) => format!("ALTER ROLE {} {}", identifier(name), options(role)),
            Some(_) => continue,
        };
        let made = if present.contains_key(name) { "changed" } else { "made" };
        connection.run(&format!("role {name}"), &statement, LIMIT).await?;
        done.push(format!("role {name} {made}"));
    }
    let members = memberships(connection).await?;
    for (name, role) in wanted {
        for group in &role.member_of {
            if members.contains(&(group.clone(), name.clone())) {
                continue;
            }
            let statement = format!("GRANT {} TO {}", identifier(group), identifier(name));
            connection.run(&format!("role {name}"), &statement, LIMIT).await?;
            done.push(format!("role {name} is a member of {group}"));
        }
    }
    Ok(done)
}

fn options(role: &RoleSpec) -> String {
    let option = |on: bool, word: &str| if on { word.to_owned() } else { format!("NO{word}") };
    let mut all = vec![
        option(role.login, "LOGIN"),
        option(role.createdb, "CREATEDB"),
        option(role.createrole, "CREATEROLE"),
    ];
    // Without one in the spec, the password is left as it is.
    if let Some(verifier) = &role.verifier {
        all.push(format!("PASSWORD {}", literal(verifier)));
    }
    all.join(" ")
}

fn differs(present: &Present, role: &RoleSpec) -> bool {
    let other = role.verifier.is_some() && present.verifier != role.verifier;
    (present.login, present.createdb, present.createrole) != (role.login, role.createdb, role.createrole) || other
}

async fn present_roles(connection: &mut Connection) -> Result<BTreeMap<String, Present>> {
    let sql = "SELECT rolname::text, rolcanlogin, rolcreatedb, rolcreaterole, rolpassword FROM pg_authid";
    let rows = connection.rows("reading roles", sql, &[], LIMIT).await?;
    let read = |row: &tokio_postgres::Row| {
        let present = Present {
            login: row.try_get(1)?,
            createdb: row.try_get(2)?,
            createrole: row.try_get(3)?,
            verifier: row.try_get(4)?,
        };
        Ok((row.try_get(0)?, present))
    };
    rows.iter()
        .map(|r| read(r).map_err(|e: tokio_postgres::Error| PgError::unreadable("roles", e.to_string())))
        .collect()
}

async fn memberships(connection: &mut Connection) -> Result<Vec<(String, String)>> {
    let sql = "SELECT pg_get_userbyid(roleid)::text, pg_get_userbyid(member)::text FROM pg_auth_members";
    let rows = connection.rows("reading memberships", sql, &[], LIMIT).await?;
    let pair = |r: &tokio_postgres::Row| Some((r.try_get(0).ok()?, r.try_get(1).ok()?));
    Ok(rows.iter().filter_map(pair).collect())
}

/// Makes the databases that a spec wants, with their owners and extensions. On a primary only, after the roles. Returns
/// what was done, a line each.
///
/// # Errors
/// As [`roles`].
pub async fn databases(
    place: &Place,
    connection: &mut Connection,
    wanted: &BTreeMap<String, DatabaseSpec>,
) -> Result<Vec<String>> {
    for name in wanted.keys() {
        checked_name("database", name)?;
    }
    let mut done = Vec::new();
    let sql = "SELECT datname::text, pg_get_userbyid(datdba)::text FROM pg_database";
    let rows = connection.rows("reading databases", sql, &[], LIMIT).await?;
    let pair = |r: &tokio_postgres::Row| Some((r.try_get(0).ok()?, r.try_get(1).ok()?));
    let present: BTreeMap<String, String> = rows.iter().filter_map(pair).collect();
    for (name, database) in wanted {
        let (quoted, owner) = (identifier(name), identifier(&database.owner));
        let what = format!("database {name}");
        match present.get(name) {
            None => {
                let sql = format!("CREATE DATABASE {quoted} OWNER {owner}");
                connection.run(&what, &sql, DATABASE_LIMIT).await?;
                done.push(format!("database {name} made"));
            }
            Some(present) if *present != database.owner => {
                let sql = format!("ALTER DATABASE {quoted} OWNER TO {owner}");
                connection.run(&what, &sql, LIMIT).await?;
                done.push(format!("database {name} given to {}", database.owner));
            }
            Some(_) => {}
        }
        if !database.extensions.is_empty() {
            done.extend(extensions(place, name, &database.extensions).await?);
        }
    }
    Ok(done)
}

async fn extensions(place: &Place, database: &str, wanted: &[String]) -> Result<Vec<String>> {
    let mut connection = Connection::open_to(place, database, LIMIT).await?;
    let sql = "SELECT extname::text FROM pg_extension";
    let rows = connection.rows("reading extensions", sql, &[], LIMIT).await?;
    let present: Vec<String> = rows.iter().filter_map(|r| r.try_get(0).ok()).collect();
    let mut done = Vec::new();
    for name in wanted.iter().filter(|w| !present.contains(w)) {
        // The connection's search path has no schema to make things in.
        let sql = format!(
            "SET LOCAL search_path = public; CREATE EXTENSION {} CASCADE",
            identifier(name)
        );
        let what = format!("extension {name} in {database}");
        connection.run(&what, &format!("BEGIN; {sql}; COMMIT"), LIMIT).await?;
        done.push(format!("{what} made"));
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifiers_are_told_from_passwords() {
        let made = verifier("hunter2");
        assert!(is_verifier(&made) && !made.contains("hunter2"));
        for bad in [
            "hunter2",
            "",
            "SCRAM-SHA-256$4096:c2FsdA==$x:y",
            "md5abcdef",
            &made.replace("4096", "10"),
            &format!("{made}'; DROP ROLE x"),
        ] {
            assert!(!is_verifier(bad), "{bad}");
        }
    }

    #[test]
    fn names_of_others_are_refused() {
        for good in ["app", "My App", "web-1"] {
            checked_name("role", good).unwrap();
        }
        for bad in ["", "postgres", "pg_x", "had_rewind", "a\nb", &"x".repeat(64)] {
            assert!(checked_name("role", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_role_is_changed_only_where_it_differs() {
        let spec = RoleSpec {
            verifier: None,
            login: true,
            createdb: false,
            createrole: false,
            member_of: Vec::new(),
        };
        let present = Present {
            login: true,
            createdb: false,
            createrole: false,
            verifier: Some("x".into()),
        };
        assert!(!differs(&present, &spec), "no password wanted: the present one stays");
        assert_eq!(options(&spec), "LOGIN NOCREATEDB NOCREATEROLE");
        let v = verifier("p");
        let with = RoleSpec {
            verifier: Some(v.clone()),
            ..spec
        };
        assert!(differs(&present, &with) && options(&with).contains(&v));
    }
}
