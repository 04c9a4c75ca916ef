# What the scripts share: the Debian packages that they need, installed when that is allowed.
# Sourced, not run.

# need PACKAGE... : installs what is missing as root or with sudo, or says the line that does and ends.
need() {
    missing=()
    for package in "$@"; do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
            echo "missing packages; run this line, then the script again:" >&2
            echo "  sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "installing ${missing[*]}" >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_cargo() {
    command -v cargo >/dev/null && return 0
    echo "cargo is missing; install a Rust toolchain (1.93 or later), for example: sudo apt-get install -y rustup && rustup default stable" >&2
    exit 1
}

# What the build needs: a C compiler and cmake for librdkafka and aws-lc, OpenSSL and zlib for librdkafka.
BUILD_PACKAGES=(build-essential cmake libssl-dev pkg-config zlib1g-dev)

# A vehicle and consumers that are not ours.
FOREIGN_PYTHON=target/venv/bin/python
need_foreign_python() {
    cmp -s tests/foreign/requirements.txt target/venv/requirements.txt &&
        "$FOREIGN_PYTHON" -m pip freeze 2>/dev/null | grep -qFf tests/foreign/requirements.txt && return 0
    python3 -m venv target/venv
    "$FOREIGN_PYTHON" -m pip install -q -r tests/foreign/requirements.txt
    cp tests/foreign/requirements.txt target/venv/requirements.txt
}

# A Kafka broker, from Maven Central.
KAFKA_LIBRARIES=target/kafka-libs
need_kafka() {
    cmp -s tests/kafka/pom.xml "$KAFKA_LIBRARIES/pom.xml" && return 0
    rm -rf "$KAFKA_LIBRARIES"
    mvn -q -B -f tests/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$PWD/$KAFKA_LIBRARIES"
    cp tests/kafka/pom.xml "$KAFKA_LIBRARIES/pom.xml"
}
