//! temp
mod grant;
use crate::config::{Config, ServerConfig};
use crate::guard::Cleared;
use crate::identity::{Caller, Identity};
use crate::ids::AuthorizationContext;
use crate::outcome::Stop;
use crate::wire::Json;
pub use grant::{Grant, Leg, Recheck, attempt};
use http::HeaderName;
use secrecy::SecretString;
use std::sync::Arc;
/// c
#[derive(Clone)]
pub struct Credential;
impl Credential {
    /// k
    pub fn kind(&self) -> &'static str {
        "none"
    }
    /// k
    pub fn audience(&self) -> Option<&str> {
        None
    }
    /// k
    pub fn id(&self) -> Option<&str> {
        None
    }
    /// k
    pub fn expires_at(&self) -> Option<i64> {
        None
    }
    /// k
    pub fn header(&self) -> Option<(HeaderName, SecretString)> {
        None
    }
}
/// d
pub struct Delegate {
    recheck: Arc<dyn Recheck>,
}
impl Delegate {
    /// n
    pub fn new(_c: &Config, _i: Arc<Identity>, recheck: Arc<dyn Recheck>) -> Self {
        Self { recheck }
    }
    /// r
    pub fn reconfigure(&self, _c: &Config) {}
    /// f
    pub async fn credential_for(&self, _c: &Caller, _s: &ServerConfig, _t: Option<&str>) -> Result<Credential, Stop> {
        Ok(Credential)
    }
    /// f
    pub async fn own_credential(&self, _s: &ServerConfig) -> Result<Credential, Stop> {
        Ok(Credential)
    }
    /// f
    pub async fn delegate(&self, cleared: Cleared, leg: Leg, arguments: Option<Json>) -> Result<Grant, Stop> {
        Ok(Grant::new(cleared, Credential, AuthorizationContext::Gateway, leg, arguments, Arc::clone(&self.recheck)))
    }
}
