//! The bounds of the registration of clients, see [`crate::limit`] for their names.

use std::time::Duration;

/// Bodies of registrations and token requests.
pub const FACADE_BODY_BYTES_MAX: usize = 64 * 1024;
/// Redirect URIs of one client.
pub const FACADE_REDIRECTS_MAX: usize = 5;
/// The length of one of them.
pub const FACADE_REDIRECT_BYTES_MAX: usize = 384;
/// What a client calls itself, as it is shown and recorded.
pub const FACADE_NAME_CHARACTERS_MAX: usize = 64;
/// `state` and `scope` of a client: both travel in a cookie, which browsers bound.
pub const FACADE_PARAMETER_BYTES_MAX: usize = 512;
/// A registration is good for so long; clients then register anew.
pub const FACADE_CLIENT_LIFE: Duration = Duration::from_secs(90 * 24 * 3_600);
/// From the consent page to the end of the login.
pub const FACADE_LOGIN_LIFE: Duration = Duration::from_secs(600);
/// From the end of the login until its code is redeemed.
pub const FACADE_CODE_LIFE: Duration = Duration::from_secs(60);
/// What is sealed of what a provider gave: a refresh token, or a code.
pub const FACADE_SEALED_BYTES_MAX: usize = 32 * 1024;
/// Requests from one source in a minute.
pub const FACADE_REQUESTS_PER_MINUTE_MAX: u32 = 600;
