//! How a producer is set, and what its reports of a record mean.

use super::*;

#[test]
fn batches_are_small_enough_for_a_narrow_line_unless_the_properties_say_otherwise() {
    let of = |more: &[(&str, &str)]| {
        let properties = [("bootstrap.servers", "127.0.0.1:1")];
        let properties = properties.iter().chain(more);
        let properties = properties.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let settings = Settings::new(&config::Kafka {
            namespace: "t".to_owned(),
            properties: properties.collect(),
            secret_files: BTreeMap::new(),
        });
        settings
            .ok()
            .and_then(|settings| Some(settings.client.get("batch.size")?.to_owned()))
    };
    assert_eq!(of(&[]).as_deref(), Some("65536"));
    assert_eq!(of(&[("batch.size", "1000000")]).as_deref(), Some("1000000"));
}

#[test]
fn a_record_that_is_too_large_and_alone_in_its_batch_is_refused_itself() {
    let error = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
    let of = |is_alone| not_delivered(&error, "fleet_V", None, is_alone);
    assert!(matches!(of(true), Outcome::Refused(_)));
    assert!(matches!(of(false), Outcome::Doubted(_)));
}

#[test]
fn a_time_from_the_future_is_no_fault_of_the_record() {
    let error = KafkaError::MessageProduction(RDKafkaErrorCode::InvalidTimestamp);
    let of = |at| not_delivered(&error, "fleet_V", at, false);
    match of(Some(epoch_ms() as i64)) {
        Outcome::Failed(said) => assert!(said.contains("set its clock"), "{said}"),
        other => panic!("{other:?}"),
    }
    for old in [Some(epoch_ms() as i64 - 2 * RECENT), Some(0), None] {
        assert!(matches!(of(old), Outcome::Doubted(_)), "{old:?}");
    }
}
