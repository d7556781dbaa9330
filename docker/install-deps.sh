#!/bin/sh
# The one list of system packages (Debian), for a laptop, CI and the image alike. Needs root or sudo; may be run again; starts no service.
#   docker/install-deps.sh          what building, testing and `sluice dev` need
#   docker/install-deps.sh test     the same, and what the optional tests need; without it they are skipped, but fail in CI
#   docker/install-deps.sh build    what building needs
#   docker/install-deps.sh run      the shared libraries that the built executable needs
set -eu

headers="libhiredis-dev libcurl4-openssl-dev libcrypt-dev"
common="ca-certificates"
servers="redis-server"
tools="chromium nodejs openssl python3 python3-venv valgrind"

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
        # The libraries' names carry versions that differ from release to release; the packages with the headers know them.
        libraries=$(apt-cache depends $headers | sed -n 's/^ *Depends: \(lib\(hiredis\|curl\|crypt\)[0-9][^ ]*\)$/\1/p')
        packages="$libraries $common"
        ;;
esac

# Debian starts a server as soon as it is installed, unless this script says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
fi
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
