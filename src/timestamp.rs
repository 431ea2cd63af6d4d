//! [`Timestamp`]: a moment by the queue's clock.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(crate) mod serial;

/// First and last microsecond of the years 0 to 9999. RFC 3339 has no form outside these years, so moments are clamped
/// to them.
const YEARS: [i64; 2] = [-62_167_219_200_000_000, 253_402_300_799_999_999];

/// Moment by the queue's own clock, in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Number of characters that [`Display`](fmt::Display) writes for any moment.
    pub(crate) const LENGTH: usize = "0000-00-00T00:00:00.000000+00:00".len();

    /// Returns the present moment by this host's clock.
    pub fn of_this_host() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(micros(since))
    }

    /// Returns the moment that is `while_` later.
    pub fn plus(self, while_: Duration) -> Self {
        Self(self.0.saturating_add(micros(while_)))
    }

    /// Returns the time from `earlier` to this moment, or zero where `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Converts to the nearest moment within the years 0 to 9999, which every system can represent.
    pub fn to_system(self) -> SystemTime {
        let micros = self.0.clamp(YEARS[0], YEARS[1]);
        let distance = Duration::from_micros(micros.unsigned_abs());
        if micros < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
    }

    /// Converts from a time of the system. Fractions of a microsecond are cut off.
    pub fn from_system(at: SystemTime) -> Self {
        match at.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(micros(after)),
            Err(before) => Self(-micros(before.duration())),
        }
    }

    /// Reads a time of RFC 3339. Returns `None` for any other text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(at.unix_timestamp_nanos() / 1000).ok().map(Self)
    }
}

impl fmt::Display for Timestamp {
    /// Writes RFC 3339 as Python's `isoformat` does, always with microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.clamp(YEARS[0], YEARS[1]);
        let at = OffsetDateTime::from_unix_timestamp(micros.div_euclid(1_000_000)).map_err(|_| fmt::Error)?;
        let ((year, month, day), (hour, minute, second)) = (at.to_calendar_date(), at.to_hms());
        // Written by hand: each push renders two times, and a general formatter costs more than the rest of the
        // message.
        let mut text = *b"0000-00-00T00:00:00.000000+00:00";
        let mut write = |place: std::ops::Range<usize>, mut number: u32| {
            for digit in text[place].iter_mut().rev() {
                *digit += (number % 10) as u8;
                number /= 10;
            }
        };
        write(0..4, year.unsigned_abs());
        write(5..7, u8::from(month).into());
        write(8..10, day.into());
        write(11..13, hour.into());
        write(14..16, minute.into());
        write(17..19, second.into());
        write(20..26, micros.rem_euclid(1_000_000).unsigned_abs() as u32);
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_without_a_form_is_written_as_the_nearest_that_has_one() {
        assert_eq!(Timestamp(i64::MAX).to_string(), "9999-12-31T23:59:59.999999+00:00");
        assert_eq!(Timestamp(i64::MIN).to_string(), "0000-01-01T00:00:00.000000+00:00");
        assert_eq!(Timestamp(i64::MIN).since(Timestamp(i64::MAX)), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn any_time_is_written_and_what_is_written_is_read(at in any::<i64>(), other in any::<i64>()) {
            let text = Timestamp(at).to_string();
            prop_assert_eq!(text.len(), Timestamp::LENGTH);
            let read = Timestamp::parse(&text).unwrap();
            prop_assert_eq!(read.to_string(), text);
            prop_assert_eq!(Timestamp(at).since(Timestamp(other)).is_zero(), at <= other);
        }

        #[test]
        fn each_moment_is_written_with_its_own_date(at in YEARS[0]..=YEARS[1]) {
            let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1000).unwrap();
            prop_assert_eq!(OffsetDateTime::parse(&Timestamp(at).to_string(), &Rfc3339).unwrap(), moment);
        }

        #[test]
        fn a_time_of_the_system_is_the_same_moment(at in YEARS[0]..=YEARS[1], beyond in any::<i64>()) {
            let system = Timestamp(at).to_system();
            prop_assert_eq!(OffsetDateTime::from(system).unix_timestamp_nanos(), i128::from(at) * 1000);
            prop_assert_eq!(Timestamp::from_system(system), Timestamp(at));
            let nearest = beyond.clamp(YEARS[0], YEARS[1]);
            prop_assert_eq!(Timestamp(beyond).to_system(), Timestamp(nearest).to_system());
        }

        #[test]
        fn no_text_makes_the_reader_of_times_panic(text in "\\PC*|[0-9]{0,5}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{0,20}[-+Zz0-9:]{0,6}") {
            if let Some(at) = Timestamp::parse(&text) {
                prop_assert_eq!(Timestamp::parse(&at.to_string()), Some(at));
            }
        }
    }
}
