//! Routes for whoever operates the chat: `/livez`, `/readyz`, and `/metrics` where the feature `metrics` is on.
//!
//! They belong to an inner network: the texts name addresses. `docs/metrics.md` describes all of them.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{ServiceConfig, get};
use mcp_courier::{Courier, HealthReport};

#[cfg(feature = "metrics")]
pub(crate) use self::prometheus::Prometheus;

/// Adds the probes of an orchestrator to an `App`.
pub(crate) fn routes(courier: &Courier, app: &mut ServiceConfig) {
    health_route(courier, app, "/livez", HealthReport::is_live);
    health_route(courier, app, "/readyz", HealthReport::is_ready);
}

/// Adds a route that answers 200 where all is well, and else 503. The report is the body of both.
fn health_route(courier: &Courier, app: &mut ServiceConfig, path: &str, is_well: fn(&HealthReport) -> bool) {
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

#[cfg(feature = "metrics")]
mod prometheus {
    use std::time::Duration;

    use actix_web::HttpResponse;
    use actix_web::web::{ServiceConfig, get};
    use mcp_courier::Cause;
    use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

    /// Bounds of the histogram of delivery times, in seconds: from one on the same host to one that waited for an hour.
    const SECONDS: [f64; 17] =
        [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0];

    /// Time between two rounds in which the recorder sorts its samples, so that they do not pile up without a scrape.
    const UPKEEP: Duration = Duration::from_secs(5);

    /// Recorder of the process, and its text.
    #[derive(Clone)]
    pub(crate) struct Prometheus(PrometheusHandle);

    impl Prometheus {
        /// Installs the recorder. It must be there before the courier starts, which makes the handles of its metrics.
        pub(crate) fn install() -> Result<Self, Cause> {
            let delivery = Matcher::Full("mcp_courier_delivery_seconds".to_owned());
            let recorder = PrometheusBuilder::new().set_buckets_for_metric(delivery, &SECONDS)?;
            let handle = recorder.install_recorder()?;
            let upkeep = handle.clone();
            tokio::spawn(async move {
                let mut rounds = tokio::time::interval(UPKEEP);
                loop {
                    rounds.tick().await;
                    upkeep.run_upkeep();
                }
            });
            Ok(Self(handle))
        }

        /// Adds the route of the metrics to an `App`.
        pub(crate) fn route(&self, app: &mut ServiceConfig) {
            let handle = self.0.clone();
            let render = move || {
                let text = handle.render();
                async { HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text) }
            };
            app.route("/metrics", get().to(render));
        }
    }
}
