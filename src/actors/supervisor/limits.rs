//! Places of subscribers within the limits of a process.
//!
//! A place is a value and not a number to count down: its drop frees it, in whatever way its subscriber ends. A
//! subscriber that replaces another one may use that one's place before it is free. So a client that reconnects is
//! served at the limit too.

use std::cell::Cell;
use std::rc::Rc;

use crate::actors::Placement;
use crate::config::Config;
use crate::session::EnsureError;

/// Numbers of the places that are taken.
#[derive(Default)]
pub(super) struct Limits {
    dedicated: Rc<Cell<usize>>,
    shared: Rc<Cell<usize>>,
}

/// Place of one subscriber. The place counts against a limit until it is dropped.
pub(super) struct Place {
    placement: Placement,
    /// Count of the taken places of this kind, which the drop of this place reduces.
    taken: Rc<Cell<usize>>,
}

impl Limits {
    /// Returns the placement of the next subscriber. The place `replaced` counts as free, because the next subscriber
    /// replaces its holder.
    ///
    /// # Errors
    /// [`EnsureError::LimitReached`] where no place is free.
    pub(super) fn choose(&self, config: &Config, replaced: Option<&Place>) -> Result<Placement, EnsureError> {
        let (dedicated, shared) = (config.dedicated_limit(), config.shared_limit());
        let is_free = |placement, limit| {
            let freed = replaced.is_some_and(|place| place.placement == placement);
            self.count(placement).get() - usize::from(freed) < limit
        };
        if is_free(Placement::Dedicated, dedicated) {
            Ok(Placement::Dedicated)
        } else if is_free(Placement::Shared, shared) {
            Ok(Placement::Shared)
        } else {
            Err(EnsureError::LimitReached { dedicated, shared })
        }
    }

    /// Takes a place of the kind that [`choose`](Self::choose) has returned.
    pub(super) fn take(&self, placement: Placement) -> Place {
        let taken = Rc::clone(self.count(placement));
        taken.set(taken.get() + 1);
        Place { placement, taken }
    }

    fn count(&self, placement: Placement) -> &Rc<Cell<usize>> {
        match placement {
            Placement::Dedicated => &self.dedicated,
            Placement::Shared => &self.shared,
        }
    }
}

impl Place {
    pub(super) fn placement(&self) -> Placement {
        self.placement
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.set(self.taken.get() - 1);
    }
}
