//! The connection to a cluster: dials, tries again where that is safe, and turns every failure into a [`CliError`].
//!
//! A change carries one request id through all its tries, so that a repeated one is the same one. Nothing is tried
//! longer than `--timeout`, and nothing is printed to stdout here.

mod calls;
mod dial;
mod fault;
pub mod follow;
pub mod state;

use std::time::{Duration, Instant};

use ha_proto::codes;
use ha_proto::v1::{self, Bundle};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use crate::certificate;
use crate::context::Context;
use crate::error::CliError;
use crate::names;
use crate::output::notes::Notes;
use dial::{Connection, Dialler, Refusal};
use fault::Fault;

/// Rounds over all endpoints before a cluster that never answered counts as unreachable.
const ROUNDS: u32 = 3;
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A try that gets less than this would only hide what the one before it said.
const LEAST_TRY: Duration = Duration::from_millis(100);
/// Longest time for one try, so that a node that hangs does not use up the whole timeout.
const TRY_LIMIT: Duration = Duration::from_secs(20);
/// A node that does not answer a ping within this is gone.
const PING: Duration = Duration::from_secs(2);
/// A large cluster's state is a few MiB.
const MESSAGE_LIMIT: usize = 64 << 20;

/// A user's connection to a cluster. Connects when it is first used.
pub struct Client {
    dialler: Dialler,
    /// In the order in which they are tried.
    endpoints: Vec<String>,
    cluster: String,
    timeout: Duration,
    notes: Notes,
    context: Option<Context>,
    link: Option<Link>,
    /// Something answered once: from then on silence is an outage to be waited out.
    answered: bool,
}

struct Link {
    channel: Channel,
    endpoint: String,
    node: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("cluster", &self.cluster)
            .field("endpoints", &self.endpoints)
            .finish()
    }
}

impl Client {
    /// A client of the context's cluster. `endpoints` replaces the context's own where it is not empty.
    ///
    /// # Errors
    /// `HA0203` or `HA0208` if the certificate is not valid now, `HA0005` if the bundle cannot be used.
    pub fn new(context: &Context, endpoints: &[String], timeout: Duration, notes: Notes) -> Result<Self, CliError> {
        let known = if endpoints.is_empty() {
            context.endpoints()
        } else {
            endpoints.to_vec()
        };
        let mut client = Self::from_bundle(&context.bundle, known, timeout, notes)?;
        if endpoints.is_empty() {
            client.context = Some(context.clone());
        }
        Ok(client)
    }

    /// A client with this bundle, which remembers nothing.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_bundle(
        bundle: &Bundle,
        endpoints: Vec<String>,
        timeout: Duration,
        notes: Notes,
    ) -> Result<Self, CliError> {
        let now = names::now_ms();
        let info = certificate::check(bundle, now)?;
        let days = (info.not_after_ms - now) / 86_400_000;
        if days < 14 {
            notes.warn(&format!(
                "your certificate expires in {days} days: hactl user renew {}",
                bundle.name
            ));
        }
        if endpoints.is_empty() {
            return Err(CliError::new(codes::UNREACHABLE, "no endpoint of the cluster is known")
                .next("hactl --endpoint HOST:PORT …", "name one"));
        }
        Ok(Self {
            dialler: Dialler::new(bundle)?,
            endpoints,
            cluster: bundle.cluster.clone(),
            timeout,
            notes,
            context: None,
            link: None,
            answered: false,
        })
    }

    /// Another connection to the same cluster, which says nothing on the side: for whoever owns the screen.
    #[must_use]
    pub fn quiet(&self) -> Self {
        Self {
            dialler: self.dialler.clone(),
            endpoints: self.endpoints.clone(),
            cluster: self.cluster.clone(),
            timeout: self.timeout,
            notes: Notes::silent(),
            context: self.context.clone(),
            link: None,
            answered: self.answered,
        }
    }

    /// The cluster's name, as the bundle has it.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The endpoint in use, or the one that is tried next.
    pub fn endpoint(&self) -> &str {
        match &self.link {
            Some(link) => &link.endpoint,
            None => self.endpoints.first().map_or("", String::as_str),
        }
    }

    /// The name of the node in use, from its certificate; `None` while there is no connection.
    pub fn node(&self) -> Option<&str> {
        self.link
            .as_ref()
            .map(|link| link.node.as_str())
            .filter(|node| !node.is_empty())
    }

    /// All endpoints, in the order in which they are tried.
    pub fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    /// How long a call may take with all its tries.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What is said on the side.
    pub fn notes(&self) -> Notes {
        self.notes
    }

    /// Drops the connection and puts its endpoint last. Returns the endpoint that is tried next.
    pub fn next_endpoint(&mut self) -> &str {
        self.drop_link();
        self.endpoint()
    }

    /// The cluster live. One try at every endpoint and no more: who watches decides when to try again. `term` and
    /// `seq` resume after that frame; 0 starts from a snapshot.
    ///
    /// # Errors
    /// Why no node answered, or what the node said.
    pub async fn watch(&mut self, term: u64, seq: u64) -> Result<Streaming<v1::WatchFrame>, CliError> {
        let channel = self.channel(dial::LIMIT).await.map_err(Fault::into_error)?;
        let endpoint = self.endpoint().to_owned();
        let mut service =
            v1::watch_service_client::WatchServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
        let opened = tokio::time::timeout(TRY_LIMIT, service.watch(v1::WatchRequest { term, seq })).await;
        match opened {
            Ok(Ok(response)) => {
                self.answered = true;
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(self.sort(&status).into_error()),
            Err(_) => {
                self.drop_link();
                Err(CliError::new(
                    codes::TIMEOUT,
                    format!("{endpoint} did not open the stream in time"),
                ))
            }
        }
    }

    /// What a status that ended a stream means. Drops the connection where it is of no use any more.
    pub fn stream_error(&mut self, status: &Status) -> CliError {
        self.sort(status).into_error()
    }

    /// A call that changes nothing.
    async fn read<T, F, Fut>(&mut self, call: F) -> Result<T, CliError>
    where
        F: Fn(Channel, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.attempts(false, call).await
    }

    /// A call that changes something, with the same request id on each try.
    async fn change<M, T, F, Fut>(&mut self, message: M, call: F) -> Result<T, CliError>
    where
        M: Clone,
        F: Fn(Channel, Request<M>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let id = uuid::Uuid::new_v4().to_string();
        let id: tonic::metadata::AsciiMetadataValue = id
            .parse()
            .map_err(|_| CliError::new(codes::INTERNAL, "cannot make a request id"))?;
        self.attempts(true, |channel, limit| {
            let mut request = Request::new(message.clone());
            request.metadata_mut().insert(ha_proto::REQUEST_ID, id.clone());
            request.set_timeout(limit);
            call(channel, request)
        })
        .await
    }

    async fn attempts<T, F, Fut>(&mut self, changes: bool, call: F) -> Result<T, CliError>
    where
        F: Fn(Channel, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let mut tries = 0;
        let mut may_have_arrived = false;
        let mut told = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let fault = match self.channel(left).await {
                Ok(channel) => {
                    let limit = left.min(TRY_LIMIT);
                    match tokio::time::timeout(limit, call(channel, limit)).await {
                        Ok(Ok(response)) => {
                            self.answered = true;
                            return Ok(response.into_inner());
                        }
                        Ok(Err(status)) => {
                            let fault = self.sort(&status);
                            may_have_arrived |= matches!(fault, Fault::Elsewhere(_)) && !fault::is_told(&status);
                            fault
                        }
                        Err(_) => {
                            may_have_arrived = true;
                            let endpoint = self.endpoint().to_owned();
                            self.drop_link();
                            Fault::Elsewhere(CliError::new(
                                codes::TIMEOUT,
                                format!("{endpoint} did not answer in time"),
                            ))
                        }
                    }
                }
                Err(fault) => fault,
            };
            tries += 1;
            let error = match fault {
                Fault::Final(error) => return Err(error),
                Fault::Again(error) | Fault::Elsewhere(error) => error,
            };
            let never_answered = !self.answered && !may_have_arrived && error.is(codes::UNREACHABLE);
            let pause = pause(tries);
            if (never_answered && tries >= ROUNDS) || Instant::now() + pause + LEAST_TRY >= deadline {
                return Err(self.give_up(error, changes && may_have_arrived, started));
            }
            if started.elapsed() > Duration::from_millis(800) && told != error.code() {
                error.code().clone_into(&mut told);
                self.notes.say(&format!(
                    "{}; trying again for up to {} s",
                    error.message(),
                    deadline.saturating_duration_since(Instant::now()).as_secs()
                ));
            }
            self.notes.detail(&format!("try {tries}: {error}"));
            tokio::time::sleep(pause).await;
        }
    }

    fn give_up(&self, error: CliError, unknown: bool, started: Instant) -> CliError {
        if unknown {
            return CliError::new(codes::OUTCOME_UNKNOWN, "it is not known whether the change was made")
                .why(error.message().to_owned())
                .why(format!("tried for {:.1} s", started.elapsed().as_secs_f32()))
                .next("hactl event list", "shows what was changed")
                .detail("cause", error.code().to_owned());
        }
        error
    }

    fn sort(&mut self, status: &Status) -> Fault {
        let endpoint = self.endpoint().to_owned();
        let fault = fault::sort(status, &endpoint);
        match &fault {
            Fault::Elsewhere(_) => self.drop_link(),
            // The node answered, whatever it said.
            Fault::Again(_) | Fault::Final(_) => self.answered = true,
        }
        fault
    }

    fn drop_link(&mut self) {
        let last = match self.link.take() {
            Some(link) => self.endpoints.iter().position(|e| *e == link.endpoint).unwrap_or(0),
            None => 0,
        };
        let endpoint = self.endpoints.remove(last);
        self.endpoints.push(endpoint);
    }

    async fn channel(&mut self, limit: Duration) -> Result<Channel, Fault> {
        if let Some(link) = &self.link {
            return Ok(link.channel.clone());
        }
        let connection = match self.dialler.any(&self.endpoints, limit).await {
            Ok(connection) => connection,
            Err(refusals) => return Err(self.unreachable(&refusals)),
        };
        let endpoint = connection.endpoint.clone();
        let node = connection.node.clone();
        self.notes.detail(&format!("connected to {endpoint} ({node})"));
        let channel = open(connection).await.map_err(|why| {
            Fault::Elsewhere(CliError::new(codes::UNREACHABLE, format!("{endpoint} did not open a session")).why(why))
        })?;
        if let Some(context) = &self.context {
            context.update_cache(|cache| cache.good.clone_from(&endpoint));
        }
        self.link = Some(Link {
            channel: channel.clone(),
            endpoint,
            node,
        });
        Ok(channel)
    }

    fn unreachable(&self, refusals: &[Refusal]) -> Fault {
        if let Some(wrong) = refusals.iter().find(|r| r.wrong_cluster)
            && refusals.iter().all(|r| r.wrong_cluster)
        {
            let error = CliError::new(
                codes::WRONG_CLUSTER,
                format!("{} belongs to another cluster", wrong.endpoint),
            );
            let error = refusals
                .iter()
                .fold(error, |e, r| e.why(format!("{}: {}", r.endpoint, r.why)));
            return Fault::Final(error.next("hactl context list", "which cluster is this context of?"));
        }
        let error = CliError::new(
            codes::UNREACHABLE,
            format!("no node of cluster {} could be reached", self.cluster),
        );
        let mut sorted: Vec<&Refusal> = refusals.iter().collect();
        sorted.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
        let error = sorted
            .iter()
            .fold(error, |e, r| e.why(format!("{}: {}", r.endpoint, r.why)));
        Fault::Elsewhere(
            error
                .next("systemctl status had", "on the nodes")
                .next("hactl context test", "tries each endpoint"),
        )
    }
}

/// Opens HTTP/2 on a connection. The channel never dials by itself: a lost connection is this module's business.
async fn open(connection: Connection) -> Result<Channel, String> {
    let stream = std::sync::Mutex::new(Some(hyper_util::rt::TokioIo::new(connection.stream)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.lock().ok().and_then(|mut slot| slot.take());
        std::future::ready(stream.ok_or_else(|| std::io::Error::other("the connection was lost")))
    });
    Endpoint::from_static("http://had")
        .http2_keep_alive_interval(PING / 2)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .connect_timeout(dial::LIMIT)
        .connect_with_connector(connector)
        .await
        .map_err(|e| e.to_string())
}

/// Doubles from 50 ms, with up to half of it taken off at random so that many clients do not come back at once.
fn pause(tries: u32) -> Duration {
    let full = Duration::from_millis(50)
        .saturating_mul(1 << tries.min(6))
        .min(LONGEST_PAUSE);
    full.mul_f64(1.0 - rand::random::<f64>() / 2.0)
}
