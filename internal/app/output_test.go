package app

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"stanch/internal/leak"
)

// TestCreate makes private files, follows no links and overwrites only when
// told to.
func TestCreate(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "report.json")
	f, err := create(name, false)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", st.Mode(), err)
	}
	if _, err := create(name, false); !isUsage(err) {
		t.Errorf("an existing file: %v", err)
	}
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	if f, err = create(name, true); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("overwritten: mode %v, %v; want 0600", st.Mode(), err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(name, link); err != nil {
		t.Fatal(err)
	}
	if _, err := create(link, true); !isUsage(err) {
		t.Errorf("a link: %v", err)
	}
}

func isUsage(err error) bool {
	var code codeError
	return errors.As(err, &code) && code.code == ExitUsage
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		failOn   string
		severity leak.Severity
		want     int
	}{
		{"leak", leak.SeverityLeak, ExitFound},
		{"leak", leak.SeverityError, ExitFound},
		{"error", leak.SeverityError, ExitFound},
		{"error", leak.SeverityLeak, ExitOK},
		{"leak", leak.SeverityGrowth, ExitOK},
		{"growth", leak.SeverityGrowth, ExitFound},
		{"growth", leak.SeverityRisk, ExitOK},
		{"risk", leak.SeverityLeak, ExitFound},
		{"none", leak.SeverityLeak, ExitOK},
		{"risk", leak.SeverityNote, ExitOK},
	} {
		o := output{failOn: c.failOn}
		if got := o.code(&leak.Report{Findings: []leak.Finding{{Severity: c.severity}}}); got != c.want {
			t.Errorf("--fail-on %s with a %s: exit code %d, want %d", c.failOn, c.severity, got, c.want)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for s, want := range map[string]uint64{"0": 0, "400": 400, "64K": 64 << 10, "1.5M": 3 << 19, "2GiB": 2 << 30, "1kb": 1024} {
		if got, err := parseBytes(s); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "K", "-1", "1T2", "1e30G", "nan"} {
		if got, err := parseBytes(s); err == nil {
			t.Errorf("%q is %d, want an error", s, got)
		}
	}
}
