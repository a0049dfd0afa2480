//! OpenID Connect Back-Channel Logout 1.0: what a logout token ends.
//!
//! Decides after the token was verified. Invariant: a token ends something once, and only for its own issuer.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};

use super::event::under_way;
use super::order::Order;
use super::taken::Begun;
use super::{Feeds, Message, answer};
use crate::identity::statement::{Statement, StatementKind};
use crate::outcome::{Reason, Refusal, Stop};

/// The member of `events` that makes a token a logout token.
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

impl Feeds {
    /// Answers `POST /feeds/{name}/logout`.
    pub(super) async fn logged_out(&self, message: &Message<'_>) -> Response<Bytes> {
        match self.end(message).await {
            Ok(()) => answer::json(StatusCode::OK, None),
            Err(stop) => answer::plain(&stop),
        }
    }

    async fn end(&self, message: &Message<'_>) -> Result<(), Stop> {
        let verified = async {
            let token = token(message)?;
            // Where many come that prove nothing, keys are not fetched for one more: those that are known have to do.
            let may_fetch = !self.rates.is_knocking(message.feed, message.peer);
            self.brake.statement(message.feed, StatementKind::Logout, &token, may_fetch).await
        };
        // Whoever has no signature of the issuer is nobody.
        let verified = verified.await.map_err(|stop| {
            let is_knocking = self.rates.is_knocking(message.feed, message.peer);
            self.knocked(message.feed, &stop, message.peer);
            if is_knocking { Refusal::new(Reason::RateLimited).into() } else { stop }
        });
        let statement = verified?;
        self.rates.admit(message.feed)?;
        let order = order(message, &statement)?;
        let taking = match self.logouts.begin(message.feed, statement.id()) {
            Begun::Now(taking) => taking,
            Begun::UnderWay => return Err(under_way().into()),
            Begun::Before => {
                let stop = Stop::from(Refusal::new(Reason::FeedReplayed));
                self.note(message.feed, "logout", Some(&stop), "").await;
                return Err(stop);
            }
        };
        let order = vec![(order, "back-channel logout".to_owned())];
        Ok(self.carry_out(message.feed, order, statement.issued_at(), Some(taking)).await?)
    }
}

/// The one `logout_token` of the form.
fn token(message: &Message<'_>) -> Result<String, Refusal> {
    let kind = message.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(invalid("send a form with a logout_token"));
    }
    let mut tokens =
        url::form_urlencoded::parse(&message.body).filter(|(name, _)| name == "logout_token").map(|(_, value)| value);
    match (tokens.next(), tokens.next()) {
        (Some(token), None) => Ok(token.into_owned()),
        _ => Err(invalid("send one logout_token")),
    }
}

fn order(message: &Message<'_>, statement: &Statement) -> Result<Order, Refusal> {
    if statement.events().keys().collect::<Vec<_>>() != [EVENT] {
        return Err(invalid("its events are not that of a back-channel logout alone"));
    }
    Order::end(message.feed, statement.subject(), statement.session())
        .ok_or_else(|| invalid("it names neither a subject nor a session"))
}

fn invalid(hint: &'static str) -> Refusal {
    Refusal::new(Reason::FeedMessageInvalid).hint(hint)
}
