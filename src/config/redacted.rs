//! `Debug` of what may hold secrets: a configuration that ends up in a log must not give them away.

use std::fmt;

use super::{Kafka, Mqtt, MqttPassword};

const HIDDEN: &str = "…";

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |name: &str| {
            ["password", "secret", "pem", "jaas", "oauthbearer"]
                .iter()
                .any(|word| name.contains(word))
        };
        let properties: Vec<(&str, &str)> = self
            .properties
            .iter()
            .map(|(name, value)| (name.as_str(), if secret(name) { HIDDEN } else { value }))
            .collect();
        f.debug_struct("Kafka")
            .field("namespace", &self.namespace)
            .field("properties", &properties)
            .field("secret_files", &self.secret_files)
            .finish()
    }
}

impl fmt::Debug for Mqtt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mqtt")
            .field("protocol", &self.protocol)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls)
            .field("credentials", &self.credentials)
            .field("client_id", &self.client_id)
            .field("topic_base", &self.topic_base)
            .field("layout", &self.layout)
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("status", &self.status)
            .field("keep_alive", &self.keep_alive)
            .field("max_inflight", &self.max_inflight)
            .field("max_packet_size", &self.max_packet_size)
            .finish()
    }
}

impl fmt::Debug for MqttPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str(HIDDEN),
            Self::File(path) => path.fmt(f),
        }
    }
}
