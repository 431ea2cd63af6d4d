//! Figures of a benchmark: the same thing measured of this crate and of an alternative, round by round, in one run.
//!
//! The output is a Markdown table, the form in which `scripts/benchmark` puts the figures into `docs/performance.md`.

use clap::Args;

/// Arguments of every table: `cargo bench -p mcp-courier-testing -- drain --quick --only 300`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Bench {
    /// Measures a tenth of the messages, in 2 rounds: for a look, not for a figure to keep.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Number of rounds (default: 5, with --quick 2).
    #[arg(long)]
    rounds: Option<usize>,
    /// Only the rows with this in their name.
    #[arg(long, default_value = "")]
    only: String,
    /// Says on the error output where time went.
    #[arg(long)]
    pub(crate) verbose: bool,
    /// Sent by `cargo bench` itself.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Bench {
    /// Returns the rounds that some rows are measured in, by number: none where none of the rows is wanted.
    pub(crate) fn rounds<'a>(&self, rows: impl IntoIterator<Item = &'a Row>) -> std::ops::Range<usize> {
        if !rows.into_iter().any(|row| self.wants(row)) {
            return 0..0;
        }
        self.every_round()
    }

    /// Returns all rounds, by number.
    pub(crate) fn every_round(&self) -> std::ops::Range<usize> {
        0..self.rounds.unwrap_or(if self.quick { 2 } else { 5 }).max(1)
    }

    /// Returns the number of messages to measure: `full`, or with `--quick` a tenth.
    pub(crate) fn count(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }

    /// Returns whether a row is to be measured.
    pub(crate) fn wants(&self, row: &Row) -> bool {
        self.wants_name(&row.name)
    }

    /// Returns whether a row of this name is to be measured.
    pub(crate) fn wants_name(&self, name: &str) -> bool {
        name.contains(&self.only)
    }
}

/// Bound that a ratio, or a figure of this crate alone, is to keep.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "≥ {bound:.2}"),
            Self::AtMost(bound) => write!(f, "≤ {bound:.2}"),
        }
    }
}

/// Row of the table: what was measured, and a pair of figures for each round.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    name: String,
    /// Unit of both figures, as `/s` or `µs`.
    unit: &'static str,
    wanted: Option<Wanted>,
    rounds: Vec<(f64, f64)>,
}

impl Row {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str) -> Self {
        Self { name: name.into(), unit, wanted: None, rounds: Vec::new() }
    }

    pub(crate) fn wanted(self, wanted: Wanted) -> Self {
        Self { wanted: Some(wanted), ..self }
    }

    /// Notes what one round gave: this crate's figure, and that of the alternative.
    pub(crate) fn add(&mut self, ours: f64, beside: f64) {
        self.rounds.push((ours, beside));
    }
}

/// Prints the head of a table whose rows compare this crate with an alternative.
pub(crate) fn print_head(beside: &str) {
    println!("| what | mcp-courier | {beside} | ratio | wanted |");
    println!("| --- | --- | --- | --- | --- |");
}

/// Prints a row that was measured: medians, in brackets the least and the most, and the ratio of each round's pair likewise.
pub(crate) fn print_row(Row { name, unit, wanted, rounds }: &Row) {
    if rounds.is_empty() {
        return;
    }
    let cell = |figure: fn(&(f64, f64)) -> f64| spread(rounds.iter().map(figure));
    let (ours, beside) = (cell(|round| round.0), cell(|round| round.1));
    let ratio = cell(|(ours, beside)| ours / beside);
    let wanted = wanted.as_ref().map(Wanted::to_string).unwrap_or_default();
    println!("| {name}, {unit} | {ours} | {beside} | {ratio} | {wanted} |");
}

/// Prints a row of this crate's figures alone, each of which is to be within a bound.
pub(crate) fn print_figure(name: &str, figures: &[f64], wanted: Wanted) {
    println!("| {name} | {} | | | {wanted} |", spread(figures.iter().copied()));
}

/// Returns the median of figures as text, with the least and the most where there are several.
pub(crate) fn spread(figures: impl Iterator<Item = f64>) -> String {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.as_slice() {
        [] => "–".to_owned(),
        [only] => shown(*only),
        [least, .., most] => {
            let median = (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0;
            format!("{} ({} to {})", shown(median), shown(*least), shown(*most))
        }
    }
}

/// Returns a figure as text: with two decimals below ten, else rounded, in groups of three digits.
pub(crate) fn shown(figure: f64) -> String {
    if figure.abs() < 10.0 && figure.fract() != 0.0 {
        return format!("{figure:.2}");
    }
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the value below which so many of a thousand sorted values lie.
pub(crate) fn per_mille(sorted: &[f64], per_mille: usize) -> f64 {
    sorted[(sorted.len() - 1) * per_mille / 1000]
}
