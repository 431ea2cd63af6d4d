//! Memory, threads, descriptors and processor time of a process, as Linux counts them.

use std::fs;

/// Clock ticks a second in the times of a process: the same on every Linux.
const TICKS: f64 = 100.0;

/// A process of this host.
#[derive(Debug, Clone)]
pub(crate) struct Process(String);

impl Process {
    /// Returns the process that runs this.
    pub(crate) fn this() -> Self {
        Self("/proc/self".to_owned())
    }

    /// Returns the process of an id.
    pub(crate) fn of(id: u32) -> Self {
        Self(format!("/proc/{id}"))
    }

    /// Returns the resident memory, in bytes.
    pub(crate) fn resident(&self) -> f64 {
        self.status("VmRSS") * 1024.0
    }

    /// Returns the largest resident memory until now, in bytes.
    pub(crate) fn most_resident(&self) -> f64 {
        self.status("VmHWM") * 1024.0
    }

    /// Returns the number of threads.
    pub(crate) fn threads(&self) -> f64 {
        self.status("Threads")
    }

    /// Returns whether another process traces this one.
    pub(crate) fn is_traced(&self) -> bool {
        self.status("TracerPid") > 0.0
    }

    /// Returns the number of open descriptors. The directory that is read for that is counted too where the process is this one.
    pub(crate) fn descriptors(&self) -> f64 {
        fs::read_dir(format!("{}/fd", self.0)).unwrap().count() as f64
    }

    /// Returns the processor time until now, in seconds.
    pub(crate) fn processor_time(&self) -> f64 {
        let text = fs::read_to_string(format!("{}/stat", self.0)).unwrap();
        // The name in brackets may contain anything; the user's and the system's times are the 12th and 13th fields behind it.
        let fields: Vec<&str> = text[text.rfind(')').unwrap() + 1..].split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS
    }

    fn status(&self, field: &str) -> f64 {
        let text = fs::read_to_string(format!("{}/status", self.0)).unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("a field of the status");
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}
