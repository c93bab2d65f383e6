//! What a certificate says: read here so that an expired one is told before anything is dialled.

use ha_proto::codes;
use ha_proto::v1::Bundle;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::error::CliError;
use crate::output::units;

/// The parts of a certificate that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Lower-case hexadecimal.
    pub serial: String,
    /// Milliseconds since 1970.
    pub not_before_ms: i64,
    /// Milliseconds since 1970.
    pub not_after_ms: i64,
    /// The `ha://` name, empty if there is none.
    pub uri: String,
    /// DNS names.
    pub dns: Vec<String>,
}

/// Reads the first certificate of a PEM text.
///
/// # Errors
/// `HA0005` if there is none.
pub fn parse(pem: &str) -> Result<Info, CliError> {
    let bad = |why: String| CliError::new(codes::BAD_BUNDLE, "the certificate cannot be read").why(why);
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| bad(e.to_string()))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).map_err(|e| bad(e.to_string()))?;
    let mut info = Info {
        serial: crate::ca::hex(certificate.raw_serial()),
        not_before_ms: certificate.validity().not_before.timestamp() * 1000,
        not_after_ms: certificate.validity().not_after.timestamp() * 1000,
        uri: String::new(),
        dns: Vec::new(),
    };
    if let Ok(Some(san)) = certificate.subject_alternative_name() {
        for name in &san.value.general_names {
            match name {
                x509_parser::extensions::GeneralName::URI(uri) if uri.starts_with("ha://") => {
                    info.uri = (*uri).to_owned();
                }
                x509_parser::extensions::GeneralName::DNSName(name) => info.dns.push((*name).to_owned()),
                _ => {}
            }
        }
    }
    Ok(info)
}

/// Checks that the bundle's certificate is valid at `now_ms`, and returns what it says.
///
/// # Errors
/// `HA0203` if it has expired, `HA0208` if it is not valid yet, `HA0005` if it cannot be read.
pub fn check(bundle: &Bundle, now_ms: i64) -> Result<Info, CliError> {
    let info = parse(&bundle.certificate)?;
    if now_ms > info.not_after_ms {
        let ago = units::span(now_ms - info.not_after_ms);
        return Err(CliError::new(
            codes::CERT_EXPIRED,
            format!("the certificate of user {} has expired", bundle.name),
        )
        .why(format!(
            "it was valid until {}, {ago} ago",
            units::rfc3339(info.not_after_ms)
        ))
        .next(
            format!("hactl user renew {}", bundle.name),
            "by whoever keeps the certificate authority",
        )
        .next(
            "hactl context add --bundle FILE --replace",
            "then bring the new bundle in",
        )
        .detail("notAfter", units::rfc3339(info.not_after_ms)));
    }
    if now_ms < info.not_before_ms {
        let ahead = units::span(info.not_before_ms - now_ms);
        return Err(CliError::new(
            codes::CERT_NOT_YET_VALID,
            format!("the certificate of user {} is not valid yet", bundle.name),
        )
        .why(format!(
            "it is valid from {}, {ahead} ahead of this machine's clock",
            units::rfc3339(info.not_before_ms)
        ))
        .next("date -u", "is this machine's clock right?"));
    }
    Ok(info)
}
