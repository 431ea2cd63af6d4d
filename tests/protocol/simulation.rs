//! The simulator: several owners, pushers and clients over a faulty network, in simulated time, under one seed.
//!
//! Each owner is the machine of the crate, the queue is its pure store; the network, the processes and the clients are
//! simulated. `checker` sees what really happens, and judges G1 to G5 and G8; and, once all faults are over, that everything is
//! delivered. Clients come back with what they have, or with an old or a forged name, or say nothing: a stream brings nothing
//! that its client said it has, and nothing twice. A seed that fails is run again, and its trace shown; `SIMULATION_SEED=<seed>` runs that seed alone.
//!
//! `SIMULATION_HOURS=<hours>` runs new seeds until so many hours are simulated.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

use self::settings::{Guard, Scene, Waiting};
use self::trace::Trace;
use self::world::{Run, run};

mod checker;
mod client;
mod consumer;
mod delivery;
mod faults;
mod guards;
mod letters;
mod line;
mod messages;
mod network;
mod owner;
mod receipts;
mod redis;
mod resuming;
mod scheduler;
mod server;
mod settings;
mod sharer;
mod trace;
mod tracking;
mod world;

/// Number of seeds of the short run.
const SEEDS: u64 = 150;

/// Number of seeds within which the lack of a guard must be found.
const SEEDS_PER_GUARD: u64 = 1000;

/// Sums of several runs.
#[derive(Default)]
struct Sum {
    seeds: u64,
    events: u64,
    simulated: Duration,
    received: u64,
    repeats: u64,
    resumed: u64,
    most_unconfirmed: usize,
    met: BTreeSet<&'static str>,
}

impl Sum {
    fn add(&mut self, run: &Run) {
        self.seeds += 1;
        self.events += run.events;
        self.simulated += run.simulated;
        self.received += run.received;
        self.repeats += run.repeats;
        self.resumed += run.resumed;
        self.most_unconfirmed = self.most_unconfirmed.max(run.most_unconfirmed);
        self.met.extend(&run.met);
    }

    fn show(&self, took: Duration) {
        let (hours, seconds) = (self.simulated.as_secs_f64() / 3600.0, took.as_secs_f64());
        println!(
            "{} seeds, {hours:.1} simulated hours, {} events, {} deliveries, {} of them repeats, {} streams that resumed, \
             {} deliveries unconfirmed at once, in {seconds:.1} s: {:.0} simulated hours an hour, {:.0} events a second",
            self.seeds,
            self.events,
            self.received,
            self.repeats,
            self.resumed,
            self.most_unconfirmed,
            hours * 3600.0 / seconds,
            self.events as f64 / seconds,
        );
    }
}

/// Runs a seed, and fails with its trace where it breaks a guarantee.
fn passes(scene: Scene, seed: u64) -> Run {
    // A panic in the machine, the store or a simulated server shows its seed too.
    let done = catch_unwind(|| run(scene, seed, Trace::default()));
    let done = done.unwrap_or_else(|_| panic!("{scene:?}: SIMULATION_SEED={seed} panics"));
    if let Some(violation) = &done.violation {
        let again = run(scene, seed, Trace::kept());
        println!("{}", again.trace.of(violation.session));
        let same = again.violation.map(|again| (again.guarantee, again.text));
        assert_eq!(
            same,
            Some((violation.guarantee, violation.text.clone())),
            "the replay of SIMULATION_SEED={seed} differs"
        );
        panic!("{scene:?}: SIMULATION_SEED={seed} breaks {}: {}", violation.guarantee, violation.text);
    }
    done
}

fn all_hold(waiting: Waiting) {
    let scene = Scene { waiting, of: None, is_removed: false };
    let (mut sum, start) = (Sum::default(), Instant::now());
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        sum.add(&passes(scene, seed.parse().expect("a number")));
    } else if let Ok(hours) = std::env::var("SIMULATION_HOURS") {
        let wanted = Duration::from_secs_f64(hours.parse::<f64>().expect("a number of hours") * 3600.0);
        let first = fastrand::u64(..);
        println!("the first seed is {first}");
        while sum.simulated < wanted {
            sum.add(&passes(scene, first.wrapping_add(sum.seeds)));
        }
    } else {
        (0..SEEDS).for_each(|seed| sum.add(&passes(scene, seed)));
        let missed: Vec<_> = owner::KINDS.iter().filter(|kind| !sum.met.contains(*kind)).collect();
        assert!(missed.is_empty(), "no seed meets {missed:?}");
        assert!(sum.most_unconfirmed > 3, "{} deliveries are unconfirmed at once", sum.most_unconfirmed);
    }
    sum.show(start.elapsed());
}

fn replays(waiting: Waiting) {
    let scene = Scene { waiting, of: None, is_removed: false };
    for seed in 0..4 {
        let [first, second] = [(), ()].map(|()| run(scene, seed, Trace::kept()).trace.whole());
        assert!(first.len() > 100, "{} lines", first.len());
        for (n, (first, second)) in first.iter().zip(&second).enumerate() {
            assert_eq!(first, second, "line {n} of seed {seed}");
        }
        assert_eq!(first.len(), second.len());
    }
}

/// Runs seeds without a guard until the checker finds that out.
fn is_found(waiting: Waiting, guard: Guard, guarantees: &[&str]) {
    let mut sum = Sum::default();
    let scene = Scene { waiting, of: Some(guard), is_removed: true };
    for seed in 0..SEEDS_PER_GUARD {
        let without = run(scene, seed, Trace::default());
        sum.add(&without);
        if let Some(violation) = without.violation {
            let Sum { seeds, events, .. } = sum;
            println!(
                "without {guard:?}: {} after {seeds} seeds and {events} events: {}",
                violation.guarantee, violation.text
            );
            if !guarantees.contains(&violation.guarantee) {
                let again = run(scene, seed, Trace::kept());
                println!("{}", again.trace.of(violation.session));
                panic!("{violation:?}");
            }
            passes(Scene { is_removed: false, ..scene }, seed);
            return;
        }
    }
    panic!("{guard:?} is removed, and no seed shows it");
}

/// Makes the tests of one way of waiting. Each lack of a guard must break one of some guarantees.
macro_rules! tests_of {
    ($name:ident, $waiting:ident, $($test:ident: $guard:ident, [$($guarantee:literal),+];)+) => {
        mod $name {
            use super::*;

            #[test]
            fn g1_to_g5_and_g8_hold_whatever_fails_and_everything_is_delivered_once_faults_end() {
                all_hold(Waiting::$waiting);
            }

            #[test]
            fn a_seed_replays_its_run_line_by_line() {
                replays(Waiting::$waiting);
            }

            $(#[test]
            fn $test() {
                is_found(Waiting::$waiting, Guard::$guard, &[$($guarantee),+]);
            })+
        }
    };
}

/// Makes the tests of both ways of waiting: of the guards that both need, and of those that one of them needs.
macro_rules! tests_of_both {
    ($($common:tt)*) => {
        tests_of! { dedicated, Dedicated, $($common)*
            a_wait_that_takes_an_absent_lease_breaks_the_heartbeat_of_who_stands_by: NoReclaimAfterWait, ["prompt", "G2"];
        }

        tests_of! { shared, Shared, $($common)*
            a_plain_read_without_the_lease_behind_it_breaks_g4: LeaseBehindRead, ["G4"];
            a_suspension_that_an_earlier_question_lifts_breaks_g4: SuspensionsSinceSending, ["G4"];
            a_lease_that_is_not_tracked_is_not_prompt: LeaseTracked, ["G1", "G3", "G4", "prompt"];
            a_change_that_comes_while_the_queue_is_read_and_is_forgotten_is_not_prompt: ReadAfterChange, ["prompt"];
            an_acknowledgement_that_reads_before_it_removes_is_not_prompt: ReadLast, ["prompt"];
            a_wait_that_only_a_change_ends_is_not_prompt: Sweep, ["prompt", "G2"];
            a_wait_that_outlives_its_connection_is_not_prompt: LossWakes, ["prompt", "G2"];
            a_null_invalidation_that_means_nothing_is_not_prompt: NullMeansAll, ["prompt", "G2"];
        }
    };
}

tests_of_both! {
    a_take_without_its_lease_check_breaks_g4: LeaseCheck, ["G4"];
    an_acknowledgement_without_its_content_check_breaks_g2: ContentCheck, ["G2"];
    a_failed_attempt_that_is_pushed_anew_breaks_g1: RewriteInPlace, ["G1", "G2", "G3"];
    a_permit_that_is_asked_once_a_batch_breaks_g4: PermitBeforeEach, ["G4"];
    a_permit_that_counts_from_the_answer_breaks_g4: PermitFromSending, ["G4"];
    an_unconfirmed_batch_that_counts_as_delivered_breaks_g2: Confirmation, ["G2"];
    an_acknowledgement_of_the_newest_alone_breaks_g3: CumulativeAck, ["G3", "receipts"];
    repeats_that_are_not_recognised_break_g3: SkipById, ["G3", "receipts"];
    a_client_that_is_not_heard_breaks_g3: Resume, ["G3"];
    a_name_without_its_time_breaks_g2: ResumeByTime, ["G2"];
    a_message_behind_a_discard_that_is_not_acknowledged_breaks_g2: DiscardFirst, ["G2", "G5"];
    a_confirmation_of_what_was_handed_over_behind_it_breaks_g2: ConfirmedBefore, ["G2"];
    a_read_behind_whatever_stands_there_breaks_g1: BehindMark, ["G1", "G2"];
    a_window_without_a_bound_breaks_g3: WindowBound, ["G3"];
    an_acknowledgement_of_unconfirmed_messages_breaks_g2: AckOfConfirmed, ["G2"];
    an_acknowledgement_that_says_nothing_of_its_messages_settles_no_receipt: Outcomes, ["receipts"];
    a_push_that_replaces_what_an_owner_may_have_read_breaks_g3: CollapseUnowned, ["G2", "G3"];
    a_claim_that_does_not_end_what_may_be_replaced_breaks_g3: CollapseForgotten, ["G2", "G3"];
}
