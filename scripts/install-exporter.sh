#!/bin/sh
# Installs what the tests of the admin console compare with and are scraped by: PgBouncer, and Prometheus's exporter for
# it. Does nothing where they are.
set -eu
cd "$(dirname "$0")"

missing=
[ -x /usr/sbin/pgbouncer ] || missing="$missing pgbouncer"
command -v prometheus-pgbouncer-exporter >/dev/null 2>&1 || missing="$missing prometheus-pgbouncer-exporter"
# shellcheck disable=SC2086 # one word per package
[ -z "$missing" ] || ./apt-install.sh $missing
