//! Which of our resources a request is for, and which of them a token's `aud` reaches (RFC 8707).
//!
//! Decides what a resource is called. Refuses to know `Host`: `public_url` is the only source of names.
//! Invariant: a token for one server works only there, and none works at the administrators' listener
//! unless it was issued for that.

use url::Url;

use crate::ids::ServerId;

/// One OAuth resource of this gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Resource {
    /// `<public_url>/mcp`: a token for it works at every server.
    Gateway,
    /// `<public_url>/mcp/ID`: a token for it works only there.
    Server(ServerId),
    /// `<public_url>/admin`: the administrators' listener.
    Admin,
}

/// The names of our resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceNames {
    gateway: String,
    admin: String,
}

/// What a token's `aud` reaches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    gateway: bool,
    admin: bool,
    servers: Vec<ServerId>,
}

impl ResourceNames {
    /// The names under this public URL.
    #[must_use]
    pub fn new(public_url: &Url) -> Self {
        let base = format!("{}{}", public_url.origin().ascii_serialization(), public_url.path().trim_end_matches('/'));
        Self { gateway: format!("{base}/mcp"), admin: format!("{base}/admin") }
    }

    /// The same where the administrators' listener has a name of its own.
    #[must_use]
    pub fn with_admin(self, resource: String) -> Self {
        Self { admin: resource, ..self }
    }

    /// What a resource is called.
    #[must_use]
    pub fn of(&self, resource: &Resource) -> String {
        match resource {
            Resource::Gateway => self.gateway.clone(),
            Resource::Server(server) => format!("{}/{server}", self.gateway),
            Resource::Admin => self.admin.clone(),
        }
    }

    /// What a list of audiences reaches; `further` are the issuer's own names for the gateway, `admin` those for the
    /// administrators' listener.
    #[must_use]
    pub fn reach<'a>(
        &self,
        audiences: impl IntoIterator<Item = &'a str>,
        further: &[String],
        admin: &[String],
    ) -> Reach {
        let mut reach = Reach::default();
        for audience in audiences {
            if audience == self.gateway || further.iter().any(|name| name == audience) {
                reach.gateway = true;
            } else if audience == self.admin || admin.iter().any(|name| name == audience) {
                reach.admin = true;
            } else if let Some(Ok(server)) =
                audience.strip_prefix(self.gateway.as_str()).and_then(|rest| rest.strip_prefix('/')).map(ServerId::new)
            {
                reach.servers.push(server);
            }
        }
        reach
    }
}

impl Reach {
    /// Everything but the administrators' listener.
    #[must_use]
    pub fn gateway() -> Self {
        Self { gateway: true, ..Self::default() }
    }

    /// Whether a token with that reach may be used at the resource.
    #[must_use]
    pub fn covers(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Gateway => self.gateway,
            Resource::Server(server) => self.gateway || self.servers.contains(server),
            Resource::Admin => self.admin,
        }
    }

    /// What an administrators' client is good for, where it was issued for that: for nothing else.
    #[must_use]
    pub fn for_administrators(&self) -> Option<Self> {
        self.admin.then(|| Self { admin: true, ..Self::default() })
    }

    /// What somebody reaches who was not given a token for anything in particular: everything but the administrators'
    /// listener.
    #[must_use]
    pub fn for_mcp() -> Self {
        Self { gateway: true, ..Self::default() }
    }

    /// Whether it reaches nothing here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.gateway && !self.admin && self.servers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(url: &str) -> ResourceNames {
        ResourceNames::new(&Url::parse(url).unwrap())
    }

    fn server(id: &str) -> Resource {
        Resource::Server(ServerId::new(id).unwrap())
    }

    #[test]
    fn a_token_for_one_server_works_only_there() {
        let names = names("https://gw.example");
        let reach = names.reach(["https://gw.example/mcp/git"], &[], &[]);
        assert!(reach.covers(&server("git")));
        assert!(!reach.covers(&server("jira")) && !reach.covers(&Resource::Gateway) && !reach.covers(&Resource::Admin));
    }

    #[test]
    fn a_token_for_the_gateway_works_everywhere_but_at_the_administrators_listener() {
        let names = names("https://gw.example");
        let reach = names.reach(["https://gw.example/mcp"], &[], &[]);
        assert!(reach.covers(&server("git")) && reach.covers(&Resource::Gateway) && !reach.covers(&Resource::Admin));
        let admin = names.reach(["https://gw.example/admin"], &[], &[]);
        assert!(admin.covers(&Resource::Admin) && !admin.covers(&Resource::Gateway) && !admin.covers(&server("git")));
        let mapped = names.reach(["api://bailiwick"], &["api://bailiwick".to_owned()], &[]);
        assert!(mapped.covers(&Resource::Gateway) && !mapped.covers(&Resource::Admin));
        let mapped = names.reach(["api://admin"], &[], &["api://admin".to_owned()]);
        assert!(!mapped.covers(&Resource::Gateway) && mapped.covers(&Resource::Admin));
    }

    #[test]
    fn a_listener_with_a_name_of_its_own_is_called_by_that_alone() {
        let names = names("https://gw.example").with_admin("https://admin.example:9443/admin".to_owned());
        assert!(names.reach(["https://gw.example/admin"], &[], &[]).is_empty());
        let both = names.reach(["https://admin.example:9443/admin", "https://gw.example/mcp"], &[], &[]);
        assert!(both.covers(&Resource::Admin) && both.covers(&Resource::Gateway));
        let alone = both.for_administrators().unwrap();
        assert!(alone.covers(&Resource::Admin) && !alone.covers(&Resource::Gateway) && !alone.covers(&server("git")));
        assert_eq!(names.reach(["https://gw.example/mcp"], &[], &[]).for_administrators(), None);
    }

    #[test]
    fn an_audience_that_differs_by_a_character_reaches_nothing() {
        let names = names("https://gw.example");
        for near in [
            "https://gw.example/mcp/",
            "https://gw.example/MCP",
            "https://gw.example",
            "http://gw.example/mcp",
            "https://gw.example:443/mcp",
            "https://gw.example/mcp/git/",
            "https://gw.example/mcp/../admin",
            "https://gw.example/mcpx",
            "https://gw.example.evil/mcp",
            "",
        ] {
            assert!(names.reach([near], &[], &[]).is_empty(), "{near}");
        }
    }
}
