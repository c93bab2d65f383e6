//! The command line: global flags, flags of changes, and the tree of commands. Each verb's own flags stand in its file.

use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::commands;
use crate::complete;
use crate::names;
use crate::output::{ColorChoice, Format};

/// Operate a highly available cluster.
#[derive(Debug, Parser)]
#[command(
    name = "hactl",
    bin_name = "hactl",
    version,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 120,
    after_help = "Global options can also be set in the environment: HACTL_CONTEXT, HACTL_OUTPUT, HACTL_TIMEOUT, …; a \
                  flag wins.\nNew here? `hactl playground up` starts a real cluster on this machine."
)]
pub struct Cli {
    /// Global flags.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Nodes to talk to, instead of those that the context knows.
    #[arg(long, global = true, env = "HACTL_ENDPOINT", hide_env = true, value_name = "A,B,…", value_delimiter = ',',
          value_parser = names::grpc_address)]
    pub endpoint: Vec<String>,
    /// The context (cluster and user) to use, instead of the current one.
    #[arg(long, global = true, env = "HACTL_CONTEXT", hide_env = true, value_name = "NAME",
          add = complete::contexts())]
    pub context: Option<String>,
    /// How data is written: table, wide, json, yaml or name.
    #[arg(
        short,
        long,
        global = true,
        env = "HACTL_OUTPUT",
        hide_env = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t = Format::Table,
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub output: Format,
    /// Write tables without their first line.
    #[arg(long, global = true, env = "HACTL_NO_HEADERS", hide_env = true, action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub no_headers: bool,
    /// Sort a list by this column, from the largest with a hyphen before it.
    #[arg(
        long,
        global = true,
        env = "HACTL_SORT_BY",
        hide_env = true,
        value_name = "FIELD",
        allow_hyphen_values = true
    )]
    pub sort_by: Option<String>,
    /// List only what has these labels: zone=a,ssd,!old.
    #[arg(
        short = 'l',
        long,
        global = true,
        env = "HACTL_SELECTOR",
        hide_env = true,
        value_name = "SELECTOR"
    )]
    pub selector: Option<String>,
    /// When to use colour: auto, always or never.
    #[arg(
        long,
        global = true,
        env = "HACTL_COLOR",
        hide_env = true,
        value_enum,
        value_name = "WHEN",
        default_value_t = ColorChoice::Auto,
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub color: ColorChoice,
    /// How long to try, and to wait for a change.
    #[arg(long, global = true, env = "HACTL_TIMEOUT", hide_env = true, value_name = "TIME", default_value = "60s",
          value_parser = names::duration)]
    pub timeout: Duration,
    /// Never ask anything, even on a terminal.
    #[arg(long, global = true, env = "HACTL_NO_INPUT", hide_env = true, action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub no_input: bool,
    /// Say nothing but data and errors.
    #[arg(short, long, global = true, env = "HACTL_QUIET", hide_env = true, action = ArgAction::SetTrue,
          value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Say what is being done.
    #[arg(short, long, global = true, env = "HACTL_VERBOSE", hide_env = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// Flags that every change takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Change options")]
pub struct ChangeArgs {
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until the change is true (the default).
    #[arg(long, overrides_with = "no_wait")]
    pub wait: bool,
    /// Return as soon as the change is accepted.
    #[arg(long)]
    pub no_wait: bool,
    /// Do it without asking.
    #[arg(short = 'y', long)]
    pub yes: bool,
    /// Only if the object still has this revision.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub revision: u64,
    /// Why, for the event log.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
}

impl ChangeArgs {
    /// As the API takes them.
    pub fn options(&self) -> ha_proto::v1::ChangeOptions {
        ha_proto::v1::ChangeOptions {
            dry_run: self.dry_run,
            revision: self.revision,
            reason: self.reason.clone(),
        }
    }
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The cluster as a whole: make it, look at it, its master.
    #[command(subcommand)]
    Cluster(commands::cluster::Command),
    /// The nodes of the cluster.
    #[command(subcommand)]
    Node(commands::node::Command),
    /// PostgreSQL: groups of a primary and its standbys.
    #[command(visible_alias = "database")]
    Db(commands::db::Args),
    /// Who may do what, and their certificates.
    #[command(subcommand)]
    User(commands::user::Command),
    /// What happened.
    #[command(subcommand)]
    Event(commands::event::Command),
    /// Operations: changes that take a while.
    #[command(subcommand, visible_alias = "operation")]
    Op(commands::op::Command),
    /// Wait until something is so.
    Wait(commands::wait::Args),
    /// What a kind, a field or an error code means.
    Explain(commands::explain::Args),
    /// The live dashboard.
    Watch(crate::watch::Args),
    /// A real cluster on this machine to try everything on.
    #[command(subcommand)]
    Playground(crate::playground::Command),
    /// The clusters that this user knows.
    #[command(subcommand)]
    Context(commands::context::Command),
    /// Print the completion script of a shell.
    Completion(commands::completion::Args),
    /// Write the manual pages into a directory.
    Man(commands::man::Args),
    /// Print the version, and with --server that of every node.
    Version(commands::version::Args),
}
