//! Somebody at the console: pages over HTTP, with cookies, and forms as they stand in them.
//!
//! Knows what the pages look like, which are of the same build, and nothing that is not on them. Invariant: every word
//! that it answers was on a page, and every form that it sends has the token that was in it.

use std::collections::BTreeMap;

use http::{HeaderMap, Request, StatusCode, header};
use url::Url;

use crate::egress::{EgressPolicy, OauthClient, oauth_client};

/// One browser with one person.
pub(super) struct Browser {
    client: OauthClient,
    /// The console, without a slash at its end.
    console: Url,
    cookies: BTreeMap<String, String>,
}

/// A page, or where it sends to.
pub(super) struct Page {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Browser {
    /// A browser in which nobody is signed in.
    pub(super) fn new(console: &str) -> Result<Self, String> {
        let client = oauth_client(EgressPolicy::server(true)).map_err(|error| error.to_string())?;
        let console = Url::parse(console).map_err(|error| format!("{console}: {error}"))?;
        Ok(Self { client, console, cookies: BTreeMap::new() })
    }

    /// Signs in as that person, by clicking on their name at the issuer, and answers the page that was wanted.
    pub(super) async fn sign_in(&mut self, user: &str, path: &str) -> Result<Page, String> {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("to", path).finish();
        let start = self.at(&format!("/login/start?fresh=1&{query}"))?;
        let issuer = self.get(&start).await?.location(&start)?;
        let page = self.get(&issuer).await?;
        let request = page.field("request").ok_or("the issuer shows no form to sign in")?;
        let form = issuer.join("/authorize").map_err(|error| error.to_string())?;
        let clicked = self.post(&form, &[("request", &request), ("user", user)]).await?;
        let back = clicked.location(&form)?;
        let signed_in = self.get(&back).await?;
        let wanted = signed_in.location(&back)?;
        self.get(&wanted).await
    }

    /// Sends a form of the console, and answers the page that one is sent to.
    pub(super) async fn send(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<Page, String> {
        let url = self.at(path)?;
        let answer = self.post(&url, fields).await?;
        if !answer.status.is_redirection() {
            return Ok(answer);
        }
        let next = answer.location(&url)?;
        self.get(&next).await
    }

    fn at(&self, path: &str) -> Result<Url, String> {
        let url = format!("{}{path}", self.console.as_str().trim_end_matches('/'));
        Url::parse(&url).map_err(|error| format!("{url}: {error}"))
    }

    async fn get(&mut self, url: &Url) -> Result<Page, String> {
        let request = Request::get(url.as_str()).body(Vec::new());
        self.ask(request).await
    }

    async fn post(&mut self, url: &Url, fields: &[(&str, &str)]) -> Result<Page, String> {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = Request::post(url.as_str())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ORIGIN, url.origin().ascii_serialization())
            .body(form.into_bytes());
        self.ask(request).await
    }

    async fn ask(&mut self, request: Result<Request<Vec<u8>>, http::Error>) -> Result<Page, String> {
        let mut request = request.map_err(|error| error.to_string())?;
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            let cookies = cookies.join("; ").parse().map_err(|_| "a cookie cannot be sent back".to_owned())?;
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        let answer = self.client.send(request).await.map_err(|error| error.to_string())?;
        let page = Page {
            status: answer.status(),
            headers: answer.headers().clone(),
            text: String::from_utf8_lossy(answer.body()).into_owned(),
        };
        for cookie in page.headers.get_all(header::SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let Some((name, value)) = cookie.split(';').next().and_then(|pair| pair.split_once('=')) else { continue };
            self.cookies.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        // What is forgotten is empty.
        self.cookies.retain(|_, value| !value.is_empty());
        Ok(page)
    }
}

impl Page {
    /// Where it sends to.
    fn location(&self, from: &Url) -> Result<Url, String> {
        let to = self.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let told = || self.problem().unwrap_or_else(|| "no further page".to_owned());
        let to = to.ok_or_else(|| format!("{} answers {}: {}", from.path(), self.status, told()))?;
        from.join(to).map_err(|error| format!("{to}: {error}"))
    }

    /// The hidden field of that name in its forms.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        between(&self.text, &format!("name=\"{name}\" value=\""), "\"").map(str::to_owned)
    }

    /// What it says against what was done.
    pub(super) fn problem(&self) -> Option<String> {
        let (_, after) = self.text.split_once("role=\"alert\"")?;
        Some(words(between(after, ">", "</p>")?))
    }

    /// What it says under that heading.
    pub(super) fn says(&self, heading: &str) -> Option<String> {
        Some(words(between(&self.text, &format!("<dt>{heading}</dt>"), "</dd>")?))
    }

    /// The digest of what it shows.
    pub(super) fn digest(&self) -> Option<String> {
        between(&self.text, "Digest <code>", "<").map(str::to_owned)
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?.1.split_once(after).map(|(found, _)| found)
}

/// What is to be read there: no tags, and characters as they are meant.
fn words(html: &str) -> String {
    let mut text = String::new();
    for (index, part) in html.split('<').enumerate() {
        // Before the first tag there is none to leave out.
        let read = if index == 0 { Some(part) } else { part.split_once('>').map(|(_, read)| read) };
        text.push_str(read.unwrap_or_default());
    }
    let meant = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    meant.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_page_the_words_are_read() {
        let page = |text: &str| Page { status: StatusCode::OK, headers: HeaderMap::new(), text: text.to_owned() };
        let refused =
            page("<div class=\"problem\" role=\"alert\"><p><b>No <code>x</code>.</b> <code>y</code></p></div>");
        assert_eq!(refused.problem().as_deref(), Some("No x. y"));
        let facts =
            page("<dl><dt>State</dt><dd><span class=\"pill\">approved</span></dd><dt>By</dt><dd>a &amp; b</dd></dl>");
        assert_eq!((facts.says("State").as_deref(), facts.says("By").as_deref()), (Some("approved"), Some("a & b")));
        assert_eq!(facts.says("Until"), None);
        let form = page("<input type=\"hidden\" name=\"csrf\" value=\"abc\">");
        assert_eq!((form.field("csrf").as_deref(), form.field("shown")), (Some("abc"), None));
    }
}
