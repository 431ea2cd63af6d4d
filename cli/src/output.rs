//! Output of the tool: results to the standard output, errors and progress to the error output.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::time::{Duration, SystemTime};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Prints a line to the standard output. A reader that is gone, such as `head`, ends the tool without an error.
pub(crate) fn line(text: impl std::fmt::Display) {
    if writeln!(std::io::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(text),
        Err(error) => self::error(&error),
    }
}

/// Prints an error and its causes on one line.
pub(crate) fn error(error: &(dyn Error + 'static)) {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let shown = next.to_string();
        if !text.contains(&shown) {
            text = format!("{text}: {shown}");
        }
        cause = next.source();
    }
    let _ = writeln!(std::io::stderr(), "error: {text}");
}

/// Prints a note to the error output, so that it does not mix with the result.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Returns a progress bar on the error output; a hidden one where no person reads it.
pub(crate) fn progress(length: Option<u64>, doing: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
    }
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), "{msg} {wide_bar} {pos} of {len}, {eta} left"),
        None => (ProgressBar::new_spinner(), "{msg} {spinner} {pos} so far, {elapsed}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(doing);
    bar
}

/// Returns a time in UTC, to the second.
pub(crate) fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Returns a duration with its two largest units, such as `4m 12s`.
pub(crate) fn duration(time: Duration) -> String {
    let rounded = match time.as_secs() {
        0 => Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        seconds => Duration::from_secs(seconds),
    };
    let text = humantime::format_duration(rounded).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Returns the rows as a table with a heading, its columns as wide as they need to be. The last column is not padded.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(|text| text.chars().count());
    for row in rows {
        for (width, text) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    let show = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(text, width)| format!("{text:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let rows = rows.iter().map(|row| show(std::array::from_fn(|i| row[i].as_str())));
    std::iter::once(show(heading)).chain(rows).collect::<Vec<_>>().join("\n")
}

/// Returns a text for one line of a terminal: without control characters, and cut to a length in characters. Texts of
/// clients and workers could otherwise command the terminal.
pub(crate) fn plain(text: &str, length: usize) -> String {
    let mut plain: String = text.chars().take(length).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(length).is_some() {
        plain.push('…');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_as_wide_as_its_cells() {
        let rows = [["a".to_owned(), "1".to_owned()], ["long".to_owned(), "2".to_owned()]];
        assert_eq!(table(["KEY", "N"], &rows), "KEY   N\na     1\nlong  2");
    }

    #[test]
    fn a_text_commands_no_terminal_and_has_a_bound() {
        assert_eq!(plain("a\x1b[2J\nb", 20), "a [2J b");
        assert_eq!(plain("äöü", 2), "äö…");
    }

    #[test]
    fn durations_have_two_units() {
        assert_eq!(duration(Duration::from_millis(252_900)), "4m 12s");
        assert_eq!(duration(Duration::from_millis(3)), "3ms");
        assert_eq!(duration(Duration::ZERO), "0s");
    }
}
