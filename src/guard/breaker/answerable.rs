//! Whom the errors of a tool are put down to.
//!
//! Decides which account that is. Refuses to know what is counted. Invariant: software that somebody answers for is no other
//! caller than they are, however many agents and keys they have.

use crate::config::{AgentConfig, Config};
use crate::identity::{Behind, Caller};
use crate::ids::Subject;

/// The account that a call is put down to: whoever calls; where software may be calling for nobody, who answers for it; and
/// where no file says who that is, its own.
pub(super) fn answerable<'a>(caller: &'a Caller, config: &'a Config) -> Option<&'a str> {
    let persona = caller.persona();
    let own = || persona.user.as_ref().map(Subject::as_str).or(persona.client.as_deref());
    if persona.behind == Behind::Person {
        return own();
    }
    let agent = persona.agent.as_ref().and_then(|agent| config.agents.get(&agent.id));
    agent.map(|agent| owner(agent, caller)).or_else(own)
}

/// Who answers for what an agent does with that credential.
fn owner<'a>(agent: &'a AgentConfig, caller: &Caller) -> &'a str {
    let token = caller.token();
    let key = agent.keys.iter().find(|key| token.is_key() && token.client.as_ref() == Some(&key.id));
    key.map_or(&agent.owner, |key| &key.owner)
}
