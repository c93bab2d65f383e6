//! The guard on Windows: a job object is the tree, a connection on the loopback address the control channel.
//!
//! The guard holds the job's last handle: its death is the postmaster's. A signal is a byte through the postmaster's pipe.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle, RawHandle};
use std::os::windows::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use super::{CONNECTIONS, Exit, Happening, Launch, Reaped};
use crate::platform::{Clock as _, SystemClock};

/// Holds the port's number.
const CONTROL: &str = "control";

#[link(name = "kernel32")]
#[allow(unsafe_code)]
unsafe extern "system" {
    fn CreateJobObjectW(attributes: *const c_void, name: *const u16) -> *mut c_void;
    fn SetInformationJobObject(job: *mut c_void, class: i32, information: *const c_void, length: u32) -> i32;
    fn QueryInformationJobObject(
        job: *mut c_void,
        class: i32,
        information: *mut c_void,
        length: u32,
        returned: *mut u32,
    ) -> i32;
    fn AssignProcessToJobObject(job: *mut c_void, process: *mut c_void) -> i32;
    fn TerminateJobObject(job: *mut c_void, status: u32) -> i32;
}

#[link(name = "ntdll")]
#[allow(unsafe_code)]
unsafe extern "system" {
    fn NtResumeProcess(process: *mut c_void) -> i32;
}

/// JOBOBJECT_BASIC_LIMIT_INFORMATION.
#[repr(C)]
#[derive(Default)]
struct BasicLimits {
    process_time: i64,
    job_time: i64,
    flags: u32,
    minimum_set: usize,
    maximum_set: usize,
    processes: u32,
    affinity: usize,
    priority: u32,
    scheduling: u32,
}

/// JOBOBJECT_EXTENDED_LIMIT_INFORMATION.
#[repr(C)]
#[derive(Default)]
struct Limits {
    basic: BasicLimits,
    io: [u64; 6],
    process_memory: usize,
    job_memory: usize,
    peak_process_memory: usize,
    peak_job_memory: usize,
}

/// JOBOBJECT_BASIC_ACCOUNTING_INFORMATION.
#[repr(C)]
#[derive(Default)]
struct Accounting {
    times: [i64; 4],
    page_faults: u32,
    processes: u32,
    active: u32,
    terminated: u32,
}

const KILL_ON_CLOSE: u32 = 0x2000;
const CLASS_LIMITS: i32 = 9;
const CLASS_ACCOUNTING: i32 = 1;

/// A job object that kills what is in it when its last handle is closed.
struct Job(OwnedHandle);

impl Job {
    #[allow(unsafe_code)]
    fn new() -> io::Result<Job> {
        // SAFETY: both pointers may be null.
        let handle = unsafe { CreateJobObjectW(std::ptr::null(), std::ptr::null()) };
        if handle.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle was just made and belongs to nobody else.
        let job = Job(unsafe { OwnedHandle::from_raw_handle(handle) });
        let limits = Limits {
            basic: BasicLimits {
                flags: KILL_ON_CLOSE,
                ..BasicLimits::default()
            },
            ..Limits::default()
        };
        // SAFETY: the structure is complete, of the length that is named, and outlives the call.
        let set = unsafe {
            SetInformationJobObject(
                job.raw(),
                CLASS_LIMITS,
                (&raw const limits).cast(),
                size_of::<Limits>() as u32,
            )
        };
        if set == 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(job)
        }
    }

    fn raw(&self) -> RawHandle {
        self.0.as_raw_handle()
    }

    /// Takes a process in that was started suspended, and lets it go on.
    #[allow(unsafe_code)]
    fn take(&self, child: &Child) -> io::Result<()> {
        // SAFETY: both handles are open for as long as the calls last.
        unsafe {
            if AssignProcessToJobObject(self.raw(), child.as_raw_handle()) == 0 {
                return Err(io::Error::last_os_error());
            }
            if NtResumeProcess(child.as_raw_handle()) < 0 {
                return Err(io::Error::other("the process cannot be resumed"));
            }
        }
        Ok(())
    }

    /// How many processes are in it; all that there may be, if the system does not say.
    #[allow(unsafe_code)]
    fn active(&self) -> u32 {
        let mut accounting = Accounting::default();
        // SAFETY: the structure is of the length that is named, and outlives the call.
        let told = unsafe {
            QueryInformationJobObject(
                self.raw(),
                CLASS_ACCOUNTING,
                (&raw mut accounting).cast(),
                size_of::<Accounting>() as u32,
                std::ptr::null_mut(),
            )
        };
        if told == 0 { u32::MAX } else { accounting.active }
    }

    #[allow(unsafe_code)]
    fn kill(&self) {
        // SAFETY: the handle is open.
        unsafe {
            TerminateJobObject(self.raw(), 1);
        }
    }
}

/// The tree of one guard; at most one at a time.
pub(crate) struct Tree {
    what: Option<(Job, Option<Child>)>,
}

impl Tree {
    /// Directories and control groups have no meaning here.
    pub(crate) fn new(_: &Path, _: bool) -> Tree {
        Tree { what: None }
    }

    /// Nothing outlives its guard.
    ///
    /// # Errors
    /// Never here.
    pub(crate) fn left_over(&mut self, _: &str) -> io::Result<bool> {
        Ok(false)
    }

    /// Starts a postmaster.
    ///
    /// # Errors
    /// What failed. Nothing runs then.
    pub(crate) fn start(&mut self, launch: &Launch<'_>) -> io::Result<u32> {
        const CREATE_SUSPENDED: u32 = 0x4;
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
        if launch.run_as.is_some() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        tracing::debug!(incarnation = launch.incarnation, boot = launch.boot, "starting");
        let log = OpenOptions::new().append(true).create(true).open(launch.log)?;
        let job = Job::new()?;
        let mut command = Command::new(launch.program);
        command
            .args(launch.args)
            .env_clear()
            .envs(system_environment())
            .envs(launch.env)
            .current_dir(launch.cwd)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .creation_flags(CREATE_SUSPENDED | CREATE_NEW_PROCESS_GROUP);
        let mut child = command.spawn()?;
        let pid = child.id();
        if let Err(e) = job.take(&child) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(e);
        }
        self.what = Some((job, Some(child)));
        Ok(pid)
    }

    fn signal(&self, number: u8) {
        let Some((_, Some(child))) = &self.what else { return };
        let pipe = format!(r"\\.\pipe\pgsignal_{}", child.id());
        // The server answers with one byte; nobody has to wait for it.
        if let Ok(mut pipe) = OpenOptions::new().read(true).write(true).open(pipe) {
            let _ = pipe.write_all(&[number]);
        }
    }

    /// Asks the postmaster for a fast stop.
    pub(crate) fn interrupt(&mut self) {
        self.signal(2);
    }

    /// Asks the postmaster for an immediate stop.
    pub(crate) fn quit(&mut self) {
        self.signal(3);
    }

    /// Ends everything.
    pub(crate) fn kill(&mut self) {
        if let Some((job, _)) = &self.what {
            job.kill();
        }
    }

    /// Says what is left.
    pub(crate) fn reap(&mut self) -> Reaped {
        let mut reaped = Reaped::default();
        let Some((job, child)) = &mut self.what else {
            return reaped;
        };
        if let Some(status) = child.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
            *child = None;
            reaped.any = true;
            reaped.exit = Some(Exit {
                code: status.code(),
                signal: None,
            });
        }
        reaped.empty = child.is_none() && job.active() == 0;
        reaped
    }

    /// Whether its end has to be looked for.
    pub(crate) fn needs_looking(&self) -> bool {
        self.what.is_some()
    }

    /// Lets go of a tree that is empty.
    pub(crate) fn cleared(&mut self) {
        self.what = None;
    }

    /// Nothing to do.
    pub(crate) fn rehearse(&mut self) {}
}

/// Without these hardly a program starts.
fn system_environment() -> BTreeMap<String, String> {
    let names = [
        "SystemRoot",
        "SystemDrive",
        "windir",
        "TEMP",
        "TMP",
        "PATH",
        "ComSpec",
        "PATHEXT",
    ];
    let known = names
        .into_iter()
        .filter_map(|n| Some((n.to_owned(), std::env::var(n).ok()?)));
    known.collect()
}

/// The daemon's end of a control connection.
pub(crate) type Link = tokio::net::TcpStream;

/// Reaches the guard whose directory this is. Bounded in time by the caller.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] or [`io::ErrorKind::ConnectionRefused`] if none listens.
pub(crate) async fn connect(dir: &Path) -> io::Result<Link> {
    let text = std::fs::read_to_string(dir.join(CONTROL))?;
    let port: u16 = text
        .trim()
        .parse()
        .map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    let link = Link::connect((Ipv4Addr::LOCALHOST, port)).await?;
    link.set_nodelay(true)?;
    Ok(link)
}

enum Heard {
    New(TcpStream),
    Is(Happening),
}

/// Connections and the clock in one wait; a thread reads each of them.
pub(crate) struct Port {
    heard: Receiver<Heard>,
    tell: Sender<Heard>,
    connections: Vec<(u64, bool, TcpStream)>,
    next: u64,
    longest: usize,
}

impl Port {
    /// Listens on the loopback address and leaves the port's number in the guard's directory. The token keeps others out.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn open(dir: &Path, longest: usize) -> io::Result<Port> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        crate::platform::write_atomic(&dir.join(CONTROL), port.to_string().as_bytes())?;
        let (tell, heard) = mpsc::channel();
        let accepted = tell.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if accepted.send(Heard::New(stream)).is_err() {
                    break;
                }
            }
        });
        Ok(Port {
            heard,
            tell,
            connections: Vec::new(),
            next: 0,
            longest,
        })
    }

    /// Waits until something happens, or until this time.
    ///
    /// # Errors
    /// If the listener has ended.
    pub(crate) fn wait(&mut self, until: Option<Duration>, happenings: &mut Vec<Happening>) -> io::Result<()> {
        let now = SystemClock.boottime();
        let limit = until
            .map_or(Duration::from_secs(1), |u| u.saturating_sub(now))
            .max(Duration::from_millis(1));
        match self.heard.recv_timeout(limit) {
            Ok(Heard::Is(happening)) => {
                if let Happening::Gone(number) = happening {
                    self.connections.retain(|(n, ..)| *n != number);
                }
                happenings.push(happening);
            }
            Ok(Heard::New(stream)) => self.accept(stream),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("nobody listens any more")),
        }
        Ok(())
    }

    fn accept(&mut self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
        let Ok(mut reads) = stream.try_clone() else { return };
        if self.connections.len() >= CONNECTIONS {
            let goes = self
                .connections
                .iter()
                .position(|(_, trusted, _)| !trusted)
                .unwrap_or(0);
            let (_, _, old) = self.connections.remove(goes);
            let _ = old.shutdown(Shutdown::Both);
        }
        self.next += 1;
        let (number, longest, tell) = (self.next, self.longest, self.tell.clone());
        self.connections.push((number, false, stream));
        std::thread::spawn(move || {
            let mut input = Vec::new();
            let mut buffer = [0u8; 16 << 10];
            while let Ok(read) = reads.read(&mut buffer) {
                if read == 0 {
                    break;
                }
                input.extend_from_slice(&buffer[..read]);
                while let Some(end) = input.iter().position(|b| *b == b'\n') {
                    let mut line: Vec<u8> = input.drain(..=end).collect();
                    line.pop();
                    let _ = tell.send(Heard::Is(Happening::Line(number, line)));
                }
                if input.len() > longest {
                    let _ = tell.send(Heard::Is(Happening::TooLong(number)));
                    break;
                }
            }
            let _ = tell.send(Heard::Is(Happening::Gone(number)));
        });
    }

    /// Says a line to a connection; one that does not read is cut off. False if it is gone.
    pub(crate) fn say(&mut self, number: u64, line: &[u8]) -> bool {
        let Some(at) = self.connections.iter().position(|(n, ..)| *n == number) else {
            return false;
        };
        let mut whole = line.to_vec();
        whole.push(b'\n');
        let said = self.connections[at].2.write_all(&whole).is_ok();
        if !said {
            self.end(number);
        }
        said
    }

    /// This connection is the daemon's; it is not cut off for others.
    pub(crate) fn trust(&mut self, number: u64) {
        for (n, trusted, _) in &mut self.connections {
            *trusted |= *n == number;
        }
    }

    /// Ends a connection.
    pub(crate) fn end(&mut self, number: u64) {
        self.connections.retain(|(n, _, stream)| {
            if *n == number {
                let _ = stream.shutdown(Shutdown::Both);
            }
            *n != number
        });
    }
}

/// A guard that was detached.
pub(crate) struct Started(());

/// The guard was started detached: there is nothing to leave.
///
/// # Errors
/// Never here.
pub(crate) fn detach() -> io::Result<Started> {
    Ok(Started(()))
}

impl Started {
    /// Whoever started it sees the file with its port.
    ///
    /// # Errors
    /// Never here.
    pub(crate) fn serving(self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// Nothing to do: the job does it.
///
/// # Errors
/// Never here.
pub(crate) fn prepare() -> io::Result<()> {
    Ok(())
}

/// This program.
///
/// # Errors
/// If the operating system does not tell.
pub(crate) fn program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// No service manager runs guards here.
pub(crate) fn supervised(_: &str) -> Option<String> {
    None
}

/// The command that starts a guard of its own, away from this process and its console: a shell that starts it and ends.
pub(crate) fn detached(program: &Path) -> tokio::process::Command {
    const CREATE_NO_WINDOW: u32 = 0x0800_0000;
    const CREATE_BREAKAWAY_FROM_JOB: u32 = 0x0100_0000;
    let mut command = tokio::process::Command::new("cmd.exe");
    command.args(["/D", "/C", "start", "", "/B"]).arg(program);
    command.creation_flags(CREATE_NO_WINDOW | CREATE_BREAKAWAY_FROM_JOB);
    command
}
