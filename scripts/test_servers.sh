#!/bin/sh
# Make sure that the programs the tests start are there: PostgreSQL's and Redis' servers. Starts none of them.
set -eu

has_postgresql() { command -v initdb >/dev/null 2>&1 || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }
has_redis() { command -v redis-server >/dev/null 2>&1; }

missing() {
    has_postgresql || printf 'postgresql '
    has_redis || printf 'redis-server '
}

packages=$(missing)
[ -n "$packages" ] || exit 0

become=
if [ "$(id -u)" -ne 0 ]; then
    if sudo -n true 2>/dev/null; then become="sudo -n"; else become=refused; fi
fi
if command -v apt-get >/dev/null 2>&1 && [ "$become" != refused ]; then
    echo "Installing for the tests: $packages"
    export DEBIAN_FRONTEND=noninteractive
    # --no-install-recommends and the tests' own ports: nothing here needs the system's own servers to run.
    # shellcheck disable=SC2086 # both are lists of words
    $become apt-get install -y -q --no-install-recommends $packages ||
        { $become apt-get update -q && $become apt-get install -y -q --no-install-recommends $packages; }
    packages=$(missing)
fi
if [ -n "$packages" ]; then
    echo "The tests run against real servers, and these are not installed: $packages" >&2
    echo "Debian, Ubuntu:  sudo apt-get install $packages" >&2
    echo "Fedora:          sudo dnf install postgresql-server redis" >&2
    echo "macOS:           brew install postgresql redis" >&2
    exit 1
fi
