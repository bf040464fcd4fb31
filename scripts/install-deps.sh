#!/bin/sh
# Installs what `make demo` needs beside Go: PostgreSQL's server programs and psql. Does nothing where they are.
set -eu
cd "$(dirname "$0")"

missing=
{ ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1; } || missing="$missing postgresql"
command -v psql >/dev/null 2>&1 || missing="$missing postgresql-client"
# shellcheck disable=SC2086 # one word per package
[ -z "$missing" ] || ./apt-install.sh $missing
