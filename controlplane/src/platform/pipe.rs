//! Bytes from one socket to another inside the kernel, where there is a way: for what comes in bulk it takes two thirds of
//! the processor's time that copying takes.

#[cfg(target_os = "linux")]
pub use linux::Pipe;
#[cfg(not(target_os = "linux"))]
pub use other::Pipe;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
    use nix::unistd::pipe2;
    use tokio::io::Interest;
    use tokio::net::TcpStream;

    /// What a pipe is asked to hold: as much as a user without privileges may ask for.
    const SIZE: usize = 1024 * 1024;
    /// Pipes at once. A user's pipes together may hold 64 MiB; whoever finds none left copies.
    const MOST: usize = 32;

    static USED: AtomicUsize = AtomicUsize::new(0);

    /// A pipe that belongs to one direction of one connection.
    #[derive(Debug)]
    pub struct Pipe {
        out: OwnedFd,
        into: OwnedFd,
        held: usize,
        _place: Place,
    }

    #[derive(Debug)]
    struct Place;

    impl Drop for Place {
        fn drop(&mut self) {
            USED.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl Pipe {
        /// An empty pipe, if there is one to be had.
        pub fn take() -> Option<Self> {
            let used = USED.fetch_add(1, Ordering::Relaxed);
            let place = Place;
            if used >= MOST {
                return None;
            }
            let (out, into) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
            // One of the ordinary size does as well.
            let _ = fcntl(&into, FcntlArg::F_SETPIPE_SZ(i32::try_from(SIZE).unwrap_or(i32::MAX)));
            Some(Self {
                out,
                into,
                held: 0,
                _place: place,
            })
        }

        /// Whether all of it was passed on.
        pub fn is_empty(&self) -> bool {
            self.held == 0
        }

        /// Takes what a socket has, into an empty pipe; 0 at its end.
        ///
        /// # Errors
        /// `WouldBlock` if it has nothing, or what the system says.
        pub fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
            let n = from.try_io(Interest::READABLE, || {
                Ok(splice(from, None, &self.into, None, SIZE, flags())?)
            })?;
            self.held += n;
            Ok(n)
        }

        /// Gives a socket what it takes.
        ///
        /// # Errors
        /// `WouldBlock` if it takes nothing, or what the system says.
        pub fn drain(&mut self, to: &TcpStream) -> io::Result<()> {
            let n = to.try_io(Interest::WRITABLE, || {
                Ok(splice(&self.out, None, to, None, self.held, flags())?)
            })?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.held = self.held.saturating_sub(n);
            Ok(())
        }
    }

    fn flags() -> SpliceFFlags {
        SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    use std::io;

    use tokio::net::TcpStream;

    /// There is none.
    #[derive(Debug)]
    pub enum Pipe {}

    impl Pipe {
        /// None.
        pub fn take() -> Option<Self> {
            None
        }

        /// Never asked.
        pub fn is_empty(&self) -> bool {
            match *self {}
        }

        /// Never asked.
        ///
        /// # Errors
        /// None.
        pub fn fill(&mut self, _: &TcpStream) -> io::Result<usize> {
            match *self {}
        }

        /// Never asked.
        ///
        /// # Errors
        /// None.
        pub fn drain(&mut self, _: &TcpStream) -> io::Result<()> {
            match *self {}
        }
    }
}
