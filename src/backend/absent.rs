//! [`Absent`]: stands in [`Backend`](super::Backend) for each part of the port that the features of this build leave
//! out.

/// Part of the port without operations. Every type has it.
pub trait Absent {}

impl<T: ?Sized> Absent for T {}
