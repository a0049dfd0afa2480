//! The console over HTTP: who gets in and how, what a browser may do with it, and that the same desk decides.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::support::door::Person;
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{self, Scripted};

mod accounts;
mod attack;
mod definitions;
mod governance;
mod pages;
mod sessions;

const CONSOLE: &str = "acr = [\"strong\"]\n[admin.console]\nissuer = \"test\"\nclient_id = \"test-console\"";

/// Admins may do everything, operators brake and look at servers alone.
const RULES: &str = "\
g, group:test/admins, role:admin, *
g, group:test/operators, role:operator, *
p, role:admin, *, bailiwick/*, admin, -, allow
p, role:operator, *, bailiwick/servers, admin, -, allow
p, role:operator, *, bailiwick/revoke, admin, -, allow
";

struct Running {
    issuer: Issuer,
    gateway: Gateway,
    upstream: Scripted,
}

fn setup(issuer: &Issuer, upstream: &Scripted) -> Setup {
    Setup::new(issuer)
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .http_server("tools", &upstream.url, "title = \"Tools\"")
        .http_server("secret", &upstream.url, "title = \"Nobody's business\"")
        .http_server("payroll", &upstream.url, "title = \"Payroll\"\ndiscoverable = true")
        .admin(CONSOLE)
}

async fn start() -> Running {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let gateway = setup(&issuer, &upstream).start().await;
    Running { issuer, gateway, upstream }
}

/// One page, as a browser gets it.
pub struct Page {
    pub status: u16,
    headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Page {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn cookies(&self) -> Vec<String> {
        self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    /// The CSRF token of its forms.
    pub fn csrf(&self) -> String {
        let after =
            self.text.split("name=\"csrf\" value=\"").nth(1).unwrap_or_else(|| panic!("no form: {}", self.text));
        after.split('"').next().unwrap().to_owned()
    }
}

/// A browser with cookies that follows nothing by itself.
pub struct Browser {
    http: reqwest::Client,
    /// Where the listener is.
    origin: String,
    /// What it is called.
    host: String,
    cookies: HashMap<String, String>,
}

impl Browser {
    #[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
    pub fn of(gateway: &Gateway) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let host = gateway.admin.split('/').nth(2).unwrap().to_owned();
        Self { http, origin: format!("http://{}", gateway.admin_address), host, cookies: HashMap::new() }
    }

    pub async fn get(&mut self, path: &str) -> Page {
        self.get_with(path, &[]).await
    }

    async fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Page {
        let request = self.http.get(format!("{}{path}", self.origin));
        self.send(request, headers).await
    }

    /// A form as one of our own pages sends it.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let origin = self.origin.clone();
        self.post_with(path, fields, &[("origin", &origin), ("sec-fetch-site", "same-origin")]).await
    }

    pub async fn post_with(&mut self, path: &str, fields: &[(&str, &str)], headers: &[(&str, &str)]) -> Page {
        let request = self.http.post(format!("{}{path}", self.origin)).form(&fields);
        self.send(request, headers).await
    }

    async fn send(&mut self, mut request: reqwest::RequestBuilder, headers: &[(&str, &str)]) -> Page {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response =
            request.header("host", &self.host).timeout(std::time::Duration::from_secs(30)).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let page = Page { status, headers, text: response.text().await.unwrap() };
        for cookie in page.cookies() {
            let (pair, rest) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if rest.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        page
    }

    /// Goes to the issuer and comes back; the page with the code, not yet loaded.
    pub async fn come_back(&mut self, start: &str) -> String {
        let away = self.get(start).await;
        assert_eq!(away.status, 303, "{}", away.text);
        let back = self.http.get(away.header("location")).send().await.unwrap();
        let back = url::Url::parse(back.headers()["location"].to_str().unwrap()).unwrap();
        format!("{}?{}", back.path(), back.query().unwrap())
    }

    /// Signs in whoever sits in front of the issuer.
    pub async fn sign_in(&mut self) -> Page {
        let back = self.come_back("/admin/login/start").await;
        let page = self.get(&back).await;
        assert_eq!(page.status, 303, "{}", page.text);
        page
    }
}

impl Running {
    /// A browser in which somebody is signed in.
    async fn signed_in(&self, user: &str, groups: &[&str]) -> Browser {
        self.issuer.seat(vec![Person::new(user, groups)]);
        let mut browser = Browser::of(&self.gateway);
        browser.sign_in().await;
        browser
    }

    fn ended(&self) -> Vec<Value> {
        let all = self.gateway.records("admin").into_iter().map(|record| record["admin"].clone());
        all.filter(|admin| admin["outcome"] != "begun").collect()
    }

    async fn call(&self, user: &str) -> u16 {
        let token = self.issuer.token(user, &["developers"], &self.gateway.resource());
        self.gateway.client(&token).call_tool("tools__echo", json!({})).await.status
    }
}
