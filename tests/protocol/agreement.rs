//! Memory and Redis agree: random schedules of backend calls, the same on the memory backend and on a real Redis, with every
//! answer compared. So what the simulator finds with the memory store holds for the Lua scripts.
//!
//! `live_sessions` is not among the calls: in Redis it answers what owners have announced, as its documentation says.
//!
//! A schedule that fails is printed in its shortest form, with a command that replays it. Environment:
//!
//! - `AGREEMENT_SEED`: plays the schedule of this seed only.
//! - `AGREEMENT_STEPS`: plays these steps of that schedule only, as the failure names them.
//! - `AGREEMENT_RUNS`: number of schedules of each kind, with new seeds. A long run, which nextest would end:
//!   `AGREEMENT_RUNS=5000 cargo test --release --test protocol agreement::`.

mod inspect;
mod play;
mod step;
mod time;
mod world;

use self::play::agree;
use self::step::Kind;

#[tokio::test]
async fn queues_and_leases_agree() {
    agree(Kind::Queues, 120).await;
}

#[tokio::test]
async fn receipts_and_dead_letters_agree() {
    agree(Kind::Outcomes, 100).await;
}

#[tokio::test]
async fn questions_agree() {
    agree(Kind::Questions, 80).await;
}

#[tokio::test]
async fn sessions_agree() {
    agree(Kind::Sessions, 60).await;
}

#[tokio::test]
async fn inspection_agrees() {
    agree(Kind::Inspection, 80).await;
}

#[tokio::test]
async fn all_together_agrees() {
    agree(Kind::All, 60).await;
}

#[tokio::test]
async fn what_runs_out_agrees() {
    time::agree(24).await;
}
