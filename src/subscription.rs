//! The life of a subscriber and what it knows: pure, without I/O, clock or async.

mod ack;
pub(crate) mod arrivals;
mod batch;
mod permit;

pub use self::ack::{Delivered, Fate};
pub(crate) use self::arrivals::Arrivals;
pub use self::batch::{Item, LeaseState, Mark, Replaced, Taken};
pub(crate) use self::permit::DoubtMark;
pub use self::permit::Permit;
