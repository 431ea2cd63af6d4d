//! `top`: live view of sessions, queues and servers.
//!
//! Each reading goes through at most [`SESSIONS`] sessions, so a large fleet is not listed whole every two seconds.

mod reading;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers, poll, read};
use tokio::sync::mpsc;

use self::reading::{Reading, Totals};
use self::view::View;
use crate::arguments::Top;
use crate::commands::Outcome;
use crate::settings::Settings;
use crate::{Failure, output};

/// Largest number of sessions that one reading goes through.
pub(crate) const SESSIONS: usize = 10_000;

/// Shortest time between two readings.
const SHORTEST: Duration = Duration::from_millis(200);

/// Time for which a key press is waited for, before the thread looks whether the tool ends.
const KEYS: Duration = Duration::from_millis(100);

pub(crate) async fn run(arguments: Top, settings: &Settings, is_json: bool) -> Result<Outcome, Failure> {
    let inspector = settings.connect().await?.inspector();
    if is_json || arguments.once || !std::io::stdout().is_terminal() {
        let reading = Reading::take(&inspector, None).await?;
        if is_json {
            output::json(&reading)
        } else {
            output::line(view::text(&reading))
        }
        return Ok(Outcome::Yes);
    }
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, &inspector, arguments.interval.max(SHORTEST)).await;
    ratatui::restore();
    shown.map(|()| Outcome::Yes)
}

/// Shows readings until the user ends the view. A reading that fails is shown as an error, and tried again.
async fn show(
    terminal: &mut DefaultTerminal,
    inspector: &mcp_courier::Inspector,
    interval: Duration,
) -> Result<(), Failure> {
    let mut keys = keys();
    let mut view = View::default();
    let mut before: Option<Totals> = None;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => match Reading::take(inspector, before.as_ref()).await {
                Ok(reading) => {
                    before = Some(reading.totals.clone());
                    view.show(reading);
                }
                Err(error) => view.fail(error.to_string()),
            },
            key = keys.recv() => match key {
                Some(KeyCode::Char('q') | KeyCode::Esc) | None => return Ok(()),
                Some(KeyCode::Down | KeyCode::Char('j')) => view.scroll(1),
                Some(KeyCode::Up | KeyCode::Char('k')) => view.scroll(-1),
                Some(KeyCode::PageDown) => view.scroll(20),
                Some(KeyCode::PageUp) => view.scroll(-20),
                Some(_) => {}
            },
        }
        terminal.draw(|frame| view.draw(frame))?;
    }
}

/// Reads the keyboard on a thread of its own, as reading blocks. The thread ends with the receiver.
fn keys() -> mpsc::UnboundedReceiver<KeyCode> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while !sender.is_closed() {
            match poll(KEYS) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(_) => return,
            }
            let code = match read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                    if is_interrupt { KeyCode::Esc } else { key.code }
                }
                // Any other event, such as a new size, has the view drawn again.
                Ok(_) => KeyCode::Null,
                Err(_) => return,
            };
            if sender.send(code).is_err() {
                return;
            }
        }
    });
    receiver
}
