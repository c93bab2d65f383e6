//! `hactl event follow`: the change log, live, without gaps across the loss of nodes and masters. Ends only when it is
//! interrupted or nobody reads any more.

use std::time::{Duration, Instant};

use ha_proto::codes;
use ha_proto::v1::{Change, FollowChangesRequest};
use tokio_stream::StreamExt as _;

use crate::client::Client;
use crate::commands::Cx;
use crate::error::CliError;
use crate::output::Format;
use crate::output::document::{Document, Meta};
use crate::output::views::event::EventView;

/// `hactl event follow`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// From this sequence number on, then live; without it only what is new.
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub from: Option<u64>,
}

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    let mut client = cx.client()?;
    cx.operation.following();
    let mut next = args.from.unwrap_or(0);
    let mut lost: Option<Instant> = None;
    loop {
        match once(&mut client, cx, &mut next, &mut lost).await {
            Ok(()) => {}
            // An outage is waited out for as long as it takes, once something was there to follow.
            Err(error) if error.retryable() && lost.is_some() => cx.out.notes.detail(&error.to_string()),
            Err(error) => return Err(error),
        }
        if lost.is_none() {
            cx.out.notes.say("the stream was lost; trying again");
        }
        lost.get_or_insert_with(Instant::now);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn once(client: &mut Client, cx: &Cx, next: &mut u64, lost: &mut Option<Instant>) -> Result<(), CliError> {
    let mut stream = client.follow_changes(FollowChangesRequest { from_seq: *next }).await?;
    if let Some(since) = lost.take() {
        cx.out
            .notes
            .say(&format!("following again after {:.1} s", since.elapsed().as_secs_f32()));
    }
    while let Some(message) = stream.next().await {
        let change = match message {
            Ok(change) => change,
            Err(status) => {
                let error = client.stream_error(&status);
                let again = error.retryable();
                cx.out.notes.detail(&error.to_string());
                return if again { Ok(()) } else { Err(error) };
            }
        };
        // A gap says itself what is gone; everything else comes once and in order.
        if change.seq < *next && *next > 0 {
            continue;
        }
        *next = change.seq + 1;
        print(cx, client.cluster(), change)?;
    }
    Ok(())
}

fn print(cx: &Cx, cluster: &str, change: Change) -> Result<(), CliError> {
    let seq = change.seq;
    let view = EventView::from(change);
    match cx.out.format {
        Format::Json | Format::Yaml => cx
            .out
            .stream_document(&Document::new("Event", &Meta::of(cluster, 0, 0), view)),
        Format::Name => cx.out.line(&format!("event/{seq}")),
        Format::Table | Format::Wide => cx.out.line(&view.line(cx.out.colour())),
    }
    .map_err(|error| {
        if error.is_silent() {
            CliError::silent(codes::exit::OK)
        } else {
            error
        }
    })
}
