//! `why`: reasons why a session gets nothing.

use mcp_courier::{Finding, SessionReport, Severity};
use serde_json::json;

use super::Outcome;
use super::sessions::{server, state, stream};
use crate::arguments::Why;
use crate::settings::Settings;
use crate::{Failure, output};

pub(super) async fn run(arguments: Why, settings: &Settings, is_json: bool) -> Result<Outcome, Failure> {
    let Why { session } = arguments;
    let inspector = settings.connect().await?.inspector();
    let report = inspector.session(&session).await?;
    let findings = inspector.explain(&session).await?;
    if is_json {
        output::json(&json!({"session": report, "findings": findings}));
    } else {
        for Finding { severity, text, advice, .. } in &findings {
            let severity = match severity {
                Severity::Info => "info",
                Severity::Warning => "warning",
                _ => "error",
            };
            output::line(format!("{severity:7}  {}", output::plain(text, 500)));
            output::line(format!("{:7}  → {}", "", output::plain(advice, 500)));
        }
        output::line("");
        facts(&report).into_iter().for_each(output::line);
    }
    Ok(findings.iter().all(|finding| finding.severity == Severity::Info).into())
}

/// Returns the facts about a session, a line each.
fn facts(report: &SessionReport) -> Vec<String> {
    let SessionReport { summary, bytes, oldest, newest, open_questions, .. } = report;
    let line = |name: &str, fact: String| format!("{name:16}  {fact}");
    let mut lines = vec![
        line("state", state(summary).to_owned()),
        line("stream", stream(summary.stream).to_owned()),
        line(
            "owner",
            match &summary.owner {
                Some(owner) => format!(
                    "{}, lease for another {}{}",
                    server(owner),
                    output::duration(owner.lease_rest),
                    if owner.overdue { ", renewal overdue" } else { "" }
                ),
                None => "none".to_owned(),
            },
        ),
        line("depth", format!("{} messages, {bytes} bytes", summary.depth)),
    ];
    for (name, message) in [("oldest", oldest), ("newest", newest)] {
        let Some(message) = message else { continue };
        let method = output::plain(message.method.as_deref().unwrap_or("undecodable"), 100);
        let age = message.age.map_or_else(String::new, |age| format!(", {} old", output::duration(age)));
        lines.push(line(name, format!("{method}{age}, {} failed attempts", message.attempts)));
    }
    lines.push(line("open questions", open_questions.to_string()));
    lines.push(line("dead letters", summary.dead_letters.to_string()));
    if let (Some(reason), Some(at)) = (&report.last_discard, report.last_discard_at) {
        lines.push(line("last discard", format!("{}: {}", output::time(at), output::plain(&reason.to_string(), 300))));
    }
    if let Some(rest) = report.forgotten_in {
        lines.push(line("forgotten in", output::duration(rest)));
    }
    lines
}
