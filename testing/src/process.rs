//! Memory, threads, descriptors and processor time of a process, as Linux counts them.

use std::fs;

/// Clock ticks a second in the times of a process: the same on every Linux.
const TICKS: f64 = 100.0;

/// A process of this host.
#[derive(Debug, Clone)]
pub struct Process(String);

impl Process {
    /// Returns the process that runs this.
    #[must_use]
    pub fn this() -> Self {
        Self("/proc/self".to_owned())
    }

    /// Returns the process of an id.
    #[must_use]
    pub fn of(id: u32) -> Self {
        Self(format!("/proc/{id}"))
    }

    /// Returns the resident memory, in bytes.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.status("VmRSS") * 1024
    }

    /// Returns the largest resident memory until now, in bytes.
    #[must_use]
    pub fn most_resident(&self) -> u64 {
        self.status("VmHWM") * 1024
    }

    /// Returns the number of threads.
    #[must_use]
    pub fn threads(&self) -> u64 {
        self.status("Threads")
    }

    /// Returns whether another process traces this one.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.status("TracerPid") > 0
    }

    /// Returns the number of open descriptors. The directory that is read for that is counted too where the process is this one.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        fs::read_dir(format!("{}/fd", self.0)).unwrap().count() as u64
    }

    /// Returns the processor time until now, in seconds.
    #[must_use]
    pub fn processor_time(&self) -> f64 {
        let text = fs::read_to_string(format!("{}/stat", self.0)).unwrap();
        // The name in brackets may contain anything; the user's and the system's times are the 12th and 13th fields behind it.
        let fields: Vec<&str> = text[text.rfind(')').unwrap() + 1..].split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS
    }

    fn status(&self, field: &str) -> u64 {
        let text = fs::read_to_string(format!("{}/status", self.0)).unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("a field of the status");
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}
