package app

import (
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"stanch/internal/series"
	"stanch/internal/series/tsdb"
)

// checked runs --check, and gives what it prints.
func checked(t *testing.T, f *watchFlags) (text string, fails bool) {
	t.Helper()
	var out strings.Builder
	a := &app{std: Streams{Out: &out, Err: io.Discard}, version: "test"}
	f.every, f.retention, f.diagnoseOn, f.diagnoseFor = 10*time.Second, time.Hour, "none", time.Minute
	if f.maxSize == 0 {
		f.maxSize = 10 << 20
	}
	if err := f.verify(); err != nil {
		t.Fatal(err)
	}
	err := a.checkWatch("", f)
	return out.String(), err != nil
}

// tree is what a directory holds: names, sizes, and when they were written.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			b.WriteString(path + " " + info.Mode().String() + " " + info.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestCheckChangesNothing: a check that root makes of another user's history
// must leave no file in it, and not repair, compact or move anything.
func TestCheckChangesNothing(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", filepath.Join(t.TempDir(), "run"))
	live := filepath.Join(t.TempDir(), "live")
	store, err := tsdb.Open(live, tsdb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UnixMilli()
	if err := store.Append([]series.Sample{{Key: series.Key{Metric: series.HostAvailable}, At: at, Value: 1}}); err != nil {
		t.Fatal(err)
	}
	killed := t.TempDir() // what a watch leaves that is killed
	if err := os.CopyFS(killed, os.DirFS(live)); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(killed, "01ARZ3NDEKTSV4RRFFQ69G5FAV"), 0o700); err != nil { // a damaged block
		t.Fatal(err)
	}
	before := tree(t, killed)
	text, fails := checked(t, &watchFlags{data: killed})
	if until := time.UnixMilli(at).Format("2006-01-02 15:04:05"); fails || !strings.Contains(text, "until "+until) {
		t.Errorf("want until %s:\n%s", until, text)
	}
	if after := tree(t, killed); after != before {
		t.Errorf("it was\n%s\nand is\n%s", before, after)
	}
}

// TestCheckIsTrue: it fails where a watch would, and only there.
func TestCheckIsTrue(t *testing.T) {
	t.Setenv("RUNTIME_DIRECTORY", filepath.Join(t.TempDir(), "run"))
	used := t.TempDir()
	socket, err := listenUnix(filepath.Join(used, socketName))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }() // nobody came
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = port.Close() }() // nobody came
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "new", "data")
	for _, test := range []struct {
		name  string
		flags watchFlags
		want  string // a line
		fails bool
	}{
		{"all is well", watchFlags{data: data, listen: "127.0.0.1:0"}, `ok +history +\S+ holds 0 bytes of at most 10.5 MB`, false},
		{"another watch writes there", watchFlags{data: used}, `FAILS +history +another stanch watch writes to \S+`, true},
		{"a file", watchFlags{data: file}, `FAILS +history +mkdir \S+: not a directory`, true},
		{"a path too long for a socket", watchFlags{data: "/tmp/" + strings.Repeat("x", longestPath)}, `FAILS +history +the path of the socket \S+ is longer than 107 bytes`, true},
		{"a small disk", watchFlags{data: data, maxSize: 1 << 60}, `note +disk +.* free, and the history may grow by .* what does not fit is not written, and said`, false},
		{"a port that is taken", watchFlags{data: data, listen: port.Addr().String()}, `FAILS +listen +listen at \S+: .*address already in use`, true},
		{"a log that is none", watchFlags{data: data, logs: []string{used}}, `note +log +\S+ is a directory; the watch runs without it`, false},
		{"a log that is not there", watchFlags{data: data, logs: []string{file + ".log"}}, `note +log +\S+ is not there yet`, false},
		{"a log", watchFlags{data: data, logs: []string{file}}, `ok +log +\S+`, false},
	} {
		text, fails := checked(t, &test.flags)
		if !regexp.MustCompile(`(?m)^`+test.want).MatchString(text) || fails != test.fails || strings.Contains(text, "FAILS") != fails {
			t.Errorf("%s: want %q, fails %v:\n%s", test.name, test.want, test.fails, text)
		}
	}
	if _, err := os.Stat("/tmp/" + strings.Repeat("x", longestPath)); err == nil {
		t.Error("the directory with the long name was left behind")
	}
}
