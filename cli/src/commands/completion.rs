//! `hactl completion SHELL`: a script that asks this program what fits, so that names come from the cluster.

use clap::ValueEnum;
use clap_complete::env::{EnvCompleter, Shells};
use ha_proto::codes;

use super::Cx;
use crate::error::CliError;

/// A shell that can be completed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// source <(hactl completion bash)
    Bash,
    /// source <(hactl completion zsh)
    Zsh,
    /// hactl completion fish | source
    Fish,
    /// hactl completion powershell | Out-String | Invoke-Expression
    Powershell,
}

impl Shell {
    /// Every shell.
    pub const ALL: [Self; 4] = [Self::Bash, Self::Zsh, Self::Fish, Self::Powershell];

    fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
            Self::Powershell => "powershell",
        }
    }

    /// The name under which the shell looks for the script.
    pub fn file(self) -> &'static str {
        match self {
            Self::Bash => "hactl.bash",
            Self::Zsh => "_hactl",
            Self::Fish => "hactl.fish",
            Self::Powershell => "_hactl.ps1",
        }
    }

    /// The script.
    ///
    /// # Errors
    /// `HA0108` if it cannot be made.
    pub fn script(self) -> Result<String, CliError> {
        let failed = |why: String| CliError::new(codes::INTERNAL, "cannot make the completion script").why(why);
        let shells = Shells::builtins();
        let shell: &dyn EnvCompleter = shells
            .completer(self.name())
            .ok_or_else(|| failed(format!("{} is not known", self.name())))?;
        let mut script = Vec::new();
        shell
            .write_registration("COMPLETE", "hactl", "hactl", "hactl", &mut script)
            .map_err(|e| failed(e.to_string()))?;
        String::from_utf8(script).map_err(|e| failed(e.to_string()))
    }
}

/// `hactl completion`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// # Errors
/// If stdout cannot be written.
pub fn run(args: &Args, cx: &Cx) -> Result<(), CliError> {
    cx.out.text(&args.shell.script()?)
}
