//! What arguments may be: anything else is wrong usage, told with the argument's name and ended with 2.

use std::time::Duration;

use rustls::pki_types::ServerName;

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("{text:?} is not a duration; write 30s, 5m or 1h"))?;
    let factor = match unit.trim() {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{text:?} needs a unit: ms, s, m or h")),
    };
    // An instant plus a longer one may not exist.
    Some(number * factor)
        .filter(|seconds| *seconds <= YEAR.as_secs_f64())
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "write at most 8760h, a year".to_owned())
}

const YEAR: Duration = Duration::from_secs(365 * 86_400);

pub(super) fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("write more than 0".to_owned()),
        time => Ok(time),
    }
}

/// Records a second; 0 is as many as go.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok();
    rate.filter(|rate| *rate == 0.0 || (0.001..=1e6).contains(rate))
        .ok_or_else(|| "write 0, or a number from 0.001 to 1000000".to_owned())
}

pub(super) fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "write a whole number from 1 on".to_owned())
}

/// `host:port`, with an IPv6 address in brackets.
pub(super) fn address(text: &str) -> Result<String, String> {
    if text.contains('/') {
        return Err("write HOST:PORT alone, without a scheme or a path".to_owned());
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port),
        None if text.matches(':').count() > 1 => return Err(format!("write [{text}]:PORT")),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    server_name(host)?;
    match port.strip_prefix(':').unwrap_or_default() {
        "" => Err(format!(
            "the port is missing; add :PORT of the gateway's listener.bind, for example {}:8443",
            text.trim_end_matches(':')
        )),
        number => match number.parse::<u16>() {
            Ok(1..) => Ok(text.to_owned()),
            _ => Err(format!(
                "the port {number:?} is out of range; write one from 1 to 65535"
            )),
        },
    }
}

/// A host name or an address, as a certificate can be for.
pub(super) fn server_name(text: &str) -> Result<String, String> {
    match ServerName::try_from(text.strip_prefix("*.").unwrap_or(text)) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!(
            "{text:?} is not a host name or an address; write for example gateway.example.com"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_or_explained() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert!(duration("30").is_err_and(|error| error.contains("unit")));
        assert!(duration("x").is_err() && duration("9000h").is_err());
        assert!(duration("0s").is_ok() && some_time("0s").is_err() && some_time("1ms").is_ok());
    }

    #[test]
    fn rates_are_read_or_explained() {
        assert!(["0", "0.5", "20"].iter().all(|text| rate(text).is_ok()));
        assert!(["-1", "nan", "inf", "1e-9", "x"].iter().all(|text| rate(text).is_err()));
    }

    #[test]
    fn addresses_are_read_or_explained() {
        for good in ["localhost:8443", "10.0.0.1:443", "[::1]:8443"] {
            assert_eq!(address(good).as_deref(), Ok(good));
        }
        for (bad, fix) in [
            ("gateway", "for example gateway:8443"),
            ("gateway:", "for example gateway:8443"),
            ("[::1]", "for example [::1]:8443"),
            ("::1", "write [::1]:PORT"),
            ("gateway:99999", "from 1 to 65535"),
            ("gateway:0", "from 1 to 65535"),
            ("wss://gateway:8443", "without a scheme"),
            ("my gateway:8443", "not a host name"),
            (":8443", "not a host name"),
        ] {
            assert!(
                address(bad).is_err_and(|error| error.contains(fix)),
                "{bad}: {:?}",
                address(bad)
            );
        }
    }
}
