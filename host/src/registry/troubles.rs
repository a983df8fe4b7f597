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
    /// Notes how a reference fares, and returns what there is to say of all; none if all is well.
    pub fn note(&self, reference: &Reference, problem: Option<String>, now: Timestamp) -> Option<String> {
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
        match named.as_slice() {
            [] => None,
            named if rest == 0 => Some(named.join("; ")),
            named => Some(format!("{}; and {rest} more", named.join("; "))),
        }
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
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        assert_eq!(troubles.note(&a, None, at(0)), None);
        troubles.note(&a, Some("gone".to_owned()), at(1));
        let said = troubles.note(&a, Some("still gone".to_owned()), at(60)).unwrap();
        assert_eq!(said, "oci://h.io/a:1, since 1970-01-01T00:00:01Z: still gone");
        assert!(troubles.note(&b, Some("x".to_owned()), at(61)).unwrap().contains("; oci://h.io/b:1"));
        assert!(!troubles.note(&a, None, at(62)).unwrap().contains("h.io/a:1"));
        assert_eq!(troubles.note(&b, None, at(63)), None);
    }
}
