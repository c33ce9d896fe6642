package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stanch/internal/fixture"
)

// TestValgrindSuppressions lets valgrind write suppressions for what a program
// loses, in C and in C++, and gives them to stanch: they hold for the same
// losses of the same program without valgrind.
func TestValgrindSuppressions(t *testing.T) {
	privileged(t)
	for _, name := range []string{"direct", "objects"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exe := fixture.Build(t, name)
			file := filepath.Join(t.TempDir(), "log")
			line := fixture.Valgrind(t, "-q", "--gen-suppressions=all", "--log-file="+file, exe)
			v := fixture.Start(t, line[0], line[1:]...)
			v.Ask("leak 24", "ok")
			v.Quit()
			log, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			supp := filepath.Join(t.TempDir(), "gen.supp")
			if err := os.WriteFile(supp, suppressionsIn(string(log)), 0o600); err != nil {
				t.Fatal(err)
			}

			p := fixture.Start(t, exe)
			p.Ask("leak 24", "ok") // what the probe is then aimed at
			saved := filepath.Join(t.TempDir(), "report.json")
			s := begin(t, "diagnose", roomy, "--for", "5s", "-o", saved, pid(p))
			s.await("watching")
			p.Ask("leak 24", "ok")
			s.wait().wantCode(t, 3)
			p.Quit()
			o := stanch(t, "report", "--format", "json", "--suppressions", supp, saved)
			r := o.report(t)
			for i := range r.Findings {
				t.Errorf("not suppressed: %s from %v", r.Findings[i].Title, r.Findings[i].Stack)
			}
			if len(r.Suppressed) < 3 {
				t.Errorf("valgrind wrote %d suppressions:\n%s", len(r.Suppressed), log)
			}
			o.wantCode(t, 0)
		})
	}
}

// suppressionsIn takes the suppressions out of a valgrind log: the lines from
// "{" to "}". The others begin with "==".
func suppressionsIn(log string) []byte {
	var out []byte
	in := false
	for line := range strings.Lines(log) {
		in = in || strings.HasPrefix(line, "{")
		if in {
			out = append(out, line...)
		}
		in = in && !strings.HasPrefix(line, "}")
	}
	return out
}
