#!/bin/sh
# Installs what `make bench` compares with: PostgreSQL with pgbench, and PgBouncer: the system's, and a newer one where
# that can be had. Does nothing where they are.
set -eu
cd "$(dirname "$0")"

./install-deps.sh
missing=
command -v pgbench >/dev/null 2>&1 || missing="$missing postgresql-contrib postgresql"
[ -x /usr/sbin/pgbouncer ] || missing="$missing pgbouncer"
# shellcheck disable=SC2086 # one word per package
[ -z "$missing" ] || ./apt-install.sh $missing
./install-pgbouncer.sh || echo "comparing with the system's PgBouncer" >&2
