//! `waystation import-config`: the configuration of Tesla's server (`server_config.json`) as one of this gateway.
//!
//! `json` reads the file, `server`, `routes`, `kafka`, `mqtt`, `zmq` and `absent` say what becomes of each key, `draft`
//! writes TOML. Every key ends in the output: as a setting, as one that needs nothing, or as not carried over.

mod absent;
mod draft;
mod json;
mod kafka;
mod mqtt;
mod routes;
mod server;
mod zmq;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use draft::Draft;
use json::{Json, Object};
use routes::Routes;

/// Arguments of `import-config`.
#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = "The configuration goes to standard output, what was not carried over to standard error and into the \
                  configuration's first lines.\nExit codes: 0 done, 1 no configuration could be made, 2 wrong usage."
)]
pub struct ImportArgs {
    /// The configuration of Tesla's server, server_config.json
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; name the configuration file of Tesla's server", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not JSON.
    #[error(
        "{}:{line}: not JSON: {reason}; correct that line, or the one before it (JSON has no comments, and no comma \
         before a closing bracket)",
        path.display()
    )]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The file is JSON, and no configuration.
    #[error("{}:1: is not an object; name a file that begins with {{", .0.display())]
    NotAnObject(PathBuf),
    /// No record type can go anywhere.
    #[error(
        "{}: no record type goes to a destination that this version has; add kafka, mqtt or logger to one in \
         \"records\", with its section, for example \"V\": [\"mqtt\"]",
        .0.display()
    )]
    NothingRouted(PathBuf),
    /// The parser of this gateway's configuration refuses what cannot be left out.
    #[error("what would be written is refused:\n{0}\ncorrect it in that file, or begin with config.toml.example")]
    Refused(String),
}

/// A configuration, and what did not get into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// A configuration that [`crate::config::parse`] accepts.
    pub toml: String,
    /// Each key that was not carried over, with the reason and what to do instead.
    pub lost: Vec<String>,
}

/// A failure, with what had been found before it.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct ImportFailed {
    /// What was not going to be carried over.
    pub lost: Vec<String>,
    /// Why there is no configuration.
    #[source]
    pub error: ImportError,
}

/// Prints the configuration.
pub fn run(args: &ImportArgs) -> Result<(), ImportError> {
    let path = &args.file;
    let text = std::fs::read(path).map_err(|source| ImportError::Read {
        path: path.clone(),
        source,
    })?;
    let warn = |lost: &[String]| {
        for line in lost {
            tell!("waystation: not carried over: {line}");
        }
    };
    match import(&text, path) {
        Ok(imported) => {
            warn(&imported.lost);
            say!("{}", imported.toml.trim_end());
            Ok(())
        }
        Err(failed) => {
            warn(&failed.lost);
            Err(failed.error)
        }
    }
}

/// Makes a configuration of that of Tesla's server. The path is only named.
pub fn import(text: &[u8], path: &Path) -> Result<Imported, ImportFailed> {
    let failed = |error| ImportFailed {
        lost: Vec::new(),
        error,
    };
    let json: Json = serde_json::from_slice(text).map_err(|error| failed(not_json(&error, path)))?;
    let Json::Object(entries) = &json else {
        return Err(failed(ImportError::NotAnObject(path.to_owned())));
    };
    let root = Object::root(entries);
    let mut draft = Draft::default();
    let routes = Routes::read(&root, &mut draft);
    server::listener(&root, &mut draft);
    routes.write(&mut draft);
    kafka::write(&root, &routes, &mut draft);
    mqtt::write(&root, &routes, &mut draft);
    zmq::write(&root, &routes, &mut draft);
    server::log_destination(&root, &routes, &mut draft);
    server::admin(&root, &mut draft);
    server::logging(&root, &mut draft);
    absent::name(&root, &routes, &mut draft);
    root.finish(&mut draft);
    if !routes.any() {
        return Err(draft.failed(ImportError::NothingRouted(path.to_owned())));
    }
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let (toml, lost) = draft.settle(&name)?;
    Ok(Imported { toml, lost })
}

fn not_json(error: &serde_json::Error, path: &Path) -> ImportError {
    let said = error.to_string();
    ImportError::NotJson {
        path: path.to_owned(),
        line: error.line().max(1),
        reason: said.split(" at line ").next().unwrap_or(&said).to_owned(),
    }
}
