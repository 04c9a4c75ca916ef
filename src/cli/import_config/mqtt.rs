//! `mqtt`: a broker.
//!
//! Invariant: no password is written anywhere but as `password`, and none is shown.

use super::draft::{Draft, Entry, Section, text};
use super::json::Object;
use super::routes::Routes;

const URL: &str = "mqtt://localhost";
const TOPIC_BASE: &str = "telemetry";
/// Keys whose work the gateway does its own way: the default of Tesla's server, and what happens here.
const TIMES: [(&str, i64, &str); 4] = [
    (
        "connect_timeout_ms",
        30_000,
        "a connection is given 30 s; it is tried again for ever, so there is nothing to set",
    ),
    (
        "publish_timeout_ms",
        2_500,
        "a record is published until the broker has confirmed it; it waits in the queue, for weeks if need be",
    ),
    (
        "disconnect_timeout_ms",
        250,
        "what is in flight at a stop is waited for as long as shutdown_grace says",
    ),
    (
        "connect_retry_interval_ms",
        10_000,
        "a connection is tried again after 0.5 s, doubling up to 60 s; there is nothing to set",
    ),
];

pub(super) fn write(root: &Object<'_>, routes: &Routes<'_>, draft: &mut Draft) {
    let Some(mqtt) = root.object("mqtt", draft) else {
        return;
    };
    if routes.to("mqtt").is_empty() {
        draft.lost(
            "mqtt",
            "no record type goes there, so it is left out; route one to it first",
        );
        return;
    }
    let mut section = Section::new("destinations.mqtt");
    section.entry(Entry::new("type", text("mqtt"), "mqtt.type"));
    let url = match mqtt.text("broker", draft) {
        Some(broker) => url(broker, draft),
        None => {
            draft.lost(
                "mqtt.broker",
                format!("is not there; {URL:?} stands in its place, change it"),
            );
            URL.to_owned()
        }
    };
    section.entry(Entry::new("url", text(&url), "mqtt.broker").or(URL));
    // Without one topics begin with "/" there, and so they do here.
    let base = mqtt.text("topic_base", draft).unwrap_or_default();
    section.entry(Entry::new("topic_base", text(base), "mqtt.topic_base").or(TOPIC_BASE));
    if let Some(id) = mqtt.text("client_id", draft) {
        section.comment(
            "A broker ends the connection of one client when another comes with its id: stop Tesla's server \
             first, or take this line away.",
        );
        section.entry(Entry::new("client_id", text(id), "mqtt.client_id"));
    }
    credentials(&mqtt, &mut section, draft);
    let retained = mqtt.flag("retained", draft);
    section.entry(Entry::new("retain", retained.to_string(), "mqtt.retained"));
    if let Some(seconds) = mqtt.number("keep_alive_seconds", draft) {
        section.entry(Entry::new(
            "keep_alive",
            text(&format!("{seconds}s")),
            "mqtt.keep_alive_seconds",
        ));
    }
    qos(&mqtt, &mut section, draft);
    for (name, default, here) in TIMES {
        match mqtt.number(name, draft) {
            Some(ms) if ms != default => draft.lost(mqtt.path(name), format!("{}; {here}", shown(ms))),
            Some(_) => draft.same(mqtt.path(name), here),
            None => {}
        }
    }
    mqtt.finish(draft);
    draft.section(section);
}

fn shown(ms: i64) -> String {
    match ms % 1_000 {
        0 => format!("{} s", ms / 1_000),
        _ => format!("{ms} ms"),
    }
}

/// `host:port`, or a URL with one of the schemes that the client of Tesla's server knows.
fn url(broker: &str, draft: &mut Draft) -> String {
    let (scheme, rest) = broker.split_once("://").unwrap_or(("tcp", broker));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (credentials, authority) = authority.rsplit_once('@').unwrap_or(("", authority));
    if !credentials.is_empty() {
        draft.lost(
            "mqtt.broker",
            "holds credentials, which are not written; give them as username and password_file",
        );
    }
    let host = if authority.starts_with(':') { "localhost" } else { "" };
    match scheme.to_ascii_lowercase().as_str() {
        "tcp" | "mqtt" => format!("mqtt://{host}{authority}{path}"),
        "ssl" | "tls" | "tcps" | "mqtts" | "mqtt+ssl" => format!("mqtts://{host}{authority}{path}"),
        web @ ("ws" | "wss") => {
            let name = match authority.rsplit_once(':') {
                Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
                _ => authority,
            };
            let url = format!("{}://{host}{name}", if web == "ws" { "mqtt" } else { "mqtts" });
            draft.lost(
                "mqtt.broker",
                format!(
                    "MQTT over WebSocket is not spoken here; {url:?} stands in its place, check that the broker \
                     listens there"
                ),
            );
            url
        }
        other => {
            draft.lost(
                "mqtt.broker",
                format!("{other:?} is not spoken here; {URL:?} stands in its place, change it"),
            );
            URL.to_owned()
        }
    }
}

fn credentials(mqtt: &Object<'_>, section: &mut Section, draft: &mut Draft) {
    if let Some(username) = mqtt.text("username", draft) {
        section.entry(Entry::new("username", text(username), "mqtt.username"));
    }
    if let Some(password) = mqtt.text("password", draft) {
        section
            .comment("A file is easier to protect: write the password into it, and this line instead of the next one.");
        section.unset("password_file = \"/etc/waystation/mqtt-password\"");
        section.entry(Entry::new("password", text(password), "mqtt.password"));
    }
}

fn qos(mqtt: &Object<'_>, section: &mut Section, draft: &mut Draft) {
    // Read as a number whatever it is, so that 0 is told from a mistake.
    match mqtt.number("qos", draft) {
        Some(qos) => section.entry(Entry::new("qos", qos.to_string(), "mqtt.qos")),
        None => draft.lost(
            "mqtt.qos",
            "0, or not there: here it is 1 unless it is set, so that no record is lost on its way to the broker; \
             subscribers need no change, and may see a message twice; qos = 0 makes it as it was",
        ),
    }
}
