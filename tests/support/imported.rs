//! What an imported configuration says, for the tests of `import-config`.

use std::path::Path;

use waystation::config::{Config, Destination, DestinationKind, Kafka, Mqtt, parse};

pub(crate) fn parsed(toml: &str) -> Config {
    parse(toml, Path::new("config.toml")).unwrap_or_else(|error| panic!("{error}\n{toml}"))
}

pub(crate) fn find<'c>(config: &'c Config, name: &str) -> &'c Destination {
    config.destinations.iter().find(|one| one.name == name).unwrap()
}

pub(crate) fn kafka(config: &Config) -> &Kafka {
    match &find(config, "kafka").kind {
        DestinationKind::Kafka(kafka) => kafka,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn mqtt(config: &Config) -> &Mqtt {
    match &find(config, "mqtt").kind {
        DestinationKind::Mqtt(mqtt) => mqtt,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn routes(config: &Config, record_type: &str) -> Vec<String> {
    config.routes.destinations(record_type).map(str::to_owned).collect()
}
