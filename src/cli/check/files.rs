//! The files of the listener, beyond what the gateway itself finds when it reads them: for which name, readable by whom,
//! and whether the authorities can be those of vehicles.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::findings::Findings;
use super::outputs::{self, Output, RUNTIME};
use super::queue;
use crate::config::{self, Config, DestinationKind};

/// The user that the packaged unit runs the gateway as.
const SERVICE: &str = "waystation";
/// What systemd makes for the service.
const STATE: &str = "/var/lib/waystation";

/// Whether the server's certificate is for the name that vehicles are configured with.
pub(super) fn name(config: &Config, wanted: Option<&str>, findings: &mut Findings) {
    let shown = format!("listener.certificate: {}", config.listener.certificate.display());
    let Some(der) = first(&config.listener.certificate) else {
        // Said when it was read.
        return;
    };
    let Some(names) = names(&der) else { return };
    let for_names = format!("{shown} is for {}", names.join(", "));
    match wanted {
        _ if names.is_empty() => findings.bad(format!(
            "{shown} is for no host name (no DNS name among its subject alternative names), and no vehicle will take it; have it issued for the name that vehicles are configured with"
        )),
        None => findings.good(for_names),
        Some(wanted) if names.iter().any(|name| covers(name, wanted)) => findings.good(for_names),
        Some(wanted) => findings.bad(format!(
            "{for_names} and not for {wanted}: vehicles that are configured with that will not take it; have it issued for {wanted}"
        )),
    }
}

/// Whether a name of a certificate stands for a host: itself, or with `*` for the first label.
pub(super) fn covers(name: &str, host: &str) -> bool {
    let (name, host) = (name.to_ascii_lowercase(), host.to_ascii_lowercase());
    match name.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(_, host)| host == rest),
        None => name == host,
    }
}

/// The host names of a certificate.
pub(super) fn names(der: &[u8]) -> Option<Vec<String>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let alternative = certificate.subject_alternative_name().ok()?;
    let names = alternative.iter().flat_map(|names| &names.value.general_names);
    let dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(std::net::Ipv4Addr::new(a, b, c, d).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    });
    Some(dns.collect())
}

fn first(path: &Path) -> Option<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(&fs::read(path).ok()?).next()?.ok()
}

/// Whether any authority has a name by which vehicles' certificates say who issued them.
pub(super) fn authorities(config: &Config, findings: &mut Findings) {
    let mut subjects = Vec::new();
    for path in &config.listener.vehicle_ca {
        let Ok(pem) = fs::read(path) else { return };
        for der in CertificateDer::pem_slice_iter(&pem).flatten() {
            if let Ok((_, certificate)) = X509Certificate::from_der(&der) {
                let names = certificate.subject().iter_common_name();
                subjects.extend(names.filter_map(|name| name.as_str().ok().map(str::to_owned)));
            }
        }
    }
    let known = |name: &String| config.identity.knows(name) || name.contains("Tesla");
    if subjects.is_empty() || subjects.iter().any(known) {
        return;
    }
    findings.warn(format!(
        "listener.vehicle_ca: none of the authorities there ({}) is one that vehicles' certificates name as their issuer; unless vehicles send the certificates in between, none will get in: put the vehicles' authorities there, or add the issuer to [identity]",
        subjects.join(", ")
    ));
}

/// Whether the service's user can read what this user can, and write its queue and what destinations make. Only root can
/// tell, and needs not be told of itself.
pub(super) fn readable(path: &Path, config: &Config, findings: &mut Findings) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(user) = User::of(SERVICE) else { return };
    let own = [("the configuration".to_owned(), path.to_owned())];
    let named = config.named.iter().cloned();
    let of_kafka = config
        .destinations
        .iter()
        .flat_map(|destination| match &destination.kind {
            DestinationKind::Kafka(kafka) => files_of(&destination.name, &kafka.properties),
            _ => Vec::new(),
        });
    for (key, path) in own.into_iter().chain(named).chain(of_kafka) {
        // Those the service gets from systemd, whoever they seem to belong to.
        if config::is_credential(&path) || !path.is_file() {
            continue;
        }
        if let Some(obstacle) = user.obstacle(&path) {
            findings.bad(format!(
                "{key}: {} cannot be read by the user {SERVICE}: {obstacle}; chown it to {SERVICE} (a secret with mode 0400; its group may be shared by subscribers), or hand it over with LoadCredential= in the unit and name it \"credential:NAME\"",
                path.display()
            ));
        }
    }
    let queue = &config.queue.path;
    if let Some(obstacle) = user.obstacle_to_queue(queue) {
        let shown = queue.display();
        findings.bad(format!(
            "queue.path: {shown} cannot be written by the user {SERVICE}: {obstacle}; chown -R {SERVICE}: {shown}"
        ));
    }
    for output in outputs::of(config) {
        if let Some(obstacle) = user.obstacle_to_output(&output) {
            findings.bad(format!(
                "{}: {} cannot be written by the user {SERVICE}: {obstacle}; chown that to {SERVICE}, or name another place",
                output.key,
                output.path.display()
            ));
        }
    }
}

/// The files that librdkafka is to read.
fn files_of(name: &str, properties: &BTreeMap<String, String>) -> Vec<(String, PathBuf)> {
    let locations = properties
        .iter()
        .filter(|(property, _)| property.ends_with(".location"));
    locations
        .map(|(property, path)| (format!("destinations.{name}.properties.{property}"), path.into()))
        .collect()
}

/// A user and its groups.
pub(super) struct User {
    uid: u32,
    gids: Vec<u32>,
}

impl User {
    fn of(name: &str) -> Option<Self> {
        let users = fs::read_to_string("/etc/passwd").ok()?;
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        Self::parse(name, &users, &groups)
    }

    pub(super) fn parse(name: &str, users: &str, groups: &str) -> Option<Self> {
        let user: Vec<&str> = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|parts| parts.first() == Some(&name))?;
        let mut gids = vec![user.get(3)?.parse().ok()?];
        for line in groups.lines() {
            let parts: Vec<&str> = line.split(':').collect();
            if let [_, _, gid, members] = parts[..]
                && members.split(',').any(|member| member == name)
            {
                gids.extend(gid.parse::<u32>().ok());
            }
        }
        Some(Self {
            uid: user.get(2)?.parse().ok()?,
            gids,
        })
    }

    /// What keeps it from reading a file, if anything does: links are followed, and each directory has to be entered.
    pub(super) fn obstacle(&self, path: &Path) -> Option<String> {
        // What is not there is said when it is read.
        let real = path.canonicalize().ok()?;
        let closed = self.closed(real.parent()?);
        closed.or_else(|| (self.may(&real, 0o4) == Some(false)).then(|| format!("it may not read {}", real.display())))
    }

    /// The first of the folders that lead to one, itself the last, that it may not enter.
    fn closed(&self, folder: &Path) -> Option<String> {
        let mut all: Vec<&Path> = folder.ancestors().collect();
        all.reverse();
        let closed = all.into_iter().find(|folder| self.may(folder, 0o1) == Some(false))?;
        Some(format!("it may not enter {}", closed.display()))
    }

    /// What keeps it from writing in a folder, if anything does. One that is not there yet is made in what is above it,
    /// but for the service's own, which systemd makes.
    fn obstacle_to_writing(&self, folder: &Path) -> Option<String> {
        let there = folder.ancestors().find(|above| above.is_dir())?;
        if there != folder && [STATE, RUNTIME].iter().any(|own| folder.starts_with(own)) {
            return None;
        }
        let real = there.canonicalize().ok()?;
        let closed = self.closed(&real);
        closed.or_else(|| self.obstacle_to_change(&real))
    }

    /// What keeps it from being the user of a queue, if anything does.
    fn obstacle_to_queue(&self, queue: &Path) -> Option<String> {
        let parts = || queue::parts(queue).into_iter();
        self.obstacle_to_writing(queue)
            .or_else(|| parts().find_map(|part| self.obstacle(&part).or_else(|| self.obstacle_to_change(&part))))
    }

    /// What keeps it from changing a file or a folder that it can get at, if anything does.
    fn obstacle_to_change(&self, path: &Path) -> Option<String> {
        (self.may(path, 0o2) == Some(false)).then(|| format!("it may not write {}", path.display()))
    }

    /// What keeps it from making or adding to what a destination writes, if anything does.
    fn obstacle_to_output(&self, output: &Output<'_>) -> Option<String> {
        match output.path.canonicalize() {
            // It is read too: how it ends is looked at. A socket is made anew.
            Ok(real) if !output.is_socket => self.obstacle(&real).or_else(|| self.obstacle_to_change(&real)),
            // What is not there is said elsewhere.
            _ if !output.folder().is_dir() => None,
            _ => self.obstacle_to_writing(output.folder()),
        }
    }

    fn may(&self, path: &Path, right: u32) -> Option<bool> {
        let found = fs::metadata(path).ok()?;
        let shift = if found.uid() == self.uid {
            6
        } else if self.gids.contains(&found.gid()) {
            3
        } else {
            0
        };
        Some(found.mode() >> shift & right != 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificates_name_stands_for_itself_or_one_label() {
        assert!(covers("Gate.example.com", "gate.example.com"));
        assert!(covers("*.example.com", "gate.example.com"));
        assert!(!covers("*.example.com", "a.gate.example.com"));
        assert!(!covers("*.example.com", "example.com"));
        assert!(!covers("other.example.com", "gate.example.com"));
    }

    #[test]
    fn a_user_may_read_what_its_owner_group_and_directories_allow() {
        let users = "root:x:0:0::/:/bin/sh\nwaystation:x:64001:64001::/:/usr/sbin/nologin\n";
        let groups = "ssl-cert:x:64002:someone,waystation\nwaystation:x:64001:\n";
        let user = User::parse("waystation", users, groups).unwrap();
        assert_eq!((user.uid, &user.gids[..]), (64_001, &[64_001, 64_002][..]));
        assert!(User::parse("nobody-here", users, groups).is_none());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key.pem");
        fs::write(&file, "").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        mode(dir.path(), 0o755);
        mode(&file, 0o644);
        assert_eq!(user.obstacle(&file), None);
        mode(&file, 0o600);
        assert!(user.obstacle(&file).unwrap().starts_with("it may not read "));
        mode(&file, 0o644);
        mode(dir.path(), 0o700);
        assert!(user.obstacle(&file).unwrap().starts_with("it may not enter "));
        let found = fs::metadata(&file).unwrap();
        let owner = User {
            uid: found.uid(),
            gids: Vec::new(),
        };
        mode(&file, 0o400);
        assert_eq!(owner.obstacle(&file), None);
        assert_eq!(owner.obstacle_to_writing(&dir.path().join("queue")), None);
        assert!(user.obstacle_to_writing(dir.path()).unwrap().starts_with("it may not "));
        let (queue, segments) = (dir.path(), dir.path().join("segments"));
        fs::create_dir(&segments).unwrap();
        let segment = segments.join("00000000000000000000.redb");
        fs::write(&segment, "").unwrap();
        mode(queue, 0o777);
        mode(&segments, 0o755);
        mode(&segment, 0o644);
        let said = |user: &User| user.obstacle_to_queue(queue).unwrap_or_default();
        assert_eq!(said(&owner), "");
        assert_eq!(said(&user), format!("it may not write {}", segments.display()));
        mode(&segments, 0o777);
        assert_eq!(said(&user), format!("it may not write {}", segment.display()));
        mode(dir.path(), 0o755);
        let obstacle = user.obstacle_to_writing(&dir.path().join("queue"));
        assert!(obstacle.unwrap().starts_with("it may not write "));
        let obstacle = |user: &User, path: &Path| {
            let output = Output {
                key: String::new(),
                path,
                is_socket: false,
            };
            user.obstacle_to_output(&output).unwrap_or_default()
        };
        mode(&file, 0o644);
        assert!(obstacle(&user, &file).starts_with("it may not write "));
        assert!(obstacle(&user, &dir.path().join("new")).starts_with("it may not write "));
        assert_eq!(obstacle(&user, &dir.path().join("absent/new")), "");
        mode(&file, 0o666);
        assert_eq!(
            obstacle(&user, &file),
            "",
            "it is there, and the folder need not be written"
        );
        mode(dir.path(), 0o500);
        assert!(owner.obstacle_to_writing(dir.path()).is_some());
    }
}
