//! What host and compile child say to each other over the child's pipes: one request in, one answer out.

use std::io::{self, Read, Write};

use crate::artifact::Kind;

/// How a request begins. The digit is the version of this format.
const REQUEST: [u8; 8] = *b"WLCOMPQ1";

/// How an answer begins.
const ANSWER: [u8; 8] = *b"WLCOMPA1";

/// How long the head of a request is: magic, settings, kind, length.
const REQUEST_HEAD: usize = 8 + 32 + 1 + 8;

/// How long the head of an answer is: magic, verdict, length.
pub(super) const ANSWER_HEAD: usize = 8 + 1 + 8;

/// The longest text of a refusal that is listened to.
const TEXT_BYTES: u64 = 4 << 10;

/// What is to be compiled.
pub(super) struct Request {
    /// The settings of the engine that will load the code.
    pub(super) settings: [u8; 32],
    pub(super) kind: Kind,
    pub(super) bytes: Vec<u8>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The body is code.
    Code,
    /// The body is a line that says what is wrong with the artifact.
    Invalid,
    /// The body is a line that says what is wrong with the child.
    Unfit,
}

/// The head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) verdict: Verdict,
    pub(super) length: u64,
}

/// The first bytes of a request; the artifact follows.
pub(super) fn request_head(settings: &[u8; 32], kind: Kind, length: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(REQUEST_HEAD);
    head.extend(REQUEST);
    head.extend(settings);
    head.push(match kind {
        Kind::Job => 0,
        Kind::Command => 1,
        Kind::Preview1 => 2,
    });
    head.extend((length as u64).to_le_bytes());
    head
}

/// Reads a whole request; its artifact has at most `most` bytes.
pub(super) fn read_request(from: &mut impl Read, most: u64) -> io::Result<Request> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut head = [0; REQUEST_HEAD];
    from.read_exact(&mut head)?;
    let (magic, rest) = head.split_at(REQUEST.len());
    let (settings, rest) = rest.split_at(32);
    let (kind, length) = rest.split_at(1);
    if magic != REQUEST {
        return Err(bad("no request of this version"));
    }
    let kind = match kind {
        [0] => Kind::Job,
        [1] => Kind::Command,
        [2] => Kind::Preview1,
        _ => return Err(bad("an unknown kind")),
    };
    let length = length.try_into().map(u64::from_le_bytes).map_err(|_| bad("no length"))?;
    if length > most {
        return Err(bad("a length beyond all bounds"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    from.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(bad("it ends too early"));
    }
    let settings = settings.try_into().map_err(|_| bad("no settings"))?;
    Ok(Request { settings, kind, bytes })
}

/// Writes a whole answer.
pub(super) fn write_answer(to: &mut impl Write, verdict: Verdict, body: &[u8]) -> io::Result<()> {
    to.write_all(&ANSWER)?;
    to.write_all(&[match verdict {
        Verdict::Code => 0,
        Verdict::Invalid => 1,
        Verdict::Unfit => 2,
    }])?;
    to.write_all(&(body.len() as u64).to_le_bytes())?;
    to.write_all(body)?;
    to.flush()
}

/// Reads the head of an answer from its first bytes; none if that is no answer.
pub(super) fn answer_head(bytes: &[u8]) -> Option<Head> {
    let (magic, rest) = bytes.split_at_checked(ANSWER.len())?;
    let (verdict, length) = rest.split_at_checked(1)?;
    let verdict = match verdict {
        [0] => Verdict::Code,
        [1] => Verdict::Invalid,
        [2] => Verdict::Unfit,
        _ => return None,
    };
    let length = u64::from_le_bytes(length.get(..8)?.try_into().ok()?);
    let is_sound = magic == ANSWER && (verdict == Verdict::Code || length <= TEXT_BYTES);
    is_sound.then_some(Head { verdict, length })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn a_request_arrives_as_it_was_sent_or_not_at_all() {
        let mut sent = request_head(&[7; 32], Kind::Preview1, 5);
        sent.extend(b"bytes");
        let request = read_request(&mut sent.as_slice(), 5).unwrap();
        assert_eq!(
            (request.settings, request.kind, request.bytes.as_slice()),
            ([7; 32], Kind::Preview1, &b"bytes"[..])
        );
        assert!(read_request(&mut sent.as_slice(), 4).is_err(), "larger than agreed");
        for length in 0..sent.len() {
            assert!(read_request(&mut sent.get(..length).unwrap(), 5).is_err(), "cut at {length}");
        }
        let mut foreign = sent.clone();
        foreign[0] ^= 1;
        assert!(read_request(&mut foreign.as_slice(), 5).is_err());
    }

    #[test]
    fn an_answers_head_is_told_from_anything_else() {
        let mut sent = Vec::new();
        write_answer(&mut sent, Verdict::Code, b"code").unwrap();
        let head = answer_head(&sent).unwrap();
        assert_eq!((head, sent.len()), (Head { verdict: Verdict::Code, length: 4 }, ANSWER_HEAD + 4));
        assert_eq!(answer_head(b"usage: windlass"), None);
        assert_eq!(answer_head(&sent[..ANSWER_HEAD - 1]), None);
        // Nobody is kept listening to a text without end.
        let mut endless = Vec::new();
        write_answer(&mut endless, Verdict::Invalid, &[b'x'; 5 << 10]).unwrap();
        assert_eq!(answer_head(&endless), None);
    }
}
