//! Software that has tokens of its own: workloads of Kubernetes, and clients as several providers write them.

use super::*;
use crate::config::{AgentClient, KnownBy, OwnSign};

const ACCOUNT: &str = "system:serviceaccount:ci:builder";

/// An issuer of a cluster: it has keys, and no place to log in.
async fn cluster(signer: &Signer) -> Idp {
    Idp::start_with(vec![signer.jwk()], &|url| {
        json!({
            "issuer": url, "jwks_uri": format!("{url}/jwks"), "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
        })
    })
    .await
}

fn config_for(idp: &Idp) -> Config {
    let mut config = config_at(&idp.url);
    let issuer = Arc::make_mut(&mut config.issuers[0]);
    issuer.token_types = vec![String::new()];
    issuer.optional_claims = vec!["client_id".into()];
    issuer.interactive_default = None;
    issuer.claims.groups = None;
    let bot = config.agents.values_mut().find(|agent| agent.id.as_str() == "bot").unwrap();
    Arc::make_mut(bot).clients.push(AgentClient {
        issuer: IssuerAlias::new("corp").unwrap(),
        known_by: KnownBy::Subject,
        client_id: ACCOUNT.to_owned(),
        proof: DeclaredProof::Public,
    });
    config
}

/// As the API server writes it into a projected volume.
fn projected(issuer: &str) -> Value {
    let now = now_s();
    json!({
        "iss": issuer, "sub": ACCOUNT, "aud": ["https://gw.example/mcp"], "iat": now, "nbf": now, "exp": now + 600,
        "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
        "kubernetes.io": {
            "namespace": "ci", "node": { "name": "n1", "uid": "7" }, "pod": { "name": "p1", "uid": "8" },
            "serviceaccount": { "name": "builder", "uid": "9" }, "warnafter": now + 300,
        },
    })
}

fn bare(signer: &Signer, claims: &Value) -> String {
    signer.token_with(&json!({ "alg": "ES256", "kid": "one" }), claims)
}

#[tokio::test]
async fn a_workload_is_the_agent_whose_entry_names_its_subject() {
    let signer = Signer::new("one");
    let idp = cluster(&signer).await;
    let config = config_for(&idp);
    let room = room(&config);
    let caller = room.ask(&bare(&signer, &projected(&idp.url))).await.unwrap();
    let persona = caller.persona();
    assert_eq!(persona.agent.as_ref().unwrap().id.as_str(), "bot");
    assert_eq!(persona.user.as_ref().unwrap().as_str(), "user:corp/system%3Aserviceaccount%3Aci%3Abuilder");
    assert_eq!((persona.client.as_deref(), persona.client_proof), (Some(ACCOUNT), ClientProof::Secret));
    assert!(!persona.lacks_proof());
    assert!(still_stands(&config, &caller).is_ok());
    for (changes, reason) in [
        (json!({ "sub": "system:serviceaccount:ci:other" }), Reason::AgentUnknown),
        (json!({ "sub": "system:serviceaccount:ci:builder " }), Reason::AgentUnknown),
        (json!({ "sub": "system:serviceaccount:CI:builder" }), Reason::AgentUnknown),
        (json!({ "aud": ["https://kubernetes.default.svc"] }), Reason::AudienceMismatch),
        (json!({ "exp": now_s() + 31_536_000 }), Reason::TokenLifetimeExceeded),
        // Whose token names a client as well is not known by its subject alone where the two disagree.
        (json!({ "client_id": "desk-client" }), Reason::AgentUnknown),
    ] {
        let token = bare(&signer, &with(projected(&idp.url), changes.clone()));
        assert_eq!(room.ask(&token).await.map(|_| ()), Err(reason), "{changes}");
    }
}

#[tokio::test]
async fn a_client_that_calls_itself_like_a_workload_is_not_taken_for_it() {
    let signer = Signer::new("one");
    let idp = cluster(&signer).await;
    let mut config = config_for(&idp);
    Arc::make_mut(&mut config.issuers[0]).interactive_default = Some(crate::ids::AgentId::new("assistant").unwrap());
    let room = room(&config);
    let named = with(projected(&idp.url), json!({ "sub": "alice", "client_id": ACCOUNT, "kubernetes.io": null }));
    let caller = room.ask(&bare(&signer, &named)).await.unwrap();
    assert_eq!(caller.persona().agent.as_ref().unwrap().id.as_str(), "assistant");
    assert_eq!(caller.persona().client_proof, ClientProof::Public);
    // Nor is a workload that nobody registered taken for a person with an assistant.
    let other = with(projected(&idp.url), json!({ "sub": "system:serviceaccount:ci:other" }));
    assert_eq!(room.ask(&bare(&signer, &other)).await.map(|_| ()), Err(Reason::AgentUnknown));
}

#[tokio::test]
async fn a_clients_own_token_is_recognised_as_each_provider_writes_it() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let mut config = config_at(&idp.url);
    Arc::make_mut(&mut config.issuers[0]).own_tokens = OwnSign::ALL.to_vec();
    let room = room(&config);
    for changes in [
        // RFC 9068, Okta, oidc-provider.
        json!({ "sub": "bot-client" }),
        // Auth0.
        json!({ "sub": "bot-client@clients", "client_id": null, "azp": "bot-client", "gty": "client-credentials" }),
        // Entra.
        json!({ "sub": "0b5f-object", "client_id": null, "azp": "bot-client", "idtyp": "app" }),
        // Keycloak.
        json!({ "sub": "f1", "preferred_username": "service-account-bot-client", "clientHost": "10.0.0.1" }),
    ] {
        let own =
            with(claims(&idp.url), json!({ "client_id": "bot-client", "groups": null, "jti": changes.to_string() }));
        let caller = room.ask(&signer.token(&with(own, changes.clone()))).await.unwrap();
        assert!(caller.persona().agent.as_ref().unwrap().autonomous, "{changes}");
        assert_eq!(caller.persona().client_proof, ClientProof::Secret, "{changes}");
        assert_eq!(caller.persona().groups, Groups::Known(Vec::new()), "{changes}");
    }
}

#[tokio::test]
async fn a_person_who_is_called_like_a_service_account_is_neither_software_nor_believed_to_be_a_person() {
    let signer = Signer::new("one");
    let idp = Idp::start(vec![signer.jwk()]).await;
    let room = room(&config_at(&idp.url));
    let named = |client: &str| {
        let name = format!("service-account-{client}");
        let changes = json!({ "client_id": client, "preferred_username": name, "groups": null, "jti": name });
        signer.token(&with(claims(&idp.url), changes))
    };
    let caller = room.ask(&named("bot-client")).await.unwrap();
    let persona = caller.persona();
    assert_eq!((persona.client_proof, persona.behind), (ClientProof::Public, Behind::Unknown));
    assert!(persona.lacks_proof(), "a user name proves nothing of a client");
    assert!(matches!(persona.groups, Groups::Unknown(_)), "{:?}", persona.groups);
    assert_eq!(
        caller.token().person,
        Person::Unknown,
        "somebody may stand behind it, and approves nothing of their own"
    );
    // Nor is it an assistant of somebody's, where it is nobody's registered client.
    assert_eq!(room.ask(&named("unregistered")).await.map(|_| ()), Err(Reason::AgentUnknown));
    let plain = room.ask(&signer.token(&with(claims(&idp.url), json!({ "client_id": "bot-client" })))).await.unwrap();
    assert_ne!(plain.persona().behind, Behind::Nobody);
}
