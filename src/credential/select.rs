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

/// Proof that the caller has a credential that the operation accepts, and may act for the managed user that it names.
#[derive(Debug)]
pub struct Selected<'a>(SelectedKind<'a>);

#[derive(Debug)]
enum SelectedKind<'a> {
    /// No credential: a public operation, called without a key.
    Nobody,
    Key(&'a Credential, &'a ApiKey),
    OAuth(&'a Credential, &'a OAuthClient),
    Client(&'a PlatformClient),
    ManagedUser(&'a Credential, &'a ManagedUsers, UserId),
    /// Credential in the caller's own headers.
    Itself(AuthHeaders),
}

impl Selected<'_> {
    /// Returns whether the request is sent with a managed user's token.
    pub fn is_for_managed_user(&self) -> bool {
        matches!(self.0, SelectedKind::ManagedUser(..))
    }
}

impl Credentials {
    /// Returns whether a consumer may act for any managed user.
    pub fn may_act_for_any(&self, consumer: ConsumerId) -> bool {
        let narrowed = self.managed_users.get(consumer.index()).and_then(Option::as_deref);
        self.of(consumer).and_then(Credential::managed).is_some() && narrowed.is_none_or(|users| !users.is_empty())
    }

    /// Selects the credential for a request with the caller's `headers`.
    ///
    /// # Errors
    /// [`Refusal::CredentialUnsuitable`] if the operation accepts no part of the credential: Cal.com would answer 401 and count
    /// it (FACTS §2). [`Refusal::ManagedUserNotAllowed`] and [`Refusal::InvalidHeader`] for a managed user that this caller cannot
    /// act for.
    pub fn select(&self, grant: &Grant<'_>, headers: &HeaderMap) -> Result<Selected<'_>, Refusal> {
        // The catalog says nothing about an unknown endpoint. Most accept a bearer token, and Cal.com decides.
        let accepts = grant.route().endpoint().map_or(Accepts::Any, |endpoint| endpoint.accepts);
        let selected = match (grant.caller().identity(), managed_user::from_headers(headers)?) {
            (Identity::Consumer(consumer), None) => self.of(consumer.id).ok_or(Refusal::Internal)?.select_for(accepts),
            (Identity::Consumer(consumer), Some(user)) => self.select_managed_user(consumer, user, accepts),
            (Identity::Public(_) | Identity::Passthrough(_), Some(_)) => Err(no_managed_users()),
            (Identity::Public(_), None) => Ok(Selected(SelectedKind::Nobody)),
            (Identity::Passthrough(own), None) => select_passthrough(&own.headers, accepts, grant.route()),
        };
        match selected {
            // A public operation needs no credential, so a credential of the wrong kind is left out.
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

    /// Returns the source of the selected credential's headers.
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
                // The token store may hold a newer key.
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
    /// Selects the part of the credential for an operation that accepts `accepts`. An operation that accepts only client
    /// headers gets those. Others get the bearer token, or else client headers if this operation may have them.
    ///
    /// # Errors
    /// [`Refusal::CredentialUnsuitable`] if the credential has neither.
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

/// Selects the credential in a caller's own headers.
///
/// # Errors
/// [`Refusal::CredentialUnsuitable`] for a credential of the wrong kind. [`Refusal::Unauthenticated`] for a client secret
/// without a client id.
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
    // The caller owns the credential and its budget, and Cal.com accepts client headers for nearly all operations (FACTS §1).
    suitable(accepts, bearer, client, true).map(|own| Selected(SelectedKind::Itself(own))).ok_or_else(|| {
        Refusal::CredentialUnsuitable {
            credential: "(passthrough)".into(),
            wanted: wanted(accepts),
            remedy: "Send a platform client's id and secret.",
        }
    })
}

/// Returns the client id in the path, which Cal.com prefers to the header for authentication (FACTS §1). calgate sends it in
/// the header too: Cal.com counts by client only if the header names one, and by calgate's address otherwise (FACTS §2).
fn client_id_in_path(matched: &RouteMatch<'_>) -> Option<HeaderValue> {
    let template = matched.endpoint()?.template.as_str();
    HeaderValue::from_str(matched.path().parameter(template, "{clientId}")?).ok()
}

fn no_managed_users() -> Refusal {
    Refusal::InvalidHeader("x-calgate-managed-user is only for consumers of a platform client with managed_users")
}

/// Returns the bearer token or the client headers, by what an operation accepts. `anywhere` allows client headers in place of
/// a missing bearer token for any operation.
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
