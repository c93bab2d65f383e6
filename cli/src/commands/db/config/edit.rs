//! `hactl db config edit`: the specification in the operator's editor. What was typed is never lost: a file that is not
//! taken stays, and is named.

use std::io::Write as _;
use std::path::Path;

use ha_proto::codes;

use super::{Wanted, file, finish, read, send, stored};
use crate::args::ChangeArgs;
use crate::commands::Cx;
use crate::error::{CliError, file_error};
use crate::output::views::database::config::differences;
use crate::output::yaml;

/// `hactl db config edit`
#[derive(Debug, clap::Args)]
#[command(after_help = "The editor is $VISUAL, else $EDITOR, else vi.")]
pub struct Args {
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

fn editor() -> String {
    let set = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
    set("VISUAL")
        .or_else(|| set("EDITOR"))
        .unwrap_or_else(|| if cfg!(windows) { "notepad" } else { "vi" }.to_owned())
}

async fn open(path: &Path) -> Result<(), CliError> {
    let editor = editor();
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let failed = |why: String| {
        CliError::new(codes::BAD_FILE, format!("the editor {editor} failed"))
            .why(why)
            .next("export EDITOR=nano", "chooses another")
    };
    // An operator may take all the time there is.
    let status = tokio::process::Command::new(program)
        .args(words)
        .arg(path)
        .status()
        .await
        .map_err(|e| failed(e.to_string()))?;
    if status.success() {
        Ok(())
    } else {
        Err(failed(format!("it ended with {status}; nothing was changed")))
    }
}

pub(super) async fn run(args: Args, group: Option<String>, cx: &Cx) -> Result<(), CliError> {
    let mut client = cx.client()?;
    let group = crate::commands::db::group_name(&mut client, group).await?;
    let config = read(&mut client, &group).await?;
    let before = stored(&config);
    let json = serde_json::to_string(&before)
        .map_err(|e| CliError::new(codes::INTERNAL, "cannot write JSON").why(e.to_string()))?;
    let body =
        yaml::from_json(&json).map_err(|e| CliError::new(codes::INTERNAL, "cannot write YAML").why(e.to_string()))?;
    let text = format!(
        "# Database group {group} at revision {}. hactl explain group describes each field.\n# What is saved is set; \
         close without a change to leave all as it is.\n{body}",
        config.revision
    );
    let write = |e: &std::io::Error| file_error("write", &std::env::temp_dir(), e);
    let mut temporary = tempfile::Builder::new()
        .prefix(&format!("hactl-{group}-"))
        .suffix(".yaml")
        .tempfile()
        .map_err(|e| write(&e))?;
    temporary.write_all(text.as_bytes()).map_err(|e| write(&e))?;
    temporary.flush().map_err(|e| write(&e))?;
    let path = temporary.into_temp_path();
    open(&path).await?;
    let edited = std::fs::read_to_string(&path).map_err(|e| file_error("read", &path, &e))?;
    let sent = async {
        let (mut spec, _) = file::parse(&edited, "what was saved")?;
        file::without_members(&mut spec, &config)?;
        let wire = spec
            .to_wire()
            .map_err(|why| CliError::new(codes::BAD_GROUP, format!("group {group} cannot be so")).why(why))?;
        let wanted = Wanted {
            group: group.clone(),
            spec: wire,
            differences: differences(&before, &spec),
            config: config.clone(),
        };
        let result = send(&mut client, &args.change, &wanted).await?;
        Ok::<_, CliError>((result, wanted))
    };
    match sent.await {
        Ok((result, wanted)) => finish(cx, &mut client, &args.change, result, wanted).await,
        Err(error) => match path.keep() {
            Ok(kept) => {
                let name = kept.display();
                Err(error
                    .next(
                        format!("hactl db config diff --group {group} -f {name}"),
                        "what you wrote, beside what is",
                    )
                    .next(format!("hactl db config set --group {group} -f {name}"), "try it again")
                    .detail("file", name.to_string()))
            }
            Err(_) => Err(error),
        },
    }
}
