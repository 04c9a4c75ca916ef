//! `zmq`: a socket that is published on.

use super::draft::{Draft, Entry, Section, text};
use super::json::Object;
use super::kafka::{NAMESPACE, decoded, namespace};
use super::routes::Routes;
use super::server::relative;

/// Where nothing, or nothing usable, is said.
const ADDRESS: &str = "tcp://127.0.0.1:5284";

pub(super) fn write(root: &Object<'_>, routes: &Routes<'_>, draft: &mut Draft) {
    let Some(zmq) = root.object("zmq", draft) else {
        return;
    };
    let types = routes.to("zmq");
    if types.is_empty() {
        draft.lost(
            "zmq",
            "no record type goes there, so it is left out; route one to it first",
        );
        return;
    }
    let mut section = Section::new("destinations.zmq");
    section.entry(Entry::new("type", text("zmq"), "zmq.type"));
    let address = zmq.text("addr", draft).unwrap_or_else(|| {
        draft.lost(
            "zmq.addr",
            format!("is not there; {ADDRESS:?} stands in its place, change it"),
        );
        ADDRESS
    });
    let address = address.replace("://localhost:", "://127.0.0.1:");
    section.entry(Entry::new("bind", text(&address), "zmq.addr").or(ADDRESS));
    section.entry(Entry::new("namespace", text(namespace(root, draft)), "namespace").or(NAMESPACE));
    decoded(root, &mut section, draft);
    let files = ["server_key_json_path", "allowed_public_keys_json_path"].map(|name| zmq.text(name, draft));
    relative(files, &mut section);
    let [server_key, client_keys] = files;
    match server_key {
        Some(file) => section.entry(Entry::new("server_key_file", text(file), "zmq.server_key_json_path")),
        None => {
            section.comment("There is no server key: whoever reaches the socket can read along.");
            section.entry(Entry::new("allow_plaintext", "true", "zmq.server_key_json_path"));
        }
    }
    match client_keys {
        Some(file) => section.entry(Entry::new(
            "allowed_client_keys_file",
            text(file),
            "zmq.allowed_public_keys_json_path",
        )),
        None if server_key.is_some() => {
            draft.lost(
                "zmq.allowed_public_keys_json_path",
                "is not there, with which Tesla's server lets nobody subscribe; here whoever knows the server's public key \
                 may: write allowed_client_keys with those that may",
            );
            section.unset("allowed_client_keys = [\"THE 40 CHARACTERS OF A PUBLIC KEY\"]");
        }
        None => {}
    }
    if zmq.flag("verbose", draft) {
        draft.lost(
            "zmq.verbose",
            "write level = \"info,waystation::destination::zmq=debug\" in [log] to see what happens at the socket",
        );
    }
    zmq.finish(draft);
    draft.section(section);
}
