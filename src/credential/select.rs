//! Selects the credential with which a request is sent, before anything is charged.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use crate::catalog::{Accepts, RouteMatch};
use crate::credential::managed_user::{self, UserId};
use crate::credential::stored_token::RecordName;
use crate::credential::token_state::Holder;
use crate::credential::{
    ApiKey, Choice, Credential, Credentials, Injection, Kind, ManagedUsers, Means, OAuthClient, PlatformClient,
};
use crate::entitle::Grant;
use crate::identify::{Consumer, ConsumerId, Identity, PassthroughHeaders};
use crate::refusal::{AuthFailure, Refusal};

/// The proof that a caller has what its operation takes, and may act for whom it names.
#[derive(Debug)]
pub struct Suited<'a>(As<'a>);

#[derive(Debug)]
enum As<'a> {
    /// Nobody: a public operation for a caller without a key.
    Nobody,
    Key(&'a Credential, &'a ApiKey),
    OAuth(&'a Credential, &'a OAuthClient),
    Client(&'a PlatformClient),
    ManagedUser(&'a Credential, &'a ManagedUsers, UserId),
    /// The caller, by the headers that it brings.
    Itself(Injection),
}

impl Suited<'_> {
    /// Whether it is sent with a managed user's token.
    pub fn is_for_managed_user(&self) -> bool {
        matches!(self.0, As::ManagedUser(..))
    }
}

impl Credentials {
    /// Whether there is a managed user that a consumer may act for.
    pub fn may_act_for_any(&self, consumer: ConsumerId) -> bool {
        let narrowed = self.managed_users.get(consumer.index()).and_then(Option::as_deref);
        self.of(consumer).and_then(Credential::managed).is_some() && narrowed.is_none_or(|users| !users.is_empty())
    }

    /// As whom a request with the caller's `headers` can be sent.
    ///
    /// # Errors
    /// [`Refusal::CredentialUnsuitable`] where the operation takes none of what the credential has: Cal.com would
    /// answer 401 and count it (FACTS §2). [`Refusal::ManagedUserNotAllowed`] and [`Refusal::InvalidHeader`] for a managed
    /// user that this caller cannot act for.
    pub fn suit(&self, grant: &Grant<'_>, headers: &HeaderMap) -> Result<Suited<'_>, Refusal> {
        // Nothing is known of an unknown endpoint; most take a bearer, and Cal.com decides.
        let accepts = grant.route().endpoint().map_or(Accepts::Any, |endpoint| endpoint.accepts);
        let suited = match (grant.caller().identity(), managed_user::named(headers)?) {
            (Identity::Consumer(consumer), None) => self.of(consumer.id).ok_or(Refusal::Internal)?.suits(accepts),
            (Identity::Consumer(consumer), Some(user)) => self.suit_user(consumer, user, accepts),
            (Identity::Public(_) | Identity::Passthrough(_), Some(_)) => Err(no_managed_users()),
            (Identity::Public(_), None) => Ok(Suited(As::Nobody)),
            (Identity::Passthrough(own), None) => suit_own(&own.headers, accepts, grant.route()),
        };
        match suited {
            // A public operation needs no credential, so that one of the wrong kind is left out instead.
            Err(Refusal::CredentialUnsuitable { .. } | Refusal::Unauthenticated(_)) if grant.route().is_public() => {
                Ok(Suited(As::Nobody))
            }
            suited => suited,
        }
    }

    fn suit_user(&self, consumer: &Consumer, user: UserId, accepts: Accepts) -> Result<Suited<'_>, Refusal> {
        let credential = self.of(consumer.id).ok_or(Refusal::Internal)?;
        let managed = credential.managed().ok_or_else(no_managed_users)?;
        let narrowed = self.managed_users.get(consumer.id.index()).and_then(Option::as_deref);
        if narrowed.is_some_and(|users| !users.contains(&user)) {
            return Err(Refusal::ManagedUserNotAllowed);
        }
        if accepts == Accepts::Client {
            return credential.suits(accepts);
        }
        Ok(Suited(As::ManagedUser(credential, managed, user)))
    }

    /// Chooses the headers to inject.
    pub fn choose(&self, suited: Suited<'_>) -> Choice {
        match suited.0 {
            As::Nobody => Choice::Ready(Injection::Nothing),
            As::Itself(own) => Choice::Ready(own),
            As::Client(PlatformClient { id, secret, .. }) => {
                Choice::Ready(Injection::Client { id: id.clone(), secret: secret.clone() })
            }
            As::Key(credential, key) => {
                let configured = Injection::Bearer(key.authorization.clone());
                if !credential.stored {
                    return Choice::Ready(configured);
                }
                // The store may hold a newer one.
                let means = || Means::Key { configured: key.fingerprint.clone() };
                Choice::Held(self.holder(credential, None, means), Some(configured))
            }
            As::OAuth(credential, client) => {
                Choice::Held(self.holder(credential, None, || Means::OAuth(client.clone())), None)
            }
            As::ManagedUser(credential, managed, user) => {
                Choice::Held(self.holder(credential, Some(user), || Means::Managed(managed.clone())), None)
            }
        }
    }

    fn holder(&self, credential: &Credential, user: Option<UserId>, means: impl FnOnce() -> Means) -> Arc<Holder> {
        self.holders.hold(RecordName { credential: credential.name.clone(), user }, means)
    }
}

impl Credential {
    /// What of it an operation that takes `accepts` is sent with: client headers where it takes only those, the bearer
    /// otherwise, and client headers again where there is no bearer and they may go with this operation.
    ///
    /// # Errors
    /// [`Refusal::CredentialUnsuitable`] where neither is there.
    pub fn suits(&self, accepts: Accepts) -> Result<Suited<'_>, Refusal> {
        let (bearer, client) = match &self.kind {
            Kind::ApiKey(key) => (Some(As::Key(self, key)), None),
            Kind::OAuth(client) => (Some(As::OAuth(self, client)), None),
            Kind::PlatformClient(client) => {
                (client.api_key.as_ref().map(|key| As::Key(self, key)), Some(As::Client(client)))
            }
        };
        let anywhere = matches!(&self.kind, Kind::PlatformClient(client) if client.headers_anywhere);
        suitable(accepts, bearer, client, anywhere).map(Suited).ok_or_else(|| {
            let remedy = match (accepts, &self.kind) {
                (Accepts::Client, _) => "An operator can give the consumer a credential of kind platform-client.",
                (_, Kind::PlatformClient(_)) => {
                    "An operator can give it an api_key, or set client_headers = \"anywhere\" on it: then its client id and \
                     secret are sent with any operation."
                }
                (_, Kind::ApiKey(_) | Kind::OAuth(_)) => "An operator can give the consumer a credential that has one.",
            };
            Refusal::CredentialUnsuitable { credential: self.name.clone(), wanted: wanted(accepts), remedy }
        })
    }
}

/// As whom a caller with a credential of its own is sent.
///
/// # Errors
/// [`Refusal::CredentialUnsuitable`] for one of the wrong kind; [`Refusal::Unauthenticated`] for a client's secret to
/// which there is no id.
fn suit_own(own: &PassthroughHeaders, accepts: Accepts, matched: &RouteMatch<'_>) -> Result<Suited<'static>, Refusal> {
    let (bearer, client) = match own.clone() {
        PassthroughHeaders::Bearer { authorization, .. } => (Some(Injection::Bearer(authorization)), None),
        PassthroughHeaders::Client { id, secret } => {
            let id = client_id_in_path(matched).or(id);
            let id = id.ok_or(Refusal::Unauthenticated(AuthFailure::SecretWithoutId))?;
            (None, Some(Injection::Client { id, secret }))
        }
    };
    // The client's credential and its budget are its own, and Cal.com takes client headers nearly everywhere (FACTS §1).
    suitable(accepts, bearer, client, true).map(|own| Suited(As::Itself(own))).ok_or_else(|| {
        Refusal::CredentialUnsuitable {
            credential: "(passthrough)".into(),
            wanted: wanted(accepts),
            remedy: "Send a platform client's id and secret.",
        }
    })
}

/// The client id in the path, by which Cal.com authenticates before it looks at the header (FACTS §1). It is sent as the
/// header, too: Cal.com counts by the client only where the header names it, and by calgate's address otherwise (FACTS §2).
fn client_id_in_path(matched: &RouteMatch<'_>) -> Option<HeaderValue> {
    let template = matched.endpoint()?.template.as_str();
    HeaderValue::from_str(matched.path().parameter(template, "{clientId}")?).ok()
}

fn no_managed_users() -> Refusal {
    Refusal::InvalidHeader("x-calgate-managed-user is only for consumers of a platform client with managed_users")
}

/// The bearer or the client headers, by what an operation takes. `anywhere`: client headers stand where there is no bearer,
/// whatever the catalog lists.
fn suitable<T>(accepts: Accepts, bearer: Option<T>, client: Option<T>, anywhere: bool) -> Option<T> {
    match accepts {
        Accepts::Bearer if !anywhere => bearer,
        Accepts::Client => client,
        Accepts::Bearer | Accepts::Either | Accepts::Any => bearer.or(client),
    }
}

fn wanted(accepts: Accepts) -> &'static str {
    match accepts {
        Accepts::Bearer => "an API key or access token",
        Accepts::Client => "a platform client's id and secret",
        Accepts::Either | Accepts::Any => "a credential",
    }
}
