//! From rows to rules: reads `policy.csv` and `servers/NAME.csv` against the world, row by row.
//!
//! Decides whether each row means something. What only shows when all rows are known is in `lint.rs`.
//! Invariant: a row is a rule, a link, a member of a set, inert, or a mistake; nothing is skipped silently.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::condition::Condition;
use super::object::{self, ObjectPattern, PatternKind, RESERVED_SETS};
use super::operation;
use super::reader::{self, Row};
use super::role::{EnvironmentSet, RoleGraph};
use super::rule::{Effect, Rule};
use super::source::{Mistake, Sources};
use super::world::{GATEWAY_ENVIRONMENT, GATEWAY_SERVER, Strictness, World, role_name};
use crate::ids::{Action, Subject};
use crate::limit::{ENVIRONMENTS_MAX, POLICY_ROWS_MAX};

/// The one file that may say everything.
pub(super) const ROOT: &str = "policy.csv";

/// What the rows say.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) rules: Vec<Rule>,
    pub(super) graph: RoleGraph,
    /// Object or set, and the sets that it is directly in.
    pub(super) sets: HashMap<Arc<str>, Vec<Arc<str>>>,
    /// Roles that somebody has: where each is given, for the lint; inert rows count.
    pub(super) held_roles: HashMap<String, Option<(String, u32)>>,
    /// The cells of every `g` and `g2` row, also of those that mean nobody.
    pub(super) links: BTreeSet<Vec<String>>,
    /// Rows that name an undeclared issuer, in a demo.
    pub(super) inert: usize,
}

/// The environments by index: the declared ones, then the gateway's own.
#[derive(Debug)]
pub(super) struct Environments {
    pub(super) names: Vec<Arc<str>>,
    servers: HashMap<Arc<str>, usize>,
}

impl Environments {
    pub(super) fn of(world: &World, mistakes: &mut Vec<Mistake>) -> Self {
        let mut names: Vec<Arc<str>> = world.environments.iter().map(|name| Arc::from(name.as_str())).collect();
        if names.len() > ENVIRONMENTS_MAX {
            mistakes
                .push(Mistake::file("servers.toml", format!("there are more than {ENVIRONMENTS_MAX} environments")));
            names.truncate(ENVIRONMENTS_MAX);
        }
        if !names.iter().any(|name| &**name == GATEWAY_ENVIRONMENT) {
            names.push(Arc::from(GATEWAY_ENVIRONMENT));
        }
        let mut servers = HashMap::new();
        for (server, environment) in &world.servers {
            match names.iter().position(|name| **name == *environment.as_str()) {
                Some(index) => drop(servers.insert(Arc::from(server.as_str()), index)),
                None => mistakes.push(Mistake::file(
                    "servers.toml",
                    format!("server `{server}` is in `{environment}`, which is not declared; add it to environments"),
                )),
            }
        }
        if let Some(gateway) = names.iter().position(|name| &**name == GATEWAY_ENVIRONMENT) {
            servers.insert(Arc::from(GATEWAY_SERVER), gateway);
        }
        Self { names, servers }
    }

    pub(super) fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| **known == *name)
    }

    pub(super) fn of_server(&self, server: &str) -> Option<usize> {
        self.servers.get(server).copied()
    }

    fn all(&self) -> EnvironmentSet {
        (0..self.names.len()).fold(EnvironmentSet::default(), |set, index| set.with(EnvironmentSet::of(index)))
    }

    /// Where the servers are that a pattern means; the gateway itself only by its own name.
    fn of_pattern(&self, pattern: &ObjectPattern) -> Option<EnvironmentSet> {
        if pattern.names_one_server() {
            return self.of_server(pattern.server()).map(EnvironmentSet::of);
        }
        let probe = format!("{}/", pattern.server());
        let means = |server: &str| server != GATEWAY_SERVER && object::matches(&format!("{server}/"), &probe, false);
        self.servers
            .iter()
            .filter(|(server, _)| means(server))
            .map(|(_, index)| EnvironmentSet::of(*index))
            .reduce(EnvironmentSet::with)
    }
}

/// Reads all rows.
pub(super) fn load(
    sources: &Sources,
    world: &World,
    environments: &Environments,
    conditions: &[Condition],
    mistakes: &mut Vec<Mistake>,
) -> Loaded {
    let mut loader = Loader {
        world,
        environments,
        conditions: conditions.iter().enumerate().map(|(index, condition)| (condition.name.as_str(), index)).collect(),
        loaded: Loaded {
            rules: Vec::new(),
            graph: RoleGraph::default(),
            sets: HashMap::new(),
            held_roles: HashMap::new(),
            links: BTreeSet::new(),
            inert: 0,
        },
        mistakes,
    };
    let everyones = world.issuers.iter().flat_map(|issuer| &issuer.default_roles);
    for role in everyones.chain(&world.emergency_roles) {
        let role = role_name(role);
        loader.loaded.graph.intern(&role);
        loader.loaded.held_roles.insert(role, None);
    }
    let files = std::iter::once((ROOT, None)).chain(sources.server_files().map(|(file, server)| (file, Some(server))));
    let mut rows_left = POLICY_ROWS_MAX;
    for (file, owner) in files {
        let text = match sources.text(file) {
            Ok(text) => text.unwrap_or(""),
            Err(mistake) => {
                loader.mistakes.push(mistake);
                continue;
            }
        };
        if let Some(server) = owner
            && (server == GATEWAY_SERVER || environments.of_server(server).is_none())
        {
            let message = format!("there is no server `{server}`; rename the file to the id of a server");
            loader.mistakes.push(Mistake::file(file, message));
            continue;
        }
        let rows = reader::rows(file, text, loader.mistakes);
        if rows.len() > rows_left {
            loader
                .mistakes
                .push(Mistake::file(file, format!("there are more than {POLICY_ROWS_MAX} rows in all files")));
            break;
        }
        rows_left -= rows.len();
        for row in &rows {
            if row.text(0) != "p" {
                loader.loaded.links.insert(row.cells.iter().map(|cell| cell.text.clone()).collect());
            }
            loader.row(row, owner);
        }
    }
    loader.loaded
}

struct Loader<'a> {
    world: &'a World,
    environments: &'a Environments,
    conditions: HashMap<&'a str, usize>,
    loaded: Loaded,
    mistakes: &'a mut Vec<Mistake>,
}

/// What a name in a row turned out to be.
enum Named {
    Somebody,
    Inert,
}

impl Loader<'_> {
    fn row(&mut self, row: &Row, owner: Option<&str>) {
        let cells_expected = match row.text(0) {
            "p" => 7,
            "g" => 4,
            "g2" => 3,
            other => {
                let message = format!("`{other}` is not a kind of row; write p, g or g2");
                return self.mistakes.push(row.mistake(0, message));
            }
        };
        if row.cells.len() != cells_expected {
            let message = format!(
                "the row has {} cells after `{}`, it needs {}: {}",
                row.cells.len() - 1,
                row.text(0),
                cells_expected - 1,
                shape(row.text(0))
            );
            return self.mistakes.push(row.mistake(cells_expected.min(row.cells.len() - 1), message));
        }
        if let Some(empty) = row.cells.iter().position(|cell| cell.text.is_empty()) {
            let message = format!("the cell is empty; the row is {}", shape(row.text(0)));
            return self.mistakes.push(row.mistake(empty, message));
        }
        let result = match (row.text(0), owner) {
            ("p", owner) => self.rule(row, owner),
            (kind, Some(_)) => Err((0, format!("a server's file holds no {kind} rows; write it in {ROOT}"))),
            ("g", None) => self.link(row),
            (_, None) => self.set(row),
        };
        if let Err((cell, message)) = result {
            self.mistakes.push(row.mistake(cell, message));
        }
    }

    fn rule(&mut self, row: &Row, owner: Option<&str>) -> Result<(), (usize, String)> {
        let action = Action::parse(row.text(4)).ok_or_else(|| {
            let known = "call, read, get, complete, subscribe, elicit, sample, roots, admin or method:NAME";
            (4, format!("`{}` is not an action; write one row for each of {known}", row.text(4)))
        })?;
        let object = ObjectPattern::parse(row.text(3), &action).map_err(|message| (3, message))?;
        if let Some(owner) = owner
            && object.server() != owner
        {
            return Err((3, format!("this file speaks about {owner}/... only; write the row in {ROOT}")));
        }
        let is_gateway = object.server() == GATEWAY_SERVER;
        if (action == Action::Admin) != is_gateway && (action == Action::Admin || owner.is_some()) {
            return Err((4, format!("admin is for the gateway's own operations; write {GATEWAY_SERVER}/NAME")));
        }
        if is_gateway {
            if action != Action::Admin {
                return Err((4, format!("the gateway's own operations have one action; write admin, not {action}")));
            }
            operation::check(&object, &self.world.templates).map_err(|message| (3, message))?;
        }
        if object::is_server_wide(&action) && !object::matches(&format!("{}/", object.server()), &object.text, false) {
            return Err((3, format!("{action} is about the whole server; write {}/*", object.server())));
        }
        let environments = self.rule_environments(row, &object)?;
        let condition = match row.text(5) {
            "-" => None,
            name => Some(self.conditions.get(name).copied().ok_or_else(|| {
                (5, format!("there is no condition `{name}`; write - or a name from conditions.toml"))
            })?),
        };
        let effect = match row.text(6) {
            "allow" => Effect::Allow,
            "deny" => Effect::Deny,
            other => {
                return Err((
                    6,
                    format!("`{other}` is not an effect; write allow or deny, and comments on their own line"),
                ));
            }
        };
        if let Named::Inert = self.subject(row, 1, true)? {
            self.loaded.inert += 1;
            return Ok(());
        }
        let subject: Arc<str> = Arc::from(row.text(1));
        self.loaded.rules.push(Rule {
            place: format!("{}:{}", row.file, row.line).into(),
            line: row.line,
            subject_id: self.loaded.graph.intern(&subject),
            subject,
            environments,
            environment: row.text(2).to_owned(),
            object,
            action,
            action_name: Arc::from(row.text(4)),
            condition,
            condition_name: Arc::from(row.text(5)),
            effect,
        });
        Ok(())
    }

    /// The environments in which a rule can ever be asked.
    fn rule_environments(&self, row: &Row, object: &ObjectPattern) -> Result<EnvironmentSet, (usize, String)> {
        let Some(reachable) = self.environments.of_pattern(object) else {
            return Err((3, format!("there is no server `{}`; write the id of a server", object.server())));
        };
        if row.text(2) == "*" {
            return Ok(reachable);
        }
        let written = self.environment(row, 2)?;
        let both = EnvironmentSet(written.0 & reachable.0);
        if both == EnvironmentSet::default() {
            return Err((
                2,
                format!("`{}` is not in {}, so the row never applies; write *", object.server(), row.text(2)),
            ));
        }
        Ok(both)
    }

    fn environment(&self, row: &Row, cell: usize) -> Result<EnvironmentSet, (usize, String)> {
        let text = row.text(cell);
        if text == "*" {
            return Ok(self.environments.all());
        }
        self.environments.index(text).map(EnvironmentSet::of).ok_or_else(|| {
            let names: Vec<&str> = self.environments.names.iter().map(|name| &**name).collect();
            (cell, format!("`{text}` is not a declared environment; write * or one of {}", names.join(", ")))
        })
    }

    fn link(&mut self, row: &Row) -> Result<(), (usize, String)> {
        if row.text(1) == "anyone" {
            return Err((
                1,
                "anyone cannot be a member; write anyone in the p rows, or default_roles of an issuer".to_owned(),
            ));
        }
        let environments = self.environment(row, 3)?;
        if !row.text(2).starts_with("role:") {
            return Err((2, format!("`{}` is not a role; write role:NAME", row.text(2))));
        }
        self.subject(row, 2, true)?;
        let member = self.subject(row, 1, true)?;
        let place = Some((row.file.to_string(), row.line));
        self.loaded.held_roles.entry(row.text(2).to_owned()).or_insert(place);
        if let Named::Inert = member {
            self.loaded.inert += 1;
            return Ok(());
        }
        let (member, role) = (self.loaded.graph.intern(row.text(1)), self.loaded.graph.intern(row.text(2)));
        self.loaded.graph.link(member, role, environments);
        Ok(())
    }

    fn set(&mut self, row: &Row) -> Result<(), (usize, String)> {
        let member = ObjectPattern::parse(row.text(1), &Action::Read).map_err(|message| (1, message))?;
        let set = ObjectPattern::parse(row.text(2), &Action::Read).map_err(|message| (2, message))?;
        if member.kind == PatternKind::Glob || !member.names_one_server() {
            return Err((1, "write each name; what a server adds later is in no set".to_owned()));
        }
        if set.kind != PatternKind::Set || set.server() != member.server() {
            return Err((
                2,
                format!("`{}` is not a set of {}; write {}/@NAME", set.text, member.server(), member.server()),
            ));
        }
        if self.environments.of_server(member.server()).is_none() {
            return Err((1, format!("there is no server `{}`; write the id of a server", member.server())));
        }
        if member.server() == GATEWAY_SERVER {
            operation::check(&member, &self.world.templates).map_err(|message| (1, message))?;
        }
        let everywhere: Arc<str> = Arc::from(format!("*/{}", set.name()));
        let sets = self.loaded.sets.entry(Arc::clone(&member.text)).or_default();
        if !sets.contains(&set.text) {
            sets.push(Arc::clone(&set.text));
        }
        let sets = self.loaded.sets.entry(set.text).or_default();
        if !sets.contains(&everywhere) {
            sets.push(everywhere);
        }
        Ok(())
    }

    /// Checks a subject or role.
    fn subject(&self, row: &Row, cell: usize, roles: bool) -> Result<Named, (usize, String)> {
        let text = row.text(cell);
        if let Some(role) = text.strip_prefix("role:").filter(|_| roles) {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if role.is_empty() || role.len() > 64 || !role.bytes().all(plain) {
                return Err((cell, format!("`{role}` is not a role name; use 1 to 64 of a-z, A-Z, 0-9, -, . and _")));
            }
            return Ok(Named::Somebody);
        }
        Subject::parse(text).map_err(|error| (cell, format!("{error}, or role:NAME")))?;
        if let Some(agent) = text.strip_prefix("agent:") {
            let known = self.world.agents.iter().any(|known| known.id.as_str() == agent);
            let message = || (cell, format!("there is no agent `{agent}`; register it in agents.toml"));
            return if known { Ok(Named::Somebody) } else { Err(message()) };
        }
        let Some((alias, _)) = text.split_once(':').and_then(|(_, rest)| rest.split_once('/')) else {
            return Ok(Named::Somebody);
        };
        match (self.world.has_issuer(alias), self.world.strictness) {
            (true, _) => Ok(Named::Somebody),
            (false, Strictness::Demo) => Ok(Named::Inert),
            (false, Strictness::Serve) => {
                Err((cell, format!("there is no issuer `{alias}`; declare it in servers.toml or remove the row")))
            }
        }
    }
}

fn shape(kind: &str) -> &'static str {
    match kind {
        "p" => "p, subject, environment, object, action, condition, effect",
        "g" => "g, member, role, environment",
        _ => "g2, object, set",
    }
}

/// Whether a set exists: reserved, or something is in it.
pub(super) fn set_exists(sets: &HashMap<Arc<str>, Vec<Arc<str>>>, set: &ObjectPattern) -> bool {
    RESERVED_SETS.contains(&set.name()) || sets.values().any(|held| held.contains(&set.text))
}
