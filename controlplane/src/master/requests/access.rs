//! Requests about users and certificates.

use ha_core::AccessRecord;
use ha_core::access::{self, Issued};
use ha_core::refusal::Refusal;
use ha_proto::v1;

use super::super::handle::Caller;
use super::super::store::{Draft, StoreError};
use super::super::{Master, view};
use super::{Done, Failed, planned, unchanged};

impl Master<'_> {
    pub(super) fn access(&self) -> AccessRecord {
        self.store.access.envelope.value.clone().unwrap_or_default()
    }

    /// Stores a decision about the certificates of `draft`'s subject; the entry shows that subject's record only.
    pub(super) async fn set_access(&mut self, decided: access::Outcome, mut draft: Draft) -> Result<(), StoreError> {
        if !decided.changed {
            return Ok(());
        }
        draft.part = Some(match draft.subject.split_once('/') {
            Some(("node", name)) => format!("/nodes/{name}"),
            Some((_, name)) => format!("/users/{name}"),
            None => String::new(),
        });
        self.store.set_access(decided.record, draft).await?;
        self.show_users();
        Ok(())
    }

    pub(super) async fn record_user(&mut self, caller: &Caller, r: v1::RecordUserRequest) -> Done {
        let options = r.options.clone().unwrap_or_default();
        ha_core::valid_name(&r.name).map_err(|e| Refusal::new("HA0007", format!("user name {:?}: {e}", r.name)))?;
        let role = view::from_access_role(r.role())
            .ok_or_else(|| Refusal::new("HA0009", "a role is viewer, operator or admin"))?;
        let issued = Issued {
            serial: &r.serial,
            expires_ms: r.expires_unix_ms,
        };
        let decide = if r.renew { access::renew_user } else { access::add_user };
        let decided =
            decide(&self.access(), &r.name, role, issued, self.wall_ms()).map_err(|e| refused_access(&r.name, e))?;
        self.finish_access(caller, "user.recorded", &format!("user/{}", r.name), decided, &options)
            .await
    }

    pub(super) async fn revoke_user(&mut self, caller: &Caller, r: v1::RevokeUserRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let (now, access) = (self.wall_ms(), self.access());
        let decided = if r.node {
            let exists = self.records().contains_key(r.name.as_str());
            access::revoke_node(&access, &r.name, exists, now)
        } else {
            access::revoke_user(&access, &r.name, now)
        }
        .map_err(|e| refused_access(&r.name, e))?;
        let subject = format!("{}/{}", if r.node { "node" } else { "user" }, r.name);
        self.finish_access(caller, "certificate.revoked", &subject, decided, &options)
            .await
    }

    pub(super) async fn finish_access(
        &mut self,
        caller: &Caller,
        kind: &'static str,
        subject: &str,
        decided: access::Outcome,
        options: &v1::ChangeOptions,
    ) -> Done {
        self.expect_revision(
            "the list of users",
            options.revision,
            self.store.access.envelope.revision(),
        )?;
        if !decided.changed {
            return unchanged(self.store.access.envelope.revision());
        }
        if options.dry_run {
            return planned(vec![decided.text], self.store.revision());
        }
        let draft = Self::draft(caller, kind, subject, decided.text.clone(), &options.reason);
        self.set_access(decided, draft).await?;
        self.result()
    }
}

pub(super) fn refused_access(name: &str, e: access::Refusal) -> Failed {
    use access::Refusal::{BadSerial, LastAdmin, NodeUnknown, UserExists, UserRevoked, UserUnknown};
    let code = match e {
        UserExists => "HA0205",
        UserUnknown | UserRevoked => "HA0206",
        LastAdmin => "HA0207",
        NodeUnknown => "HA0302",
        BadSerial => "HA0009",
    };
    let refusal = Refusal::new(code, format!("{name}: {e}"));
    match e {
        UserRevoked => refusal.next(format!("hactl user add {name} --role ROLE")),
        UserExists => refusal.next(format!("hactl user renew {name}")),
        UserUnknown => refusal.next("hactl user list"),
        LastAdmin => refusal.next("hactl user add NAME --role admin"),
        NodeUnknown => refusal.next("hactl node list"),
        BadSerial => refusal,
    }
    .into()
}
