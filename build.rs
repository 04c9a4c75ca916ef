//! Compiles `protos/` without an installed protoc: Rust types for the messages, and the tables that the payload rules and
//! the JSON forms are driven by.

use std::{collections::HashMap, env, error::Error, fmt::Write as _, fs, path::PathBuf};

use protox::prost_reflect::{DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

const PROTOS: [&str; 7] = [
    "vehicle_data.proto",
    "vehicle_alert.proto",
    "vehicle_error.proto",
    "vehicle_connectivity.proto",
    "vehicle_metric.proto",
    "store.proto",
    "export.proto",
];

/// The messages that records are, in the order of `Kind`.
const ROOTS: [&str; 4] = [
    "telemetry.vehicle_data.Payload",
    "telemetry.vehicle_alerts.VehicleAlerts",
    "telemetry.vehicle_error.VehicleErrors",
    "telemetry.vehicle_connectivity.VehicleConnectivity",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=protos");

    let mut compiler = protox::Compiler::new(["protos"])?;
    compiler.include_imports(true).open_files(PROTOS)?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    fs::write(out.join("schema.rs"), Tables::of(&compiler.descriptor_pool())?)?;

    prost_build::Config::new()
        .out_dir(&out)
        // Stored records are sliced out of the page they were read from, not copied.
        .bytes([".waystation"])
        .btree_map(["."])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// The tables as Rust. Made here, so that the program needs neither descriptors nor what reads them.
#[derive(Default)]
struct Tables {
    messages: Vec<String>,
    enums: Vec<String>,
    places: HashMap<String, usize>,
}

impl Tables {
    fn of(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
        let mut tables = Self::default();
        let mut roots = [0; ROOTS.len()];
        for (place, name) in roots.iter_mut().zip(ROOTS) {
            let root = pool.get_message_by_name(name).ok_or(format!("no message {name}"))?;
            *place = tables.message(&root);
        }
        let Self { messages, enums, .. } = tables;
        Ok(format!(
            "static MESSAGES: [Message; {}] = [{}];\nstatic ENUMS: [Enum; {}] = [{}];\nconst ROOTS: [usize; {}] = {roots:?};\n",
            messages.len(),
            messages.join(",\n"),
            enums.len(),
            enums.join(",\n"),
            roots.len(),
        ))
    }

    fn message(&mut self, message: &MessageDescriptor) -> usize {
        if let Some(place) = self.places.get(message.full_name()) {
            return *place;
        }
        let mut fields = Vec::new();
        for field in message.fields() {
            let number = field.number() as usize;
            fields.resize(fields.len().max(number + 1), "None".to_owned());
            fields[number] = format!(
                "Some(Field {{ number: {number}, name: {:?}, json_name: {:?}, shape: Shape::{}, repeated: {}, in_oneof: {} }})",
                field.name(),
                field.json_name(),
                self.shape(&field),
                field.is_list(),
                field.containing_oneof().is_some(),
            );
        }
        let (name, fields) = (message.full_name(), fields.join(", "));
        self.messages
            .push(format!("Message {{ name: {name:?}, fields: &[{fields}] }}"));
        self.places.insert(name.to_owned(), self.messages.len() - 1);
        self.messages.len() - 1
    }

    fn shape(&mut self, field: &FieldDescriptor) -> String {
        match field.kind() {
            Kind::Enum(of) => format!("Enum({})", self.enumeration(&of)),
            Kind::Message(of) if field.is_map() => format!("Map({})", self.message(&of)),
            Kind::Message(of) => format!("Message({})", self.message(&of)),
            // One that `Shape` does not know does not compile.
            scalar => {
                let name = format!("{scalar:?}");
                name[..1].to_uppercase() + &name[1..]
            }
        }
    }

    fn enumeration(&mut self, of: &EnumDescriptor) -> usize {
        if let Some(place) = self.places.get(of.full_name()) {
            return *place;
        }
        let mut names: Vec<_> = of
            .values()
            .map(|value| (value.number(), value.name().to_owned()))
            .collect();
        names.sort_by_key(|(number, _)| *number);
        // Of several names for one number the first counts, as in the readers of others.
        names.dedup_by_key(|(number, _)| *number);
        let mut text = String::new();
        for (number, name) in names {
            write!(text, "({number}, {name:?}), ").expect("a string takes everything");
        }
        self.enums.push(format!("Enum {{ names: &[{text}] }}"));
        self.places.insert(of.full_name().to_owned(), self.enums.len() - 1);
        self.enums.len() - 1
    }
}
