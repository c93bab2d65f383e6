//! The commands, a file a verb. Each asks the cluster, and writes through [`crate::output`] only.

pub mod change;
pub mod cluster;
pub mod completion;
pub mod context;
pub mod db;
pub mod event;
pub mod explain;
pub mod man;
pub mod node;
pub mod op;
pub mod user;
pub mod version;
pub mod wait;

use std::sync::{Arc, Mutex};

use ha_proto::codes;

use crate::args::{Command, Globals};
use crate::client::Client;
use crate::context::{Context, Store};
use crate::error::CliError;
use crate::output::Out;

/// What every command is given.
#[derive(Debug)]
pub struct Cx {
    /// The global flags.
    pub globals: Globals,
    /// Where data goes.
    pub out: Out,
    /// The operation that is being waited for, for whoever presses Ctrl-C.
    pub operation: Current,
}

/// What an operator who presses Ctrl-C should know.
#[derive(Debug, Clone, Default)]
pub struct Current(Arc<Mutex<Doing>>);

#[derive(Debug, Clone, Default)]
enum Doing {
    #[default]
    Something,
    /// Nothing but Ctrl-C was to end it.
    Following,
    /// Waiting for this operation.
    Operation(String),
}

impl Current {
    /// From now on, this operation is waited for, or none.
    pub fn set(&self, id: Option<&str>) {
        self.now_(id.map_or(Doing::Something, |id| Doing::Operation(id.to_owned())));
    }

    /// From now on, nothing but Ctrl-C is to end it.
    pub fn following(&self) {
        self.now_(Doing::Following);
    }

    fn now_(&self, doing: Doing) {
        if let Ok(mut slot) = self.0.lock() {
            *slot = doing;
        }
    }

    /// The error of being interrupted now.
    pub fn interrupted(&self) -> CliError {
        let doing = self.0.lock().map(|slot| slot.clone()).unwrap_or_default();
        match doing {
            Doing::Operation(id) => CliError::new(codes::INTERRUPTED, format!("interrupted; operation {id} goes on"))
                .next(format!("hactl op wait {id}"), "wait for it again")
                .next(format!("hactl op cancel {id}"), "end it")
                .detail("operation", id),
            Doing::Following => CliError::silent(codes::exit::INTERRUPTED),
            Doing::Something => CliError::new(codes::INTERRUPTED, "interrupted"),
        }
    }
}

impl Cx {
    /// What these flags give.
    pub fn new(globals: Globals) -> Self {
        let out = Out::new(&globals);
        Self {
            globals,
            out,
            operation: Current::default(),
        }
    }

    /// The contexts of this operator.
    ///
    /// # Errors
    /// `HA0002` if there is no place for them.
    pub fn store(&self) -> Result<Store, CliError> {
        Store::open()
    }

    /// The context that is meant.
    ///
    /// # Errors
    /// `HA0003` or `HA0004` if there is none.
    pub fn context(&self) -> Result<Context, CliError> {
        self.store()?.select(self.globals.context.as_deref())
    }

    /// A client of the cluster that is meant.
    ///
    /// # Errors
    /// As [`Self::context`], and if its certificate is not valid.
    pub fn client(&self) -> Result<Client, CliError> {
        self.client_of(&self.context()?)
    }

    /// A client of this context's cluster.
    ///
    /// # Errors
    /// If its certificate is not valid.
    pub fn client_of(&self, context: &Context) -> Result<Client, CliError> {
        Client::new(context, &self.globals.endpoint, self.globals.timeout, self.out.notes)
    }
}

/// Runs a command. The dashboard and the playground are not among these: they own the terminal.
///
/// # Errors
/// Whatever the command says.
pub async fn run(command: Command, cx: Cx) -> Result<(), CliError> {
    match command {
        Command::Cluster(command) => cluster::run(command, &cx).await,
        Command::Node(command) => node::run(command, &cx).await,
        Command::Db(args) => Box::pin(db::run(args, &cx)).await,
        Command::User(command) => user::run(command, &cx).await,
        Command::Event(command) => event::run(command, &cx).await,
        Command::Op(command) => op::run(command, &cx).await,
        Command::Wait(args) => wait::run(args, &cx).await,
        Command::Explain(args) => explain::run(&args, &cx),
        Command::Context(command) => context::run(command, &cx).await,
        Command::Completion(args) => completion::run(&args, &cx),
        Command::Man(args) => man::run(&args, &cx),
        Command::Version(args) => version::run(args, &cx).await,
        Command::Watch(args) => crate::watch::run(cx.client()?, args, cx.globals.color).await,
        Command::Playground(args) => crate::playground::run(&args, &cx.globals).await,
    }
}
