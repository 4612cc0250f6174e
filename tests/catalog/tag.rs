//! Documentation tags: canonical form, prefix and hierarchy.

use calgate::catalog::{Prefix, Tag};

#[test]
fn converts_the_tags_of_documents_into_canonical_form() {
    let table = [
        ("Bookings", "/v2/bookings", "Bookings", Prefix::Unprefixed),
        ("Bookings / Guests", "/v2/bookings/{uid}/guests", "Bookings / Guests", Prefix::Unprefixed),
        (
            "Orgs / Teams / Workflows",
            "/v2/organizations/{o}/teams/{t}/workflows",
            "Orgs / Teams / Workflows",
            Prefix::Orgs,
        ),
        ("Teams / Invite", "/v2/teams/{teamId}/invite", "Teams / Invite", Prefix::Teams),
        (
            "Deprecated: Platform / Managed Users",
            "/v2/oauth/{id}/refresh",
            "Platform / Managed Users",
            Prefix::Platform,
        ),
        ("Deprecated: Platform / Webhooks", "/v2/oauth-clients/{id}/webhooks", "Platform / Webhooks", Prefix::Platform),
        ("Deprecated: Platform OAuth Clients", "/v2/oauth-clients", "Platform / OAuth Clients", Prefix::Platform),
        ("OAuth Clients", "/v2/oauth-clients", "Platform / OAuth Clients", Prefix::Platform),
        ("Managed Orgs", "/v2/organizations/{o}/organizations", "Orgs / Orgs", Prefix::Orgs),
        (
            "Organization Team Verified Resources",
            "/v2/organizations/{o}/teams/{t}/verified-resources/emails",
            "Orgs / Teams / Verified Resources",
            Prefix::Orgs,
        ),
        (
            "Teams Verified Resources",
            "/v2/teams/{t}/verified-resources/emails",
            "Teams / Verified Resources",
            Prefix::Teams,
        ),
        ("Organizations/Teams Stripe", "/v2/organizations/{o}/teams/{t}/stripe", "Orgs / Teams / Stripe", Prefix::Orgs),
        ("Event Types Private Links", "/v2/event-types/{e}/x", "Event Types / Private Links", Prefix::Unprefixed),
        ("Verified Resources", "/v2/verified-resources/emails", "Verified Resources", Prefix::Unprefixed),
    ];
    for (written, path, canonical, prefix) in table {
        let tag = Tag::from_document(written, path).unwrap();
        assert_eq!((tag.as_str(), tag.prefix()), (canonical, prefix), "{written}");
    }
}

#[test]
fn rejects_an_ambiguous_tag() {
    let table = [
        ("Bookings", "/v2/organizations/{orgId}/bookings"),
        ("Teams / Bookings", "/v2/organizations/{orgId}/teams/{teamId}/bookings"),
        ("Orgs / Teams", "/v2/teams"),
        ("Users", "/v2/oauth-clients/{clientId}/users"),
        ("Organization Users", "/v2/users"),
        ("Team Bookings", "/v2/bookings"),
        ("Platform Things", "/v2/things"),
        ("orgs / Teams", "/v2/things"),
        ("Managed Things", "/v2/things"),
        ("Deprecated: Teams Things", "/v2/things"),
        ("Orgs/Teams", "/v2/organizations/{orgId}/teams"),
        ("Orgs /Teams", "/v2/organizations/{orgId}/teams"),
        ("Orgs / ", "/v2/organizations/{orgId}/teams"),
        (" Bookings", "/v2/bookings"),
        ("", "/v2/bookings"),
    ];
    for (written, path) in table {
        assert!(Tag::from_document(written, path).is_err(), "{written:?} on {path}");
    }
}

#[test]
fn a_tag_is_under_another_by_whole_components() {
    let table = [
        ("Orgs / Teams", "Orgs", true),
        ("Orgs / Teams", "Orgs / Teams", true),
        ("Orgs / Teams / Workflows", "Orgs / Teams", true),
        ("Orgs / Teams", "Orgs / Te", false),
        ("Orgs / Teams", "Org", false),
        ("Orgs / Teams", "Orgs / ", false),
        ("Orgs / Teams", "Teams", false),
        ("Orgs / Teams", "Orgs / Teams / Workflows", false),
        ("Orgs / Teams", "orgs", false),
        ("Event Types", "Event", false),
    ];
    for (tag, outer, expected) in table {
        assert_eq!(Tag::canonical(tag).unwrap().is_under(outer), expected, "{tag:?} under {outer:?}");
    }
}
