//! As much of an ELF file as tells for which machine it is, and whether it is static.

use crate::Result;

/// A segment that names the program which loads this one: only a dynamic executable has it.
const INTERPRETER: u32 = 3;

/// What a binary is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Elf {
    /// As in Rust's targets.
    pub(super) machine: &'static str,
    pub(super) is_static: bool,
}

/// Reads the header and the segments' kinds.
pub(super) fn inspect(bytes: &[u8]) -> Result<Elf> {
    let part = |at: u64, length: usize| {
        let at = usize::try_from(at).ok();
        let part = at.and_then(|at| bytes.get(at..at.checked_add(length)?));
        part.ok_or_else(|| "it ends too early for an ELF file".to_owned())
    };
    let number = |at: u64, length: usize| {
        let low = part(at, length)?.iter().rev();
        Ok::<u64, String>(low.fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    if part(0, 6)? != b"\x7fELF\x02\x01" {
        return Err("it is no ELF file of 64 bits, low byte first".to_owned());
    }
    let machine = match number(18, 2)? {
        62 => "x86_64",
        183 => "aarch64",
        other => return Err(format!("it is for a machine of number {other}")),
    };
    let (segments, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let mut is_static = true;
    for index in 0..count {
        let at = segments.checked_add(index * size).ok_or("its segments are beyond all bounds")?;
        is_static &= number(at, 4)? != u64::from(INTERPRETER);
    }
    Ok(Elf { machine, is_static })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    /// A header and segments of these kinds.
    fn elf(machine: u16, kinds: &[u32]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(64, 0);
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(kinds.len()).unwrap();
        for kind in kinds {
            bytes.extend(kind.to_le_bytes());
            bytes.resize(bytes.len() + 52, 0);
        }
        bytes
    }

    #[test]
    fn machine_and_interpreter_are_told() {
        assert_eq!(inspect(&elf(183, &[1, 1])), Ok(Elf { machine: "aarch64", is_static: true }));
        assert_eq!(inspect(&elf(62, &[6, 3, 1])), Ok(Elf { machine: "x86_64", is_static: false }));
        let own = inspect(&std::fs::read(std::env::current_exe().unwrap()).unwrap()).unwrap();
        assert_eq!(own.machine, std::env::consts::ARCH);
    }

    #[test]
    fn what_is_no_binary_is_said() {
        assert!(inspect(b"#!/bin/sh").unwrap_err().contains("no ELF"));
        assert!(inspect(b"\x7fELF\x02\x01").unwrap_err().contains("too early"));
        assert!(inspect(&elf(8, &[])).unwrap_err().contains("number 8"));
        let mut beyond = elf(62, &[1]);
        beyond[32..40].fill(0xff);
        assert!(inspect(&beyond).is_err());
        let cut = elf(62, &[1, 1]);
        assert!(inspect(&cut[..100]).unwrap_err().contains("too early"));
    }
}
