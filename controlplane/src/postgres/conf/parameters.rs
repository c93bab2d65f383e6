//! Parameters that a group's spec may set, and those that are had's own.
//!
//! A parameter that could open an instance, point it elsewhere or lose what was acknowledged is never the operator's here:
//! it is set with hactl, by what it means.

use std::collections::BTreeMap;

use super::super::control_data::FLOORS;
use super::super::error::{PgError, Result};

const MAX_VALUE: usize = 8 * 1024;
const MAX_PARAMETERS: usize = 500;

/// Parameters of had's own, with the reason.
const RESERVED: [(&str, &str); 50] = [
    ("allow_alter_system", OWNED),
    ("archive_cleanup_command", OWNED),
    ("cluster_name", OWNED),
    ("config_file", OWNED),
    ("data_directory", OWNED),
    ("data_sync_retry", SAFETY),
    ("event_source", OWNED),
    ("external_pid_file", OWNED),
    ("fsync", SAFETY),
    ("full_page_writes", SAFETY),
    ("hba_file", "lines for applications are set with the group's hba"),
    ("hot_standby", OWNED),
    ("ident_file", OWNED),
    ("ignore_checksum_failure", SAFETY),
    ("ignore_invalid_pages", SAFETY),
    ("ignore_system_indexes", SAFETY),
    ("listen_addresses", "the guard passes it; on disk it stays empty"),
    ("max_slot_wal_keep_size", "it follows from the group's slot retention"),
    ("port", "it is the group's port"),
    ("primary_conninfo", OWNED),
    ("primary_slot_name", OWNED),
    ("promote_trigger_file", OWNED),
    ("recovery_end_command", OWNED),
    (
        "recovery_min_apply_delay",
        "a standby that applies late cannot take over",
    ),
    ("recovery_target", OWNED),
    ("recovery_target_action", OWNED),
    ("recovery_target_inclusive", OWNED),
    ("recovery_target_lsn", OWNED),
    ("recovery_target_name", OWNED),
    ("recovery_target_time", OWNED),
    ("recovery_target_timeline", OWNED),
    ("recovery_target_xid", OWNED),
    ("restart_after_crash", "the guard must see that the server crashed"),
    ("restore_command", OWNED),
    ("ssl", OWNED),
    ("ssl_ca_file", OWNED),
    ("ssl_cert_file", OWNED),
    ("ssl_crl_dir", OWNED),
    ("ssl_crl_file", OWNED),
    ("ssl_key_file", OWNED),
    ("ssl_passphrase_command", OWNED),
    ("synchronous_standby_names", "it follows from the group's durability"),
    ("unix_socket_directories", "the guard passes it; on disk it stays empty"),
    ("unix_socket_group", OWNED),
    ("unix_socket_permissions", OWNED),
    ("wal_log_hints", OWNED),
    ("wal_receiver_create_temp_slot", OWNED),
    (
        "wal_receiver_timeout",
        "it follows from the time in which a lost primary is noticed",
    ),
    ("wal_retrieve_retry_interval", OWNED),
    ("zero_damaged_pages", SAFETY),
];

const OWNED: &str = "had sets it";
const SAFETY: &str = "with another value than PostgreSQL's own an acknowledged commit may be lost";

/// Values that are left to choose from, of parameters that are otherwise had's.
const LIMITED: [(&str, &[&str], &str); 2] = [
    ("wal_level", &["replica", "logical"], "standbys need at least replica"),
    (
        "synchronous_commit",
        &["on", "remote_apply"],
        "anything weaker acknowledges commits that a failover loses; a session may ask for it",
    ),
];

/// Why a parameter is had's own; `None` if a group may set it.
pub fn reserved(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    RESERVED.iter().find(|(n, _)| *n == name).map(|(_, why)| *why)
}

/// Checks what can be checked without a server: names, had's own parameters, and that a value fits on a line. Returns
/// the parameters with their names in lower case.
///
/// # Errors
/// [`PgError::Refused`] with the first that cannot be set.
pub fn checked(parameters: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    if parameters.len() > MAX_PARAMETERS {
        return Err(PgError::refused(
            "parameters",
            format!("at most {MAX_PARAMETERS} can be set"),
        ));
    }
    let mut all = BTreeMap::new();
    for (name, value) in parameters {
        let shown = super::super::error::one_line(name);
        check(name, value).map_err(|why| PgError::refused(format!("parameter {shown}"), why))?;
        if all.insert(name.to_ascii_lowercase(), value.clone()).is_some() {
            return Err(PgError::refused(format!("parameter {shown}"), "it is set twice"));
        }
    }
    Ok(all)
}

fn check(name: &str, value: &str) -> std::result::Result<(), String> {
    let word = |w: &str| {
        w.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && w.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
    };
    if name.len() > 63 || !name.split('.').all(word) {
        return Err("this is no name of a parameter".into());
    }
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("include") {
        return Err("files cannot be included".into());
    }
    if let Some(why) = reserved(&lower) {
        return Err(why.to_owned());
    }
    if value.len() > MAX_VALUE || value.contains(|c: char| c.is_control()) {
        return Err("a value is one line of at most 8 KiB".into());
    }
    if let Some((_, allowed, why)) = LIMITED.iter().find(|(n, ..)| *n == lower)
        && !allowed.contains(&value.trim().to_ascii_lowercase().as_str())
    {
        return Err(format!("{} are allowed: {why}", allowed.join(" and ")));
    }
    Ok(())
}

/// Those of another server's settings that can be taken over, and those that cannot, with the reason.
pub(crate) fn carried(
    settings: impl IntoIterator<Item = (String, String)>,
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let (mut kept, mut left) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in settings {
        // Of two the later holds.
        kept.remove(&name);
        left.remove(&name);
        match check(&name, &value) {
            Ok(()) => drop(kept.insert(name, value)),
            Err(why) => drop(left.insert(name, why)),
        }
    }
    (kept, left)
}

/// The parameters with those that a standby must not have lower than its primary raised to the primary's values
/// (protocol, upkeep). `least` is in the order of [`FLOORS`]; 0 raises nothing.
pub(super) fn raised(
    parameters: &BTreeMap<String, String>,
    least: [u32; 5],
    defaults: [u32; 5],
) -> BTreeMap<String, String> {
    let mut all = parameters.clone();
    for (((name, _), least), default) in FLOORS.iter().zip(least).zip(defaults) {
        let set = all
            .get(*name)
            .and_then(|v| v.trim().parse::<u32>().ok())
            .unwrap_or(default);
        if least > set {
            all.insert((*name).to_owned(), least.to_string());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<BTreeMap<String, String>> {
        checked(&[(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn ordinary_parameters_pass() {
        for (name, value) in [
            ("shared_buffers", "256MB"),
            ("Work_Mem", "4MB"),
            ("pg_stat_statements.track", "all"),
            ("archive_command", "cp '%p' /archive/%f"),
            ("wal_level", "logical"),
            ("synchronous_commit", "remote_apply"),
            ("max_connections", "300"),
        ] {
            assert!(one(name, value).is_ok(), "{name}");
        }
        assert!(one("Work_Mem", "4MB").unwrap().contains_key("work_mem"));
    }

    #[test]
    fn what_is_hads_or_harmful_is_refused_with_the_reason() {
        for (name, value, why) in [
            ("listen_addresses", "*", "the guard passes it"),
            ("Synchronous_Standby_Names", "", "durability"),
            ("fsync", "off", "may be lost"),
            ("synchronous_commit", "off", "on and remote_apply are allowed"),
            ("wal_level", "minimal", "replica and logical are allowed"),
            ("include_dir", "/etc", "cannot be included"),
            ("a b", "1", "no name"),
            ("", "1", "no name"),
            ("1a", "1", "no name"),
            ("work_mem", "4MB\nfsync = off", "one line"),
        ] {
            let e = one(name, value).unwrap_err().to_string();
            assert!(e.contains(why), "{name}: {e}");
        }
        let twice = [
            ("work_mem".to_owned(), "1".to_owned()),
            ("WORK_MEM".to_owned(), "2".to_owned()),
        ];
        assert!(checked(&twice.into()).is_err());
    }

    #[test]
    fn the_table_is_in_order() {
        let mut names: Vec<_> = RESERVED.iter().map(|(n, _)| *n).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), RESERVED.len());
        assert!(reserved("PORT").is_some() && reserved("work_mem").is_none());
    }

    #[test]
    fn another_servers_settings_are_carried_over_where_they_can_be() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let (kept, left) = carried([
            pair("work_mem", "4MB"),
            pair("port", "5433"),
            pair("work_mem", "8MB"),
            pair("fsync", "off"),
        ]);
        assert_eq!(kept, [pair("work_mem", "8MB")].into());
        assert_eq!(left.keys().collect::<Vec<_>>(), ["fsync", "port"]);
    }

    #[test]
    fn floors_raise_and_never_lower() {
        let set = [("max_connections".to_owned(), "200".to_owned())].into();
        let up = raised(&set, [300, 8, 10, 0, 64], [100, 8, 10, 0, 64]);
        assert_eq!(up, [("max_connections".to_owned(), "300".to_owned())].into());
        let up = raised(&set, [100, 16, 0, 0, 0], [100, 8, 10, 0, 64]);
        assert_eq!(up.get("max_connections").map(String::as_str), Some("200"));
        assert_eq!(up.get("max_worker_processes").map(String::as_str), Some("16"));
    }
}
