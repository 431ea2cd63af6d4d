//! `servers`: server processes of the fleet.

use mcp_courier::ServerRecord;

use super::Outcome;
use crate::settings::Settings;
use crate::{Failure, output};

pub(super) async fn run(settings: &Settings, is_json: bool) -> Result<Outcome, Failure> {
    let servers = settings.connect().await?.inspector().servers().await?;
    if is_json {
        output::json(&servers);
    } else if servers.is_empty() {
        output::note("no server has written a record; servers before version 0.1.0 write none");
    } else {
        let rows: Vec<_> = servers.iter().map(row).collect();
        output::line(output::table(["SERVER", "HOST", "PID", "VERSION", "STARTED", "SUBSCRIBERS", "PARKED"], &rows));
        for server in &servers {
            for trouble in &server.troubles {
                output::line(format!("{}: session {}", server.id, shown(trouble)));
            }
        }
    }
    Ok(Outcome::Yes)
}

fn row(server: &ServerRecord) -> [String; 7] {
    let subscribers = server.subscribers;
    [
        server.id.to_string(),
        output::plain(&server.host, 60),
        server.pid.to_string(),
        output::plain(&server.version, 20),
        output::time(server.started),
        (subscribers.total() - subscribers.parked).to_string(),
        subscribers.parked.to_string(),
    ]
}

/// Returns the trouble of a session on one line.
pub(crate) fn shown(trouble: &mcp_courier::SessionTrouble) -> String {
    use mcp_courier::TroubleState;
    let state = match trouble.state {
        TroubleState::WaitsForPlace => "waits for a free place",
        TroubleState::BackingOff => "pauses after a failure",
        TroubleState::StandingBy => "stands by, as another server owns it",
        _ => "works again after an error",
    };
    let error = trouble.error.as_deref().map(|error| format!(": {}", output::plain(error, 160)));
    format!("{} {state}{}", output::plain(&trouble.session, 20), error.unwrap_or_default())
}
