//! `hactl context list`

use crate::certificate;
use crate::commands::Cx;
use crate::context::{Context, Store};
use crate::error::CliError;
use crate::names;
use crate::output::document::{Document, Meta};
use crate::output::units;
use crate::output::views::context::{ContextSpec, ContextStatus, ContextView};
use crate::output::views::result::ResultView;
use crate::output::{Format, View as _};

pub(super) fn run(cx: &Cx) -> Result<(), CliError> {
    let store = cx.store()?;
    let current = store.current()?;
    let views = store
        .names()?
        .into_iter()
        .map(|name| view(&store, name, current.as_deref()))
        .collect();
    let empty = "there is no context; hactl context add --bundle FILE brings one in";
    cx.out
        .list_with("ContextList", &Meta::local(), views, names::now_ms(), empty)
}

/// A damaged context is shown with what is wrong with it.
fn view(store: &Store, name: String, current: Option<&str>) -> ContextView {
    let status = ContextStatus {
        current: current == Some(name.as_str()),
        ..ContextStatus::default()
    };
    match store.load(&name) {
        Ok(context) => of(context, status),
        Err(error) => {
            let status = ContextStatus {
                error: Some(error.to_string()),
                ..status
            };
            ContextView {
                name,
                spec: ContextSpec::default(),
                status,
            }
        }
    }
}

fn of(context: Context, mut status: ContextStatus) -> ContextView {
    let mut role = String::new();
    match certificate::parse(&context.bundle.certificate) {
        Ok(info) => {
            role = info.uri.rsplit('/').next().unwrap_or_default().to_owned();
            status.expires = info.not_after_ms;
            status.certificate_expires_at = units::moment(info.not_after_ms);
        }
        Err(error) => status.error = Some(error.to_string()),
    }
    status.authority = context.has_authority();
    let endpoints = context.endpoints();
    let spec = ContextSpec {
        cluster: context.bundle.cluster,
        cluster_id: context.bundle.cluster_id,
        user: context.bundle.name,
        role,
        endpoints,
    };
    ContextView {
        name: context.name,
        spec,
        status,
    }
}

/// Tells what was done to a context.
pub(super) fn told(cx: &Cx, name: &str, changed: bool, done: &str) -> Result<(), CliError> {
    let subject = format!("{}/{name}", ContextView::KIND);
    match cx.out.format {
        Format::Json | Format::Yaml => {
            let view = ResultView {
                subject,
                changed,
                ..ResultView::default()
            };
            cx.out.document(&Document::new("ChangeResult", &Meta::local(), view))
        }
        Format::Name => cx.out.line(&subject),
        Format::Table | Format::Wide => cx.out.line(done),
    }
}
