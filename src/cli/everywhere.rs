//! Where a command reads the record: all replicas' by way of a running gateway, or else the files of this machine.
//!
//! Decides whether a gateway is asked, and says so where that did not go well. Refuses to know what is asked. Invariant:
//! whoever is told less than what all replicas have on their records is told that it is less, and what is missing.

use std::fmt::Write as _;

use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::safe;
use super::door::Elsewhere;
use super::output::WARNING;
use super::state::State;
use crate::control::client::{self, ClientError};
use crate::control::records::{Heard, Whole};
use crate::control::routes::API;

/// Whose records were read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Told {
    /// Other replicas may have more on theirs: why these were not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) own_record_only: Option<String>,
    /// Every replica that is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) replicas: Vec<Heard>,
}

/// What was read, and whose records that was.
#[derive(Debug, Serialize)]
pub(super) struct Read<T> {
    #[serde(flatten)]
    pub(super) told: T,
    #[serde(flatten)]
    pub(super) of: Told,
}

/// A path of the API with these parameters.
pub(super) fn path<'a>(path: &str, parameters: impl IntoIterator<Item = Option<(&'a str, &'a str)>>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters.into_iter().flatten());
    format!("{path}?{}", query.finish())
}

/// What is told of somebody else's files, or else of those on this machine.
///
/// # Errors
/// What was in the way, for people.
pub(super) async fn read<T: DeserializeOwned>(
    state: &State,
    elsewhere: &Elsewhere,
    path: &str,
    own: impl FnOnce() -> Result<T, String>,
) -> Result<Read<T>, String> {
    let whole = |Whole { told, replicas }| Read { told, of: Told { own_record_only: None, replicas } };
    if let Some(remote) = elsewhere.remote().map_err(|error| error.to_string())? {
        let answer = remote.ask(Method::GET, path, None::<&()>).await.and_then(|answer| answer.read());
        return answer.map(whole).map_err(|error| error.to_string());
    }
    // Where that is not known, the files of this machine are what was asked for.
    let missing = if state.store().is_ok_and(|store| store.is_shared()) {
        let asked = client::request(&state.directory()?, Method::GET, &format!("{API}{path}"), None::<&()>).await;
        match asked.and_then(|answer| answer.read()) {
            Ok(told) => return Ok(whole(told)),
            Err(ClientError::NotRunning(_)) => Some("no gateway runs here that could ask them".to_owned()),
            Err(error) => Some(error.to_string()),
        }
    } else {
        None
    };
    Ok(Read { told: own()?, of: Told { own_record_only: missing, replicas: Vec::new() } })
}

impl Told {
    /// What is missing, a line each.
    pub(super) fn missing(&self) -> Vec<String> {
        let own = self.own_record_only.iter();
        let own = own.map(|why| format!("this is the record of one replica, without what others did: {}", safe(why)));
        let silent = self.replicas.iter().filter_map(|heard| {
            let problem = heard.problem.as_ref()?;
            Some(format!("without the record of replica {}: {}", safe(&heard.replica), safe(problem)))
        });
        own.chain(silent).collect()
    }

    /// The same for people, and how many records there are where they are several.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let heard = self.replicas.iter().filter(|heard| heard.problem.is_none()).count();
        if self.replicas.len() > 1 {
            let _infallible = writeln!(text, "the records of {heard} of {} replicas", self.replicas.len());
        }
        for line in self.missing() {
            let _infallible = writeln!(text, "{WARNING}{line}{WARNING:#}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_missing_is_named_for_people_and_programs() {
        let heard = |replica: &str, problem: Option<&str>| Heard {
            replica: replica.to_owned(),
            problem: problem.map(str::to_owned),
        };
        let of = Told { own_record_only: None, replicas: vec![heard("A", None), heard("B", Some("it is\u{1b}gone"))] };
        let text = anstream::adapter::strip_str(&of.text()).to_string();
        assert_eq!(text.lines().next(), Some("the records of 1 of 2 replicas"));
        assert!(text.contains("without the record of replica B: ") && !text.contains('\u{1b}'), "{text}");
        let read = serde_json::to_value(Read { told: serde_json::json!({ "rows": [] }), of }).unwrap();
        assert!(read["replicas"][1]["problem"].is_string() && read["replicas"][0].get("problem").is_none(), "{read}");
        assert!(read.get("own_record_only").is_none());
        assert_eq!(Told::default().text(), "", "alone, nothing is said");
        let own = Told { own_record_only: Some("no gateway runs here".to_owned()), replicas: Vec::new() };
        assert!(own.text().contains("the record of one replica"));
    }
}
