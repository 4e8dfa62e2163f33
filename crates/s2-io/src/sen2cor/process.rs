//! A process group under watch: output as it comes, a time limit, and an end for all of its processes.

use std::io::{self, PipeReader, Read};
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How long output is waited for before the process and the limits are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Time to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// Time for the last output; longer takes only a process that left the group and kept the pipe.
const DRAIN: Duration = Duration::from_secs(5);

/// How a watched process ended.
#[derive(Debug)]
pub(super) enum End {
    Exited(ExitStatus),
    TimeLimit,
    Interrupted,
}

/// Runs a command in a process group of its own, without input, until it ends, its time is over or `output` breaks.
/// `output` gets what the group writes to standard output and error, in the order written, and at least every
/// [`TICK`] an empty slice. When this returns, no process of the group is left.
pub(super) fn watch(
    mut command: Command,
    time_limit: Duration,
    output: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<End> {
    // One pipe for both: their lines stay in order.
    let (reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
    let started = Instant::now();
    let mut group = Group { child: command.spawn()?, reaped: false };
    // It holds the writing end, and with it the pipe would never end.
    drop(command);
    let (sender, receiver) = sync_channel(16);
    // Not joined: a process that left the group may keep the pipe open for ever.
    thread::Builder::new().name("sen2cor output".to_owned()).spawn(move || read(reader, &sender))?;
    let mut chunks = Chunks { receiver, ended: false };

    let stopped = loop {
        let flow = output(&chunks.next());
        if group.has_ended()? {
            break None;
        }
        if flow.is_break() {
            break Some(End::Interrupted);
        }
        if started.elapsed() >= time_limit {
            break Some(End::TimeLimit);
        }
    };
    if stopped.is_some() {
        group.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while !(chunks.ended && group.has_ended()?) && Instant::now() < deadline {
            let _ = output(&chunks.next());
        }
    }
    // Also after a regular end: what is left of the group must not write any more.
    group.signal(Signal::KILL);
    let deadline = Instant::now() + DRAIN;
    while !chunks.ended && Instant::now() < deadline {
        let _ = output(&chunks.next());
    }
    let status = group.reap()?;
    Ok(stopped.unwrap_or(End::Exited(status)))
}

fn read(mut reader: PipeReader, sender: &SyncSender<Vec<u8>>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) if sender.send(buffer[..length].to_vec()).is_err() => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

struct Chunks {
    receiver: Receiver<Vec<u8>>,
    ended: bool,
}

impl Chunks {
    /// The next output, or nothing when none comes within a tick.
    fn next(&mut self) -> Vec<u8> {
        if self.ended {
            thread::sleep(TICK);
            return Vec::new();
        }
        self.receiver.recv_timeout(TICK).unwrap_or_else(|error| {
            self.ended = error == RecvTimeoutError::Disconnected;
            Vec::new()
        })
    }
}

/// A child that leads a process group. The group's number is its own until it is reaped, so that signals before that
/// reach nobody else.
struct Group {
    child: Child,
    reaped: bool,
}

impl Group {
    fn signal(&self, signal: Signal) {
        // It fails when all have ended, and that is what is wanted.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }

    /// Whether the leader has ended; it is not reaped.
    fn has_ended(&self) -> io::Result<bool> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(Pid::from_child(&self.child)), options) {
            Ok(status) => Ok(status.is_some()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.reaped = true;
        Ok(status)
    }
}

/// An error or panic on the way leaves no process behind.
impl Drop for Group {
    fn drop(&mut self) {
        if !self.reaped {
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
