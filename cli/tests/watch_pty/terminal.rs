//! A pseudo-terminal with the program in it, and eyes on its screen.

use std::{
    io::{Read as _, Write as _},
    num::NonZero,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::live::Cluster;

/// What no step takes longer than.
const LIMIT: Duration = Duration::from_secs(30);

struct Seen {
    parser: vt100::Parser,
    raw: Vec<u8>,
    colours: bool,
    ended: bool,
}

/// The terminal.
pub(crate) struct Terminal {
    master: Box<dyn MasterPty + Send>,
    writer: Box<dyn std::io::Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    seen: Arc<(Mutex<Seen>, Condvar)>,
    /// Flags of the terminal's line discipline before the program ran.
    before: String,
}

impl Terminal {
    /// Runs `hactl watch` with these arguments at 120x30.
    pub(crate) fn watch(cluster: &Cluster, args: &[&str]) -> Self {
        Self::watch_with(cluster, args, &[])
    }

    /// As [`Self::watch`], with more in its environment.
    pub(crate) fn watch_with(cluster: &Cluster, args: &[&str], environment: &[(&str, &str)]) -> Self {
        let size = PtySize {
            rows: 30,
            cols: 120,
            pixel_width: 0,
            pixel_height: 0,
        };
        let pair = native_pty_system().openpty(size).unwrap();
        let before = flags(&*pair.master);
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_hactl"));
        command.env_clear();
        for (key, value) in cluster.environment() {
            command.env(key, value);
        }
        for (key, value) in environment {
            command.env(key, value);
        }
        command.arg("watch");
        command.args(args);
        let child = pair.slave.spawn_command(command).unwrap();
        let mut reader = pair.master.try_clone_reader().unwrap();
        let writer = pair.master.take_writer().unwrap();
        let parser = vt100::Parser::new(cells(30), cells(120), 0);
        let seen = Arc::new((
            Mutex::new(Seen {
                parser,
                raw: Vec::new(),
                colours: false,
                ended: false,
            }),
            Condvar::new(),
        ));
        let eyes = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            loop {
                let read = reader.read(&mut bytes).unwrap_or(0);
                let mut seen = eyes.0.lock().unwrap();
                seen.parser.process(&bytes[..read]);
                seen.raw.extend_from_slice(&bytes[..read]);
                seen.colours |= coloured(&seen.parser);
                seen.ended = read == 0;
                eyes.1.notify_all();
                if read == 0 {
                    return;
                }
            }
        });
        drop(pair.slave);
        Self {
            master: pair.master,
            writer,
            child,
            seen,
            before,
        }
    }

    /// The screen.
    pub(crate) fn text(&self) -> String {
        self.seen.0.lock().unwrap().parser.screen().contents()
    }

    /// Waits until the screen is so.
    pub(crate) fn wait(&self, what: &str, is: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        let mut seen = self.seen.0.lock().unwrap();
        loop {
            let text = seen.parser.screen().contents();
            if is(&text) {
                return;
            }
            assert!(!seen.ended, "the program ended before {what}:\n{text}");
            assert!(begun.elapsed() < LIMIT, "{what} did not come:\n{text}");
            seen = self.seen.1.wait_timeout(seen, Duration::from_millis(200)).unwrap().0;
        }
    }

    /// Presses keys.
    pub(crate) fn keys(&mut self, keys: &str) {
        self.writer.write_all(keys.as_bytes()).unwrap();
        self.writer.flush().unwrap();
    }

    /// Gives the terminal another size.
    pub(crate) fn resize(&self, cols: u16, rows: u16) {
        let mut seen = self.seen.0.lock().unwrap();
        seen.parser.screen_mut().set_size(cells(rows), cells(cols));
        drop(seen);
        self.master
            .resize(PtySize {
                rows,
                cols,
                pixel_width: 0,
                pixel_height: 0,
            })
            .unwrap();
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.process_id().unwrap().to_string();
        assert!(
            std::process::Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the program's end, and for all that it wrote; its exit code.
    pub(crate) fn end(&mut self) -> u32 {
        let begun = Instant::now();
        let mut seen = self.seen.0.lock().unwrap();
        while !seen.ended {
            assert!(
                begun.elapsed() < LIMIT,
                "the program did not end:\n{}",
                seen.parser.screen().contents()
            );
            seen = self.seen.1.wait_timeout(seen, Duration::from_millis(200)).unwrap().0;
        }
        drop(seen);
        self.child.wait().unwrap().exit_code()
    }

    /// Whether the program ever wrote this.
    pub(crate) fn said(&self, what: &str) -> bool {
        let seen = self.seen.0.lock().unwrap();
        seen.raw.windows(what.len()).any(|part| part == what.as_bytes())
    }

    /// Whether a coloured cell was ever seen.
    pub(crate) fn colours(&self) -> bool {
        self.seen.0.lock().unwrap().colours
    }

    /// The terminal is as it was before the program ran.
    pub(crate) fn assert_restored(&self) {
        let seen = self.seen.0.lock().unwrap();
        let screen = seen.parser.screen();
        assert!(!screen.alternate_screen(), "the alternate screen was left on");
        assert!(!screen.hide_cursor(), "the cursor was left hidden");
        assert_eq!(
            flags(&*self.master),
            self.before,
            "the line discipline was left changed"
        );
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

fn flags(master: &dyn MasterPty) -> String {
    let termios = master.get_termios().unwrap();
    format!(
        "{:?} {:?} {:?}",
        termios.input_flags, termios.output_flags, termios.local_flags
    )
}

fn coloured(parser: &vt100::Parser) -> bool {
    let screen = parser.screen();
    let (rows, cols) = screen.size();
    (0..rows.get()).any(|row| {
        (0..cols.get()).any(|col| {
            let cell = screen.cell(row, col);
            cell.is_some_and(|c| c.fgcolor() != vt100::Color::Default || c.bgcolor() != vt100::Color::Default)
        })
    })
}
