//! Who is a member of what: the `g` rows as a graph, one set of links for each environment.
//!
//! Answers which names of the rules speak about a subject. Casbin follows the same links again when it
//! decides. Invariant: a graph that passed [`RoleGraph::lint`] has no cycle and no path that Casbin would cut.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limit::ROLE_DEPTH_MAX;

/// A name that rules use for somebody; small, so that classes compare quickly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NameId(pub(super) u32);

/// A set of environments, one bit for each of the world's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct EnvironmentSet(pub(super) u64);

impl EnvironmentSet {
    pub(super) fn of(index: usize) -> Self {
        Self(1_u64.checked_shl(u32::try_from(index).unwrap_or(u32::MAX)).unwrap_or(0))
    }

    pub(super) fn contains(self, index: usize) -> bool {
        self.0 & Self::of(index).0 != 0
    }

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The names of the rules and the links between them.
#[derive(Debug, Default)]
pub(super) struct RoleGraph {
    ids: HashMap<Arc<str>, NameId>,
    names: Vec<Arc<str>>,
    /// For each name, the roles that it has and where.
    links: Vec<Vec<(NameId, EnvironmentSet)>>,
}

impl RoleGraph {
    /// The id of a name, made if need be.
    pub(super) fn intern(&mut self, name: &str) -> NameId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = NameId(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        let name: Arc<str> = Arc::from(name);
        self.ids.insert(Arc::clone(&name), id);
        self.names.push(name);
        self.links.push(Vec::new());
        id
    }

    /// The id of a name, if the rules use it.
    pub(super) fn id(&self, name: &str) -> Option<NameId> {
        self.ids.get(name).copied()
    }

    /// The text of a name.
    pub(super) fn name(&self, id: NameId) -> Arc<str> {
        self.names.get(id.0 as usize).cloned().unwrap_or_else(|| Arc::from(""))
    }

    /// Every name.
    pub(super) fn names(&self) -> impl Iterator<Item = (NameId, &Arc<str>)> {
        (0..).map(NameId).zip(&self.names)
    }

    /// Makes `member` have `role`.
    pub(super) fn link(&mut self, member: NameId, role: NameId, environments: EnvironmentSet) {
        if let Some(links) = self.links.get_mut(member.0 as usize) {
            match links.iter_mut().find(|(to, _)| *to == role) {
                Some((_, held)) => *held = held.with(environments),
                None => links.push((role, environments)),
            }
        }
    }

    /// The roles that a name has directly.
    pub(super) fn links(&self, member: NameId) -> &[(NameId, EnvironmentSet)] {
        self.links.get(member.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// Every name that speaks about someone who has these names, in an environment; and the links followed.
    pub(super) fn reach(&self, starts: &[NameId], environment: usize) -> (Vec<NameId>, Vec<(NameId, NameId)>) {
        let mut reached: Vec<NameId> = starts.to_vec();
        reached.sort_unstable();
        reached.dedup();
        let mut seen: std::collections::HashSet<NameId> = reached.iter().copied().collect();
        let mut followed = Vec::new();
        let mut next = 0;
        while let Some(member) = reached.get(next).copied() {
            next += 1;
            for (role, environments) in self.links(member) {
                if environments.contains(environment) {
                    followed.push((member, *role));
                    if seen.insert(*role) {
                        reached.push(*role);
                    }
                }
            }
        }
        (reached, followed)
    }

    /// The first member whose roles run in a circle, or too deep; `None` is a sound graph.
    pub(super) fn lint(&self) -> Option<(Arc<str>, String)> {
        let mut depths: Vec<Option<usize>> = vec![None; self.names.len()];
        for (id, name) in self.names() {
            let mut path = Vec::new();
            if let Err(circle) = self.depth(id, &mut path, &mut depths) {
                return Some((Arc::clone(name), circle));
            }
        }
        None
    }

    fn depth(&self, id: NameId, path: &mut Vec<NameId>, depths: &mut [Option<usize>]) -> Result<usize, String> {
        if let Some(Some(depth)) = depths.get(id.0 as usize) {
            return Ok(*depth);
        }
        if path.contains(&id) {
            return Err(format!("`{}` is a member of itself; remove one of the g rows of the circle", self.name(id)));
        }
        let too_deep =
            || format!("`{}` has roles of roles more than {ROLE_DEPTH_MAX} deep; flatten them", self.name(id));
        // Also bounds this recursion.
        if path.len() > ROLE_DEPTH_MAX {
            return Err(too_deep());
        }
        path.push(id);
        let mut depth = 0;
        for (role, _) in self.links(id) {
            depth = depth.max(1 + self.depth(*role, path, depths)?);
        }
        path.pop();
        if depth > ROLE_DEPTH_MAX {
            return Err(too_deep());
        }
        if let Some(known) = depths.get_mut(id.0 as usize) {
            *known = Some(depth);
        }
        Ok(depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(links: &[(&str, &str)]) -> RoleGraph {
        let mut graph = RoleGraph::default();
        for (member, role) in links {
            let (member, role) = (graph.intern(member), graph.intern(role));
            graph.link(member, role, EnvironmentSet::of(0));
        }
        graph
    }

    #[test]
    fn a_circle_of_roles_is_found() {
        assert!(graph(&[("a", "b"), ("b", "c"), ("c", "a")]).lint().unwrap().1.contains("member of itself"));
        assert!(graph(&[("a", "b"), ("a", "c"), ("b", "c")]).lint().is_none());
    }

    #[test]
    fn roles_deeper_than_casbin_follows_are_found() {
        let chain: Vec<(String, String)> =
            (0..=ROLE_DEPTH_MAX).map(|at| (format!("r{at}"), format!("r{}", at + 1))).collect();
        let links: Vec<(&str, &str)> = chain.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
        assert!(graph(&links).lint().unwrap().1.contains("deep"));
        assert!(graph(&links[..ROLE_DEPTH_MAX]).lint().is_none());
    }

    #[test]
    fn a_role_in_one_environment_is_none_in_another() {
        let graph = graph(&[("user:a/b", "role:x")]);
        let start = [graph.id("user:a/b").unwrap()];
        assert_eq!(graph.reach(&start, 0).0.len(), 2);
        assert_eq!(graph.reach(&start, 1).0.len(), 1);
    }
}
