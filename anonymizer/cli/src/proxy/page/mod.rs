//! The local web page: one file, no outside resources, under a strict content security policy.

use std::sync::LazyLock;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::detect::{Entity, EntitySpec, Kind};

/// The page with the types of personal data put in: their labels, groups and names in words.
fn html() -> &'static str {
    static PAGE: LazyLock<String> = LazyLock::new(|| {
        let types: serde_json::Map<String, serde_json::Value> = Entity::ALL
            .into_iter()
            .map(|entity| {
                let EntitySpec { label, name, kind, .. } = entity.spec();
                let kind = match kind {
                    Kind::Name => "name",
                    Kind::Place => "place",
                    Kind::Number => "number",
                    Kind::Network => "net",
                    Kind::Secret => "secret",
                    Kind::Trait => "number",
                };
                ((*label).to_owned(), json!({ "kind": kind, "name": name }))
            })
            .collect();
        let script =
            include_str!("page.js").replace("/*TYPES*/{}", &serde_json::Value::Object(types).to_string());
        include_str!("page.html")
            .replace("/*STYLE*/", include_str!("page.css"))
            .replace("/*SCRIPT*/", &script)
    });
    &PAGE
}

/// The page's policy: its own script and style by digest, requests to this proxy, nothing else.
pub(super) fn policy() -> String {
    let digest = |tag: &str| {
        let inside = html()
            .split_once(&format!("<{tag}>"))
            .and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
        STANDARD.encode(Sha256::digest(inside.map_or("", |(inside, _)| inside)))
    };
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        digest("script"),
        digest("style")
    )
}

/// The page as an answer.
pub(super) fn page(policy: &str) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, policy),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, html()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_script_and_one_style_and_no_outside_resources() {
        for tag in ["<script", "<style"] {
            assert_eq!(html().matches(tag).count(), 1, "{tag}");
        }
        for outside in
            ["http://", "https://", "src=", "href=", "@import", "url(", " style=\"", "onclick=", "innerHTML"]
        {
            assert!(!html().contains(outside), "{outside}");
        }
        assert!(policy().contains("script-src 'sha256-"));
        assert!(html().contains("\"CITY\"") && !html().contains("TYPES") && !html().contains("/*S"));
    }
}
