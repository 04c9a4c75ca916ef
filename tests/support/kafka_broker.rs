//! Real Kafka brokers (KRaft), each as a process: made, killed, paused, and started again on the same ports and data.
//!
//! A broker ends with the test program, however that ends: the kernel kills it when the thread that started it is gone.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::Duration;

use rcgen::{ExtendedKeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rustls::pki_types::PrivateKeyDer;

use crate::certificates::{Authority, Shown, authority, vehicle};
use crate::daemon::{SETPRIV, bound, free_port, require, signal, sought, wait_for};

const JAVA: &str = "apt-get install -y --no-install-recommends default-jre-headless";
const JARS: &str = "mvn -q -f tests/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime \
                    -DoutputDirectory=$PWD/target/kafka-libs";
const READY: Duration = Duration::from_secs(90);
const CLUSTER: &str = "d2F5c3RhdGlvbi10ZXN0cw";
/// Everything that gateways of these tests send.
pub(crate) const TYPES: [&str; 4] = ["V", "alerts", "errors", "connectivity"];
const PARTITIONS: i32 = 4;

/// What all nodes have in common; `DIR` is a node's directory.
const PROPERTIES: &str = r#"
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:gateway;User:CN=gateway
ssl.keystore.type=PEM
ssl.keystore.location=DIR/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=DIR/clients.pem
listener.name.ssl.ssl.client.auth=required
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_gateway="right" user_guest="right";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
log.dirs=DIR/data
auto.create.topics.enable=false
num.network.threads=2
num.io.threads=2
log.cleaner.enable=false
# A killed broker's partitions get another leader after this.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"#;

/// Brokers and the authorities of their certificates and their clients'. The user `gateway` may do everything, `guest`
/// nothing; both have the password `right`, and a client's certificate says by its common name who it is.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) brokers: Authority,
    pub(crate) clients: Authority,
}

/// One process.
pub(crate) struct Node {
    dir: tempfile::TempDir,
    /// Without a password or encryption; whoever comes here may do everything.
    pub(crate) plain: u16,
    /// SASL_SSL: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512.
    pub(crate) secured: u16,
    /// SSL, with the client's certificate as its name.
    pub(crate) certified: u16,
    serves: bool,
    child: Option<Child>,
}

impl Cluster {
    /// One node that is controller and broker, started.
    pub(crate) fn single() -> Self {
        Self::made(&["broker,controller"])
    }

    /// The same behind a proxy that listens on this port and leads to the other one: clients are told to come there.
    pub(crate) fn behind(proxy: u16, plain: u16) -> Self {
        Self::at(&["broker,controller"], Some((plain, proxy)))
    }

    /// A controller and two brokers, started; the brokers are nodes 1 and 2.
    pub(crate) fn pair() -> Self {
        Self::made(&["controller", "broker", "broker"])
    }

    fn made(roles: &[&str]) -> Self {
        Self::at(roles, None)
    }

    fn at(roles: &[&str], plain: Option<(u16, u16)>) -> Self {
        let (brokers, clients) = (authority("Brokers"), authority("Clients"));
        let controller = free_port();
        let nodes = roles.iter().enumerate().map(|(id, roles)| {
            let node = Node::new(id, roles, controller, plain);
            let server = server_certificate(&brokers, "localhost");
            node.write("server.pem", key_pem(&server) + &chain_pem(&server));
            node.write("clients.pem", clients.certificate.pem());
            node
        });
        let mut cluster = Self {
            nodes: nodes.collect(),
            brokers,
            clients,
        };
        cluster.nodes.iter_mut().for_each(Node::launch);
        cluster.nodes.iter().for_each(Node::wait_ready);
        cluster
    }

    /// The brokers' plain addresses.
    pub(crate) fn plain(&self) -> String {
        let serving = self.nodes.iter().filter(|node| node.serves);
        let addresses: Vec<_> = serving.map(|node| format!("127.0.0.1:{}", node.plain)).collect();
        addresses.join(",")
    }

    /// The one node of a [`Cluster::single`].
    pub(crate) fn node(&mut self) -> &mut Node {
        &mut self.nodes[0]
    }

    /// Topics `{namespace}_{type}` for these types, with this configuration.
    pub(crate) fn create_topics(&self, namespace: &str, types: &[&str], config: &[(&str, &str)]) {
        self.create(namespace, types, config, None);
    }

    /// The same, each on both brokers, the first of which leads every partition.
    pub(crate) fn create_replicated(&self, namespace: &str, types: &[&str]) {
        let both: Vec<&[i32]> = vec![&[1, 2]; PARTITIONS as usize];
        self.create(namespace, types, &[], Some(&both));
    }

    fn create(&self, namespace: &str, types: &[&str], config: &[(&str, &str)], replicas: Option<&[&[i32]]>) {
        let names: Vec<_> = types.iter().map(|name| format!("{namespace}_{name}")).collect();
        let topics = names.iter().map(|name| {
            let replication = replicas.map_or(TopicReplication::Fixed(1), TopicReplication::Variable);
            let topic = NewTopic::new(name, PARTITIONS, replication);
            config.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
        });
        let topics: Vec<_> = topics.collect();
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", self.plain())
            .create()
            .unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        for made in runtime.block_on(admin.create_topics(&topics, &options)).unwrap() {
            made.unwrap();
        }
    }

    /// Waits until every partition of these topics is on both brokers.
    pub(crate) fn wait_in_sync(&self, namespace: &str, types: &[&str]) {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.plain())
            .create()
            .unwrap();
        let in_sync = |name: &&str| {
            let metadata = consumer.fetch_metadata(Some(&format!("{namespace}_{name}")), Duration::from_secs(5));
            metadata.is_ok_and(|metadata| {
                let partitions = metadata.topics()[0].partitions();
                partitions.len() == PARTITIONS as usize && partitions.iter().all(|one| one.isr().len() == 2)
            })
        };
        wait_for("all replicas are in sync", READY, || types.iter().all(in_sync));
    }

    /// Lets `guest` write to all topics that begin so, with Kafka's own command.
    pub(crate) fn let_guest_write(&self, prefix: &str) {
        let added = java("256m")
            .args(["org.apache.kafka.tools.AclCommand", "--bootstrap-server", &self.plain()])
            .args(["--add", "--allow-principal", "User:guest", "--operation", "Write"])
            .args(["--topic", prefix, "--resource-pattern-type", "prefixed"])
            .output()
            .unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    }
}

impl Node {
    /// Formats its directory. Node 0 is the controller. `plain`: where it listens, and where clients are told to come.
    fn new(id: usize, roles: &str, controller: u16, plain: Option<(u16, u16)>) -> Self {
        let dir = directory();
        let serves = roles.contains("broker");
        let [free, secured, certified] = [(); 3].map(|()| free_port());
        let (plain, advertised) = plain.unwrap_or((free, free));
        let at =
            |plain| format!("PLAINTEXT://127.0.0.1:{plain},SASL_SSL://localhost:{secured},SSL://localhost:{certified}");
        let (serving, advertised) = (at(plain), at(advertised));
        let of_controller = format!("CONTROLLER://127.0.0.1:{controller}");
        let listeners = match roles {
            "controller" => format!("listeners={of_controller}"),
            "broker" => format!("listeners={serving}\nadvertised.listeners={advertised}"),
            _ => format!("listeners={of_controller},{serving}\nadvertised.listeners={advertised}"),
        };
        let voters = format!("controller.quorum.voters=0@127.0.0.1:{controller}");
        let config = format!("process.roles={roles}\nnode.id={id}\n{voters}\n{listeners}\n{PROPERTIES}");
        let config = config.replace("DIR", &dir.path().display().to_string());
        fs::write(dir.path().join("server.properties"), config).unwrap();
        let scram = |kind: &str, user: &str| format!("SCRAM-SHA-{kind}=[name={user},password=right]");
        let mut format = java("128m");
        format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"]);
        format.arg(dir.path().join("server.properties"));
        for (kind, user) in [("256", "gateway"), ("512", "gateway"), ("256", "guest")] {
            format.arg("--add-scram").arg(scram(kind, user));
        }
        let formatted = format.output().unwrap();
        assert!(
            formatted.status.success(),
            "{}",
            String::from_utf8_lossy(&formatted.stderr)
        );
        Self {
            dir,
            plain,
            secured,
            certified,
            serves,
            child: None,
        }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.dir.path().join(name), content).unwrap();
    }

    /// Starts it and waits until it serves.
    pub(crate) fn start(&mut self) {
        self.launch();
        self.wait_ready();
    }

    fn launch(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        // Anew, so that what an earlier process said is not taken for this one's word.
        let log = fs::File::create(self.dir.path().join("log.txt")).unwrap();
        let mut command = java("256m");
        command
            .arg("kafka.Kafka")
            .arg(self.dir.path().join("server.properties"))
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(spawn(command));
    }

    fn wait_ready(&self) {
        let ready = || self.log().contains("Kafka Server started");
        let deadline = std::time::Instant::now() + READY;
        while !ready() {
            assert!(
                std::time::Instant::now() < deadline,
                "Kafka did not start within {READY:?}; its log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log.txt")).unwrap_or_default()
    }

    pub(crate) fn kill_9(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGSTOP: its connections stay, and nobody answers.
    pub(crate) fn pause(&self) {
        signal(self.child.as_ref().expect("it runs"), rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        signal(self.child.as_ref().expect("it runs"), rustix::process::Signal::CONT);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill_9();
        }
        if std::thread::panicking() {
            let log = self.log();
            let from = log.len().saturating_sub(2000);
            eprintln!(
                "--- the broker's log ends with\n{}",
                String::from_utf8_lossy(&log.as_bytes()[from..])
            );
        }
    }
}

/// Java with Kafka on its class path, killed with the thread that starts it.
fn java(heap: &str) -> Command {
    let libraries = jars().unwrap_or_else(|missing| panic!("{missing}"));
    let mut command = bound(&require("java", JAVA));
    command
        .arg(format!("-Xmx{heap}"))
        // Tests are short: code that is compiled well comes too late for them.
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"])
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=info")
        // A broker that is killed leaves the libraries there that it has unpacked.
        .arg(concat!("-Djava.io.tmpdir=", env!("CARGO_TARGET_TMPDIR")))
        .arg("-cp")
        .arg(libraries.join("*"));
    command
}

/// What a broker needs and is not there, each with the line that brings it.
pub(crate) fn missing() -> Vec<String> {
    let commands = [("setpriv", SETPRIV), ("java", JAVA)];
    let commands = commands.map(|(command, install)| sought(command, install).err());
    commands.into_iter().flatten().chain(jars().err()).collect()
}

fn jars() -> Result<PathBuf, String> {
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kafka-libs");
    let there = fs::read_dir(&libraries).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("kafka_"))
    });
    match there {
        true => Ok(libraries),
        false => Err(format!(
            "Kafka's jars are missing in {}; copy them: {JARS}",
            libraries.display()
        )),
    }
}

/// Starts a process from a thread that lives as long as this program.
fn spawn(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static PARENT: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, incoming) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, done) in incoming {
                done.send(command.spawn()).unwrap();
            }
        });
        orders
    });
    let (done, made) = mpsc::channel();
    PARENT.send((command, done)).unwrap();
    made.recv().unwrap().unwrap()
}

/// A directory below `target/tmp`. A broker that lives as long as its test program leaves its own behind, for the next
/// one to remove.
fn directory() -> tempfile::TempDir {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for entry in fs::read_dir(parent).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("kafka-").and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another test program may be at it too.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    let prefix = format!("kafka-{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).unwrap()
}

fn server_certificate(authority: &Authority, name: &str) -> Shown {
    let mut params = vehicle(&[ExtendedKeyUsagePurpose::ServerAuth]);
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    authority.signs(&params, &PKCS_ECDSA_P256_SHA256)
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    // Java wants lines.
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

pub(crate) fn chain_pem(shown: &Shown) -> String {
    shown.chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
}

pub(crate) fn key_pem(shown: &Shown) -> String {
    let PrivateKeyDer::Pkcs8(der) = &shown.key else {
        panic!("certificates are made with PKCS#8 keys");
    };
    pem("PRIVATE KEY", der.secret_pkcs8_der())
}
