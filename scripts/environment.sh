#!/bin/sh
# Create the virtual environment $1 with the pip that constraints.txt pins (the one that comes with Python may be too
# old to know dependency groups). PYTHON names the interpreter to prefer.
set -eu
venv=$1
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

if [ -d "$venv" ] && ! { "$venv/bin/python" -c "$new_enough" && "$venv/bin/python" -m pip --version; } >/dev/null 2>&1; then
    echo "$venv does not run (half made, moved, or its Python is gone): making it again." >&2
    rm -rf "$venv"
fi
if [ ! -d "$venv" ]; then
    python=
    if [ -n "${PYTHON:-}" ] && ! "$PYTHON" -c "$new_enough" 2>/dev/null; then
        found=$("$PYTHON" --version 2>&1 || true)
        echo "Anneal needs Python 3.11 or newer; PYTHON=$PYTHON is: ${found:-nothing that runs}. Name another, or none." >&2
        exit 1
    fi
    for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13 python3.14; do
        if "$candidate" -c "$new_enough" 2>/dev/null; then python=$candidate; break; fi
    done
    if [ -z "$python" ]; then
        found=$(python3 --version 2>/dev/null || echo "no python3")
        echo "Anneal needs Python 3.11 or newer; found: $found. Install one, or name it: make PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "This Python cannot make virtual environments. On Debian and Ubuntu: apt-get install python$version-venv" >&2
        exit 1
    fi
    "$python" -m venv "$venv"
fi
pin=$(grep '^pip==' constraints.txt)
"$venv/bin/python" -m pip --disable-pip-version-check install --quiet "$pin"
