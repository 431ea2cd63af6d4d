//! `doctor`: examination of the Redis server.

use mcp_courier::{Check, Verdict};
use serde_json::json;

use super::Outcome;
use crate::settings::Settings;
use crate::{Failure, output};

pub(super) async fn run(settings: &Settings, is_json: bool) -> Result<Outcome, Failure> {
    let checks = settings.connect().await?.inspector().examine().await?;
    let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Good);
    if is_json {
        output::json(&json!({"verdict": worst, "checks": checks}));
    } else {
        for Check { name, verdict, found, advice, .. } in &checks {
            output::line(format!("{:7}  {name:12}  {}", verdict.to_string(), output::plain(found, 500)));
            if let Some(advice) = advice {
                output::line(format!("{:7}  {:12}  → {}", "", "", output::plain(advice, 500)));
            }
        }
    }
    Ok((worst < Verdict::Wrong).into())
}
