//! `sessions`: list of sessions.

use mcp_courier::{ClientStream, Inspector, Owner, QueueError, SessionCursor, SessionSummary};

use super::Outcome;
use crate::arguments::Sessions;
use crate::settings::Settings;
use crate::{Failure, output};

/// Number of sessions that are asked for at once.
const PAGE: usize = 500;

pub(super) async fn run(arguments: Sessions, settings: &Settings, is_json: bool) -> Result<Outcome, Failure> {
    let Sessions { limit, waiting, unowned } = arguments;
    let inspector = settings.connect().await?.inspector();
    let is_wanted = |session: &SessionSummary| (!waiting || session.depth > 0) && (!unowned || session.owner.is_none());
    let bar = output::progress(None, "reading sessions");
    let (mut sessions, has_more) = list(&inspector, limit, is_wanted, |read| bar.inc(read)).await?;
    bar.finish_and_clear();
    let is_cut = has_more || sessions.len() > limit;
    each_once(&mut sessions);
    sessions.truncate(limit);
    if is_json {
        output::json(&sessions);
    } else if sessions.is_empty() {
        output::note("no sessions");
    } else {
        let rows: Vec<_> = sessions.iter().map(|session| row(session, session.session.to_string())).collect();
        output::line(output::table(HEADING, &rows));
    }
    if is_cut {
        output::note(format!("there are more sessions than {limit} (--limit)"));
    }
    Ok(Outcome::Yes)
}

/// Reads pages of sessions until `enough` wanted ones are there, which the last page may exceed. Returns them, and
/// whether there are further pages. `progress` gets the number of sessions of each page.
pub(crate) async fn list(
    inspector: &Inspector,
    enough: usize,
    is_wanted: impl Fn(&SessionSummary) -> bool,
    progress: impl Fn(u64),
) -> Result<(Vec<SessionSummary>, bool), QueueError> {
    let (mut sessions, mut cursor) = (Vec::new(), Some(SessionCursor::default()));
    while let Some(at) = cursor.take_if(|_| sessions.len() < enough) {
        let page = inspector.sessions(&at, PAGE).await?;
        progress(page.sessions.len() as u64);
        sessions.extend(page.sessions.into_iter().filter(&is_wanted));
        cursor = page.next;
    }
    Ok((sessions, cursor.is_some()))
}

/// Sorts sessions by their ids, and leaves each once. A session whose keys come or go during the list is listed twice.
pub(crate) fn each_once(sessions: &mut Vec<SessionSummary>) {
    sessions.sort_by(|a, b| a.session.cmp(&b.session));
    sessions.dedup_by(|a, b| a.session == b.session);
}

/// Heading of the rows.
pub(crate) const HEADING: [&str; 6] = ["SESSION", "STATE", "STREAM", "DEPTH", "DEAD", "SERVER"];

/// Returns the row of a session that is shown by this name.
pub(crate) fn row(session: &SessionSummary, name: String) -> [String; 6] {
    [
        name,
        state(session).to_owned(),
        stream(session.stream).to_owned(),
        session.depth.to_string(),
        session.dead_letters.to_string(),
        session.owner.as_ref().map_or_else(|| "-".to_owned(), server),
    ]
}

/// Returns the standing of a session in one word.
pub(crate) fn state(session: &SessionSummary) -> &'static str {
    match session {
        SessionSummary { ended: true, .. } => "ended",
        SessionSummary { owner: Some(_), .. } => "owned",
        SessionSummary { known: true, .. } => "known",
        _ => "unknown",
    }
}

/// Returns the state of a client's stream in one word.
pub(crate) fn stream(stream: ClientStream) -> &'static str {
    match stream {
        ClientStream::Open => "open",
        ClientStream::Closed => "closed",
        _ => "?",
    }
}

/// Returns an owner as its host and process, or as its number where the process has no record.
pub(crate) fn server(owner: &Owner) -> String {
    match (&owner.host, owner.pid, owner.server) {
        (Some(host), Some(pid), _) => format!("{}/{pid}", output::plain(host, 60)),
        (_, _, Some(server)) => server.to_string(),
        _ => "?".to_owned(),
    }
}
