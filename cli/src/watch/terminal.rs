//! The terminal, and its return to what it was: when the dashboard ends, fails, panics or is told to end.

use std::{
    io::{self, Stdout, Write as _},
    sync::Once,
};

use crossterm::{
    cursor::{Hide, Show},
    execute,
    terminal::{DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen},
    terminal::{disable_raw_mode, enable_raw_mode},
};
use ratatui::{Terminal, backend::CrosstermBackend, buffer::Buffer, layout::Size};

/// The terminal while the dashboard has it.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// Where it cannot be taken; it is as it was then.
    pub(super) fn take() -> io::Result<Self> {
        restore_on_panic();
        let taken = enable_raw_mode()
            .and_then(|()| execute!(io::stdout(), EnterAlternateScreen, DisableLineWrap, Hide))
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match taken {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }

    /// Its size.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub(super) fn size(&self) -> io::Result<Size> {
        self.terminal.size()
    }

    /// Shows `screen`; only cells that changed are written.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub(super) fn show(&mut self, screen: impl FnOnce(Size) -> Buffer) -> io::Result<()> {
        self.terminal.draw(|frame| {
            let area = frame.area();
            let buffer = screen(Size::new(area.width, area.height));
            if buffer.area == area {
                *frame.buffer_mut() = buffer;
            }
        })?;
        Ok(())
    }

    /// Forgets what is on it: the next screen is written whole.
    ///
    /// # Errors
    /// Where the terminal is gone.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back. What fails is passed over: there is nobody left to tell.
fn restore() {
    let mut out = io::stdout();
    let _ = execute!(out, Show, EnableLineWrap, LeaveAlternateScreen);
    let _ = disable_raw_mode();
    let _ = out.flush();
}

/// A panic is to be read, and in a terminal that works.
fn restore_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}

/// Ends when this process is told to end.
#[cfg(unix)]
pub(super) async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
        signal(SignalKind::interrupt()),
    );
    match signals {
        (Ok(mut terminate), Ok(mut hangup), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

/// Ends when this process is told to end.
#[cfg(not(unix))]
pub(super) async fn told_to_end() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
