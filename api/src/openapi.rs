//! The contract, generated from the handlers: OpenAPI 3.1, served at `/openapi.json` and committed as `schemas/openapi.json`.

mod answers;
mod examples;
mod parameters;
mod records;

use std::sync::LazyLock;

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use self::answers::SharedAnswers;
use self::parameters::NamedParameters;
use crate::routes::access::Route;
use crate::routes::accounts::staff::{acts, audit, found, roles, setup};
use crate::routes::accounts::{credentials, export, factor, jwks, own_sessions, profile, registration, sessions};
use crate::routes::{admin, admin_keys, catalog, events, generations, health, members, orders, popular, similar, stream, widget};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Kindred",
        description = "Live recommendations and loyalty from a shop's event log. Errors are problem details (RFC 9457)."
    ),
    paths(
        similar::show_similar_items,
        stream::follow_similar_items,
        stream::follow_lists,
        popular::show_popular_items,
        catalog::show_product,
        catalog::find_products,
        catalog::list_categories,
        catalog::list_tags,
        events::post_events,
        members::show_points,
        members::show_history,
        orders::show_orders,
        members::forget_member,
        // People's own side.
        registration::give_challenge,
        registration::send_phone_code,
        registration::show_rules,
        registration::register,
        registration::verify_email,
        registration::resend_verification,
        sessions::sign_in,
        sessions::show_second_factor,
        sessions::refresh,
        sessions::sign_out,
        own_sessions::list_own_sessions,
        own_sessions::end_own_sessions,
        own_sessions::end_own_session,
        profile::show_profile,
        profile::change_profile,
        profile::close_account,
        export::export_own,
        credentials::change_password,
        credentials::change_email,
        credentials::confirm_email,
        credentials::change_phone,
        credentials::confirm_phone,
        credentials::request_reset,
        credentials::reset_password,
        factor::enrol_totp,
        factor::confirm_totp,
        factor::remove_totp,
        factor::renew_recovery_codes,
        jwks::show_keys,
        // The administration of members.
        found::list_members,
        found::show_member,
        found::list_member_sessions,
        acts::end_member_sessions,
        acts::suspend_member,
        acts::activate_member,
        acts::resend_member_verification,
        acts::set_tier,
        acts::change_role,
        roles::list_roles,
        roles::show_role,
        roles::put_role,
        roles::list_permissions,
        audit::search_audit,
        setup::list_setup_tokens,
        setup::make_setup_token,
        setup::withdraw_setup_token,
        setup::redeem_setup_token,
        setup::rotate_signing_keys,
        admin::show_status,
        admin::export_view,
        admin::show_rows,
        admin::list_rejected,
        admin::show_rejected,
        admin::drop_rejected,
        admin::retry_rejected,
        admin::verify_views,
        admin_keys::list_keys,
        admin_keys::make_key,
        admin_keys::change_key,
        admin_keys::rotate_key,
        admin_keys::revoke_key,
        generations::list_generations,
        generations::compare_generations,
        generations::promote_generation,
        generations::delete_generation,
        health::live,
        health::ready,
        health::contract,
        health::show_reference,
        health::explain_problem,
        widget::show_widget,
    ),
    modifiers(&Keys, &SharedAnswers, &NamedParameters),
    tags(
        (name = "lists", description = "what is recommended"),
        (name = "catalog", description = "what is sold"),
        (name = "events", description = "what happened"),
        (name = "members", description = "what is about one person"),
        (name = "registration", description = "becoming a member"),
        (name = "sessions", description = "signing in and out"),
        (name = "account", description = "one's own account"),
        (name = "staff", description = "the administration of members"),
        (name = "admin", description = "for the operator"),
        (name = "health", description = "for machines, and this contract"),
        (name = "widget", description = "for the storefront"),
    )
)]
struct Contract;

/// The ways a key is presented.
struct Keys;

impl Modify for Keys {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = |description: &str| {
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build())
        };
        let in_query = "a publishable key, where no header can be sent (EventSource)";
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("service_key", bearer("kd_sk_...: a secret of the shop's servers"));
        components.add_security_scheme("publishable_key", bearer("kd_pk_...: stands in pages; its origins, its rate"));
        components.add_security_scheme("access_token", bearer("an access token (RFC 9068) of a person who signed in"));
        components.add_security_scheme(
            "publishable_key_in_query",
            SecurityScheme::ApiKey(ApiKey::Query(ApiKeyValue::with_description("key", in_query))),
        );
    }
}

/// The operation of a route, where it stands in the contract.
fn operation_of<'o>(openapi: &'o mut utoipa::openapi::OpenApi, route: &Route) -> Option<&'o mut Operation> {
    let path = openapi.paths.paths.get_mut(route.template())?;
    let operation = match route.method() {
        "GET" => &mut path.get,
        "POST" => &mut path.post,
        "PUT" => &mut path.put,
        "PATCH" => &mut path.patch,
        "DELETE" => &mut path.delete,
        other => panic!("{other} has no place in the contract yet"),
    };
    operation.as_mut()
}

/// The parts of the contract in the order in which they are read.
#[derive(Serialize)]
struct Document {
    openapi: Value,
    info: Value,
    tags: Value,
    paths: Value,
    components: Value,
}

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut contract = serde_json::to_value(Contract::openapi()).expect("the contract serialises");
    records::add_records(&mut contract);
    examples::add_examples(&mut contract);
    let mut part = |name: &str| contract[name].take();
    let document = Document {
        openapi: part("openapi"),
        info: part("info"),
        tags: part("tags"),
        paths: part("paths"),
        components: part("components"),
    };
    let mut text = serde_json::to_string_pretty(&document).expect("the contract serialises");
    text.push('\n');
    text
});

/// The contract as JSON.
pub fn text() -> &'static str {
    &TEXT
}

/// Whether an answer of this status stands in the contract. What is no route, or another method of one, is nobody's operation.
#[cfg(test)]
pub(crate) fn describes(method: &str, template: &str, status: u16) -> bool {
    static CONTRACT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(text()).expect("the contract is JSON"));
    let operation = &CONTRACT["paths"][template][method.to_lowercase()];
    operation.is_null() || !operation["responses"][status.to_string()].is_null()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is committed is what the code says: whoever changes a route changes the contract knowingly.
    #[test]
    fn the_committed_contract_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/openapi.json");
        if std::env::var_os("KINDRED_WRITE_OPENAPI").is_some() {
            std::fs::write(path, text()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == text(),
            "schemas/openapi.json is another: KINDRED_WRITE_OPENAPI=1 cargo test -p kindred-api openapi"
        );
    }

    /// A client is generated from them: two of one name would be one function.
    #[test]
    fn operations_have_names_of_their_own() {
        let contract: Value = serde_json::from_str(text()).unwrap();
        let operations = contract["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
        let mut names: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        names.sort_unstable();
        let twice: Vec<&[&str]> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    /// Every route but the admin address's stands in the contract, with its methods, and the other way round.
    #[test]
    fn the_contract_has_every_route() {
        let contract: Value = serde_json::from_str(text()).unwrap();
        assert!(contract["openapi"].as_str().unwrap().starts_with("3.1"));
        let paths = contract["paths"].as_object().unwrap();
        for crate::routes::access::Template { path: template, allow: methods, .. } in
            crate::routes::access::TEMPLATES.iter().filter(|template| template.path != "/metrics")
        {
            let described = paths.get(*template).unwrap_or_else(|| panic!("{template} is not in the contract"));
            let methods: Vec<String> =
                methods.split(", ").filter(|method| !["HEAD", "OPTIONS"].contains(method)).map(str::to_lowercase).collect();
            let described: Vec<&String> = described.as_object().unwrap().keys().collect();
            assert_eq!(described.len(), methods.len(), "{template}: {described:?}");
            assert!(described.iter().all(|method| methods.contains(method)), "{template}: {described:?}");
        }
        assert_eq!(paths.len(), crate::routes::access::TEMPLATES.len() - 1);
    }
}
