//! Memory, threads and descriptors of this process, as Linux counts them.

use std::fs;

/// Returns the resident memory, in bytes.
pub(crate) fn resident() -> f64 {
    status("VmRSS") * 1024.0
}

/// Returns the largest resident memory until now, in bytes.
pub(crate) fn most_resident() -> f64 {
    status("VmHWM") * 1024.0
}

/// Returns the number of threads.
pub(crate) fn threads() -> f64 {
    status("Threads")
}

/// Returns the number of open descriptors.
pub(crate) fn descriptors() -> f64 {
    // The directory is open itself while it is read.
    fs::read_dir("/proc/self/fd").unwrap().count() as f64 - 1.0
}

fn status(field: &str) -> f64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("a field of the status");
    line.split_whitespace().next().unwrap().parse().unwrap()
}
