//! A recorded call under another policy: what it would be, where the record tells enough.
//!
//! Decides what the rules say of what is known of a call afterwards. Refuses to know where that is written. Invariant:
//! nothing is guessed: where the answer hangs on a group, a scope, an argument or something seen of which the record does
//! not tell, the answer is that nobody can tell, and why.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::condition::{ArgumentRead, Arguments, Condition, Facts, Quantifier, Situation, Truth, client_proof};
use super::label::Seen;
use super::persona::Described;
use super::verdict::Values;
use super::{Ask, Policy};
use crate::identity::{Groups, Persona};
use crate::ids::{Action, AgentId, Subject};
use crate::limit;
use crate::outcome::Reason;

/// What conditions read beside arguments, by the words of the record: an argument of such a name is not told apart.
const FACTS: [&str; 9] =
    ["time", "client_proof", "authenticated_at", "acr", "human", "autonomous", "mandate", "seen", "arguments"];
/// What the record says in the place of a value that is none.
const NO_VALUES: [&str; 4] = ["\"absent\"", "\"given twice\"", "\"[redacted]\"", PRESENT];
/// The same where only whether it is there was looked at.
const PRESENT: &str = "\"present\"";

/// A call as the record tells of it.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// `user:ISSUER/SUB`; nothing for software on its own.
    pub user: Option<String>,
    /// The groups; nothing where they are not told whole.
    pub groups: Option<Vec<String>>,
    /// Of these they are a part.
    pub groups_told: Vec<String>,
    /// The agent.
    pub agent: Option<String>,
    /// Further actors, outermost first.
    pub chain: Vec<String>,
    /// Scopes; nothing where they are not told whole.
    pub scopes: Option<Vec<String>>,
    /// How the client proved itself.
    pub client_proof: String,
    /// When the human authenticated, seconds since 1970.
    pub authenticated_at: Option<i64>,
    /// Authentication context class.
    pub acr: Option<String>,
    /// The server.
    pub server: String,
    /// In its own spelling.
    pub name: String,
    /// What was done.
    pub action: String,
    /// Whether it had arguments; nothing where that is not told.
    pub has_arguments: Option<bool>,
    /// What conditions have read of them, by name, as JSON.
    pub values: BTreeMap<String, Box<RawValue>>,
    /// The template of its mandate; an empty one where it had none.
    pub template: Option<String>,
    /// Whether it was part of a mandate.
    pub mandated: bool,
    /// What its caller had seen; nothing where that is not told.
    pub seen: Option<Vec<String>>,
}

/// What a call would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replayed {
    /// Allowed, by these rules.
    Allowed(String),
    /// Refused, by this rule where one decided.
    Refused(Reason, Option<String>),
    /// The record does not tell enough; why.
    Untold(String),
}

impl Replayed {
    const fn is_allowed(&self) -> Option<bool> {
        match self {
            Self::Allowed(_) => Some(true),
            Self::Refused(..) => Some(false),
            Self::Untold(_) => None,
        }
    }
}

/// What is known of the arguments.
struct Known<'t> {
    told: &'t Told,
    /// An object of what is told of them.
    json: String,
}

impl Policy {
    /// What a call would be under this policy.
    #[must_use]
    pub fn replay(&self, told: &Told, at: Timestamp) -> Replayed {
        let Some(action) = Action::parse(&told.action) else {
            return Replayed::Untold(format!("`{}` is nothing that rules speak of", told.action));
        };
        let Ok(ask) = self.ask_about(&told.server, &told.name, &action) else {
            return Replayed::Refused(Reason::TargetUnknown, None);
        };
        let persona = match self.described(told) {
            Ok(persona) => persona,
            Err(why) => return Replayed::Untold(why),
        };
        let known = Known::of(told);
        let answer = self.replay_as(&persona, &ask, &known, at);
        if told.groups.is_some() || persona.user.is_none() {
            return answer;
        }
        // Each group adds rows, and the user is the union of them: whatever can turn the answer, one group alone can.
        let Groups::Known(held) = &persona.groups else { return answer };
        let named = self.graph.names().filter_map(|(_, name)| Subject::parse(name).ok());
        for group in named.filter(|name| name.as_str().starts_with("group:") && !held.contains(name)) {
            let mut groups = held.clone();
            groups.push(group.clone());
            groups.sort();
            let other = Persona { groups: Groups::Known(groups), ..persona.clone() };
            if self.replay_as(&other, &ask, &known, at).is_allowed() != answer.is_allowed() {
                return Replayed::Untold(format!("whether its caller was in {group} is not on the record"));
            }
        }
        answer
    }

    fn described(&self, told: &Told) -> Result<Persona, String> {
        let subject = |text: &String| Subject::parse(text).map_err(|_| format!("`{text}` is no subject any more"));
        let agent = |text: &String| AgentId::new(text).map_err(|_| format!("`{text}` is no agent any more"));
        let groups = told.groups.as_ref().unwrap_or(&told.groups_told);
        let proof =
            client_proof(&told.client_proof).ok_or_else(|| "how its client proved itself is not known here".to_owned());
        self.persona(&Described {
            user: told.user.as_ref().map(subject).transpose()?,
            groups: groups.iter().map(subject).collect::<Result<_, _>>()?,
            agent: told.agent.as_ref().map(agent).transpose()?,
            chain: told.chain.iter().map(agent).collect::<Result<_, _>>()?,
            scopes: told.scopes.clone().unwrap_or_default(),
            client_proof: proof?,
            authenticated_at: told.authenticated_at,
            acr: told.acr.clone(),
        })
    }

    /// The same for one way to take the groups.
    fn replay_as(&self, persona: &Persona, ask: &Ask<'_>, known: &Known<'_>, at: Timestamp) -> Replayed {
        let class = self.class(persona);
        let environment = match self.reachable(&class, ask) {
            Ok(environment) => environment,
            Err(refusal) => return Replayed::Refused(refusal.reason, refusal.rule),
        };
        let Ok(cell) = self.cell(&class, environment, ask, false) else {
            return Replayed::Untold("the policy could not decide".to_owned());
        };
        let situation = known.situation();
        let mut open: Vec<usize> =
            cell.parts.iter().flat_map(|part| self.rules_of(&part.rules)).filter_map(|rule| rule.condition).collect();
        open.sort_unstable();
        open.dedup();
        let read: Vec<(usize, (Truth, Truth))> = open
            .iter()
            .filter_map(|index| Some((*index, known.value(self.conditions.get(*index)?, persona, at, &situation))))
            .collect();
        let values: Values<'_> = &|condition| {
            let found = read.iter().find(|(index, _)| *index == condition);
            found.map_or((Truth::Unknown, Truth::Unknown), |(_, value)| *value)
        };
        let all = |at_best: bool| cell.parts.iter().all(|part| self.native(&part.rules, values, at_best));
        match (all(false), all(true)) {
            (true, _) if self.scopes.contains_key(&persona.issuer) && known.told.scopes.is_none() => {
                Replayed::Untold("which scopes its token had is not on the record".to_owned())
            }
            (true, _) => match self.missing_scopes(persona, ask) {
                Some(refusal) => Replayed::Refused(refusal.reason, None),
                None => Replayed::Allowed(self.deciding(&cell.parts, values).join(", ")),
            },
            (false, false) => {
                let refusal = self.refusal(&cell.parts, values, false);
                Replayed::Refused(refusal.reason, refusal.rule)
            }
            (false, true) => {
                let unsure = read.iter().find(|(_, (allow, deny))| *allow == Truth::Unknown || *deny == Truth::Unknown);
                let name = unsure.and_then(|(index, _)| self.conditions.get(*index)).map(Condition::name);
                let name = name.map_or_else(|| "a condition".to_owned(), |name| format!("the condition `{name}`"));
                Replayed::Untold(format!("what {name} reads is not on the record"))
            }
        }
    }
}

impl<'t> Known<'t> {
    fn of(told: &'t Told) -> Self {
        let known = |name: &str, value: &RawValue| {
            let told = is_told(name, value).then(|| value.get().to_owned());
            told.or_else(|| is_there(name, value).then(|| "null".to_owned()))
        };
        let mut members: BTreeMap<String, String> =
            told.values.iter().filter_map(|(name, value)| Some((name.clone(), known(name, value)?))).collect();
        // Which arguments there were is told by their names.
        if let Some(names) = told.values.get("arguments").filter(|names| is_whole(names))
            && let Ok(names) = serde_json::from_str::<String>(names.get())
        {
            for name in names.split_ascii_whitespace() {
                members.entry(name.to_owned()).or_insert_with(|| "null".to_owned());
            }
        }
        let member = |(name, json): (&String, &String)| format!("{}:{json}", serde_json::Value::from(name.as_str()));
        let members: Vec<String> = members.iter().map(member).collect();
        Self { told, json: format!("{{{}}}", members.join(",")) }
    }

    fn situation(&self) -> Situation {
        let situation = if self.told.mandated {
            Situation::under(self.told.template.as_deref())
        } else {
            Situation::without_mandate()
        };
        let Some(names) = &self.told.seen else { return situation };
        let seen = names.iter().filter_map(|name| Seen::named(name)).fold(Seen::NOTHING, Seen::with);
        situation.having_seen(seen)
    }

    /// What a condition says, as an allow and as a deny reads it; unknown only where the record does not tell enough. What
    /// was unknown to the call itself is what an allow and a deny make of that.
    fn value(&self, condition: &Condition, persona: &Persona, at: Timestamp, situation: &Situation) -> (Truth, Truth) {
        let is_whole =
            self.told.has_arguments == Some(false) || condition.arguments_read().iter().all(|read| self.tells(read));
        let arguments = match self.told.has_arguments {
            // Of a method that nobody has heard of, the call itself did not know them either.
            Some(false) => {
                Action::parse(&self.told.action).map_or(Arguments::None, |action| Arguments::of(&action, None))
            }
            _ if is_whole => Arguments::Json(&self.json),
            _ => Arguments::Unknown,
        };
        let facts = Facts::new(persona, arguments, at).within(situation);
        let (allow, deny) = (condition.value(&facts, Quantifier::Every), condition.value(&facts, Quantifier::Any));
        if !is_whole || (condition.reads_seen() && self.told.seen.is_none()) {
            return (allow, deny);
        }
        let surely = |truth: Truth, unknown: Truth| if truth == Truth::Unknown { unknown } else { truth };
        (surely(allow, Truth::False), surely(deny, Truth::True))
    }

    fn tells(&self, read: &ArgumentRead) -> bool {
        let told = |name: &str, is_told: &dyn Fn(&str, &RawValue) -> bool| {
            self.told.values.get(name).is_some_and(|value| is_told(name, value))
        };
        match read {
            ArgumentRead::Names => told("arguments", &|_, names| is_whole(names)),
            ArgumentRead::Value(name) => told(name, &is_told),
            ArgumentRead::Presence(name) => told(name, &is_told) || told(name, &is_there),
        }
    }
}

/// Whether the record has that argument as it was: whole, and told apart from everything else that it may say there.
fn is_told(name: &str, value: &RawValue) -> bool {
    is_argument(name) && is_whole(value)
}

/// Whether the record says that there was such an argument, whatever it was.
fn is_there(name: &str, value: &RawValue) -> bool {
    is_argument(name) && value.get() == PRESENT
}

fn is_argument(name: &str) -> bool {
    !FACTS.contains(&name) && !name.contains('.')
}

/// Whether nothing was cut from it, or written in its place.
fn is_whole(value: &RawValue) -> bool {
    let text = value.get();
    let cut = text.chars().count() >= limit::CONDITION_VALUE_CHARACTERS_MAX || text.starts_with("\"[");
    !NO_VALUES.contains(&text) && !cut
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{build_with, world};
    use super::*;

    const RULES: &str = "p, user:corp/ann, *, deploy/rollout, call, small, allow\n";

    /// What a recorded call of ann's would be, where conditions have read these values of its arguments.
    fn replayed(condition: &str, values: &[(&str, &str)]) -> Replayed {
        let conditions = format!("[small]\n{condition}\n");
        let policy = build_with(&[("policy.csv", RULES), ("conditions.toml", &conditions)], &world()).unwrap().policy;
        let value =
            |(name, json): &(&str, &str)| ((*name).to_owned(), RawValue::from_string((*json).to_owned()).unwrap());
        let told = Told {
            user: Some("user:corp/ann".to_owned()),
            groups: Some(Vec::new()),
            client_proof: "public".to_owned(),
            server: "deploy".to_owned(),
            name: "rollout".to_owned(),
            action: "call".to_owned(),
            has_arguments: Some(true),
            values: values.iter().map(value).collect(),
            ..Told::default()
        };
        policy.replay(&told, Timestamp::UNIX_EPOCH)
    }

    const ONLY: &str = "only = [\"a\", \"b\"]";

    #[test]
    fn the_names_of_arguments_are_believed_only_where_all_of_them_are_told() {
        assert!(matches!(replayed(ONLY, &[("arguments", "\"a b\"")]), Replayed::Allowed(_)));
        assert!(matches!(replayed(ONLY, &[("arguments", "\"a c\"")]), Replayed::Refused(..)));
        let cut = format!("\"{}\"", "a ".repeat(limit::CONDITION_VALUE_CHARACTERS_MAX / 2));
        for names in [cut.as_str(), "\"[redacted]\"", "\"[9000 bytes]\""] {
            assert!(matches!(replayed(ONLY, &[("arguments", names)]), Replayed::Untold(_)), "{names}");
        }
    }

    #[test]
    fn an_argument_of_which_only_that_it_is_there_is_told_is_there_and_nothing_else() {
        let there = [("force", "\"present\"")];
        assert!(matches!(replayed("argument = \"force\"\npresent = true", &there), Replayed::Allowed(_)));
        assert!(matches!(replayed("argument = \"force\"\npresent = false", &there), Replayed::Refused(..)));
        assert!(matches!(replayed("argument = \"force\"\none_of = [\"present\"]", &there), Replayed::Untold(_)));
        let value = [("force", "true")];
        assert!(matches!(replayed("argument = \"force\"\npresent = true", &value), Replayed::Allowed(_)));
    }
}
