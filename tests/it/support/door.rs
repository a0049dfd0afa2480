//! The issuer's door for people with a browser: code with PKCE, ID tokens, and what may be wrong with them.

use std::collections::HashMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// Who sits in front of the login page, and what the issuer gives them.
#[derive(Clone)]
pub struct Person {
    pub name: String,
    pub groups: Vec<String>,
    /// Seconds that an access token is good for.
    pub token_life_s: i64,
    /// Whether they get something to renew it with.
    pub renewable: bool,
    /// What is wrong with the ID token.
    pub spoilt: Option<(&'static str, Value)>,
}

impl Person {
    /// Somebody with nothing special.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Self { name: name.to_owned(), groups, token_life_s: 600, renewable: false, spoilt: None }
    }
}

/// Signs claims under this `typ`.
type Sign<'a> = &'a dyn Fn(&Value, &str) -> String;

#[derive(Default)]
pub struct Door {
    pub people: Vec<Person>,
    codes: HashMap<String, Asked>,
    refresh: HashMap<String, Asked>,
}

/// A login that was asked for.
#[derive(Clone)]
struct Asked {
    person: Person,
    query: HashMap<String, String>,
    authenticated_at: i64,
}

impl Door {
    /// The login page: whoever sits alone in front of it is sent back at once; several choose who they are. Nothing
    /// where nobody sits here.
    pub fn open(&mut self, issuer: &str, query: &HashMap<String, String>) -> Option<Response> {
        let chosen = query.get("chosen");
        let person = match &self.people[..] {
            [] => return None,
            [alone] => alone.clone(),
            several => match several.iter().find(|person| chosen == Some(&person.name)) {
                Some(person) => person.clone(),
                None => return Some(choice(several, query)),
            },
        };
        assert_eq!((query["response_type"].as_str(), query["code_challenge_method"].as_str()), ("code", "S256"));
        let now = jiff::Timestamp::now().as_second();
        let authenticated_at = if query.get("max_age").is_some_and(|age| age == "0") { now } else { now - 3_600 };
        let code = ulid::Ulid::generate().to_string();
        let mut back = url::Url::parse(&query["redirect_uri"]).unwrap();
        let pairs = [("code", code.as_str()), ("state", &query["state"]), ("iss", issuer)];
        back.query_pairs_mut().extend_pairs(pairs);
        self.codes.insert(code, Asked { person, query: query.clone(), authenticated_at });
        Some(Redirect::to(back.as_str()).into_response())
    }

    /// The token endpoint for public clients; nothing where nobody sits here.
    pub fn token(&mut self, issuer: &str, form: &HashMap<String, String>, sign: Sign<'_>) -> Option<Response> {
        if self.people.is_empty() {
            return None;
        }
        let of = |name: &str| form.get(name).cloned().unwrap_or_default();
        let asked = match of("grant_type").as_str() {
            "authorization_code" => self.codes.remove(&of("code")).filter(|asked| {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, of("code_verifier").as_bytes());
                asked.query["code_challenge"] == URL_SAFE_NO_PAD.encode(digest.as_ref())
                    && asked.query["redirect_uri"] == of("redirect_uri")
                    && asked.query.get("resource").cloned().unwrap_or_default() == of("resource")
            }),
            "refresh_token" => self.refresh.remove(&of("refresh_token")),
            _ => None,
        };
        Some(match asked {
            Some(asked) => Json(self.tokens(issuer, asked, &of("resource"), sign)).into_response(),
            None => (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))).into_response(),
        })
    }

    fn tokens(&mut self, issuer: &str, asked: Asked, resource: &str, sign: Sign<'_>) -> Value {
        let Asked { person, query, authenticated_at } = &asked;
        let now = jiff::Timestamp::now().as_second();
        let client = &query["client_id"];
        let acr = if query.contains_key("acr_values") { "strong" } else { "weak" };
        let access = json!({
            "iss": issuer, "sub": person.name, "aud": resource, "client_id": client, "groups": person.groups,
            "iat": now, "exp": now + person.token_life_s, "jti": ulid::Ulid::generate().to_string(),
            "auth_time": authenticated_at, "acr": acr, "person": person.name,
        });
        let mut id = json!({
            "iss": issuer, "sub": person.name, "aud": client, "iat": now, "exp": now + 60,
            "nonce": query.get("nonce"), "auth_time": authenticated_at, "acr": acr,
        });
        if let Some((claim, value)) = &person.spoilt {
            id[*claim] = value.clone();
        }
        let mut answer = json!({
            "access_token": sign(&access, "at+jwt"), "token_type": "Bearer", "expires_in": person.token_life_s,
            "id_token": sign(&id, "JWT"),
        });
        if person.renewable {
            let refresh = ulid::Ulid::generate().to_string();
            answer["refresh_token"] = json!(refresh);
            self.refresh.insert(refresh, asked);
        }
        answer
    }
}

/// A page with a link for everybody who sits here.
fn choice(people: &[Person], query: &HashMap<String, String>) -> Response {
    let link = |person: &Person| {
        let mut chosen = url::form_urlencoded::Serializer::new(String::new());
        chosen.extend_pairs(query).append_pair("chosen", &person.name);
        format!("<p><a href=\"/authorize?{}\">{}</a></p>", chosen.finish().replace('&', "&amp;"), person.name)
    };
    let links: String = people.iter().map(link).collect();
    let head = "<!doctype html><html lang=\"en\"><link rel=\"icon\" href=\"data:,\"><title>Issuer</title>";
    Html(format!("{head}<h1>Who are you?</h1>{links}")).into_response()
}
