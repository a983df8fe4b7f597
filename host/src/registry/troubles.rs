//! Which references are in trouble and since when, in one sentence for the entry `windlass`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::reference::Reference;
use crate::core::time::Timestamp;

/// How many references the sentence names.
const NAMED: usize = 5;

/// See the module. Loaders write; nobody waits here for longer than a map takes.
#[derive(Default)]
pub struct Troubles {
    by_reference: Mutex<BTreeMap<Reference, (Timestamp, String)>>,
}

impl Troubles {
    /// Notes how a reference fares, and tells what there is to say of all; none if all is well. What is told last is newest.
    pub fn note(
        &self,
        reference: &Reference,
        problem: Option<String>,
        now: Timestamp,
        tell: impl FnOnce(Option<String>),
    ) {
        let mut all = self.by_reference.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            None => {
                all.remove(reference);
            }
            Some(problem) => {
                let since = all.get(reference).map_or(now, |(since, _)| *since);
                all.insert(reference.clone(), (since, problem));
            }
        }
        let told = |(reference, (since, problem)): (&Reference, &(Timestamp, String))| {
            format!("{reference}, since {}: {problem}", since.strftime("%Y-%m-%dT%H:%M:%SZ"))
        };
        let named: Vec<String> = all.iter().take(NAMED).map(told).collect();
        let rest = all.len().saturating_sub(NAMED);
        tell(match named.as_slice() {
            [] => None,
            named if rest == 0 => Some(named.join("; ")),
            named => Some(format!("{}; and {rest} more", named.join("; "))),
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    #[test]
    fn a_trouble_keeps_its_beginning_and_goes_when_it_is_over() {
        let troubles = Troubles::default();
        let reference = |text: &str| Reference::parse(text).unwrap();
        let (a, b) = (reference("oci://h.io/a:1"), reference("oci://h.io/b:1"));
        let note = |reference: &Reference, problem: Option<&str>, second: i64| {
            let (mut told, at) = (None, Timestamp::from_second(second).unwrap());
            troubles.note(reference, problem.map(str::to_owned), at, |all| told = all);
            told
        };
        assert_eq!(note(&a, None, 0), None);
        note(&a, Some("gone"), 1);
        let said = note(&a, Some("still gone"), 60).unwrap();
        assert_eq!(said, "oci://h.io/a:1, since 1970-01-01T00:00:01Z: still gone");
        assert!(note(&b, Some("x"), 61).unwrap().contains("; oci://h.io/b:1"));
        assert!(!note(&a, None, 62).unwrap().contains("h.io/a:1"));
        assert_eq!(note(&b, None, 63), None);
    }
}
