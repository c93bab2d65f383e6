//! pg_rewind: a former primary's directory is turned back to where the new one's log left it.
//!
//! It changes the directory in place, so a mark says that the directory is incomplete until it ended well. Whether to
//! rewind or to copy is the caller's: a directory whose timelines do not lie on the group's lineage must be copied, for
//! pg_rewind knows timelines by their numbers alone.

use std::time::Duration;

use super::command::Tool;
use super::conf::{self, Settings, Source};
use super::control_data::former_postmaster;
use super::copy::{Progress, watched};
use super::error::{PgError, Result, one_line};
use super::instance::{Found, Instance};
use super::marks::{Step, Work};

const LIMIT: Duration = Duration::from_secs(86_400);
/// What pg_rewind says right before it changes anything.
const CHANGES: &str = "need to copy";

/// How a rewind ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewound {
    /// The directory follows the source at its next start.
    Done,
    /// It did already.
    NotNeeded,
    /// The source's control file does not know its new timeline yet: it needs a checkpoint first. Nothing was changed.
    SourceNotReady,
    /// It cannot be rewound, and nothing was changed; a fresh copy is what is left.
    Impossible(String),
    /// It failed half way: the directory is incomplete, and a fresh copy is what is left.
    Broken(String),
}

impl Instance {
    /// Rewinds the data directory, whose server is stopped, against a primary that is on `timeline`. The next start is
    /// one of a standby with these settings.
    ///
    /// # Errors
    /// [`PgError::Refused`] if a server runs here or the directory is no cluster of this system id;
    /// [`PgError::Tool`] if the source cannot be asked; [`PgError::Files`]. The directory is as it was.
    pub async fn rewind(
        &self,
        source: &Source,
        timeline: u32,
        settings: &Settings,
        system_id: u64,
        progress: Progress<'_>,
    ) -> Result<Rewound> {
        let held = self.gate.enter().await?;
        self.must_be_stopped("pg_rewind")?;
        let control = match self.inspect().await? {
            Found::Cluster { control, .. } if control.system_id == system_id => control,
            other => {
                return Err(PgError::refused(
                    format!("pg_rewind of {}", self.place.data.display()),
                    format!("it is not of system id {system_id}: {other:?}"),
                ));
            }
        };
        if !control.can_rewind() {
            return Ok(Rewound::Impossible(
                "it has neither checksums nor logged hint bits".into(),
            ));
        }
        let told = self
            .ask(source, &settings.cluster, include_str!("sql/rewind_source.sql"))
            .await?;
        let mut words = told.trim().split('\t');
        let (at, there) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if there.parse() != Ok(system_id) {
            return Err(PgError::refused(
                format!("pg_rewind against {}", source.node),
                format!("its system id is {there}, and the group's is {system_id}"),
            ));
        }
        if at.parse() != Ok(timeline) {
            return Ok(Rewound::SourceNotReady);
        }
        let work = self.marks.work().await?;
        let begun = Work {
            step: Some(Step::Rewind),
            kept: work.kept.clone(),
        };
        // Its own crash recovery, where the server did not stop in order, is one of a primary: pg_rewind starts it in
        // single-user mode, which no standby has.
        self.marks.set_work(begun).await?;
        conf::set_standby(&self.place, &self.account, false).await?;
        self.configure(&Settings {
            upstream: None,
            slot: None,
            ..settings.clone()
        })
        .await?;
        let program = self.install.program("pg_rewind");
        // Its recovery would be refused as long as nobody has reaped the postmaster that was killed.
        let tool = Tool::new(&program, &self.account, LIMIT)
            .after(former_postmaster(&self.place.data))
            .arg("-D")
            .arg(&self.place.data)
            .arg(format!(
                "--source-server={}",
                source.rewind(&self.place.tls(), &settings.cluster)
            ))
            .arg("--progress");
        let ended = watched(tool, &held, progress).await;
        let outcome = match &ended {
            Ok(e) if e.code == Some(0) && says_not_needed(&e.stderr, &e.stdout) => Rewound::NotNeeded,
            Ok(e) if e.code == Some(0) => Rewound::Done,
            Ok(e) => {
                let changed = e.stderr.contains(CHANGES) || e.stdout.contains(CHANGES);
                let why = one_line(&e.failure("pg_rewind").to_string());
                if changed {
                    Rewound::Broken(why)
                } else {
                    Rewound::Impossible(why)
                }
            }
            Err(e) => Rewound::Broken(e.to_string()),
        };
        if matches!(outcome, Rewound::Broken(_)) {
            return Ok(outcome);
        }
        // The source's own files were among what was copied.
        self.configure(settings).await?;
        conf::set_standby(&self.place, &self.account, true).await?;
        if outcome == Rewound::Done {
            self.marks.clear_promotion().await?;
            self.marks.set_timelines(Default::default()).await?;
        }
        self.marks.set_work(Work { step: None, ..work }).await?;
        Ok(outcome)
    }
}

fn says_not_needed(stderr: &str, stdout: &str) -> bool {
    [stderr, stdout].iter().any(|t| t.contains("no rewind required"))
}
