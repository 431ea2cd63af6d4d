//! The life of a subscriber, pure: without I/O, clock or async.
//!
//! [`Subscription`] is the machine, [`Delivery`] the delivery of one batch, [`Permit`] an owner's knowledge of its lease,
//! [`Ack`] the positions of a batch, [`Window`](window::Window) what is unconfirmed. `actors` drives them, and a simulation in the tests does.

// Public for the tests, which reach them by the feature.
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

pub use self::ack::{Delivered, Fate};
pub use self::batch::{Item, LeaseState, Mark, Replaced, Taken};
pub use self::delivery::{Delivery, EndedTasks, HandOverError, Outcome, Step};
pub use self::event::{Action, Event, Note, Operation};
pub use self::machine::Subscription;
pub use self::permit::{DoubtMark, Permit};
pub use self::state::{ExitReason, SessionState, SubscriberState};
pub use self::window::Behind;
#[cfg(feature = "testing")]
pub use self::{delivery::BatchEnd, event::IllegalTransition, event::OperationKind};
