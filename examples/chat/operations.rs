//! Routes for whoever operates the chat: `/livez` and `/readyz`.
//!
//! They belong to an inner network: the texts name addresses. `docs/metrics.md` describes both.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{ServiceConfig, get};
use mcp_courier::{Courier, HealthReport};

/// Adds the routes to an `App`.
pub(crate) fn routes(courier: &Courier, app: &mut ServiceConfig) {
    health(courier, app, "/livez", HealthReport::is_live);
    health(courier, app, "/readyz", HealthReport::is_ready);
}

/// Adds a route that answers 200 where all is well, and else 503. The report is the body of both.
fn health(courier: &Courier, app: &mut ServiceConfig, path: &str, is_well: fn(&HealthReport) -> bool) {
    let courier = courier.clone();
    let check = move || {
        let courier = courier.clone();
        async move {
            let report = courier.check().await;
            let status = if is_well(&report) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            HttpResponse::build(status).json(report)
        }
    };
    app.route(path, get().to(check));
}
