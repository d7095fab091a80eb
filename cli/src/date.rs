//! Days and times for results and reports, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-01-31`.
pub fn today() -> String {
    let (y, m, d) = civil((since_1970(SystemTime::now()) / 86_400) as i64);
    format!("{y:04}-{m:02}-{d:02}")
}

/// `2026-01-31 13:45:00 UTC`.
pub fn now() -> String {
    time(SystemTime::now())
}

fn time(at: SystemTime) -> String {
    let seconds = since_1970(at);
    let ((y, m, d), rest) = (civil((seconds / 86_400) as i64), seconds % 86_400);
    format!("{y:04}-{m:02}-{d:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

fn since_1970(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Year, month and day of the day `days` after 1 January 1970. Years are counted from March, so that the leap day comes
/// last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (d, m) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12 + 1);
    (year + era * 400 + i64::from(m <= 2), m, d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn days_of_the_calendar() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(20_779), (2026, 11, 22));
    }

    #[test]
    fn times_of_the_day() {
        let at = |s| time(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(951_868_799), "2000-02-29 23:59:59 UTC");
        assert_eq!(at(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }
}
