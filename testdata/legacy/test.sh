#!/bin/sh
# test.sh BUILD PYTHON [fail|killed]: the tests of what BUILD holds. With a last
# word, one more test, which does not pass.
set -eu
bin=$(cd "$1" && pwd)
python=$2
last=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# check NAME WANT GOT
check() {
	if [ "$2" != "$3" ]; then
		echo "not ok - $1: $3, want $2" >&2
		exit 1
	fi
	echo "ok - $1"
}

# until_true CONDITION ...: waits for it, 20 s at most.
until_true() {
	for _ in $(seq 400); do
		! "$@" || return 0
		sleep 0.05
	done
	echo "not ok - waited for $*" >&2
	exit 1
}

# Two at a time, and a pipe.
"$bin/workers" 3 "$bin/count" >"$work/workers" &
workers=$!
check "count" "2 two 3 one" "$(echo one two one two one | "$bin/count" | tr '\n' ' ' | sed 's/ $//')"
wait $workers
check "workers" 3 "$(grep -c done "$work/workers")"

# A child that fails, as it should.
status=0
"$bin/count" "$work/missing" 2>/dev/null || status=$?
check "a missing file" 1 $status

# A daemon, which is nobody's child.
"$bin/courier" "$work"
until_true test -s "$work/pid"
printf 'hello\nstop\n' >"$work/in"
until_true test ! -e "$work/pid"
check "courier" "received hello received stop" "$(tr '\n' ' ' <"$work/out" | sed 's/ $//')"

# killed: starts a child and kills it; its status.
killed() {
	"$bin/waiter" >"$work/waiter" &
	child=$!
	until_true test -s "$work/waiter"
	kill -KILL $child
	status=0
	wait $child || status=$?
}
killed 2>/dev/null
check "a killed child" 137 $status

# A C extension inside of an interpreter.
PYTHONPATH=$bin "$python" "$here/test_tally.py" 2>"$work/python" || {
	cat "$work/python" >&2
	exit 1
}
echo "ok - python"

case $last in
fail) check "a test that fails" "1 one" "$(echo one one | "$bin/count")" ;;
killed)
	killed
	echo "not ok - a test was killed" >&2
	exit $status
	;;
esac
