//! Picture of a reading: a line of sums, the servers, the troubles, and the sessions.

use mcp_courier::ServerRecord;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, TableState};

use super::reading::Reading;
use crate::commands::{servers, sessions};
use crate::output;

/// Largest number of lines for servers, and for troubles.
const SERVERS: u16 = 8;
const TROUBLES: u16 = 5;

/// State of the view.
#[derive(Debug, Default)]
pub(crate) struct View {
    reading: Reading,
    /// Text of the newest failure to read, until a reading succeeds.
    error: Option<String>,
    table: TableState,
}

impl View {
    /// Shows a new reading.
    pub(crate) fn show(&mut self, reading: Reading) {
        (self.reading, self.error) = (reading, None);
        self.scroll(0);
    }

    /// Shows a failure beside the reading before.
    pub(crate) fn fail(&mut self, error: String) {
        self.error = Some(error);
    }

    /// Moves the selection by so many sessions.
    pub(crate) fn scroll(&mut self, by: isize) {
        let last = self.reading.sessions.len().saturating_sub(1);
        let at = self.table.selected().unwrap_or(0).saturating_add_signed(by);
        self.table.select(Some(at.min(last)));
    }

    pub(crate) fn draw(&mut self, frame: &mut Frame<'_>) {
        let troubles: Vec<Line<'_>> = troubles(&self.reading).into_iter().map(Line::from).collect();
        let height = |rows: usize, most: u16| u16::try_from(rows).unwrap_or(most).min(most);
        let [head, servers, trouble, sessions, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(height(self.reading.servers.len(), SERVERS) + 3),
            Constraint::Length(if troubles.is_empty() { 0 } else { height(troubles.len(), TROUBLES) + 2 }),
            Constraint::Min(4),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(sums(&self.reading)).style(Modifier::BOLD), head);
        let rows = self.reading.servers.iter().map(|server| Row::new(server_cells(server).map(Cell::from)));
        let widths = [12, 24, 8, 9, 8, 8, 8, 8, 8].map(Constraint::Length);
        let heading = Row::new(SERVER_HEADING).style(Modifier::UNDERLINED);
        frame
            .render_widget(Table::new(rows, widths).header(heading).block(Block::bordered().title("servers")), servers);
        let block = Block::bordered().title("troubles").border_style(Color::Yellow);
        frame.render_widget(Paragraph::new(troubles).block(block), trouble);

        let rows = self.reading.sessions.iter().map(|session| {
            let style = if session.owner.is_none() && session.depth > 0 {
                Style::new().fg(Color::Yellow)
            } else {
                Style::new()
            };
            Row::new(session_cells(session).map(Cell::from)).style(style)
        });
        let widths = [26, 8, 8, 8, 6, 30].map(Constraint::Length);
        let table = Table::new(rows, widths)
            .header(Row::new(sessions::HEADING).style(Modifier::UNDERLINED))
            .row_highlight_style(Modifier::REVERSED)
            .block(Block::bordered().title("sessions, those with the most waiting first"));
        frame.render_stateful_widget(table, sessions, &mut self.table);
        let (text, style) = match &self.error {
            Some(error) => (format!("reading failed: {}", output::plain(error, 200)), Style::new().fg(Color::Red)),
            None => (
                "q quit   ↑ ↓ scroll   session ids are cut: `mcp-courier sessions` prints them".to_owned(),
                Style::new(),
            ),
        };
        frame.render_widget(Paragraph::new(text).style(style), foot);
    }
}

const SERVER_HEADING: [&str; 9] =
    ["SERVER", "HOST", "PID", "VERSION", "WAITING", "BUSY", "PAUSED", "STANDBY", "PARKED"];

fn server_cells(server: &ServerRecord) -> [String; 9] {
    let by_state = server.subscribers;
    let busy = by_state.connecting + by_state.reading + by_state.delivering + by_state.rewriting + by_state.stopping;
    [
        server.id.to_string(),
        output::plain(&server.host, 24),
        server.pid.to_string(),
        output::plain(&server.version, 9),
        by_state.waiting.to_string(),
        busy.to_string(),
        by_state.backing_off.to_string(),
        by_state.standing_by.to_string(),
        by_state.parked.to_string(),
    ]
}

fn session_cells(session: &mcp_courier::SessionSummary) -> [String; 6] {
    // A screen is seen by others, and a whole id is a secret.
    let user = session.session.principal().map(|user| format!("{}: ", output::plain(user.as_str(), 14)));
    sessions::row(session, format!("{}{:?}", user.unwrap_or_default(), session.session))
}

/// Returns the line of sums.
fn sums(reading: &Reading) -> String {
    let (owned, waiting) = reading.owned_and_waiting();
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"));
    format!(
        "{}{} sessions, {owned} owned, {waiting} notifications wait, {} delivered/s, {} discarded/s, {} servers",
        reading.sessions.len(),
        if reading.is_cut { "+" } else { "" },
        rate(reading.delivered_a_second),
        rate(reading.discarded_a_second),
        reading.servers.len(),
    )
}

fn troubles(reading: &Reading) -> Vec<String> {
    let of = |server: &ServerRecord| {
        server.troubles.iter().map(|trouble| format!("{}: {}", server.id, servers::shown(trouble))).collect::<Vec<_>>()
    };
    reading.servers.iter().flat_map(of).collect()
}

/// Returns a reading as text.
pub(crate) fn text(reading: &Reading) -> String {
    let mut parts = vec![sums(reading)];
    if !reading.servers.is_empty() {
        let rows: Vec<_> = reading.servers.iter().map(server_cells).collect();
        parts.push(output::table(SERVER_HEADING, &rows));
    }
    let troubles = troubles(reading);
    if !troubles.is_empty() {
        parts.push(troubles.join("\n"));
    }
    if !reading.sessions.is_empty() {
        let rows: Vec<_> = reading.sessions.iter().map(session_cells).collect();
        parts.push(output::table(sessions::HEADING, &rows));
    }
    parts.join("\n\n")
}
