//! Durations as .NET prints a `TimeSpan`: what dashboards for ASP.NET Core's health checks parse.

use std::time::Duration;

/// `[d.]hh:mm:ss[.fffffff]`: days only where there are some, the fraction in ticks of 100 ns only where there is one.
pub fn timespan(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let ticks = duration.subsec_nanos() / 100;
    let days = if days == 0 { String::new() } else { format!("{days}.") };
    let fraction = if ticks == 0 { String::new() } else { format!(".{ticks:07}") };
    format!("{days}{hours:02}:{minutes:02}:{:02}{fraction}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelled_as_dotnet_does() {
        let spelled = |ns| timespan(Duration::from_nanos(ns));
        assert_eq!(spelled(0), "00:00:00");
        assert_eq!(spelled(1_500_000_000), "00:00:01.5000000");
        assert_eq!(timespan(Duration::from_secs(25 * 3600)), "1.01:00:00");
        assert_eq!(timespan(Duration::from_secs(93_784)), "1.02:03:04");
        assert_eq!(spelled(100), "00:00:00.0000001");
        assert_eq!(spelled(99), "00:00:00");
    }
}
