//! A certified OpenID provider as the issuer, and the two ways to a token there.

use std::process::{Child, ChildStdin, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::parts::Parts;
use crate::support::holder::Holder;

/// A running provider; it ends with the test.
pub struct Provider {
    pub url: String,
    process: Child,
    script: String,
    _open_until_dropped: ChildStdin,
    http: reqwest::Client,
}

impl Provider {
    pub async fn start(parts: &Parts) -> Self {
        let script = parts.node_script("issuer.mjs");
        let mut process = Command::new(parts.node())
            .arg(&script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take().unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(process.stdout.take().unwrap()));
        let url = tokio::task::spawn_blocking(move || {
            lines.map_while(Result::ok).find_map(|line| line.strip_prefix("listening ").map(str::to_owned))
        });
        let url = url.await.unwrap().unwrap_or_else(|| panic!("the provider did not start"));
        #[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { url, process, script, _open_until_dropped: stdin, http }
    }

    /// A person's token: authorization code with PKCE, as an assistant gets it, without a browser.
    pub async fn person(&self, name: &str, resource: &str) -> String {
        self.login(name, "assistant", resource, None).await
    }

    /// The same with a client, and with a key that the token is bound to where there is one.
    pub async fn login(&self, name: &str, client: &str, resource: &str, holder: Option<&Holder>) -> String {
        let verifier = ulid::Ulid::generate().to_string().repeat(2);
        let challenge =
            URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()));
        let callback = "http://127.0.0.1:4711/callback";
        let mut url = url::Url::parse_with_params(
            &format!("{}/auth", self.url),
            [
                ("client_id", client),
                ("response_type", "code"),
                ("redirect_uri", callback),
                ("scope", "openid mcp"),
                ("resource", resource),
                ("code_challenge", &challenge),
                ("code_challenge_method", "S256"),
                ("login_hint", name),
            ],
        )
        .unwrap();
        let mut cookies: Vec<String> = Vec::new();
        while !url.as_str().starts_with(callback) {
            assert!(cookies.len() < 10, "the login does not end: {url}");
            let response = self.http.get(url.clone()).header("cookie", cookies.join("; ")).send().await.unwrap();
            for cookie in response.headers().get_all("set-cookie") {
                cookies.extend(cookie.to_str().unwrap().split(';').next().map(str::to_owned));
            }
            let location = response.headers().get("location").map(|value| value.to_str().unwrap().to_owned());
            let Some(location) = location else { panic!("no way on: {}", response.text().await.unwrap()) };
            url = url.join(&location).unwrap();
        }
        let code = url.query_pairs().find(|(name, _)| name == "code").unwrap_or_else(|| panic!("no code in {url}")).1;
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", client),
            ("code", &code),
            ("code_verifier", &verifier),
            ("redirect_uri", callback),
            ("resource", resource),
        ];
        let endpoint = format!("{}/token", self.url);
        let mut request = self.http.post(&endpoint).form(&form);
        if let Some(holder) = holder {
            let (header, mut claims) = holder.parts("POST", &endpoint, "");
            claims.as_object_mut().unwrap().remove("ath");
            request = request.header("dpop", holder.sign(&(header, claims)));
        }
        self.token(request).await
    }

    /// A machine's token: client credentials.
    pub async fn machine(&self, resource: &str) -> String {
        self.machine_of("nightly", resource).await
    }

    /// The same with a client.
    pub async fn machine_of(&self, client: &str, resource: &str) -> String {
        let form = [("grant_type", "client_credentials"), ("resource", resource), ("scope", "mcp")];
        let request = self.http.post(format!("{}/token", self.url)).form(&form);
        self.token(request.basic_auth(client, Some("nightly-secret-of-the-tests-0123456789"))).await
    }

    async fn token(&self, request: reqwest::RequestBuilder) -> String {
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        answer["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    /// Takes a token back (RFC 7009).
    pub async fn revoke(&self, client: &str, token: &str) {
        let form = [("token", token), ("client_id", client)];
        let answer = self.http.post(format!("{}/token/revocation", self.url)).form(&form).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
    }

    /// How many clients have registered, and how many came with a document of their own.
    pub async fn clients(&self) -> (u64, u64) {
        let answer = self.http.get(format!("{}/test/clients", self.url)).send().await.unwrap();
        let came: Value = answer.json().await.unwrap();
        (came["registered"].as_u64().unwrap(), came["described"].as_u64().unwrap())
    }

    /// Tells somebody that a person has logged out; whether they took it.
    pub async fn logs_out(&self, name: &str, uri: &str) -> bool {
        let url = format!("{}/test/logout", self.url);
        let url = url::Url::parse_with_params(&url, [("sub", name), ("uri", uri)]).unwrap();
        self.http.get(url).send().await.unwrap().text().await.unwrap() == "told"
    }

    /// The private key of the client `signing-gateway`.
    pub async fn client_key(&self) -> String {
        let key = self.http.get(format!("{}/test/client-key", self.url)).send().await.unwrap();
        key.text().await.unwrap()
    }

    /// How many tokens were exchanged.
    pub async fn exchanges(&self) -> usize {
        let text = self.http.get(format!("{}/test/exchanges", self.url)).send().await.unwrap().text().await.unwrap();
        text.parse().unwrap()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.script);
    }
}

/// The claims of a token.
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap_or_else(|| panic!("not a JWT: {token}"));
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}
