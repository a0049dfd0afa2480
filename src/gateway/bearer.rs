//! Questions about the rules that bring a token, instead of saying who would call.
//!
//! Decides at which resource it is looked at. Refuses to keep it. Invariants: a token is shown by nothing that is printed or
//! recorded; one that gets nobody in is an answer, and not a mistake of whoever asks.

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ask::{Question, object};
use crate::config::Config;
use crate::identity::{Bearer, Identity, Resource};
use crate::ids::ServerId;
use crate::outcome::{Reason, Refusal, Stop};
use crate::policy::GATEWAY_SERVER;

/// A token on its way to whoever verifies it; it is written nowhere else.
#[derive(Debug, Clone)]
pub struct TokenText(SecretString);

impl From<SecretString> for TokenText {
    fn from(token: SecretString) -> Self {
        Self(token)
    }
}

impl Serialize for TokenText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose_secret())
    }
}

impl<'de> Deserialize<'de> for TokenText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(SecretString::from(text)))
    }
}

/// Whose a token is, or why it gets nobody in.
pub type Looked = Result<Bearer, Refusal>;

impl Question {
    /// Whose the token is that it brings; nothing where it brings none.
    ///
    /// # Errors
    /// `parameters_invalid` where it says in another way as well who that is; a failure where nobody can say it now.
    pub async fn bearer(&self, identity: &Identity, config: &Config) -> Result<Option<Looked>, Stop> {
        let Some(TokenText(token)) = &self.token else { return Ok(None) };
        let named = self.subject.is_some() || self.agent.is_some() || self.client_proof.is_some();
        if named || !(self.groups.is_empty() && self.scopes.is_empty() && self.actors.is_empty()) {
            let hint = "the token says who calls: leave out as, groups, agent, scopes, client_proof and actors";
            return Err(Refusal::new(Reason::ParametersInvalid).hint(hint).into());
        }
        let invalid = |hint: String| Refusal::new(Reason::ParametersInvalid).hint(hint);
        let (server, _) = object(&self.object).map_err(invalid)?;
        let whole = if server == GATEWAY_SERVER { Resource::Admin } else { Resource::Gateway };
        let mut looked = identity.bearer(token.expose_secret(), &whole).await;
        // A token may be for one server alone.
        if looked.as_ref().is_err_and(|stop| stop.reason() == Reason::AudienceMismatch)
            && let Some(server) = ServerId::new(server).ok().filter(|id| config.server(id).is_some())
        {
            looked = identity.bearer(token.expose_secret(), &Resource::Server(server)).await;
        }
        match looked {
            Ok(bearer) => Ok(Some(Ok(bearer))),
            Err(Stop::Refused(refusal)) => Ok(Some(Err(refusal))),
            Err(failed) => Err(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_where_it_is_verified_and_nowhere_else() {
        let text = r#"{"object":"notes/add","token":"very-secret"}"#;
        let question: Question = serde_json::from_str(text).unwrap();
        assert!(!format!("{question:?}").contains("very-secret"), "{question:?}");
        assert!(!question.about().contains("very-secret"), "{}", question.about());
        assert!(serde_json::to_string(&question).unwrap().contains("very-secret"), "it goes to the gateway");
    }
}
