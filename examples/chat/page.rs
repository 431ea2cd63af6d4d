//! Page of the chat, for browsers: an MCP client in plain JavaScript, without a build step.
//!
//! The page loads nothing from elsewhere, and its policy (CSP) forbids that. Scripts come from this server's files only,
//! so markup in the text of a user could not run, even if the page showed it as markup.

use actix_web::HttpResponse;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::web::{ServiceConfig, get};

/// Page at `/`.
const INDEX: &str = include_str!("page/index.html");

/// Attribute by which the page knows that users need a token, in the page as it is stored.
const NEEDS_NO_TOKEN: &str = r#"data-needs-token="no""#;

/// Files of the page: path, type and content.
const FILES: [(&str, &str, &str); 5] = [
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
    ("/mcp.js", SCRIPT, include_str!("page/mcp.js")),
    ("/form.js", SCRIPT, include_str!("page/form.js")),
    ("/tabs.js", SCRIPT, include_str!("page/tabs.js")),
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Policy of the page. Its icon is a `data:` URL.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the page and its files to an `App`. `needs_token` has the page ask for the user's token.
pub(crate) fn routes(app: &mut ServiceConfig, needs_token: bool) {
    let index = if needs_token { INDEX.replace(NEEDS_NO_TOKEN, r#"data-needs-token="yes""#) } else { INDEX.to_owned() };
    app.route("/", get().to(move || std::future::ready(file("text/html; charset=utf-8", index.clone()))));
    for (path, kind, text) in FILES {
        app.route(path, get().to(move || std::future::ready(file(kind, text.to_owned()))));
    }
}

fn file(kind: &str, text: String) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, kind))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        // The files of another version must not stay beside this page.
        .insert_header((CACHE_CONTROL, "no-cache"))
        .body(text)
}
