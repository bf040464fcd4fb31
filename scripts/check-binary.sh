#!/bin/sh
# Checks what is linked into a binary: check-binary.sh FILE. pgproto3/v2 has unfixed panics on hostile bytes and is for
# tests alone.
set -eu
modules=$(go version -m "$1")
if echo "$modules" | grep -q 'github.com/jackc/pgproto3/v2'; then
	echo "$1 contains github.com/jackc/pgproto3/v2" >&2
	exit 1
fi
