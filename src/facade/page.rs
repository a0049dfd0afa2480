//! The pages that a person sees. Whatever a client chose is shown as text, and the place that it goes to stands beside
//! its name: a name can be made up, a place has to be owned.

use bytes::Bytes;
use http::{Response, StatusCode};
use maud::{DOCTYPE, Markup, html};

use super::answer;

/// What is asked.
pub(super) struct Asked<'a> {
    pub(super) client: &'a str,
    pub(super) redirect: &'a str,
    pub(super) issuer: &'a str,
    pub(super) scope: &'a str,
    /// The one resource that a token will be for; nothing where it may reach all of them.
    pub(super) resource: Option<&'a str>,
    /// All of this gateway.
    pub(super) gateway: &'a str,
    pub(super) action: &'a str,
    pub(super) nonce: &'a str,
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:3rem auto;padding:0 1rem}\
                     dt{font-weight:600}dd{margin:0 0 .75rem;overflow-wrap:anywhere}button{font:inherit;padding:.5rem 1rem}";

pub(super) fn consent(asked: &Asked<'_>) -> Markup {
    let name = if asked.client.is_empty() { "A program without a name" } else { asked.client };
    whole(
        "Allow access?",
        &html! {
            p { "A program wants to log you in at " b { (asked.issuer) } " and then call tools with your account." }
            dl {
                dt { "It calls itself" }
                dd { bdi { (name) } " (nobody has checked that)" }
                dt { "Your answer goes to" }
                dd { bdi { (asked.redirect) } }
                dt { "It wants to use" }
                @match asked.resource {
                    Some(resource) => { dd { bdi { (resource) } } }
                    None => { dd { "All of this gateway: " bdi { (asked.gateway) } } }
                }
                @if !asked.scope.is_empty() { dt { "With the scopes" } dd { bdi { (asked.scope) } } }
            }
            p { "Allow this only if you have just started it yourself." }
            form method="post" action=(asked.action) {
                input type="hidden" name="nonce" value=(asked.nonce);
                button type="submit" name="answer" value="deny" { "Do not allow" }
                " "
                button type="submit" name="answer" value="allow" { "Allow and log in" }
            }
        },
    )
}

/// That it does not go on; nobody is sent anywhere.
pub(super) fn refused(problem: &str) -> Response<Bytes> {
    let markup = whole("This does not go on", &html! { p { (problem) } });
    answer::page(StatusCode::BAD_REQUEST, markup)
}

fn whole(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (maud::PreEscaped(STYLE)) }
            }
            body { h1 { (title) } (content) }
        }
    }
}
