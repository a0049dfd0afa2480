//! The groups of a token: all of them, or *unknown*.
//!
//! Decides when a list of groups is complete. Invariant: absent, truncated, oversized, misshapen or too old is
//! [`Groups::Unknown`], never empty, because empty would turn deny rules off.

use super::persona::Groups;
use super::token::Claims;
use super::verify::seconds;
use crate::config::IssuerConfig;
use crate::ids::Subject;
use crate::limit;

/// The groups that the issuer's configured claim names; `own` tells a token that software got for itself, and `age` how
/// many seconds ago they were said, where it does.
pub(super) fn groups(issuer: &IssuerConfig, claims: &Claims<'_>, own: bool, age: Option<i64>) -> Groups {
    let Some(name) = issuer.claims.groups.as_deref() else { return Groups::Known(Vec::new()) };
    // Entra leaves the claim out above 200 groups and says so in one of two ways.
    if claims.raw("hasgroups") == Some("true") {
        return Groups::Unknown("the issuer left the groups out because there are too many (hasgroups)".into());
    }
    if let Some(elsewhere) = claims.raw("_claim_names")
        && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(elsewhere)
            .map_or(true, |names| names.contains_key(name))
    {
        return Groups::Unknown("the issuer left the groups out because there are too many (_claim_names)".into());
    }
    if !claims.has(name) {
        // Software that got a token for itself has no user whose groups could be missing.
        return if own { Groups::Known(Vec::new()) } else { Groups::Unknown(format!("the claim `{name}` is absent")) };
    }
    if let Some(most) = issuer.claims.groups_age_max.map(seconds) {
        let Some(age) = age else {
            return Groups::Unknown("the token does not say how old its groups are (`iat`)".to_owned());
        };
        if age > most {
            let what = format!("its groups are {age} s old and at most {most} s are believed: get a new access token");
            return Groups::Unknown(what);
        }
    }
    // A single text is not taken for one group: some issuers separate several by blanks or commas.
    let Ok(Some(names)) = claims.typed::<Vec<String>>(name) else {
        return Groups::Unknown(format!("the claim `{name}` is not a list of texts"));
    };
    if names.len() > limit::GROUPS_MAX {
        return Groups::Unknown(format!("the claim `{name}` has more than {} groups", limit::GROUPS_MAX));
    }
    if names.iter().any(|group| group.contains('\0')) {
        return Groups::Unknown(format!("the claim `{name}` has a U+0000 in it"));
    }
    let mut subjects: Vec<Subject> = names.iter().map(|group| Subject::group(&issuer.alias, group)).collect();
    subjects.sort_unstable();
    subjects.dedup();
    Groups::Known(subjects)
}

/// From which second since 1970 on groups that were said then are too old.
pub(super) fn good_until(issuer: &IssuerConfig, groups: &Groups, said_at: Option<i64>) -> i64 {
    let most = issuer
        .claims
        .groups_age_max
        .map(seconds)
        .filter(|_| matches!(groups, Groups::Known(known) if !known.is_empty()));
    most.zip(said_at).map_or(i64::MAX, |(most, said_at)| said_at.saturating_add(most).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::fixture::issuer_config;

    fn read(json: &str) -> Groups {
        groups(&issuer_config(), &serde_json::from_str(json).unwrap(), false, None)
    }

    #[test]
    fn groups_are_sorted_and_each_stands_once() {
        let Groups::Known(found) = read(r#"{"groups":["b","a","b","role:x"]}"#) else { panic!("unknown") };
        let found: Vec<&str> = found.iter().map(Subject::as_str).collect();
        assert_eq!(found, ["group:corp/a", "group:corp/b", "group:corp/role%3Ax"]);
        assert_eq!(read(r#"{"groups":[]}"#), Groups::Known(Vec::new()));
    }

    #[test]
    fn absent_truncated_and_misshapen_groups_are_unknown_and_never_empty() {
        let many: Vec<String> = (0..=limit::GROUPS_MAX).map(|n| format!("\"g{n}\"")).collect();
        for json in [
            "{}",
            r#"{"groups":null}"#,
            r#"{"groups":"a b"}"#,
            r#"{"groups":["a",1]}"#,
            r#"{"groups":["a","b\u0000"]}"#,
            r#"{"groups":{"a":1}}"#,
            r#"{"hasgroups":true}"#,
            r#"{"groups":["a"],"hasgroups":true}"#,
            r#"{"_claim_names":{"groups":"src1"},"_claim_sources":{}}"#,
            r#"{"groups":["a"],"_claim_names":"x"}"#,
            &format!("{{\"groups\":[{}]}}", many.join(",")),
        ] {
            assert!(matches!(read(json), Groups::Unknown(_)), "{json:.60}");
        }
        assert!(matches!(read(r#"{"groups":["a"],"_claim_names":{"other":"src1"}}"#), Groups::Known(_)));
    }

    #[test]
    fn an_issuer_without_groups_has_none() {
        let mut issuer = issuer_config();
        issuer.claims.groups = None;
        let claims = serde_json::from_str("{}").unwrap();
        assert_eq!(groups(&issuer, &claims, false, None), Groups::Known(Vec::new()));
    }

    #[test]
    fn groups_that_are_too_old_are_unknown_and_were_not_a_second_ago() {
        let mut issuer = issuer_config();
        issuer.claims.groups_age_max = Some(std::time::Duration::from_secs(600));
        let claims = serde_json::from_str(r#"{"groups":["a"]}"#).unwrap();
        let of = |age| groups(&issuer, &claims, false, age);
        let known = of(Some(600));
        assert!(matches!(known, Groups::Known(_)) && matches!(of(Some(-5)), Groups::Known(_)));
        let Groups::Unknown(why) = of(Some(601)) else { panic!("believed") };
        assert!(why.contains("601 s old and at most 600 s"), "{why}");
        assert!(matches!(of(None), Groups::Unknown(_)), "nobody knows how old they are");
        assert_eq!(good_until(&issuer, &known, Some(1_000)), 1_601);
        assert_eq!(good_until(&issuer, &Groups::Known(Vec::new()), Some(1_000)), i64::MAX);
        assert_eq!(good_until(&issuer_config(), &known, Some(1_000)), i64::MAX);
    }
}
