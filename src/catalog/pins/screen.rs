//! From what a server lists to what is offered of it.
//!
//! Decides nothing but whether a digest is accepted as what it is. Invariant: what is offered has the words that were accepted; what is
//! not offered is kept beside it, so that the record can say why it was not there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::accepted::{Accepted, Seal};
use super::{digest, instructions, pin_kind};
use crate::catalog::secrets;
use crate::catalog::slice::{List, Slice};
use crate::catalog::source::Facts;
use crate::catalog::target::Definition;
use crate::ids::{DefinitionDigest, PinKind};
use crate::wire::Json;
use crate::wire::mcp::Kind;

/// Counts slices in which something was accepted anew.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// One definition that a server lists and that can be pinned.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// Of what kind.
    pub kind: PinKind,
    /// Its name; empty for instructions.
    pub name: Arc<str>,
    /// Its digest.
    pub digest: DefinitionDigest,
    /// What it says.
    pub text: Json,
}

/// A definition that a server lists and that is not offered.
#[derive(Debug)]
pub struct Withheld {
    /// Of what kind.
    pub kind: Kind,
    /// The definition as it came.
    pub definition: Arc<Definition>,
}

impl Slice {
    /// Everything in it that can be pinned.
    #[must_use]
    pub fn pinned(&self) -> Vec<Pinned> {
        let mut pinned = Vec::new();
        for kind in Kind::ALL {
            let Some(of) = pin_kind(kind) else { continue };
            let list = self.list(kind);
            if list.own {
                continue;
            }
            pinned.extend(list.items.iter().map(|item| Pinned {
                kind: of,
                name: Arc::clone(&item.name),
                digest: item.digest,
                text: item.raw.clone(),
            }));
        }
        pinned.extend(self.pinned_instructions());
        pinned
    }

    fn pinned_instructions(&self) -> Option<Pinned> {
        let said = self.facts().instructions.as_deref().filter(|said| !said.trim().is_empty())?;
        let text = instructions(said);
        let digest = digest(self.server(), PinKind::Instructions.as_str(), &text);
        Some(Pinned { kind: PinKind::Instructions, name: Arc::from(""), digest, text })
    }

    /// The same with only what is accepted. Whatever `before` offered and this does not, learns of it.
    pub(in crate::catalog) fn screened(&self, accepted: &Accepted, before: Option<&Self>) -> Self {
        let mut withheld = Vec::new();
        let mut is_new = false;
        let lists = Kind::ALL.map(|kind| {
            let old = before.map(|before| before.list(kind));
            Arc::new(self.screened_list(kind, accepted, old, &mut withheld, &mut is_new))
        });
        let said = self.pinned_instructions();
        let facts = match said {
            Some(said) if accepted.pin_of(self.server(), said.kind, &said.name, said.digest).is_none() => {
                Arc::new(Facts { instructions: None, ..self.facts().clone() })
            }
            _ => Arc::clone(self.shared_facts()),
        };
        let serial = match before {
            Some(before) if !is_new => before.serial(),
            _ => SERIAL.fetch_add(1, Ordering::Relaxed) + 1,
        };
        self.offering(facts, lists, serial, withheld)
    }

    fn screened_list(
        &self,
        kind: Kind,
        accepted: &Accepted,
        before: Option<&List>,
        withheld: &mut Vec<Withheld>,
        is_new: &mut bool,
    ) -> List {
        let live = self.list(kind);
        let Some(of) = pin_kind(kind) else { return live.with(live.items.clone()) };
        let mut old: HashMap<&str, &Arc<Definition>> =
            before.iter().flat_map(|before| &before.items).map(|item| (&*item.name, item)).collect();
        let mut items = Vec::with_capacity(live.items.len());
        for item in &live.items {
            if live.own {
                let was = old.get(&*item.name).is_some_and(|old| old.digest == item.digest && old.seal.is_none());
                *is_new |= !was;
                items.push(Arc::clone(item));
                continue;
            }
            let Some(pin) = accepted.pin_of(self.server(), of, &item.name, item.digest) else {
                withheld.push(Withheld { kind, definition: Arc::clone(item) });
                continue;
            };
            let offered = old.get(&*item.name).copied();
            if let Some(offered) = offered.filter(|old| old.seal.as_ref().is_some_and(|seal| seal.is_of(pin))) {
                items.push(Arc::clone(offered));
                old.remove(&*item.name);
                continue;
            }
            *is_new = true;
            let raw = pin.held.copy.clone().unwrap_or_else(|| item.raw.clone());
            items.push(Arc::new(Definition {
                name: Arc::clone(&item.name),
                digest: item.digest,
                secrecy: secrets::secrecy(raw.as_str()),
                raw,
                header_parameters: item.header_parameters.clone(),
                task_support: item.task_support,
                hints: item.hints,
                seal: Some(Seal::of(pin)),
            }));
        }
        for gone in old.into_values() {
            if let Some(seal) = &gone.seal {
                seal.replace();
            }
        }
        live.with(items)
    }
}
