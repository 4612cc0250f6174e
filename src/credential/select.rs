//! Selects the credential with which a request is sent, before anything is charged.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use crate::catalog::{Accepts, RouteMatch};
use crate::credential::managed_user::{self, UserId};
use crate::credential::stored_token::RecordName;
use crate::credential::token_state::TokenHandle;
use crate::credential::{
    ApiKey, AuthHeaders, Credential, CredentialSource, Credentials, Kind, ManagedUsers, OAuthClient, PlatformClient,
    RenewalMethod,
};
use crate::entitle::Grant;
use crate::identify::{Consumer, ConsumerId, Identity, PassthroughHeaders};
use crate::refusal::{AuthFailure, Refusal};

/// The proof that a caller has what its operation takes, and may act for whom it names.
#[derive(Debug)]
pub struct Selected<'a>(SelectedKind<'a>);

#[derive(Debug)]
enum SelectedKind<'a> {
    /// Nobody: a public operation for a caller without a key.
    Nobody,
    Key(&'a Credential, &'a ApiKey),
    OAuth(&'a Credential, &'a OAuthClient),
    Client(&'a PlatformClient),
    ManagedUser(&'a Credential, &'a ManagedUsers, UserId),
    /// The caller, by the headers that it brings.
    Itself(AuthHeaders),
}

impl Selected<'_> {
    /// Whether it is sent with a managed user's token.
    pub fn is_for_managed_user(&self) -> bool {
        matches!(self.0, SelectedKind::ManagedUser(..))
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
    pub fn select(&self, grant: &Grant<'_>, headers: &HeaderMap) -> Result<Selected<'_>, Refusal> {
        // Nothing is known of an unknown endpoint; most take a bearer, and Cal.com decides.
        let accepts = grant.route().endpoint().map_or(Accepts::Any, |endpoint| endpoint.accepts);
        let selected = match (grant.caller().identity(), managed_user::from_headers(headers)?) {
            (Identity::Consumer(consumer), None) => self.of(consumer.id).ok_or(Refusal::Internal)?.select_for(accepts),
            (Identity::Consumer(consumer), Some(user)) => self.select_managed_user(consumer, user, accepts),
            (Identity::Public(_) | Identity::Passthrough(_), Some(_)) => Err(no_managed_users()),
            (Identity::Public(_), None) => Ok(Selected(SelectedKind::Nobody)),
            (Identity::Passthrough(own), None) => select_passthrough(&own.headers, accepts, grant.route()),
        };
        match selected {
            // A public operation needs no credential, so that one of the wrong kind is left out instead.
            Err(Refusal::CredentialUnsuitable { .. } | Refusal::Unauthenticated(_)) if grant.route().is_public() => {
                Ok(Selected(SelectedKind::Nobody))
            }
            selected => selected,
        }
    }

    fn select_managed_user(
        &self,
        consumer: &Consumer,
        user: UserId,
        accepts: Accepts,
    ) -> Result<Selected<'_>, Refusal> {
        let credential = self.of(consumer.id).ok_or(Refusal::Internal)?;
        let managed = credential.managed().ok_or_else(no_managed_users)?;
        let narrowed = self.managed_users.get(consumer.id.index()).and_then(Option::as_deref);
        if narrowed.is_some_and(|users| !users.contains(&user)) {
            return Err(Refusal::ManagedUserNotAllowed);
        }
        if accepts == Accepts::Client {
            return credential.select_for(accepts);
        }
        Ok(Selected(SelectedKind::ManagedUser(credential, managed, user)))
    }

    /// Chooses the headers to inject.
    pub fn source(&self, selected: Selected<'_>) -> CredentialSource {
        match selected.0 {
            SelectedKind::Nobody => CredentialSource::Ready(AuthHeaders::Nothing),
            SelectedKind::Itself(own) => CredentialSource::Ready(own),
            SelectedKind::Client(PlatformClient { id, secret, .. }) => {
                CredentialSource::Ready(AuthHeaders::Client { id: id.clone(), secret: secret.clone() })
            }
            SelectedKind::Key(credential, key) => {
                let configured = AuthHeaders::Bearer(key.authorization.clone());
                if !credential.stored {
                    return CredentialSource::Ready(configured);
                }
                // The store may hold a newer one.
                let renewal_method = || RenewalMethod::Key { configured: key.fingerprint.clone() };
                CredentialSource::Held(self.handle(credential, None, renewal_method), Some(configured))
            }
            SelectedKind::OAuth(credential, client) => {
                CredentialSource::Held(self.handle(credential, None, || RenewalMethod::OAuth(client.clone())), None)
            }
            SelectedKind::ManagedUser(credential, managed, user) => CredentialSource::Held(
                self.handle(credential, Some(user), || RenewalMethod::Managed(managed.clone())),
                None,
            ),
        }
    }

    fn handle(
        &self,
        credential: &Credential,
        user: Option<UserId>,
        renewal_method: impl FnOnce() -> RenewalMethod,
    ) -> Arc<TokenHandle> {
        self.registry.get_or_insert(RecordName { credential: credential.name.clone(), user }, renewal_method)
    }
}

impl Credential {
    /// What of it an operation that takes `accepts` is sent with: client headers where it takes only those, the bearer
    /// otherwise, and client headers again where there is no bearer and they may go with this operation.
    ///
    /// # Errors
    /// [`Refusal::CredentialUnsuitable`] where neither is there.
    pub fn select_for(&self, accepts: Accepts) -> Result<Selected<'_>, Refusal> {
        let (bearer, client) = match &self.kind {
            Kind::ApiKey(key) => (Some(SelectedKind::Key(self, key)), None),
            Kind::OAuth(client) => (Some(SelectedKind::OAuth(self, client)), None),
            Kind::PlatformClient(client) => {
                (client.api_key.as_ref().map(|key| SelectedKind::Key(self, key)), Some(SelectedKind::Client(client)))
            }
        };
        let anywhere = matches!(&self.kind, Kind::PlatformClient(client) if client.headers_anywhere);
        suitable(accepts, bearer, client, anywhere).map(Selected).ok_or_else(|| {
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
fn select_passthrough(
    own: &PassthroughHeaders,
    accepts: Accepts,
    matched: &RouteMatch<'_>,
) -> Result<Selected<'static>, Refusal> {
    let (bearer, client) = match own.clone() {
        PassthroughHeaders::Bearer { authorization, .. } => (Some(AuthHeaders::Bearer(authorization)), None),
        PassthroughHeaders::Client { id, secret } => {
            let id = client_id_in_path(matched).or(id);
            let id = id.ok_or(Refusal::Unauthenticated(AuthFailure::SecretWithoutId))?;
            (None, Some(AuthHeaders::Client { id, secret }))
        }
    };
    // The client's credential and its budget are its own, and Cal.com takes client headers nearly everywhere (FACTS §1).
    suitable(accepts, bearer, client, true).map(|own| Selected(SelectedKind::Itself(own))).ok_or_else(|| {
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
