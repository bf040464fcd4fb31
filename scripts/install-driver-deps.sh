#!/bin/sh
# Installs what test/drivers and test/e2e need beside what all tests need: drivers of Python, Perl and Java with the Java
# compiler from the system's packages, and from npm drivers of node below .cache/drivers-npm and Supabase's CLI, 140 MB, below
# .cache/supabase-npm. Does nothing where they are.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

missing=
# need PACKAGE COMMAND...: the package is missing if the command fails.
need() {
	package=$1
	shift
	"$@" >/dev/null 2>&1 || missing="$missing $package"
}
for module in psycopg2 psycopg asyncpg sqlalchemy; do
	need "python3-$module" /usr/bin/python3 -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$module') is None)"
done
need libdbd-pg-perl /usr/bin/perl -MDBD::Pg -e 1
need perl /usr/bin/perl -MJSON::PP -e 1
need libpostgresql-jdbc-java test -e /usr/share/java/postgresql.jar
need default-jdk-headless command -v javac
need nodejs command -v node
need npm command -v npm
# shellcheck disable=SC2086 # one word per package
[ -z "$missing" ] || scripts/apt-install.sh $missing

# Everything is installed in a neighbour that takes its place last, so that half an installation is never taken for a whole one.
for name in drivers-npm supabase-npm; do
	npm=.cache/$name
	if ! cmp -s "scripts/$name/package-lock.json" "$npm/package-lock.json"; then
		rm -rf "$npm" "$npm.new"
		mkdir -p "$npm.new"
		cp "scripts/$name/package.json" "scripts/$name/package-lock.json" "$npm.new/"
		# npm takes a folder that it reaches through a link for another project.
		(cd -P "$npm.new" && npm ci --fetch-retries=5 --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null)
		mv "$npm.new" "$npm"
	fi
done
