//! How `hactl` talks to the supervisor of a playground: one line of JSON each way on a socket in its directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_proto::codes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::child::{Child, Report};
use super::place::Place;
use crate::error::CliError;

/// Longest line.
const LIMIT: u64 = 1 << 20;
/// Longest time for an answer to anything but `Down`.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest time for the end of all children.
pub(super) const DOWN: Duration = Duration::from_secs(20);

/// What is asked of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    /// What runs?
    Status,
    /// Start this child and keep it.
    Start(Box<Child>),
    /// End all children, then yourself. Answered when the children have gone.
    Down,
}

/// What the supervisor answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answer {
    /// All children, in the order in which they were started.
    Children {
        /// Process id of the supervisor.
        supervisor: u32,
        /// The children.
        children: Vec<Report>,
    },
    /// It was done.
    Done,
    /// It was not done, for this reason.
    Refused(String),
}

/// Asks the supervisor of this place.
///
/// # Errors
/// `HA0902` if none listens, `HA0904` if it does not answer or refuses.
pub(super) async fn ask(place: &Place, request: &Request) -> Result<Answer, CliError> {
    let limit = if *request == Request::Down { DOWN } else { ANSWER };
    let failed = |why: String| {
        CliError::new(codes::PLAYGROUND_FAILED, "the playground's supervisor did not answer")
            .why(why)
            .detail("log", place.log("supervisor").display().to_string())
    };
    let answer = tokio::time::timeout(limit, exchange(place, request))
        .await
        .map_err(|_| failed(format!("nothing came within {} s", limit.as_secs())))?;
    match answer {
        Ok(Answer::Refused(why)) => Err(failed(why)),
        Ok(answer) => Ok(answer),
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            Err(CliError::new(
                codes::PLAYGROUND_NONE,
                format!("no playground runs in {}", place.dir().display()),
            )
            .next("hactl playground up", "starts one"))
        }
        Err(e) => Err(failed(e.to_string())),
    }
}

async fn exchange(place: &Place, request: &Request) -> std::io::Result<Answer> {
    let reach = Reach::new(&place.socket())?;
    let mut stream = UnixStream::connect(&reach.path).await?;
    write(&mut stream, request).await?;
    read(&mut stream).await
}

/// Writes one line.
///
/// # Errors
/// What writing to a socket gives.
pub(super) async fn write<T: Serialize>(stream: &mut UnixStream, message: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Reads one line.
///
/// # Errors
/// What reading from a socket gives; `InvalidData` for a line that is not understood.
pub(super) async fn read<T: for<'a> Deserialize<'a>>(stream: &mut UnixStream) -> std::io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream.take(LIMIT)).read_line(&mut line).await?;
    serde_json::from_str(&line).map_err(|e| std::io::Error::new(std::io::ErrorKind::InvalidData, e))
}

/// A path to a socket that is short enough for the system, whose limit is about a hundred bytes.
pub(super) struct Reach {
    /// To be given to bind or connect while this lives.
    pub(super) path: PathBuf,
    _dir: Option<std::fs::File>,
}

impl Reach {
    /// A way to `socket`.
    ///
    /// # Errors
    /// If its directory cannot be opened.
    pub(super) fn new(socket: &Path) -> std::io::Result<Self> {
        use std::os::fd::AsRawFd as _;
        if socket.as_os_str().len() < 100 || !cfg!(target_os = "linux") {
            return Ok(Self {
                path: socket.to_path_buf(),
                _dir: None,
            });
        }
        let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(std::io::ErrorKind::InvalidInput.into());
        };
        let dir = std::fs::File::open(dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
        Ok(Self { path, _dir: Some(dir) })
    }
}
