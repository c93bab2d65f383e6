//! Bytes from a client to its server and back, until one of them ends it or the connection is cut.
//!
//! It must cost little: no buffer of its own while nothing flows, one system call to read and one to write for a message
//! that fits, and no more in flight than the slower side takes.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::metrics::Count;
use crate::platform::pipe::Pipe;

/// What is read at once.
const CHUNK: usize = 64 * 1024;
/// So many full reads in a row are the beginning of something big, which is worth a pipe.
const BULK: u32 = 4;
/// PostgreSQL never closes half a connection: once it closed, a client gets its last words and this long to close as well.
const FAREWELL: Duration = Duration::from_secs(10);

thread_local! {
    /// One for all connections of a thread: nothing in it outlives a single poll.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// Ends a connection from outside.
#[derive(Debug, Default)]
pub(super) struct Cut {
    done: AtomicBool,
    waker: AtomicWaker,
}

impl Cut {
    /// Ends it. Whoever waits is woken.
    pub(super) fn now(&self) {
        self.done.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Whether it was cut. Only one task may ask at a time.
    fn poll(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.done.load(Ordering::Acquire)
    }

    /// Resolves when it is cut.
    pub(super) async fn wait(&self) {
        std::future::poll_fn(|cx| if self.poll(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both sides had said all they had to say.
    Closed,
    /// The client broke it off.
    Client(io::Error),
    /// The server broke it off.
    Server(io::Error),
    /// It was cut.
    Cut,
}

/// Copies both ways until the end. `to_server` and `to_client` count the bytes.
pub(super) async fn relay(
    client: &mut TcpStream,
    server: &mut TcpStream,
    cut: &Cut,
    to_server: &Count,
    to_client: &Count,
) -> End {
    let (mut from_client, mut into_client) = client.split();
    let (mut from_server, mut into_server) = server.split();
    let (mut up, mut down) = (Half::default(), Half::default());
    let mut farewell = None;
    std::future::poll_fn(|cx| {
        if cut.poll(cx) {
            return Poll::Ready(End::Cut);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let up = up.poll(cx, &mut from_client, &mut into_server, scratch, to_server);
            if let Poll::Ready(Err(e)) = up {
                return Poll::Ready(e.of(End::Client, End::Server));
            }
            let down = down.poll(cx, &mut from_server, &mut into_client, scratch, to_client);
            match down {
                Poll::Ready(Err(e)) => return Poll::Ready(e.of(End::Server, End::Client)),
                Poll::Ready(Ok(())) if up.is_ready() => return Poll::Ready(End::Closed),
                Poll::Ready(Ok(())) => {}
                Poll::Pending => return Poll::Pending,
            }
            let farewell = farewell.get_or_insert_with(|| Box::pin(tokio::time::sleep(FAREWELL)));
            farewell.as_mut().poll(cx).map(|()| End::Closed)
        })
    })
    .await
}

/// Which side an error is of.
enum Broken {
    Reading(io::Error),
    Writing(io::Error),
}

impl Broken {
    fn of(self, reading: fn(io::Error) -> End, writing: fn(io::Error) -> End) -> End {
        match self {
            Self::Reading(e) => reading(e),
            Self::Writing(e) => writing(e),
        }
    }
}

/// One direction.
#[derive(Default)]
struct Half {
    /// What was read and not taken yet, from `at` on. Empty, and without memory, while nothing flows.
    rest: Vec<u8>,
    at: usize,
    /// Full reads in a row.
    full: u32,
    /// While much flows without a break: what it flows through.
    pipe: Option<Pipe>,
    ended: bool,
    told: bool,
}

impl Half {
    /// Goes on until it has to wait; ready once the end was passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        scratch: &mut [u8],
        count: &Count,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if let Some(pipe) = &mut self.pipe {
                match ready!(through(pipe, cx, from.as_ref(), to.as_ref(), count))? {
                    Flow::On => {}
                    Flow::Dry => (self.pipe, self.full) = (None, 0),
                    Flow::End => (self.pipe, self.ended) = (None, true),
                }
                continue;
            }
            while self.at < self.rest.len() {
                let written = Pin::new(&mut *to).poll_write(cx, &self.rest[self.at..]);
                match ready!(written).map_err(Broken::Writing)? {
                    0 => return Poll::Ready(Err(Broken::Writing(io::ErrorKind::WriteZero.into()))),
                    n => self.at += n,
                }
            }
            self.rest.clear();
            self.at = 0;
            if self.ended {
                if !self.told {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Broken::Writing)?;
                    self.told = true;
                }
                return Poll::Ready(Ok(()));
            }
            let mut read = ReadBuf::new(scratch);
            match Pin::new(&mut *from).poll_read(cx, &mut read) {
                Poll::Ready(result) => result.map_err(Broken::Reading)?,
                Poll::Pending => {
                    self.rest = Vec::new();
                    return Poll::Pending;
                }
            }
            let bytes = read.filled();
            if bytes.is_empty() {
                self.ended = true;
                continue;
            }
            count.add(bytes.len());
            self.full = if bytes.len() == CHUNK { self.full + 1 } else { 0 };
            // Nearly always all of it is taken at once; what is not is kept, and nothing is read until it is gone.
            let taken = match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(taken) => taken.map_err(Broken::Writing)?,
                Poll::Pending => 0,
            };
            self.rest.extend_from_slice(&bytes[taken..]);
            if self.full >= BULK && self.rest.is_empty() {
                (self.pipe, self.full) = (Pipe::take(), 0);
            }
        }
    }
}

/// What a pipe has to expect.
enum Flow {
    /// More.
    On,
    /// Nothing for now.
    Dry,
    /// Nothing any more.
    End,
}

/// Moves what there is through an empty or half-empty pipe; waits only for the side that takes.
fn through(
    pipe: &mut Pipe,
    cx: &mut Context<'_>,
    from: &TcpStream,
    to: &TcpStream,
    count: &Count,
) -> Poll<Result<Flow, Broken>> {
    while !pipe.is_empty() {
        ready!(to.poll_write_ready(cx)).map_err(Broken::Writing)?;
        match pipe.drain(to) {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(Broken::Writing(e))),
            _ => {}
        }
    }
    let Poll::Ready(readable) = from.poll_read_ready(cx) else {
        // It waits for more as any connection does, without a pipe.
        return Poll::Ready(Ok(Flow::Dry));
    };
    readable.map_err(Broken::Reading)?;
    Poll::Ready(match pipe.fill(from) {
        Ok(0) => Ok(Flow::End),
        Ok(n) => {
            count.add(n);
            Ok(Flow::On)
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Flow::On),
        Err(e) => Err(Broken::Reading(e)),
    })
}
