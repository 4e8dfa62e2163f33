//! What Sen2Cor writes while it runs: kept in the log, passed on line by line, and judged at the end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use super::process::End;
use super::{Failure, Options, Progress};

/// The longest part of a line that is looked at. Lines of Sen2Cor have some 100 bytes.
const MAX_LINE: usize = 4096;
/// Lines of the log that errors repeat, and the characters of each.
const LAST_LINES: usize = 5;
const LAST_LINE_CHARS: usize = 200;
/// What a log may have, bytes; the rest is left out.
const MAX_LOG: usize = 64 << 20;
/// How often the caller hears of a run that says nothing.
const SILENCE: Duration = Duration::from_secs(1);

/// What Sen2Cor writes: kept in the log, passed on line by line, and judged at the end.
pub(super) struct Output<'a> {
    log: File,
    log_left: usize,
    progress: &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    stopped: bool,
    started: Instant,
    reported: Instant,
    percent: f64,
    /// The line that has not ended yet, up to [`MAX_LINE`].
    unfinished: Vec<u8>,
    line: String,
    last: VecDeque<String>,
    /// The text of the last message on progress.
    message: String,
    out_of_memory: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(log: File, progress: &'a mut dyn FnMut(Progress<'_>) -> ControlFlow<()>) -> Self {
        let now = Instant::now();
        Self {
            log,
            log_left: MAX_LOG,
            progress,
            stopped: false,
            started: now,
            reported: now,
            percent: 0.0,
            unfinished: Vec::new(),
            line: String::new(),
            last: VecDeque::new(),
            message: String::new(),
            out_of_memory: false,
        }
    }

    pub(super) fn take(&mut self, chunk: &[u8]) -> ControlFlow<()> {
        let kept = self.log_left.min(chunk.len());
        self.log_left -= kept;
        if self.log.write_all(&chunk[..kept]).is_err() {
            // Most likely the disk is full. Sen2Cor will complain as well, and its last lines are more useful.
            self.log_left = 0;
        }
        for part in chunk.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let room = MAX_LINE - self.unfinished.len();
            self.unfinished.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") || part.ends_with(b"\r") {
                self.end_line();
            }
        }
        if self.reported.elapsed() >= SILENCE {
            self.report();
        }
        if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    pub(super) fn end_line(&mut self) {
        let line = printable(&self.unfinished);
        self.unfinished.clear();
        if line.is_empty() {
            return;
        }
        if let Some((percent, message)) = progress_of(&line) {
            self.percent = percent;
            message.clone_into(&mut self.message);
        }
        // What Python, C++ and the C library say.
        self.out_of_memory |= ["MemoryError", "std::bad_alloc", "Cannot allocate memory"]
            .iter()
            .any(|complaint| line.contains(complaint));
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(shortened(&line).to_owned());
        self.line = line;
        self.report();
    }

    fn report(&mut self) {
        // Who has stopped hears nothing any more.
        if !self.stopped {
            self.reported = Instant::now();
            let elapsed = self.started.elapsed();
            let progress = Progress { percent: self.percent, elapsed, line: &self.line };
            self.stopped = (self.progress)(progress).is_break();
        }
    }

    pub(super) fn last_lines(&self) -> String {
        self.last.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }

    /// Whether exit code and last message say that all went well.
    pub(super) fn judge(&self, end: &End, options: &Options) -> Result<(), Failure> {
        let status = match end {
            End::Interrupted => return Err(Failure::Interrupted),
            End::TimeLimit => return Err(Failure::TimeLimit { limit: options.time_limit }),
            End::Exited(status) => *status,
        };
        let failure = match (status.code(), status.signal()) {
            (Some(0), _) if self.message == "Application terminated successfully." => return Ok(()),
            (Some(0), _) if self.message == "Product already processed." => Failure::AlreadyProcessed,
            (Some(0), _) => Failure::NotConfirmed,
            (Some(code), _) => Failure::ExitCode { code },
            (None, signal) => Failure::Killed { signal: signal.unwrap_or_default() },
        };
        match options.memory_limit {
            Some(limit) if self.out_of_memory => Err(Failure::MemoryLimit { limit }),
            _ => Err(failure),
        }
    }
}

/// Percent and text of `Progress[%]: 14.20 : PID-…, text`.
fn progress_of(line: &str) -> Option<(f64, &str)> {
    let (percent, text) = line.split_once("Progress[%]:")?.1.split_once(" : ")?;
    let percent: f64 = percent.trim().parse().ok()?;
    percent.is_finite().then(|| (percent.clamp(0.0, 100.0), text.trim()))
}

/// Text on one line that a terminal shows as it is.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace(char::is_control, " ");
    text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The start of a text.
pub(super) fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(LAST_LINE_CHARS).map_or(text.len(), |(index, _)| index);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_its_lines_only() {
        let line = "Progress[%]: 14.20 : PID-12, L2A_AtmCorr: preparation, elapsed time[s]: 1.2";
        let text = "PID-12, L2A_AtmCorr: preparation, elapsed time[s]: 1.2";
        assert_eq!(progress_of(line), Some((14.2, text)));
        for line in ["", "14.20 : x", "Progress[%]:", "Progress[%]: x : y", "Progress[%]: nan : y"] {
            assert_eq!(progress_of(line), None, "{line:?}");
        }
    }
}
