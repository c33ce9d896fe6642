package logfile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeJournalctl puts a program named journalctl into PATH. It notes its
// arguments and its PID, then does what the shell script says; entry prints an
// entry of now in the form of systemd 252.
func fakeJournalctl(t *testing.T, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	program := `#!/bin/sh
dir='` + dir + `'
echo "$@" >>"$dir/arguments"
echo $$ >"$dir/pid"
runs=$(wc -l <"$dir/arguments")
entry() {
	printf '{"__CURSOR":"s=%s;i=%s","__REALTIME_TIMESTAMP":"%s","__MONOTONIC_TIMESTAMP":"5","_BOOT_ID":"b","PRIORITY":"6","_PID":"4711","_SYSTEMD_UNIT":"demo.service","SYSLOG_IDENTIFIER":"demo","MESSAGE":%s}\n' \
		"$runs" "$1" "$(date +%s%6N)" "$2"
}
` + script + "\n"
	must(t, os.WriteFile(filepath.Join(dir, "journalctl"), []byte(program), 0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return dir
}

func TestJournal(t *testing.T) {
	dir := fakeJournalctl(t, `
if [ "$runs" = 1 ]; then
	entry 1 '"one"'
	entry 2 '[116,119,111,255]'
	entry 3 '"2026-11-21 10:00:00,123 INFO three"'
	entry 4 '"four\n  and more\n"'
	entry 5 null
	entry 6 '["five",[115,105,120]]'
	echo 'not JSON'
	exit 1
fi
entry 7 '"seven"'
exec sleep 1000`)
	begin := now()
	f := follow(t, &Source{Unit: "demo.service"})
	f.want("one", "two\ufffd", "INFO three", "four", "and more", "five", "six", "seven")
	for _, l := range f.lines {
		if !l.HasTime || l.At < begin || l.At > now() {
			t.Errorf("%+v is not of now", l)
		}
	}
	if len(f.notes) != 1 || !strings.Contains(f.notes[0], "started again") {
		t.Errorf("notes: %q", f.notes)
	}
	arguments, err := os.ReadFile(filepath.Join(dir, "arguments"))
	must(t, err)
	runs := strings.Split(strings.TrimSpace(string(arguments)), "\n")
	if len(runs) != 2 || !strings.Contains(runs[0], "--unit=demo.service --since=@") || !strings.Contains(runs[1], "--after-cursor=s=1;i=6") {
		t.Errorf("arguments: %q", runs)
	}

	pid, err := os.ReadFile(filepath.Join(dir, "pid"))
	must(t, err)
	must(t, f.end())
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); err == nil {
		t.Error("journalctl has outlived its follower")
	}
}

// TestJournalFromStart leaves no entry out; else those before the start are.
func TestJournalFromStart(t *testing.T) {
	dir := fakeJournalctl(t, `
echo '{"__CURSOR":"a","__REALTIME_TIMESTAMP":"1795255200123456","MESSAGE":"old"}'
entry 1 '"new"'
exec sleep 1000`)
	follow(t, &Source{Unit: "demo.service"}).want("new")
	f := follow(t, &Source{Unit: "demo.service", FromStart: true})
	f.want("old", "new")
	if f.lines[0].At != 1795255200123 {
		t.Errorf("got %+v", f.lines[0])
	}
	arguments, err := os.ReadFile(filepath.Join(dir, "arguments"))
	must(t, err)
	if _, last, _ := strings.Cut(strings.TrimSpace(string(arguments)), "\n"); strings.Contains(last, "since") {
		t.Errorf("arguments: %q", last)
	}
}

func TestNoJournal(t *testing.T) {
	fakeJournalctl(t, "echo 'No journal files were found.' >&2; exit 1")
	err := (&Source{Unit: "demo.service"}).Follow(t.Context(), func(Line) {})
	if want := "follow the log of unit demo.service: journalctl: No journal files were found."; fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
	t.Setenv("PATH", t.TempDir())
	err = (&Source{Unit: "demo.service"}).Follow(t.Context(), func(Line) {})
	if want := "follow the log of unit demo.service: the journal is read by journalctl, which is not in PATH"; fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestLongEntry leaves out an entry that is longer than anything worth
// keeping, and goes on.
func TestLongEntry(t *testing.T) {
	fakeJournalctl(t, `
entry 1 "\"$(head -c 2000000 /dev/zero | tr '\0' x)\""
entry 2 '"short"'
exec sleep 1000`)
	follow(t, &Source{Unit: "demo.service"}).want("short")
}

func TestValues(t *testing.T) {
	for _, c := range []struct {
		field string
		want  []string
	}{
		{`"text"`, []string{"text"}},
		{`""`, nil},
		{`null`, nil},
		{``, nil},
		{`[104,105]`, []string{"hi"}},
		{`["a","b"]`, []string{"a", "b"}},
		{`[300]`, nil},
		{`{"a":1}`, nil},
		{strings.Repeat("[", 50000), nil},
	} {
		if got := values([]byte(c.field)); !slices.Equal(got, c.want) {
			t.Errorf("%.50s: got %q, want %q", c.field, got, c.want)
		}
	}
}

// TestEndsBeforeAnyEntry has a journalctl that worked, of a unit that had
// nothing to say yet: it is started again.
func TestEndsBeforeAnyEntry(t *testing.T) {
	fakeJournalctl(t, `
if [ "$runs" = 1 ]; then sleep 2; kill -KILL $$; fi
entry 1 '"one"'
[ "$runs" = 2 ] && exit 0
exec sleep 1000`)
	f := follow(t, &Source{Unit: "demo.service"})
	f.want("one", "one")
	if len(f.notes) != 2 || !strings.HasSuffix(f.notes[0], "journalctl ended (signal: killed) and is started again") || !strings.HasSuffix(f.notes[1], "journalctl ended and is started again") {
		t.Errorf("notes: %q", f.notes)
	}
}

// TestClockSetBack has an entry from before the start: it is new while the
// clock is before the start too, and old otherwise.
func TestClockSetBack(t *testing.T) {
	for ahead, want := range map[time.Duration]int{time.Hour: 1, -time.Hour: 0} {
		said := 0
		j := &journal{source: &Source{Unit: "demo.service"}, read: newReader(), since: time.Now().Add(ahead), say: func(Line) { said++ }}
		at := min(now(), j.since.UnixMilli()-1)
		j.entry(fmt.Appendf(nil, `{"__REALTIME_TIMESTAMP":"%d","MESSAGE":"x"}`, 1000*at))
		if said != want {
			t.Errorf("started %v from now: %d lines, want %d", ahead, said, want)
		}
	}
}

// TestPauses holds that a journalctl that ends again and again is not started
// in a loop.
func TestPauses(t *testing.T) {
	dir := fakeJournalctl(t, `
[ "$runs" = 1 ] && entry 1 '"one"'
exit 1`)
	f := follow(t, &Source{Unit: "demo.service"})
	f.want("one")
	begin := time.Now()
	f.until("the third start", func() bool {
		arguments, _ := os.ReadFile(filepath.Join(dir, "arguments"))
		return strings.Count(string(arguments), "\n") >= 3
	})
	if d := time.Since(begin); d < 2*firstPause {
		t.Errorf("three starts within %v", d)
	}
}
