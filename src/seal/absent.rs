//! Keys of a build without the feature `seal`: a type without a value.

use super::form::{Binding, SealError, Sealed, Why};

/// Stands for the keys. No value of this type exists, so no process of this build seals anything.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SealingKeys {}

impl SealingKeys {
    pub(crate) fn primary(&self) -> Option<&str> {
        match *self {}
    }

    pub(crate) fn is_required(&self) -> bool {
        match *self {}
    }

    pub(super) fn open(&self, _: &Sealed<'_>, _: &Binding<'_>) -> Result<String, Why> {
        match *self {}
    }

    pub(crate) fn seal(&self, _key: &str, _: &Binding<'_>, _text: &str) -> Result<String, SealError> {
        match *self {}
    }
}
