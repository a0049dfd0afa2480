//! Reads the keys of `[issuers.ALIAS]` that say what kind of issuer it is.
//!
//! Invariant: a key that means nothing for the kind is a mistake, so no one believes that it does something.

use std::path::Path;

use serde::Deserialize;

use super::address::{http_url, is_loopback};
use crate::config::leaf::Period;
use crate::config::reader::Table;
use crate::config::spiffe::{BundleEndpoint, BundlePlace, IssuerKind, SpiffeConfig, TrustDomain};

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Oidc,
    Spiffe,
}

const SPIFFE_KEYS: [&str; 5] = ["trust_domain", "bundle", "endpoint_id", "endpoint_bundle", "svid_life_max"];
/// What is the issuer's own matter, or is said by no SVID.
const OIDC_KEYS: [&str; 10] = [
    "issuer",
    "admin_audiences",
    "algorithms",
    "token_types",
    "claims",
    "optional_claims",
    "own_tokens",
    "interactive_default",
    "scopes",
    "scope_rules",
];

/// Reads the kind, before any other key is.
pub fn read(table: &mut Table<'_, '_>, base: &Path, loopback_allowed: bool) -> Option<IssuerKind> {
    let kind = table.get::<Kind>("kind")?;
    let (foreign, called): (&[&str], _) = match kind {
        Kind::Oidc => (&SPIFFE_KEYS, "oidc"),
        Kind::Spiffe => (&OIDC_KEYS, "spiffe"),
    };
    for key in foreign.iter().copied().filter(|key| table.has(key)) {
        table.mistake(&table.place(key), format!("`{key}` means nothing for an issuer of kind {called}: remove it"));
    }
    let domain = table.at::<String>("trust_domain");
    let bundle = table.at::<String>("bundle");
    let (id, first) = (table.at::<String>("endpoint_id"), table.at::<String>("endpoint_bundle"));
    let svid_life_max = table.get::<Period>("svid_life_max");
    let needed: &[(&str, bool, &str)] = match kind {
        Kind::Oidc => &[("issuer", table.has("issuer"), "issuer = \"https://...\"")],
        Kind::Spiffe => &[
            ("trust_domain", domain.is_some(), "trust_domain = \"prod.example.org\""),
            ("bundle", bundle.is_some(), "bundle = \"file:PATH\" or \"https://...\""),
        ],
    };
    for (key, _, example) in needed.iter().filter(|(_, written, _)| !written) {
        table.mistake(&table.span, format!("{} has no `{key}`: write {example}", table.path));
    }
    if kind == Kind::Oidc {
        return Some(IssuerKind::Oidc);
    }
    let (domain, bundle) = (domain?, bundle?);
    let trust_domain = TrustDomain::new(domain.get_ref()).map_err(|message| table.mistake(&domain.span(), message));
    let place = place(bundle.get_ref(), base, loopback_allowed);
    let place = place.map_err(|message| table.mistake(&bundle.span(), message));
    let endpoint = match (id, first) {
        (None, None) => None,
        (Some(id), Some(first)) => Some((id, first)),
        (Some(written), None) | (None, Some(written)) => {
            let both = "write `endpoint_id` and `endpoint_bundle`, both or neither: an endpoint is known by its SVID, and \
                        that by a bundle which is here already";
            table.mistake(&written.span(), both.to_owned());
            return None;
        }
    };
    let place = match (place, endpoint) {
        (Ok(place), Some((id, first))) => {
            let found = known_by_svid(place, trust_domain.as_ref().ok(), id.get_ref(), first.get_ref(), base);
            found.map_err(|message| table.mistake(&id.span(), message))
        }
        (place, _) => place,
    };
    let svid_life_max = svid_life_max?.0;
    Some(IssuerKind::Spiffe(SpiffeConfig { trust_domain: trust_domain.ok()?, bundle: place.ok()?, svid_life_max }))
}

/// The same endpoint, known by the SVID of a workload of its trust domain (profile `https_spiffe`).
fn known_by_svid(
    place: BundlePlace,
    domain: Option<&TrustDomain>,
    id: &str,
    first: &str,
    base: &Path,
) -> Result<BundlePlace, String> {
    let url = match place {
        BundlePlace::Web(url) if url.scheme() == "https" => url,
        _ => return Err("an `endpoint_id` is that of a bundle endpoint: write its https:// URL as `bundle`".to_owned()),
    };
    let path = domain.and_then(|domain| id.strip_prefix(&format!("spiffe://{domain}/")));
    if path.is_none_or(str::is_empty) {
        return Err("the endpoint is a workload of the trust domain itself: write endpoint_id = \
                    \"spiffe://TRUST-DOMAIN/PATH\""
            .to_owned());
    }
    match first.strip_prefix("file:").filter(|path| !path.is_empty()) {
        Some(path) => Ok(BundlePlace::Spiffe(BundleEndpoint { url, id: id.to_owned(), first: base.join(path) })),
        None => Err("write endpoint_bundle = \"file:PATH\": a bundle that is here already".to_owned()),
    }
}

fn place(text: &str, base: &Path, loopback_allowed: bool) -> Result<BundlePlace, String> {
    if let Some(path) = text.strip_prefix("file:") {
        if path.is_empty() {
            return Err("`file:` names no file: write file:PATH".to_owned());
        }
        return Ok(BundlePlace::File(base.join(path)));
    }
    if let Some(path) = text.strip_prefix("unix:") {
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        if !path.is_absolute() {
            return Err(
                "the socket of the Workload API has an absolute path: write unix:/run/spire/agent.sock".to_owned()
            );
        }
        return Ok(BundlePlace::Workload(path.to_owned()));
    }
    let url = http_url(text).map_err(|_| {
        format!(
            "`{text:.100}` is not a place of a bundle: write \"file:PATH\", the https:// URL of a bundle endpoint, or \
             \"unix:PATH\" for the Workload API"
        )
    })?;
    let on_this_machine = is_loopback(&url);
    if (url.scheme() == "http" || on_this_machine) && !(loopback_allowed && on_this_machine) {
        return Err("a bundle from this machine or over plain HTTP can be replaced by somebody else's keys: write \
                    https:// and a public name, or file:PATH"
            .to_owned());
    }
    Ok(BundlePlace::Web(url))
}
