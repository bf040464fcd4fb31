#!/bin/sh
# Installs Debian or Ubuntu packages without starting the services in them: apt-install.sh PACKAGE...
# Works as root or with sudo. Whatever it changes on the system to keep services down, it changes back.
set -eu

if ! command -v apt-get >/dev/null 2>&1; then
	echo "missing on this system, and there is no apt-get to install them with: $*" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		echo "missing: $*. Run this as root, or install sudo." >&2
		exit 1
	fi
	exec sudo "$0" "$@"
fi

export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
clusters=/etc/postgresql-common/createcluster.d/postern-no-cluster.conf
made_policy=
cleanup() {
	rm -f "$clusters"
	if [ -n "$made_policy" ]; then rm -f "$policy"; fi
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

apt() { apt-get -y -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=5 "$@" </dev/null; }

echo "installing $*" >&2
if [ ! -e "$policy" ]; then
	made_policy=yes
	printf '#!/bin/sh\nexit 101\n' >"$policy" # "forbidden by policy": packages start no services
	chmod +x "$policy"
fi
apt update
case " $* " in
*" postgresql"*)
	# Debian's package makes a cluster of its own unless this says otherwise.
	apt install --no-install-recommends postgresql-common
	mkdir -p "${clusters%/*}"
	echo "create_main_cluster = false" >"$clusters"
	;;
esac
apt install --no-install-recommends "$@"
