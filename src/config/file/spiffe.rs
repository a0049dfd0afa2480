//! Reads the keys of `[issuers.ALIAS]` that say what kind of issuer it is.
//!
//! Invariant: a key that means nothing for the kind is a mistake, so no one believes that it does something.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize;

use super::address::{http_url, is_loopback};
use crate::config::IssuerConfig;
use crate::config::leaf::Period;
use crate::config::reader::Table;
use crate::config::spiffe::{BundleEndpoint, BundlePlace, IssuerKind, KnownBy, SpiffeConfig, TrustDomain};

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

/// Where an endpoint's SVID is named, and whose bundle it has.
pub type Endpoint = (Range<usize>, TrustDomain);

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
    if let (None, Some(first)) = (&id, &first) {
        let message = "`endpoint_bundle` says nothing without `endpoint_id`: write both, or neither";
        table.mistake(&first.span(), message);
        return None;
    }
    let place = match (place, id, trust_domain.as_ref()) {
        (Ok(place), Some(id), Ok(own)) => {
            let first = first.as_ref().map(|first| first.get_ref().as_str());
            let found = known_by_svid(place, own, id.get_ref(), first, base);
            found.map_err(|message| table.mistake(&id.span(), message))
        }
        (place, _, _) => place,
    };
    let svid_life_max = svid_life_max?.0;
    Some(IssuerKind::Spiffe(SpiffeConfig { trust_domain: trust_domain.ok()?, bundle: place.ok()?, svid_life_max }))
}

/// The same endpoint, known by its SVID (profile `https_spiffe`).
fn known_by_svid(
    place: BundlePlace,
    own: &TrustDomain,
    id: &str,
    first: Option<&str>,
    base: &Path,
) -> Result<BundlePlace, String> {
    let url = match place {
        BundlePlace::Web(url) if url.scheme() == "https" => url,
        _ => return Err("an `endpoint_id` is that of a bundle endpoint: write its https:// URL as `bundle`".to_owned()),
    };
    let named =
        id.strip_prefix("spiffe://").and_then(|named| named.split_once('/')).filter(|(_, path)| !path.is_empty());
    let named = named.ok_or("the endpoint is a workload: write endpoint_id = \"spiffe://TRUST-DOMAIN/PATH\"")?;
    let named = TrustDomain::new(named.0)?;
    let first = first.map(|first| first.strip_prefix("file:").filter(|path| !path.is_empty()));
    let known_by = match first {
        Some(_) if named != *own => {
            return Err(format!(
                "the endpoint is a workload of {named}, and known by the bundle of that trust domain: remove \
                 `endpoint_bundle`"
            ));
        }
        None if named != *own => KnownBy::Another(named),
        Some(Some(path)) => KnownBy::ItsOwn(base.join(path)),
        Some(None) | None => {
            return Err("the endpoint is known by the bundle before, and by which the first time: write \
                        endpoint_bundle = \"file:PATH\", a bundle that is here already"
                .to_owned());
        }
    };
    Ok(BundlePlace::Spiffe(BundleEndpoint { url, id: id.to_owned(), known_by }))
}

/// Holds endpoints that other trust domains vouch for against those that are declared; `whole` where every issuer was
/// understood.
pub fn hold_vouchers(top: &Table<'_, '_>, endpoints: &[Endpoint], issuers: &[&IssuerConfig], whole: bool) {
    let domain = |name: &TrustDomain| {
        let mut all = issuers.iter().filter_map(|issuer| match &issuer.kind {
            IssuerKind::Spiffe(spiffe) => Some(spiffe),
            IssuerKind::Oidc => None,
        });
        all.find(|spiffe| spiffe.trust_domain == *name)
    };
    for (span, own) in endpoints {
        let Some(voucher) = domain(own).and_then(SpiffeConfig::voucher) else { continue };
        if domain(voucher).is_none() {
            if whole {
                let message = format!(
                    "no issuer is the trust domain {voucher}, whose bundle vouches for the endpoint: write \
                     [issuers.ALIAS] with kind = \"spiffe\" and trust_domain = \"{voucher}\""
                );
                top.mistake(span, message);
            }
            continue;
        }
        // As many steps as there are trust domains come around, or nowhere.
        let mut vouching = std::iter::successors(Some(voucher), |name| domain(name)?.voucher()).take(issuers.len());
        if vouching.any(|name| name == own) {
            let message = "the endpoint is known by a bundle whose endpoint is known by this one: none of them would \
                           ever be known; give one of them a bundle of another kind";
            top.mistake(span, message);
        }
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
