//! Who calls: the certificate of the connection, or the user for whom a node's certificate vouches.

use std::net::IpAddr;

use ha_core::access;
use ha_proto::{FORWARDED_HOPS, FORWARDED_IDENTITY, REQUEST_ID, codes};
use http::HeaderMap;

use super::Context;
use crate::error::ApiError;
use crate::master::handle::Caller;
use crate::security::{BadCertificate, Credential, Identity};

/// Serial number of the certificate of the user for whom a node vouches, so that revocation is checked at the end of the
/// way too.
pub(crate) const FORWARDED_SERIAL: &str = "ha-forwarded-serial";
/// How often a call may be passed on before mastership is taken to be on the move: to the master that the first node
/// knows, to its successor, and to a node that the call names.
const MAX_HOPS: u32 = 3;
const MAX_REQUEST_ID: usize = 64;

/// The other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) ip: IpAddr,
    /// What its certificate says; the reason if it is none of this cluster's.
    pub(crate) credential: Result<Credential, BadCertificate>,
}

/// How a call came here.
#[derive(Debug, Clone)]
pub(crate) struct Via {
    /// For whom it is made.
    pub(crate) identity: Identity,
    /// The serial number of that one's certificate; empty if the node that vouches did not tell.
    pub(crate) serial: String,
    /// How often it was passed on.
    pub(crate) hops: u32,
}

impl Context {
    /// Finds out for whom a call is made, and whether that one may make it.
    pub(crate) fn admit(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        (method, need): (&'static str, access::Need),
    ) -> Result<(Via, Caller), ApiError> {
        let credential = match &peer.credential {
            Ok(credential) => credential,
            Err(e) => {
                self.deny("unknown", method, &e.to_string(), peer.ip);
                return Err(
                    ApiError::new(&codes::WRONG_CLUSTER, "the certificate is none of this cluster's")
                        .why(e.to_string())
                        .next("hactl context list"),
                );
            }
        };
        // The handshake checked the certificate's time, but connections outlive it.
        if credential.not_after_ms < self.shared.clock.wall_ms() {
            self.deny(
                &credential.identity.to_string(),
                method,
                "the certificate has expired",
                peer.ip,
            );
            return Err(expired(&credential.identity));
        }
        self.refuse_revoked(&credential.identity, &credential.serial, method, peer.ip)?;
        let via = match self.vouched(credential, headers) {
            Ok(None) => Via {
                identity: credential.identity.clone(),
                serial: credential.serial.clone(),
                hops: 0,
            },
            Ok(Some(via)) => {
                self.refuse_revoked(&via.identity, &via.serial, method, peer.ip)?;
                via
            }
            Err(e) => {
                if e.code == &codes::DENIED {
                    self.deny(&credential.identity.to_string(), method, &e.message, peer.ip);
                }
                return Err(e);
            }
        };
        if let Err(denial) = access::permits(need, via.identity.bearer()) {
            self.deny(&via.identity.to_string(), method, &denial.to_string(), peer.ip);
            return Err(denied(&via.identity, method, denial));
        }
        let request_id = request_id(headers)?;
        let caller = Caller {
            identity: via.identity.clone(),
            request_id,
        };
        Ok((via, caller))
    }

    /// The user for whom the peer vouches, if it does and may.
    fn vouched(&self, peer: &Credential, headers: &HeaderMap) -> Result<Option<Via>, ApiError> {
        let names = [FORWARDED_IDENTITY, FORWARDED_SERIAL, FORWARDED_HOPS];
        if !names.iter().any(|n| headers.contains_key(*n)) {
            return Ok(None);
        }
        if peer.identity.role().is_some() {
            return Err(
                ApiError::new(&codes::DENIED, "the call claims to be made for somebody else")
                    .why("only a node's own daemon passes on calls"),
            );
        }
        let text = |name: &str| match headers.get(name) {
            Some(value) => value.to_str().map_err(|_| malformed(name)),
            None => Ok(""),
        };
        let identity = Identity::from_vouched(text(FORWARDED_IDENTITY)?);
        // A node speaks for itself with its own certificate only.
        let identity = identity
            .filter(|i| i.role().is_some())
            .ok_or_else(|| malformed(FORWARDED_IDENTITY))?;
        let hops: u32 = text(FORWARDED_HOPS)?.parse().map_err(|_| malformed(FORWARDED_HOPS))?;
        if hops > MAX_HOPS {
            return Err(
                ApiError::new(&codes::NO_MASTER, "the cluster is electing a master").why(format!(
                    "the call was passed on {MAX_HOPS} times without finding the master"
                )),
            );
        }
        let serial = text(FORWARDED_SERIAL)?.to_owned();
        Ok(Some(Via { identity, serial, hops }))
    }

    fn refuse_revoked(&self, who: &Identity, serial: &str, method: &'static str, ip: IpAddr) -> Result<(), ApiError> {
        if !self.is_revoked(who, serial) {
            return Ok(());
        }
        self.deny(&who.to_string(), method, "the certificate was revoked", ip);
        Err(revoked(who))
    }

    /// Whether this node has read that the certificate was revoked.
    pub(crate) fn is_revoked(&self, who: &Identity, serial: &str) -> bool {
        access::revoked(&self.shared.access.borrow(), who.bearer(), serial)
    }
}

/// The certificate's bearer was told off.
pub(crate) fn revoked(who: &Identity) -> ApiError {
    ApiError::new(&codes::REVOKED, format!("the certificate of {who} was revoked")).next(match who {
        Identity::Node { name } => format!("hactl node renew {name}"),
        Identity::User { name, .. } => format!("hactl user add {name} --role ROLE     by an admin"),
    })
}

/// The certificate's time is over.
pub(crate) fn expired(who: &Identity) -> ApiError {
    ApiError::new(&codes::CERT_EXPIRED, format!("the certificate of {who} has expired")).next(match who {
        Identity::Node { name } => format!("hactl node renew {name}"),
        Identity::User { name, .. } => format!("hactl user renew {name}"),
    })
}

fn denied(who: &Identity, method: &str, denial: access::Denial) -> ApiError {
    let method = method.rsplit('/').next().unwrap_or(method);
    let code = match denial {
        access::Denial::NodeCertificate => &codes::NOT_A_USER,
        access::Denial::Role { .. } | access::Denial::NotANode => &codes::DENIED,
    };
    let e = ApiError::new(code, format!("{who} may not call {method}")).why(denial.to_string());
    match denial {
        access::Denial::Role { .. } => e.next("hactl user list"),
        access::Denial::NodeCertificate => e.next("hactl context list"),
        access::Denial::NotANode => e.next("had leave     on the node itself"),
    }
}

fn malformed(name: &str) -> ApiError {
    ApiError::new(&codes::BAD_VALUE, format!("the metadata entry {name} is malformed"))
}

fn request_id(headers: &HeaderMap) -> Result<String, ApiError> {
    let Some(value) = headers.get(REQUEST_ID) else {
        return Ok(String::new());
    };
    let text = value.to_str().map_err(|_| malformed(REQUEST_ID))?;
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if plain && text.len() <= MAX_REQUEST_ID {
        Ok(text.to_owned())
    } else {
        Err(malformed(REQUEST_ID))
    }
}
