//! A browser that follows what it is sent to and keeps its cookies, for pages of the gateway's own.

use std::collections::HashMap;

/// What a browser shows.
pub struct Page {
    pub status: u16,
    pub url: String,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Page {
    /// Where its button leads.
    pub fn button(&self) -> Option<String> {
        let after = self.text.split("class=\"button\" href=\"").nth(1)?;
        Some(after.split('"').next()?.replace("&amp;", "&"))
    }
}

/// A browser with cookies, which cookies of different ports share as everywhere.
#[derive(Default)]
pub struct Browser {
    pub cookies: HashMap<String, String>,
}

impl Browser {
    #[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
    pub fn http() -> reqwest::Client {
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
    }

    pub async fn get(&mut self, url: &str) -> Page {
        self.send(url, Self::http().get(url)).await
    }

    /// Sends a request with its cookies, and keeps those of the answer.
    pub async fn send(&mut self, url: &str, mut request: reqwest::RequestBuilder) -> Page {
        if !self.cookies.is_empty() {
            let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            request = request.header("cookie", cookies.join("; "));
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        for cookie in headers.get_all("set-cookie") {
            let (pair, rest) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if rest.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        Page { status, url: url.to_owned(), headers, text: response.text().await.unwrap() }
    }

    /// Follows redirects to the first page.
    pub async fn follow(&mut self, url: &str) -> Page {
        self.follow_until(url, "\u{0}").await
    }

    /// Follows redirects until an address contains that, which is not opened.
    pub async fn follow_until(&mut self, url: &str, stop: &str) -> Page {
        let page = self.get(url).await;
        self.go_on_until(page, stop).await
    }

    /// The same from a page on.
    pub async fn go_on_until(&mut self, mut page: Page, stop: &str) -> Page {
        for _ in 0..10 {
            let Some(location) = page.headers.get("location") else { return page };
            let location = url::Url::parse(&page.url).unwrap().join(location.to_str().unwrap()).unwrap();
            if location.as_str().contains(stop) {
                return Page { url: location.into(), ..page };
            }
            page = self.get(location.as_str()).await;
        }
        panic!("a circle at {}", page.url);
    }
}
