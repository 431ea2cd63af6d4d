//! Clauses 1, 3 to 8 and 11 together: random interleavings of what three owners do, against a model.
//!
//! An operation that was abandoned may have been done, may never be, or may be done later. So the model is a set of states
//! that are possible, and every answer leaves those that agree with it. `MODEL_SEED` repeats a run.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use mcp_courier::SessionId;
use mcp_courier::testing::backend::{Consumer, Delivered, LeaseState, Mark, OwnerToken, Permit, Replaced, Taken};

use super::place::{Place, Queue, config, note};

const OWNERS: usize = 3;
const BATCH: usize = 4;
const RUNS: u64 = 60;
const STEPS: usize = 80;

/// The owners', the publisher's, the queue's own, and that of whoever counts.
const CONNECTIONS: usize = OWNERS + 3;

/// A message: its number, and how often an attempt at it has failed.
type Message = (usize, u32);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct State {
    /// The oldest first.
    queue: Vec<Message>,
    lease: Option<usize>,
    /// Operations that were abandoned and may still be performed.
    pending: Vec<Act>,
}

/// Operation of an owner, with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Act {
    Claim { by: usize },
    Renew { by: usize },
    ClaimIfAbsent { by: usize },
    Release { by: usize },
    Take { by: usize, delivered: Vec<Message> },
    Wait { by: usize },
    Replace { by: usize, oldest: Message },
}

/// Answer to an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Nothing,
    Lease(LeaseState),
    Released(bool),
    Seen { lease: LeaseState, changed: bool, items: Vec<Message> },
    Replaced(Replaced),
}

impl State {
    fn lease_for(&self, by: usize) -> LeaseState {
        match self.lease {
            None => LeaseState::Absent,
            Some(owner) if owner == by => LeaseState::Held,
            Some(_) => LeaseState::Lost,
        }
    }

    fn lease_or_taken(&mut self, by: usize) -> LeaseState {
        match self.lease_for(by) {
            LeaseState::Absent => {
                self.lease = Some(by);
                LeaseState::Reclaimed
            }
            other => other,
        }
    }

    fn seen(&self, lease: LeaseState, changed: bool) -> Answer {
        let items = if lease.is_held() { self.queue.iter().take(BATCH).copied().collect() } else { Vec::new() };
        Answer::Seen { lease, changed, items }
    }

    fn act(&mut self, act: &Act) -> Answer {
        match act {
            Act::Claim { by } => {
                self.lease = Some(*by);
                Answer::Nothing
            }
            Act::Renew { by } | Act::ClaimIfAbsent { by } => Answer::Lease(self.lease_or_taken(*by)),
            Act::Release { by } => {
                let ours = self.lease == Some(*by);
                if ours {
                    self.lease = None;
                }
                Answer::Released(ours)
            }
            Act::Take { by, delivered } => {
                let lease = self.lease_or_taken(*by);
                let mut changed = false;
                if let (true, Some(last)) = (lease.is_held(), delivered.last()) {
                    if self.queue.get(delivered.len() - 1) == Some(last) {
                        let removed: Vec<_> = self.queue.drain(..delivered.len()).map(|(n, _)| n).collect();
                        let named: Vec<_> = delivered.iter().map(|(n, _)| *n).collect();
                        assert_eq!(removed, named, "the guard lets something be removed that was not named");
                    } else {
                        changed = true;
                    }
                }
                self.seen(lease, changed)
            }
            Act::Wait { by } => self.seen(self.lease_for(*by), false),
            Act::Replace { by, oldest } => Answer::Replaced(match self.queue.first_mut() {
                _ if self.lease != Some(*by) => Replaced::NotOwner,
                Some(first) if first == oldest => {
                    first.1 += 1;
                    Replaced::Done
                }
                _ => Replaced::Changed,
            }),
        }
    }
}

/// With whatever was abandoned done in any order, or not.
fn closed(states: HashSet<State>) -> HashSet<State> {
    let mut all = HashSet::new();
    let mut open: Vec<State> = states.into_iter().collect();
    while let Some(state) = open.pop() {
        for at in 0..state.pending.len() {
            let mut next = state.clone();
            let act = next.pending.remove(at);
            next.act(&act);
            open.push(next);
        }
        all.insert(state);
    }
    all
}

struct Owner {
    token: OwnerToken,
    permit: Arc<Permit>,
    consumer: Box<dyn Consumer>,
    /// Answer to the owner's last take.
    seen: Option<Taken>,
}

impl Owner {
    async fn open(&mut self, queue: &Queue, session: &SessionId) {
        self.consumer = queue.open(session, self.token, Arc::clone(&self.permit)).await.unwrap();
    }

    fn messages(&self) -> Vec<Message> {
        self.seen.as_ref().map(messages).unwrap_or_default()
    }

    async fn act(&mut self, act: &Act, queue: &Queue, session: &SessionId) -> Answer {
        match act {
            Act::Claim { .. } => {
                self.consumer.claim().await.unwrap();
                Answer::Nothing
            }
            Act::Renew { .. } => Answer::Lease(self.consumer.renew().await.unwrap()),
            Act::ClaimIfAbsent { .. } => Answer::Lease(queue.claim_if_absent(session, self.token).await.unwrap()),
            Act::Release { .. } => Answer::Released(queue.release(session, self.token).await.unwrap()),
            Act::Take { delivered, .. } => {
                let delivered = (!delivered.is_empty()).then(|| Delivered {
                    count: delivered.len(),
                    last: self.mark(delivered.len() - 1),
                    questions: Vec::new(),
                    outcomes: Vec::new(),
                });
                let taken = self.consumer.take(delivered.as_ref()).await.unwrap();
                self.see(taken)
            }
            Act::Wait { .. } => {
                let taken = self.consumer.wait(Duration::from_millis(3)).await.unwrap();
                self.see(taken)
            }
            Act::Replace { .. } => {
                let Some(Taken { items, .. }) = &self.seen else { panic!("it saw something") };
                let replacement = items[0].envelope.as_ref().unwrap().after_failure("as the model has it");
                let mark = items[0].mark.clone();
                Answer::Replaced(self.consumer.replace_oldest(&mark, replacement).await.unwrap())
            }
        }
    }

    fn mark(&self, at: usize) -> Mark {
        self.seen.as_ref().unwrap().items[at].mark.clone()
    }

    fn see(&mut self, taken: Taken) -> Answer {
        let answer = Answer::Seen { lease: taken.lease, changed: taken.changed, items: messages(&taken) };
        if taken.lease.is_held() {
            self.seen = Some(taken);
        }
        // Without the lease the owner keeps the messages that it has read, and tries operations that it may no longer
        // perform.
        answer
    }
}

fn messages(taken: &Taken) -> Vec<Message> {
    let envelopes = taken.items.iter().map(|item| item.envelope.as_ref().unwrap());
    envelopes
        .map(|e| (e.parse_params::<serde_json::Value>().unwrap()["n"].as_u64().unwrap() as usize, e.attempt))
        .collect()
}

/// Returns a random next operation of an owner.
fn any_act(by: usize, owner: &Owner, rng: &mut Rng) -> Act {
    let seen = owner.messages();
    match rng.usize(..12) {
        0 => Act::Claim { by },
        1 => Act::Renew { by },
        2 => Act::ClaimIfAbsent { by },
        3 => Act::Release { by },
        4 => Act::Wait { by },
        5 if !seen.is_empty() => Act::Replace { by, oldest: seen[0] },
        6..=9 => Act::Take { by, delivered: seen[..rng.usize(..=seen.len())].to_vec() },
        _ => Act::Take { by, delivered: Vec::new() },
    }
}

pub(crate) async fn any_interleaving_of_owners_agrees_with_the_model(place: &Place) {
    let seeds = match std::env::var("MODEL_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..RUNS).map(|_| fastrand::u64(..)).collect(),
    };
    let (mut abandoned, mut most) = (0, 0);
    for seed in &seeds {
        let session = SessionId::new(format!("model-{seed}")).unwrap();
        let run = one_run(place, &session, *seed);
        let (a, m) = run.await;
        (abandoned, most) = (abandoned + a, most.max(m));
    }
    println!(
        "{} runs of {STEPS} steps from seed {}: {abandoned} abandoned, at most {most} states",
        seeds.len(),
        seeds[0]
    );
}

async fn one_run(place: &Place, session: &SessionId, seed: u64) -> (usize, usize) {
    let mut rng = Rng::with_seed(seed);
    let queue = place.queue(config().batch_messages(BATCH)).await;
    let publisher = place.publisher(config()).await;
    let mut owners = Vec::new();
    for _ in 0..OWNERS {
        let (token, permit) = (OwnerToken::new(), Arc::new(Permit::new()));
        let consumer = queue.open(session, token, Arc::clone(&permit)).await.unwrap();
        owners.push(Owner { token, permit, consumer, seen: None });
    }
    let mut states = HashSet::from([State::default()]);
    let (mut pushed, mut abandoned, mut most, mut story) = (0, 0, 0, Vec::new());
    // Step before which all abandoned operations are awaited, so that they stay few enough to be distinguished.
    let mut settle_at = None;
    for step in 0..STEPS {
        if settle_at == Some(step) {
            settle_at = None;
            place.until_connections(CONNECTIONS).await;
            queue.check().await.unwrap();
            states = closed(states)
                .into_iter()
                .map(|mut state| {
                    state.pending.clear();
                    state
                })
                .collect();
        }
        if rng.usize(..4) == 0 {
            for _ in 0..rng.usize(1..4) {
                publisher.push(session, note(pushed)).await.unwrap();
                // What is pushed is at the head whatever else was done, so what is pending may have come before or after.
                states = closed(states);
                states = states
                    .into_iter()
                    .map(|mut state| {
                        state.queue.push((pushed, 0));
                        state
                    })
                    .collect();
                story.push(format!("push {pushed}"));
                pushed += 1;
            }
            continue;
        }
        let by = rng.usize(..OWNERS);
        let act = any_act(by, &owners[by], &mut rng);
        if rng.usize(..8) == 0 {
            settle_at = settle_at.or(Some(step + 1 + rng.usize(..5)));
            // Dropped after a moment: perhaps before it was sent, perhaps after it was done.
            let moment = Duration::from_micros(rng.u64(..300));
            let done = tokio::time::timeout(moment, owners[by].act(&act, &queue, session)).await;
            story.push(format!("{act:?} abandoned, or {done:?}"));
            states = states
                .into_iter()
                .map(|mut state| {
                    state.pending.push(act.clone());
                    state
                })
                .collect();
            // What it saw, if it saw anything, it does not know.
            owners[by].seen = None;
            owners[by].open(&queue, session).await;
            abandoned += 1;
            continue;
        }
        let answer = owners[by].act(&act, &queue, session).await;
        story.push(format!("{act:?}: {answer:?}"));
        let possible = closed(states.clone());
        states = possible.into_iter().filter_map(|mut state| (state.act(&act) == answer).then_some(state)).collect();
        most = most.max(states.len());
        assert!(!states.is_empty(), "MODEL_SEED={seed}: no state agrees with\n{}", story.join("\n"));
    }
    (abandoned, most)
}
