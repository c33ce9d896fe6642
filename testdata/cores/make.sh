#!/bin/bash
# Makes the core files of this directory anew: testdata/leaky/versions.c under
# each version of glibc that a Debian suite has, see README.md. Needs root,
# debootstrap, gdb, zstd, and a network; the systems that it installs stay in
# $CHROOTS (default /var/tmp/stanch-cores), about 500 MB each.
#
#   ./make.sh            all suites
#   ./make.sh trixie     one of them
set -euo pipefail
cd "$(dirname "$0")"

here=$PWD
leaky=$here/../leaky
chroots=${CHROOTS:-/var/tmp/stanch-cores}
mirror=${MIRROR:-http://deb.debian.org/debian}
suites=("$@")
[ ${#suites[@]} -gt 0 ] || suites=(bullseye bookworm trixie forky experimental)

case $(cat /proc/sys/kernel/core_pattern) in
core | core.%p) ;;
*) echo "make.sh: kernel.core_pattern must be \"core\" here" >&2 && exit 1 ;;
esac

# install SUITE: a minimal system with a compiler.
install() {
	local root=$chroots/$1
	[ -e "$root/.complete" ] && return
	mkdir -p "$chroots"
	if [ "$1" = experimental ]; then
		# glibc from experimental, the rest from the suite before it.
		debootstrap --variant=minbase --include=gcc,libc6-dev forky "$root" "$mirror" sid
		echo "deb $mirror experimental main" >"$root/etc/apt/sources.list.d/experimental.list"
		# A mirror may be frozen at a day that has passed.
		chroot "$root" apt-get -o Acquire::Check-Valid-Until=false update
		chroot "$root" apt-get install -y -t experimental libc6 libc6-dev
	else
		# The script named sid: an older debootstrap does not know newer suites.
		debootstrap --variant=minbase --include=gcc,libc6-dev "$1" "$root" "$mirror" sid
	fi
	touch "$root/.complete"
}

# identity FILE OUT: a file of FILE's size with nothing of it but the first
# page, which holds the ELF header and the build-id, and the pages of glibc's
# banner, where it has one: a static program has none.
identity() {
	local at page
	truncate -s "$(stat -Lc %s "$1")" "$2"
	dd if="$1" of="$2" bs=4096 count=1 conv=notrunc status=none
	at=$(grep -abom1 'GNU C Library (' "$1" | head -1 | cut -d: -f1 || true)
	[ -n "$at" ] || return 0
	page=$((at / 4096))
	dd if="$1" of="$2" bs=4096 skip=$page seek=$page count=2 conv=notrunc status=none
}

# truth LIST: the program's list with its addresses as they are.
truth() {
	local mask fate addr size
	mask=$(sed -n 's/^list mask=//p' "$1")
	grep -E '^(lost|indirect|kept|freed) ' "$1" | while read -r fate addr size; do
		printf '%s 0x%x %d\n' "$fate" $((addr ^ mask)) "$size"
	done
}

# core SUITE NAME HOW ENVIRONMENT FLAGS...: compiles, runs, and keeps one core.
core() {
	local suite=$1 root=$chroots/$1 name=$2 how=$3 environment=$4
	shift 4
	local work=$root/var/tmp/versions package version pid
	rm -rf "$work" && mkdir -p "$work"
	cp "$leaky/versions.c" "$leaky/fixture.h" "$work"
	chroot "$root" sh -c "cd /var/tmp/versions && gcc -O1 -pthread $* -o versions versions.c"
	(
		ulimit -c unlimited
		cd "$work"
		exec env -i PATH=/usr/sbin:/usr/bin LC_ALL=C ${environment:+"$environment"} setarch -R chroot "$root" \
			sh -c 'cd /var/tmp/versions && exec ./versions' >list 2>errors </dev/null
	) &
	pid=$!
	for _ in $(seq 200); do
		grep -q '^end' "$work/list" 2>/dev/null && break
		sleep 0.05
	done
	if ! grep -q '^end' "$work/list"; then
		cat "$work/errors" >&2
		return 1
	fi
	if [ "$how" = gcore ]; then
		gcore -o "$work/core" $pid >/dev/null 2>&1
		kill -KILL $pid
	else
		kill -ABRT $pid
	fi
	wait $pid 2>/dev/null || true
	package=$(chroot "$root" dpkg-query -W -f '${Version}' libc6)
	version=${package%%-*}
	name=${name//VERSION/$version}
	chmod 644 "$work"/core*
	zstd -q -19 -f "$work"/core* -o "$here/$name.core.zst"
	case " $* " in
	*" -static "*) identity "$work/versions" "$work/identity" ;;
	*) identity "$root/lib/x86_64-linux-gnu/libc.so.6" "$work/identity" ;;
	esac
	zstd -q -19 -f "$work/identity" -o "$here/$name.libc.zst"
	{
		echo "# glibc $version"
		echo "# package libc6 $package of Debian $suite, amd64"
		echo "# testdata/leaky/versions.c, gcc -O1 -pthread $*${environment:+, $environment}"
		echo "# core by $how"
		truth "$work/list"
	} >"$here/$name.truth"
	rm -rf "$work"
	ls -l "$here/$name".*
}

for suite in "${suites[@]}"; do
	install "$suite"
	core "$suite" glibc-VERSION kernel ""
	core "$suite" glibc-VERSION-static kernel "" -static
	case $suite in
	bookworm)
		# gcore writes the 64 MB of a thread's arena that nobody touched, too
		core "$suite" glibc-VERSION-gcore gcore MALLOC_ARENA_MAX=1
		core "$suite" glibc-VERSION-notcache kernel GLIBC_TUNABLES=glibc.malloc.tcache_count=0
		;;
	forky) # blocks above 1032 bytes in the thread cache: glibc 2.42 and later
		core "$suite" glibc-VERSION-largecache kernel GLIBC_TUNABLES=glibc.malloc.tcache_max=1048576
		;;
	esac
done
