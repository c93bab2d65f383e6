//! `hactl cluster doctor`: what the cluster finds wrong with itself, and what only this machine can see.

use std::time::Duration;

use ha_proto::codes;
use ha_proto::v1::{DoctorCheck, DoctorRequest, Severity};

use crate::certificate;
use crate::client::Client;
use crate::commands::{Cx, context};
use crate::context::Context;
use crate::error::CliError;
use crate::names;
use crate::output::document::Meta;
use crate::output::units;
use crate::output::views::cluster::CheckView;
use crate::output::views::context::EndpointView;

/// `hactl cluster doctor`
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Clocks further apart than this confuse whoever reads logs, and in the end certificates.
const SKEW_MS: i64 = 5_000;

/// # Errors
/// `HA0702` if something is wrong; `HA0101` if no node answers.
pub(super) async fn run(_: &Args, cx: &Cx) -> Result<(), CliError> {
    let context = cx.context()?;
    let mut client = cx.client_of(&context)?;
    let mut checks = vec![own_certificate(&context)?];
    let endpoints = context::test::probe(&context, client.endpoints(), Duration::from_secs(3)).await;
    checks.extend(endpoint_checks(&endpoints));
    let asked = ask(&mut client).await;
    if let Ok(found) = &asked {
        checks.extend(found.iter().cloned());
    }
    let views: Vec<CheckView> = checks.into_iter().map(CheckView::from).collect();
    let bad = views.iter().filter(|c| c.severity() == Severity::Error).count();
    let hints: Vec<String> = views
        .iter()
        .filter(|c| !matches!(c.severity(), Severity::Info | Severity::Unspecified) && !c.hint().is_empty())
        .map(|c| c.hint().to_owned())
        .collect();
    let meta = Meta::of(client.cluster(), 0, 0);
    cx.out.list("DoctorReport", &meta, views, names::now_ms())?;
    asked?;
    if bad > 0 {
        let error = CliError::new(
            codes::COMPLAINTS,
            format!("the doctor found {} wrong", units::count(bad, "thing")),
        );
        return Err(hints.into_iter().fold(error, |e, hint| e.next(hint, "")));
    }
    if !cx.out.format.is_structured() {
        for hint in hints {
            cx.out.notes.say(&format!("next: {hint}"));
        }
    }
    Ok(())
}

async fn ask(client: &mut Client) -> Result<Vec<DoctorCheck>, CliError> {
    Ok(client.doctor(DoctorRequest {}).await?.checks)
}

fn check(name: &str, severity: Severity, text: String, hint: String) -> DoctorCheck {
    DoctorCheck {
        name: name.into(),
        severity: severity as i32,
        text,
        hint,
    }
}

fn own_certificate(context: &Context) -> Result<DoctorCheck, CliError> {
    let now = names::now_ms();
    let info = certificate::parse(&context.bundle.certificate)?;
    let text = format!("your certificate expires {}", units::until(info.not_after_ms, now));
    let soon = info.not_after_ms - now < 14 * 86_400_000;
    let (severity, hint) = if soon {
        (Severity::Warning, format!("hactl user renew {}", context.bundle.name))
    } else {
        (Severity::Info, String::new())
    };
    Ok(check("hactl.certificate", severity, text, hint))
}

fn endpoint_checks(endpoints: &[EndpointView]) -> Vec<DoctorCheck> {
    let mut checks: Vec<DoctorCheck> = endpoints
        .iter()
        .filter_map(|e| {
            let error = e.status.error.as_ref()?;
            Some(check(
                "hactl.endpoint",
                Severity::Warning,
                format!("{}: {error}", e.name),
                "hactl context test".into(),
            ))
        })
        .collect();
    let answered: Vec<_> = endpoints.iter().filter(|e| e.status.reachable).collect();
    if !answered.is_empty() {
        let text = format!(
            "{} of {} answered",
            answered.len(),
            units::count(endpoints.len(), "endpoint")
        );
        checks.insert(0, check("hactl.endpoints", Severity::Info, text, String::new()));
    }
    if let Some(worst) = answered.iter().max_by_key(|e| e.status.clock_skew_ms.abs()) {
        let skew = worst.status.clock_skew_ms;
        let text = format!(
            "this machine's clock and {}'s are {} apart",
            worst.status.node,
            units::span(skew)
        );
        let (severity, hint) = if skew.abs() > SKEW_MS {
            (Severity::Warning, "timedatectl status".to_owned())
        } else {
            (Severity::Info, String::new())
        };
        checks.push(check("hactl.clock", severity, text, hint));
    }
    let ours = env!("CARGO_PKG_VERSION");
    for other in answered.iter().filter(|e| e.status.version != ours) {
        checks.push(check(
            "hactl.version",
            Severity::Warning,
            format!(
                "{} runs version {}, this hactl is {ours}",
                other.status.node, other.status.version
            ),
            "hactl version --server".into(),
        ));
    }
    checks
}
