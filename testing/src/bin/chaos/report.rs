//! Report at the end of a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::check::Checked;
use crate::faults::Done;

/// Largest number of violations that the report names.
const NAMED: usize = 20;

pub(crate) fn print(checked: &Checked, faults: &[Done], pushing: Duration, drained: Option<Duration>) {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for done in faults {
        let part = done.fault.part.to_string();
        let part = part.split('-').next().unwrap_or_default();
        *kinds.entry(format!("{part} {}", done.fault.kind)).or_default() += 1;
    }
    let kinds: Vec<String> = kinds.into_iter().map(|(kind, count)| format!("{count} x {kind}")).collect();
    println!("faults       {:>9}   {}", faults.len(), kinds.join(", "));
    let Checked { pushed, refused, uncertain, uncertain_delivered, delivered, .. } = checked;
    println!(
        "pushed       {pushed:>9}   and {refused} refused, {uncertain} uncertain ({uncertain_delivered} of them came)"
    );
    let rate = (*delivered as f64) / pushing.as_secs_f64();
    println!("delivered    {delivered:>9}   {rate:.0} a second, over {} streams", checked.streams);
    let [resuming, others] = checked.duplicates;
    println!("came twice   {resuming:>9}   at clients that send Last-Event-ID, and {others} at the others");
    println!("lost         {:>9}", checked.lost);
    println!("reordered    {:>9}", checked.reordered);
    println!("discarded    {:>9}", checked.discarded.values().sum::<usize>());
    for (reason, count) in &checked.discarded {
        println!("             {count:>9}   {reason}");
    }
    match drained {
        Some(drained) => {
            println!("drained      {:>9.3} s after all was healed and pushing stopped", drained.as_secs_f64())
        }
        None => println!("drained          not in time"),
    }
    println!("time without a delivery at a client, by what was done (others may have been done in the same moment):");
    println!("{:<22}{:>8}{:>14}{:>14}", "", "clients", "median ms", "longest ms");
    for (kind, gaps) in &checked.gaps {
        let mut gaps = gaps.clone();
        gaps.sort_unstable();
        let (median, longest) = (gaps[gaps.len() / 2] / 1000, gaps[gaps.len() - 1] / 1000);
        println!("{kind:<22}{:>8}{median:>14}{longest:>14}", gaps.len());
    }
}

pub(crate) fn complain(violations: &[String], kept: &Path) {
    println!("{} violations:", violations.len());
    for violation in violations.iter().take(NAMED) {
        println!("  {violation}");
    }
    if violations.len() > NAMED {
        println!("  and {} more", violations.len() - NAMED);
    }
    println!("the records are in {}", kept.display());
}
