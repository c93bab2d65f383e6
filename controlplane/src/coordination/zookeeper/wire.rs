//! The few frames of ZooKeeper's protocol that the wrapper speaks itself: opening and closing a session, and the header
//! by which a request is told apart. Everything else is the client crate's business.
//!
//! It must never trust a length it was sent.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest frame that is taken for one; ZooKeeper's own limit is 1 MiB.
const MAX_FRAME: usize = 4 * 1024 * 1024;

/// The client crate's code for `addAuth`.
pub(super) const OP_AUTH: i32 = 100;
const OP_CLOSE: i32 = -11;
const XID_PING: i32 = -2;
const ERR_CONNECTION_LOSS: i32 = -4;

/// A request to open a session, or to continue one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectRequest {
    pub(super) timeout_ms: i32,
    /// 0 asks for a new session.
    pub(super) session: i64,
    pub(super) password: Vec<u8>,
}

/// The server's answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectResponse {
    /// The granted session timeout; 0 or less where the session is over.
    pub(super) timeout_ms: i32,
    pub(super) session: i64,
    pub(super) password: Vec<u8>,
}

impl ConnectRequest {
    /// Asks for a new session.
    pub(super) fn new_session(timeout: Duration) -> ConnectRequest {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        ConnectRequest {
            timeout_ms,
            session: 0,
            password: vec![0; 16],
        }
    }

    /// The frame, with its length in front.
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64);
        body.extend(0i32.to_be_bytes()); // protocol version
        body.extend(0i64.to_be_bytes()); // last transaction seen
        body.extend(self.timeout_ms.to_be_bytes());
        body.extend(self.session.to_be_bytes());
        body.extend(i32::try_from(self.password.len()).unwrap_or(0).to_be_bytes());
        body.extend(&self.password);
        body.push(0); // not read-only
        framed(&body)
    }

    /// Reads the body of a frame.
    pub(super) fn parse(body: &[u8]) -> Option<ConnectRequest> {
        let mut at = Cursor(body);
        at.take::<4>()?;
        at.take::<8>()?;
        let timeout_ms = i32::from_be_bytes(at.take()?);
        let session = i64::from_be_bytes(at.take()?);
        Some(ConnectRequest {
            timeout_ms,
            session,
            password: at.buffer()?,
        })
    }
}

impl ConnectResponse {
    /// Reads the body of a frame.
    pub(super) fn parse(body: &[u8]) -> Option<ConnectResponse> {
        let mut at = Cursor(body);
        at.take::<4>()?;
        let timeout_ms = i32::from_be_bytes(at.take()?);
        let session = i64::from_be_bytes(at.take()?);
        Some(ConnectResponse {
            timeout_ms,
            session,
            password: at.buffer()?,
        })
    }
}

/// The request that closes a session.
pub(super) fn close_frame() -> Vec<u8> {
    let mut body = Vec::with_capacity(8);
    body.extend(1i32.to_be_bytes());
    body.extend(OP_CLOSE.to_be_bytes());
    framed(&body)
}

/// Number and operation of a request, from the body of its frame.
pub(super) fn request_header(body: &[u8]) -> Option<(i32, i32)> {
    let mut at = Cursor(body);
    Some((i32::from_be_bytes(at.take()?), i32::from_be_bytes(at.take()?)))
}

/// The answer to a request that is not passed on: a ping is answered, anything else was lost with its connection.
pub(super) fn refusal(xid: i32) -> Vec<u8> {
    let mut body = Vec::with_capacity(16);
    body.extend(xid.to_be_bytes());
    body.extend(0i64.to_be_bytes());
    body.extend(if xid == XID_PING { 0 } else { ERR_CONNECTION_LOSS }.to_be_bytes());
    framed(&body)
}

/// A body with its length in front.
pub(super) fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + body.len());
    out.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(body);
    out
}

/// Reads one frame's body. Not cancel safe.
pub(super) async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>> {
    let len = frame_len(from.read_u32().await?)?;
    let mut body = vec![0; len];
    from.read_exact(&mut body).await?;
    Ok(body)
}

/// Takes the first whole frame's body off `buffer`.
pub(super) fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>> {
    let Some(head) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let end = 4 + frame_len(u32::from_be_bytes(*head))?;
    if buffer.len() < end {
        return Ok(None);
    }
    let rest = buffer.split_off(end);
    let frame = std::mem::replace(buffer, rest);
    Ok(Some(frame[4..].to_vec()))
}

fn frame_len(len: u32) -> Result<usize> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len <= MAX_FRAME {
        Ok(len)
    } else {
        Err(Error::new(ErrorKind::InvalidData, "not a ZooKeeper server"))
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn buffer(&mut self) -> Option<Vec<u8>> {
        let len = usize::try_from(i32::from_be_bytes(self.take()?)).unwrap_or(0);
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_apart_whole() {
        let request = ConnectRequest {
            session: 7,
            ..ConnectRequest::new_session(Duration::from_secs(6))
        };
        let mut stream = request.frame();
        stream.extend(close_frame());
        let mut buffer = Vec::new();
        let mut bodies = Vec::new();
        for byte in stream {
            buffer.push(byte);
            bodies.extend(take_frame(&mut buffer).unwrap());
        }
        assert!(buffer.is_empty());
        assert_eq!(ConnectRequest::parse(&bodies[0]), Some(request));
        assert_eq!(request_header(&bodies[1]), Some((1, OP_CLOSE)));
    }

    #[test]
    fn hostile_bytes_are_refused() {
        assert!(take_frame(&mut vec![0xff; 8]).is_err());
        for len in 0..40 {
            let body = vec![0xff; len];
            let _ = (
                ConnectResponse::parse(&body),
                ConnectRequest::parse(&body),
                request_header(&body),
            );
        }
        assert_eq!(ConnectResponse::parse(&[0; 8]), None);
    }
}
