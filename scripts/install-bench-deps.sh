#!/bin/sh
# Installs what `make bench` compares with: PostgreSQL with pgbench, and PgBouncer. Does nothing where they are.
set -eu
cd "$(dirname "$0")"

./install-deps.sh
missing=
command -v pgbench >/dev/null 2>&1 || missing="$missing postgresql-contrib postgresql"
[ -x /usr/sbin/pgbouncer ] || missing="$missing pgbouncer"
# shellcheck disable=SC2086 # one word per package
[ -z "$missing" ] || ./apt-install.sh $missing
