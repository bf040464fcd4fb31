#!/bin/sh
# Puts the PgBouncer of a newer Debian, with the libraries that it needs, below .cache/pgbouncer, for `make bench` on a Debian
# whose own is old: install-pgbouncer.sh [SUITE], testing unless said otherwise. Does nothing where one is.
set -eu
suite=${1:-testing}
cd "$(dirname "$0")/.."
home=$PWD/.cache/pgbouncer
[ ! -x "$home/pgbouncer" ] || exit 0

# The mirror and the keys that this computer's apt has already.
mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null | sed -n 's/^Debian //p' | grep -v security | head -n 1)
keys=/usr/share/keyrings/debian-archive-keyring.gpg
if [ -z "$mirror" ] || [ ! -r "$keys" ]; then
	echo "no newer PgBouncer: this is no Debian" >&2
	exit 1
fi

# An apt of its own, so that the system's knows nothing of that suite. The place is taken last, whole.
new=$home.new
rm -rf "$new"
mkdir -p "$new/apt/lists/partial" "$new/apt/cache/archives/partial" "$new/debs"
echo "deb [signed-by=$keys] $mirror $suite main" >"$new/apt/sources.list"
apt() {
	apt-get -q -o Dir::Etc::sourcelist="$new/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$new/apt/lists" \
		-o Dir::Cache="$new/apt/cache" -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=5 "$@" >&2
}
apt update
(cd "$new/debs" && for name in pgbouncer libaudit1 libc6 libcap-ng0 libcares2 libevent-2.1-7t64 libldap2 libpam0g libsasl2-2 libssl3t64 libsystemd0 libzstd1 zlib1g; do
	apt download "$name/$suite"
done)
for deb in "$new"/debs/*.deb; do
	dpkg-deb -x "$deb" "$new/root"
done
rm -rf "$new/apt" "$new/debs"

# It runs with the C library that it was built for, by that library's own loader.
loader=$(cd "$new/root" && find usr/lib -name 'ld-linux*' | head -n 1)
cat >"$new/pgbouncer" <<EOF
#!/bin/sh
root=\$(dirname "\$0")/root
exec "\$root/$loader" --library-path "\$root/${loader%/*}" "\$root/usr/sbin/pgbouncer" "\$@"
EOF
chmod -R go+rX "$new"
chmod +x "$new/pgbouncer"
"$new/pgbouncer" --version >/dev/null
rm -rf "$home"
mv "$new" "$home"
