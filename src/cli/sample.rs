//! Payloads as vehicles send them, for the simulated vehicles. Not for anything that a real vehicle's record goes through.
//!
//! Invariant: the same seed gives the same payloads, and every one of them is a good record.

use std::collections::BTreeMap;

use prost::Message;
use prost_types::Timestamp;

use crate::record::proto::{
    vehicle_alerts::{Audience, VehicleAlert, VehicleAlerts},
    vehicle_data::{
        BmsStateValue, BuckleStatus, CableType, ClimateKeeperModeState, Datum, DetailedChargeStateValue, Doors, Field,
        HvacPowerState, LaneAssistLevel, Payload, SentryModeState, ShiftState, Value, WindowState,
        value::Value as Member,
    },
    vehicle_error::{VehicleError, VehicleErrors},
};

/// One simulated vehicle: where it is and what it does, from one payload to the next.
#[derive(Debug, Clone)]
pub struct Sampler {
    random: Random,
    speed: f64,
    odometer: f64,
    soc: f64,
    latitude: f64,
    longitude: f64,
    heading: f64,
    last_ms: Option<u64>,
}

impl Sampler {
    /// A vehicle somewhere, driving.
    pub fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        Self {
            speed: random.between(10.0, 60.0),
            odometer: random.between(100.0, 90_000.0),
            soc: random.between(25.0, 95.0),
            latitude: random.between(36.0, 49.0),
            longitude: random.between(-122.0, -75.0),
            heading: random.between(0.0, 360.0),
            last_ms: None,
            random,
        }
    }

    /// The payload of a `V` record: what the vehicle is like at `at_ms`, milliseconds since the epoch.
    pub fn vehicle(&mut self, at_ms: u64) -> Vec<u8> {
        self.drive(at_ms);
        let payload = Payload {
            data: self.data(),
            created_at: Some(timestamp(at_ms)),
            vin: String::new(),
            is_resend: false,
        };
        payload.encode_to_vec()
    }

    /// The payload of an `alerts` record: one alert that started a while ago, and may have ended since.
    pub fn alerts(&mut self, at_ms: u64) -> Vec<u8> {
        const NAMES: [&str; 4] = [
            "APP_w222_cruiseControlUnavailable",
            "CP_a054_latchEngagementTimeout",
            "DI_a184_accelPedalOffset",
            "VCFRONT_a191_washerFluidLow",
        ];
        let started_ms = at_ms.saturating_sub(self.random.below(600_000));
        let ended = self.random.below(2) == 0;
        let alert = VehicleAlert {
            name: self.random.pick(&NAMES).to_owned(),
            audiences: vec![Audience::Customer.into(), Audience::Service.into()],
            started_at: Some(timestamp(started_ms)),
            ended_at: ended.then(|| timestamp(at_ms)),
        };
        let payload = VehicleAlerts {
            alerts: vec![alert],
            created_at: Some(timestamp(at_ms)),
            vin: String::new(),
        };
        payload.encode_to_vec()
    }

    /// The payload of an `errors` record.
    pub fn errors(&mut self, at_ms: u64) -> Vec<u8> {
        const NAMES: [&str; 3] = ["field_not_available", "invalid_interval", "stream_queue_full"];
        let error = VehicleError {
            created_at: Some(timestamp(at_ms)),
            name: self.random.pick(&NAMES).to_owned(),
            tags: BTreeMap::from([("attempt".to_owned(), self.random.below(5).to_string())]),
            body: "a simulated vehicle reports no real error".to_owned(),
        };
        let payload = VehicleErrors {
            errors: vec![error],
            created_at: Some(timestamp(at_ms)),
            vin: String::new(),
        };
        payload.encode_to_vec()
    }

    /// Moves the vehicle on to `at_ms`.
    fn drive(&mut self, at_ms: u64) {
        let elapsed_ms = at_ms.saturating_sub(self.last_ms.unwrap_or(at_ms)).min(60_000);
        self.last_ms = Some(at_ms);
        let hours = elapsed_ms as f64 / 3_600_000.0;
        self.speed = (self.speed + self.random.between(-4.0, 4.0)).clamp(0.0, 85.0);
        self.heading = (self.heading + self.random.between(-6.0, 6.0)).rem_euclid(360.0);
        let miles = self.speed * hours;
        self.odometer += miles;
        self.soc = (self.soc - miles * 0.35).max(3.0);
        let (east, north) = self.heading.to_radians().sin_cos();
        self.latitude = (self.latitude + miles * north / 69.0).clamp(-85.0, 85.0);
        self.longitude = (self.longitude + miles * east / 53.0).clamp(-180.0, 180.0);
    }

    fn data(&mut self) -> Vec<Datum> {
        let north_south = if self.latitude < 0.0 { 'S' } else { 'N' };
        let east_west = if self.longitude < 0.0 { 'W' } else { 'E' };
        let location = format!(
            "({:.6} {north_south}, {:.6} {east_west})",
            self.latitude.abs(),
            self.longitude.abs()
        );
        let gear = if self.speed < 0.5 { ShiftState::P } else { ShiftState::D };
        let doors = Doors {
            driver_front: self.speed < 0.5 && self.random.below(4) == 0,
            ..Doors::default()
        };
        let current = -self.speed * 2.1 + self.random.between(-8.0, 8.0);
        let voltage = 330.0 + self.soc * 0.7 + self.random.between(-1.0, 1.0);
        let mut data = vec![
            datum(Field::VehicleSpeed, decimal(self.speed, 3)),
            datum(Field::Odometer, decimal(self.odometer, 6)),
            datum(Field::Soc, decimal(self.soc, 4)),
            datum(Field::BatteryLevel, decimal(self.soc * 0.98, 4)),
            datum(Field::Location, Member::StringValue(location)),
            datum(Field::GpsHeading, decimal(self.heading, 2)),
            datum(Field::Gear, Member::ShiftStateValue(gear.into())),
            datum(Field::DoorState, Member::DoorValue(doors)),
            datum(Field::PackVoltage, decimal(voltage, 2)),
            datum(Field::PackCurrent, decimal(current, 2)),
            datum(
                Field::LateralAcceleration,
                Member::StringValue(format!("{:.3e}", current / 1e3)),
            ),
            datum(Field::EstBatteryRange, Member::DoubleValue(self.soc * 2.9)),
            datum(Field::EnergyRemaining, Member::FloatValue((self.soc * 0.75) as f32)),
            datum(Field::Locked, Member::BooleanValue(self.speed > 0.5)),
            datum(
                Field::BmsState,
                Member::BmsStateValue(BmsStateValue::BmsStateDrive.into()),
            ),
            datum(
                Field::DetailedChargeState,
                Member::DetailedChargeStateValue(DetailedChargeStateValue::DetailedChargeStateDisconnected.into()),
            ),
            datum(
                Field::SentryMode,
                Member::SentryModeStateValue(SentryModeState::Off.into()),
            ),
            datum(
                Field::LaneDepartureAvoidance,
                Member::LaneAssistLevelValue(LaneAssistLevel::Assist.into()),
            ),
            datum(
                Field::DriverSeatBelt,
                Member::BuckleStatusValue(BuckleStatus::Latched.into()),
            ),
            datum(Field::HvacPower, Member::HvacPowerValue(HvacPowerState::On.into())),
            datum(
                Field::ClimateKeeperMode,
                Member::ClimateKeeperModeValue(ClimateKeeperModeState::Off.into()),
            ),
            datum(Field::ChargingCableType, Member::CableTypeValue(CableType::Sna.into())),
            datum(Field::ChargeAmps, Member::Invalid(true)),
            datum(Field::ChargeLimitSoc, Member::IntValue(80)),
            datum(Field::Version, Member::StringValue("2025.14.3".to_owned())),
            datum(Field::VehicleName, Member::StringValue("Simulated".to_owned())),
        ];
        for field in [
            Field::TpmsPressureFl,
            Field::TpmsPressureFr,
            Field::TpmsPressureRl,
            Field::TpmsPressureRr,
        ] {
            data.push(datum(field, decimal(self.random.between(2.75, 2.95), 3)));
        }
        for field in [Field::FdWindow, Field::FpWindow, Field::RdWindow, Field::RpWindow] {
            data.push(datum(field, Member::WindowStateValue(WindowState::Closed.into())));
        }
        for (field, low, high) in [
            (Field::InsideTemp, 20.0, 22.0),
            (Field::OutsideTemp, 11.0, 12.0),
            (Field::ModuleTempMax, 27.0, 29.0),
            (Field::ModuleTempMin, 25.0, 27.0),
        ] {
            data.push(datum(field, decimal(self.random.between(low, high), 1)));
        }
        data
    }
}

fn datum(key: Field, member: Member) -> Datum {
    Datum {
        key: key.into(),
        value: Some(Value { value: Some(member) }),
    }
}

/// A number as most vehicles send it: as a string.
fn decimal(number: f64, digits: usize) -> Member {
    Member::StringValue(format!("{number:.digits$}"))
}

fn timestamp(at_ms: u64) -> Timestamp {
    Timestamp {
        seconds: (at_ms / 1_000) as i64,
        nanos: (at_ms % 1_000) as i32 * 1_000_000,
    }
}

/// splitmix64.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        let fraction = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        low + (high - low) * fraction
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {

    use super::*;
    use crate::{
        destination::mqtt_fields,
        record::{
            json,
            payload::{Kind, transform, validate},
        },
    };

    #[test]
    fn every_sample_is_a_good_record_in_every_form() {
        for seed in 0..50 {
            let mut sampler = Sampler::new(seed);
            for second in 0..20 {
                let at_ms = 1_700_000_000_000 + second * 1_000;
                for (record_type, payload) in [
                    ("V", sampler.vehicle(at_ms)),
                    ("alerts", sampler.alerts(at_ms)),
                    ("errors", sampler.errors(at_ms)),
                ] {
                    validate(Kind::of(record_type).unwrap(), &payload).unwrap();
                    let mut room = Vec::new();
                    let transformed = transform(record_type, "VIN", &payload, &mut room).unwrap();
                    let decoded = json::decoded(record_type, transformed).unwrap();
                    serde_json::from_str::<serde_json::Value>(&decoded).unwrap();
                    let fields = mqtt_fields::expand("VIN", record_type, transformed).unwrap();
                    assert!(!fields.is_empty());
                }
            }
        }
    }

    #[test]
    fn a_vehicle_record_is_of_a_realistic_size_and_has_a_location_that_is_read() {
        let (payload, mut room) = (Sampler::new(7).vehicle(1_700_000_000_000), Vec::new());
        assert!((450..800).contains(&payload.len()), "{}", payload.len());
        let transformed = transform("V", "VIN", &payload, &mut room).unwrap();
        let decoded = json::decoded("V", transformed).unwrap();
        assert!(decoded.contains("locationValue"), "{decoded}");
    }

    #[test]
    fn the_same_seed_gives_the_same_vehicle() {
        let mut one = Sampler::new(3);
        let mut other = Sampler::new(3);
        for at_ms in [0, 500, 1_000] {
            assert_eq!(one.vehicle(at_ms), other.vehicle(at_ms));
        }
        assert_ne!(one.vehicle(2_000), Sampler::new(4).vehicle(2_000));
    }
}
