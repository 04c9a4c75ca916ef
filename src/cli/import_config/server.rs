//! The server's own keys: where it listens, with which certificate, how fast it reads, what it logs and shows.
//!
//! Invariant: no port that was open to one machine alone becomes open to others, and nothing that has to be there is
//! left out: what the file does not say gets a value to be changed, which is named.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::draft::{Draft, Entry, Section, list, text};
use super::json::Object;
use super::routes::Routes;

const ANYWHERE: &str = "[::]:443";
const CERTIFICATE: &str = "/etc/waystation/tls/fullchain.pem";
const PRIVATE_KEY: &str = "/etc/waystation/tls/privkey.pem";
const SIGNAL_VINS: &str = "vins_signal_tracking_enabled";
const VEHICLE_CA: &str = "/etc/waystation/vehicle-ca.pem";

/// `[listener]`, and what is to be said of `[queue]`.
pub(super) fn listener(root: &Object<'_>, draft: &mut Draft) {
    let mut section = Section::new("listener");
    bind(root, &mut section, draft);
    certificates(root, &mut section, draft);
    rate(root, &mut section, draft);
    section.comment("Tesla's server has no such limit: with more vehicles than this, raise it.");
    section.unset("max_connections = 1024");
    draft.section(section);

    let mut queue = Section::new("queue");
    queue.comment(
        "New here: each record is on this disk before it is acknowledged, and until it is delivered. Defaults:",
    );
    queue.unset("path = \"/var/lib/waystation/queue\"");
    queue.unset("max_bytes = \"4 GiB\"");
    draft.section(queue);
}

fn bind(root: &Object<'_>, section: &mut Section, draft: &mut Draft) {
    let host = root.text("host", draft);
    let port = root.number("port", draft).unwrap_or_else(|| {
        draft.lost(
            "port",
            "is not there; 443 stands in its place, change it to what vehicles connect to",
        );
        443
    });
    let every = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let address = match host.map(|host| (host, host.trim_matches(['[', ']']).parse::<IpAddr>())) {
        None => every,
        Some((_, Ok(address))) => {
            if address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
                section.comment("0.0.0.0 is IPv4 alone here; [::] is every address, IPv4 included.");
            }
            address
        }
        Some(("localhost", _)) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some((host, Err(_))) => {
            section.comment(format!(
                "host is the name {host:?}; here it is an address, and [::] is every one of this machine."
            ));
            every
        }
    };
    // Not as a SocketAddr: a port that is out of range is for the parser to refuse.
    let bind = match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    };
    section.entry(Entry::new("bind", text(&bind), "host, port").or(ANYWHERE));
}

fn certificates(root: &Object<'_>, section: &mut Section, draft: &mut Draft) {
    let tls = root.object("tls", draft);
    let files = ["server_cert", "server_key", "ca_file"].map(|name| tls.as_ref().and_then(|tls| tls.text(name, draft)));
    if let Some(tls) = tls {
        tls.finish(draft);
    }
    relative(files, section);
    let [certificate, private_key, ca_file] = files;
    for (key, file, from, instead) in [
        ("certificate", certificate, "tls.server_cert", CERTIFICATE),
        ("private_key", private_key, "tls.server_key", PRIVATE_KEY),
    ] {
        if file.is_none() {
            draft.lost(
                from,
                format!("is not there; {instead:?} stands in its place, change it to your file"),
            );
        }
        section.entry(Entry::new(key, text(file.unwrap_or(instead)), from).or(instead));
    }
    let (kind, file) = match root.flag("use_default_eng_ca", draft) {
        true => ("engineering", "eng_ca.crt"),
        false => ("production", "prod_ca.crt"),
    };
    draft.lost(
        "use_default_eng_ca",
        format!(
            "Tesla's server has the {kind} authorities of vehicles built in, this one has none; put its \
             config/files/{file} at {VEHICLE_CA}"
        ),
    );
    let mut authorities = vec![VEHICLE_CA];
    if let Some(file) = ca_file {
        section
            .comment("tls.ca_file is trusted beside Tesla's authorities; take the first away if it has them already.");
        authorities.push(file);
    }
    section.entry(Entry::new("vehicle_ca", list(&authorities), "tls.ca_file, use_default_eng_ca").or(VEHICLE_CA));
    if root.flag("disable_tls", draft) {
        draft.lost(
            "disable_tls",
            "the gateway always ends TLS itself, and knows vehicles by their certificates; have the proxy pass TCP on",
        );
    }
}

/// Says where relative paths start, if there are any.
pub(super) fn relative<const N: usize>(files: [Option<&str>; N], section: &mut Section) {
    if files.iter().flatten().any(|file| Path::new(file).is_relative()) {
        section.comment("Relative paths start at this file's directory; there they start at the working directory.");
    }
}

fn rate(root: &Object<'_>, section: &mut Section, draft: &mut Draft) {
    let Some(limit) = root.object("rate_limit", draft) else {
        return;
    };
    let enabled = limit.flag("enabled", draft);
    let messages = limit.number("message_limit", draft).unwrap_or_default();
    let seconds = limit.number("message_interval_time", draft).unwrap_or_default();
    limit.finish(draft);
    match (enabled, messages > 0 && seconds > 0) {
        (false, _) => draft.same(
            "rate_limit",
            "it is not enabled; a vehicle is read no faster than 100 messages a second here, and nothing is dropped",
        ),
        (true, false) => draft.lost(
            "rate_limit",
            "message_limit or message_interval_time is not above 0, so it limits nothing; the default of 100 messages \
             a second stands, see listener.messages_per_second",
        ),
        (true, true) => {
            let rate = messages / seconds + i64::from(messages % seconds != 0);
            section.comment(format!(
                "{messages} messages in {seconds} s. There message_interval_time has no effect; here a vehicle is read \
                 no faster than this, and nothing is dropped. Default: 100."
            ));
            section.entry(Entry::new(
                "messages_per_second",
                rate.to_string(),
                "rate_limit.message_limit, message_interval_time",
            ));
        }
    }
}

/// `[destinations.log]`, where records are routed to the logger.
pub(super) fn log_destination(root: &Object<'_>, routes: &Routes<'_>, draft: &mut Draft) {
    if let Some(logger) = root.object("logger", draft) {
        let verbose = logger.flag("verbose", draft);
        logger.finish(draft);
        draft.same(
            "logger.verbose",
            format!("{verbose}; the log destination writes whole records, as JSON lines, verbose or not"),
        );
    }
    if routes.to("logger").is_empty() {
        return;
    }
    let mut section = Section::new("destinations.log");
    section.comment(
        "The logger. Default: standard output. It is not required: it may lose its oldest records when the queue is \
         full.",
    );
    section.entry(Entry::new("type", text("log"), "logger.type"));
    section.unset("path = \"/var/log/waystation/records.jsonl\"");
    draft.section(section);
}

/// `[admin]`: one port for what was two, and whose signals are counted.
pub(super) fn admin(root: &Object<'_>, draft: &mut Draft) {
    let mut section = Section::new("admin");
    let has_port = port(root, &mut section, draft);
    let vins = root.texts(SIGNAL_VINS, draft);
    if let Some(vins) = &vins {
        section.entry(Entry::new("signal_vins", list(vins), SIGNAL_VINS));
    }
    if has_port || vins.is_some() {
        draft.section(section);
    }
}

/// Where status and metrics are, if the file says it.
fn port(root: &Object<'_>, section: &mut Section, draft: &mut Draft) -> bool {
    let status = root.number("status_port", draft);
    let monitoring = root.object("monitoring", draft);
    let metrics = monitoring
        .as_ref()
        .and_then(|monitoring| monitoring.number("prometheus_metrics_port", draft));
    let host = monitoring
        .as_ref()
        .and_then(|monitoring| monitoring.text("prometheus_metrics_host", draft));
    if let Some(monitoring) = monitoring {
        super::absent::monitoring(&monitoring, draft);
        monitoring.finish(draft);
    }
    let Some(port) = metrics.or(status) else {
        return false;
    };
    section.comment("/status, /status.json and /metrics on one port, which asks for no password.");
    if let (Some(metrics), Some(status)) = (metrics, status)
        && metrics != status
    {
        // One that is out of range is left out.
        let at = u16::try_from(metrics).map_or("the default port, 8780,".to_owned(), |port| port.to_string());
        draft.lost(
            "status_port",
            format!("status and metrics share one port here; ask for /status at {at} instead of {status}"),
        );
    }
    let address = host.and_then(|host| match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host => host.parse().ok(),
    });
    match (host, address) {
        (Some(host), None) => draft.lost(
            "monitoring.prometheus_metrics_host",
            format!("{host:?} is not an address; 127.0.0.1 stands in its place, change it in admin.bind"),
        ),
        (None, _) => section.comment(
            "On this machine alone. For a Prometheus or a health check elsewhere write [::] instead of 127.0.0.1.",
        ),
        _ => {}
    }
    let from = match metrics {
        Some(_) => "monitoring.prometheus_metrics_host, prometheus_metrics_port",
        None => "status_port",
    };
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let bind = match u16::try_from(port) {
        Ok(port) => SocketAddr::new(address, port).to_string(),
        // For the parser to refuse.
        Err(_) => format!("{address}:{port}"),
    };
    section.entry(Entry::new("bind", text(&bind), from));
    true
}

/// `[log]`.
pub(super) fn logging(root: &Object<'_>, draft: &mut Draft) {
    if let Some(level) = root.text("log_level", draft) {
        let known = match level.to_lowercase().as_str() {
            "panic" | "fatal" | "error" => Some("error"),
            "warn" | "warning" => Some("warn"),
            "info" => Some("info"),
            "debug" => Some("debug"),
            "trace" => Some("trace"),
            _ => None,
        };
        let mut section = Section::new("log");
        section.entry(Entry::new("level", text(known.unwrap_or("info")), "log_level"));
        draft.section(section);
        if known.is_none() {
            draft.lost(
                "log_level",
                format!(
                    "{level:?} is not a level; \"info\" stands in its place, write error, warn, info, debug or trace"
                ),
            );
        }
    }
    if root.flag("json_log_enable", draft) {
        draft.lost(
            "json_log_enable",
            "the log goes to the journal with its fields, or as text to a terminal; `journalctl -o json` gives JSON",
        );
    }
}
