//! The host's side of the pipes: hands the artifact over and takes the answer in, for a bounded time and up to a bounded size,
//! whatever the other side does. One thread, no helpers.

use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::frame::{self, ANSWER_HEAD, Head};

/// How much of what a child says on stderr is kept.
const STDERR_BYTES: usize = 8 << 10;

/// How much is read or written at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// What was heard until the child closed its ends, or was cut off.
pub(super) struct Heard {
    pub(super) answer: Answer,
    /// The beginning of its stderr.
    pub(super) stderr: String,
}

/// How the conversation went.
#[derive(Debug)]
pub(super) enum Answer {
    /// A whole answer.
    Whole(Head, Vec<u8>),
    /// It ended, or was ended, without one.
    None,
    /// It began one that would be larger than agreed, of so many bytes.
    TooLarge(u64),
    /// It said something that is no answer.
    Garbled,
    /// Its time was over.
    TimedOut,
    /// The pipes failed.
    Failed(io::Error),
}

/// Talks until the child has closed its ends, has said too much, or `patience` is over. Does not wait for its end.
pub(super) fn converse(child: &mut Child, request: &[&[u8]], patience: Duration, most: u64) -> Heard {
    let mut talk = Talk {
        stdin: child.stdin.take(),
        stdout: child.stdout.take(),
        stderr: child.stderr.take(),
        written: 0,
        head: None,
        heard: Vec::new(),
        complaint: Vec::new(),
    };
    let until = Instant::now() + patience;
    let answer = match talk.go_on(request, until, most) {
        Ok(answer) => answer,
        Err(error) => Answer::Failed(error),
    };
    Heard { answer, stderr: String::from_utf8_lossy(&talk.complaint).into_owned() }
}

struct Talk {
    /// None once everything is written, or nobody reads any more.
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    written: usize,
    head: Option<Head>,
    /// The answer so far; without its head once that is known.
    heard: Vec<u8>,
    complaint: Vec<u8>,
}

impl Talk {
    fn go_on(&mut self, request: &[&[u8]], until: Instant, most: u64) -> io::Result<Answer> {
        let ends = [
            self.stdin.as_ref().map(AsFd::as_fd),
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
        ];
        for end in ends.into_iter().flatten() {
            fcntl_setfl(end, fcntl_getfl(end)? | OFlags::NONBLOCK)?;
        }
        while self.stdout.is_some() || self.stderr.is_some() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return Ok(Answer::TimedOut) };
            self.wait(left)?;
            self.tell(request)?;
            if let Some(broken) = self.listen(most)? {
                return Ok(broken);
            }
            self.overhear()?;
        }
        let heard = std::mem::take(&mut self.heard);
        Ok(match self.head {
            Some(head) if head.length == heard.len() as u64 => Answer::Whole(head, heard),
            _ => Answer::None,
        })
    }

    /// Sleeps until one of the ends can go on.
    fn wait(&self, left: Duration) -> io::Result<()> {
        let stdin = self.stdin.as_ref().map(|end| PollFd::from_borrowed_fd(end.as_fd(), PollFlags::OUT));
        let stdout = self.stdout.as_ref().map(|end| PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN));
        let stderr = self.stderr.as_ref().map(|end| PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN));
        let mut ends: Vec<_> = [stdin, stdout, stderr].into_iter().flatten().collect();
        let left = Timespec::try_from(left).map_err(|error| io::Error::other(error.to_string()))?;
        match poll(&mut ends, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn tell(&mut self, request: &[&[u8]]) -> io::Result<()> {
        while let Some(stdin) = &mut self.stdin {
            let mut skip = self.written;
            let rest = request.iter().find_map(|part| {
                let rest = part.get(skip..).filter(|rest| !rest.is_empty());
                skip = skip.saturating_sub(part.len());
                rest
            });
            let Some(rest) = rest else {
                self.stdin = None;
                return Ok(());
            };
            match stdin.write(rest.get(..CHUNK_BYTES).unwrap_or(rest)) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It reads no more: it has ended, and its end says why.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.stdin = None,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn listen(&mut self, most: u64) -> io::Result<Option<Answer>> {
        while let Some(stdout) = &mut self.stdout {
            let Some(read) = read_some(stdout, &mut self.heard)? else { return Ok(None) };
            if read == 0 {
                self.stdout = None;
            }
            if self.head.is_none() && self.heard.len() >= ANSWER_HEAD {
                let Some(head) = frame::answer_head(&self.heard) else { return Ok(Some(Answer::Garbled)) };
                if head.length > most {
                    return Ok(Some(Answer::TooLarge(head.length)));
                }
                self.heard.drain(..ANSWER_HEAD);
                self.heard.reserve_exact(usize::try_from(head.length).unwrap_or(0).saturating_sub(self.heard.len()));
                self.head = Some(head);
            }
            if self.head.is_some_and(|head| self.heard.len() as u64 > head.length) {
                return Ok(Some(Answer::Garbled));
            }
        }
        Ok(None)
    }

    /// Once a turn: one who complains faster than we listen must not keep us from the clock.
    fn overhear(&mut self) -> io::Result<()> {
        let Some(stderr) = &mut self.stderr else { return Ok(()) };
        let read = read_some(stderr, &mut self.complaint)?;
        self.complaint.truncate(STDERR_BYTES);
        if read == Some(0) {
            self.stderr = None;
        }
        Ok(())
    }
}

/// Reads once, and appends what came; none if there is nothing yet, 0 at the end.
fn read_some(from: &mut impl io::Read, into: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut chunk = [0; CHUNK_BYTES];
    match from.read(&mut chunk) {
        Ok(read) => {
            into.extend(chunk.iter().take(read));
            Ok(Some(read))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
