//! One run of an operator's command: bounded in time, in a process group of its own, and gone whole when it is over time or
//! the daemon ends.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::config::Hook;
use crate::platform::{isolate, kill_tree, service, unprotect};

/// How much of the command's last words is kept.
const WORDS: usize = 2048;
/// How long they are waited for when something that the command left running keeps its output open.
const LINGER: Duration = Duration::from_millis(200);

/// Kills what is left of a run when it is dropped before its end.
struct Tree(Child);

impl Drop for Tree {
    fn drop(&mut self) {
        // There is a number as long as the process was not waited for, so it is still its own.
        if let Some(pid) = self.0.id() {
            kill_tree(pid);
        }
    }
}

/// Runs the hook's command with `input` on its standard input.
///
/// # Errors
/// Why the run failed, in one line.
pub(super) async fn run(hook: &Hook, variables: &[(&str, String)], input: &[u8]) -> Result<(), String> {
    let Some((program, arguments)) = hook.command.split_first() else {
        return Ok(());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(&hook.environment)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    for private in service::PRIVATE_ENVIRONMENT {
        command.env_remove(private);
    }
    isolate(&mut command);
    let mut child = command
        .spawn()
        .map_err(|e| format!("{program} cannot be started: {e}"))?;
    if let Some(pid) = child.id() {
        unprotect(pid);
    }
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let mut tree = Tree(child);

    let mut words = Vec::new();
    let mut feed = Box::pin(async {
        if let Some(mut stdin) = stdin {
            // A command that does not care for its input may close it.
            let _ = stdin.write_all(input).await;
            let _ = stdin.shutdown().await;
        }
    });
    let mut listen = Box::pin(async {
        if let Some(mut stderr) = stderr {
            let mut buffer = [0; 1024];
            while let Ok(n @ 1..) = stderr.read(&mut buffer).await {
                words.extend_from_slice(&buffer[..n]);
                let excess = words.len().saturating_sub(WORDS);
                words.drain(..excess);
            }
        }
    });
    let (mut fed, mut heard) = (false, false);
    let mut limit = std::pin::pin!(tokio::time::sleep(hook.timeout));
    let ended = loop {
        tokio::select! {
            ended = tree.0.wait() => break Some(ended),
            () = &mut limit => break None,
            () = &mut feed, if !fed => fed = true,
            () = &mut listen, if !heard => heard = true,
        }
    };
    if ended.is_some() && !heard {
        let _ = tokio::time::timeout(LINGER, &mut listen).await;
    }
    drop(listen);
    // After its time the whole group ends here.
    drop(tree);
    match ended {
        Some(Ok(status)) if status.success() => Ok(()),
        Some(Ok(status)) => Err(told(&described(status), &words)),
        Some(Err(e)) => Err(e.to_string()),
        None => Err(told(
            &format!("not done after {}", humantime::format_duration(hook.timeout)),
            &words,
        )),
    }
}

fn described(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit status {code}"),
        None => status.to_string(),
    }
}

/// The reason with the last line that the command wrote to its standard error.
fn told(why: &str, words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    match words.lines().rev().map(str::trim).find(|l| !l.is_empty()) {
        Some(last) => format!(
            "{why}: {}",
            last.chars().filter(|c| !c.is_control()).take(200).collect::<String>()
        ),
        None => why.to_owned(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::*;

    fn sh(script: &str, timeout_ms: u64) -> Hook {
        Hook {
            name: "test".into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            kinds: Vec::new(),
            timeout: Duration::from_millis(timeout_ms),
            retries: 0,
            environment: [("EXTRA".to_owned(), "extra".to_owned())].into(),
        }
    }

    async fn appears(path: &Path) -> String {
        for _ in 0..500 {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("{} did not appear", path.display());
    }

    #[tokio::test]
    async fn input_and_environment() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!("echo $EXTRA $HA_SEQ > {0}; cat >> {0}", out.display());
        run(&sh(&script, 5000), &[("HA_SEQ", "7".into())], b"{}\n")
            .await
            .unwrap();
        assert_eq!(std::fs::read_to_string(out).unwrap(), "extra 7\n{}\n");
    }

    #[tokio::test]
    async fn input_that_is_not_read() {
        run(&sh("exit 0", 5000), &[], &vec![b'x'; 1 << 20]).await.unwrap();
        run(&sh("exec <&-; sleep 0.1", 5000), &[], &vec![b'x'; 1 << 20])
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn failures_are_told_with_the_last_words() {
        let e = run(
            &sh("echo first >&2; printf 'sec\\033ond\\n\\n' >&2; exit 3", 5000),
            &[],
            b"",
        )
        .await
        .unwrap_err();
        assert_eq!(e, "exit status 3: second");
        assert_eq!(
            run(&sh("kill -9 $$", 5000), &[], b"").await.unwrap_err(),
            "signal: 9 (SIGKILL)"
        );
        let none = Hook {
            command: vec!["/nonexistent/x".into()],
            ..sh("", 1000)
        };
        assert!(
            run(&none, &[], b"")
                .await
                .unwrap_err()
                .starts_with("/nonexistent/x cannot be started")
        );
        // More than is kept, and more than a pipe holds.
        let e = run(
            &sh(
                "head -c 300000 /dev/zero | tr '\\0' x >&2; echo >&2; echo end >&2; exit 1",
                5000,
            ),
            &[],
            b"",
        )
        .await;
        assert_eq!(e.unwrap_err(), "exit status 1: end");
    }

    #[tokio::test]
    async fn what_takes_too_long_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = format!("sleep 1000 & echo $$ $! > {}; echo working >&2; wait", pids.display());
        let started = Instant::now();
        let e = run(&sh(&script, 400), &[], b"").await.unwrap_err();
        assert_eq!(e, "not done after 400ms: working");
        assert!(started.elapsed() < Duration::from_secs(5));
        gone(&appears(&pids).await).await;
    }

    #[tokio::test]
    async fn a_run_that_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let script = format!("sleep 1000 & echo $$ $! > {}; wait", pids.display());
        let hook = sh(&script, 60_000);
        let text = tokio::select! {
            _ = run(&hook, &[], b"") => panic!("it does not end"),
            text = appears(&pids) => text,
        };
        gone(&text).await;
    }

    #[tokio::test]
    async fn what_it_leaves_running_does_not_hold_it_up() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let started = Instant::now();
        run(
            &sh(&format!("sleep 1000 & echo $! > {}", pids.display()), 30_000),
            &[],
            b"",
        )
        .await
        .unwrap();
        assert!(started.elapsed() < Duration::from_secs(10));
        let pid: u32 = appears(&pids).await.trim().parse().unwrap();
        assert!(
            crate::platform::process_alive(pid),
            "a hook may start something that stays"
        );
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid as i32),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
    }

    async fn gone(pids: &str) {
        for pid in pids.split_whitespace() {
            let stat = format!("/proc/{pid}/stat");
            let alive = || std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z "));
            for _ in 0..500 {
                if !alive() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(!alive(), "{pid} is still there");
        }
    }
}
