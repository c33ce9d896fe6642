#!/bin/sh
# Records real programs at work, each second or each EVERY, into OUTDIR: see
# README.md.
#
#	[EVERY=10s] testdata/series/real/record.sh OUTDIR MINUTES [NAME...]
#
# NAME chooses some of the programs; without one it is all of them. It needs
# root (PostgreSQL is started as the user postgres) and from Debian: nginx,
# libnginx-mod-http-lua, redis-server, memcached, postgresql, python3, and go.
set -eu
[ $# -ge 2 ] || { echo "usage: $0 OUTDIR MINUTES [NAME...]" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
minutes=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$here"
go build -o "$work/recorder" ./recorder
go build -o "$work/shop" ./shop
"$work/recorder" -out "$out" -work "$work" -minutes "$minutes" -every "${EVERY:-1s}" -sources "$here" "$@"
