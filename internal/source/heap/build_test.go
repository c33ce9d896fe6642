package heap

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"stanch/internal/fixture"
)

// compile makes a program of this package's testdata.
func compile(tb testing.TB, name string, flags ...string) string {
	tb.Helper()
	src := filepath.Join("testdata", name)
	exe := filepath.Join(tb.TempDir(), strings.TrimSuffix(name, filepath.Ext(name)))
	args := append([]string{"-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-I", filepath.Join(fixture.RepoRoot(tb), "testdata", "leaky")}, flags...)
	if b, err := exec.Command("gcc", append(args, "-o", exe, src)...).CombinedOutput(); err != nil {
		tb.Fatalf("gcc %s (Debian packages gcc, libc6-dev): %v\n%s", src, err, b)
	}
	return exe
}
