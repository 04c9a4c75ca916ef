//! Compiles `protos/` without an installed protoc: Rust types for the messages, and the descriptors that the payload rules and
//! the JSON forms are driven by.

use std::{env, error::Error, fs, path::PathBuf};

const PROTOS: [&str; 7] = [
    "vehicle_data.proto",
    "vehicle_alert.proto",
    "vehicle_error.proto",
    "vehicle_connectivity.proto",
    "vehicle_metric.proto",
    "store.proto",
    "export.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=protos");

    let mut compiler = protox::Compiler::new(["protos"])?;
    compiler.include_imports(true).open_files(PROTOS)?;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;

    prost_build::Config::new()
        .out_dir(&out)
        // Stored records are sliced out of the page they were read from, not copied.
        .bytes([".waystation"])
        .btree_map(["."])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
