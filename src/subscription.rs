//! Life of a subscriber as a pure machine: no I/O, no clock, no async.
//!
//! [`Subscription`] is the machine and [`Delivery`] the delivery of one batch. [`Permit`] is an owner's knowledge of
//! its lease. [`Ack`](ack::Ack) counts the positions of a batch, and [`Window`](window::Window) keeps the unconfirmed
//! messages. Two drivers perform the machine's actions: the actors, and a simulation in the tests.

// Public for the tests, which reach these items by the feature `testing`.
#![cfg_attr(not(feature = "testing"), allow(unreachable_pub))]

mod ack;
mod arrivals;
mod batch;
mod delivery;
mod event;
mod machine;
mod permit;
mod state;
mod window;

pub(crate) use self::ack::Ack;
pub use self::ack::{Delivered, MessageOutcome};
pub use self::batch::{Item, LeaseState, Replaced, Taken};
pub use self::delivery::{Delivery, DeliveryOutcome, EndedTasks, HandOverError, Step};
pub use self::event::{Action, Event, Note, Operation};
pub use self::machine::Subscription;
pub use self::permit::{Permit, SuspensionMark};
pub use self::state::{ExitReason, SessionState, SubscriberState};
pub use self::window::Behind;
#[cfg(feature = "testing")]
pub use self::{delivery::BatchEnd, event::IllegalTransition, event::OperationKind};
