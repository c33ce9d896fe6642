package heap

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"stanch/internal/fixture"
)

// TestOtherAllocators looks at programs whose allocator is not walked.
func TestOtherAllocators(t *testing.T) {
	direct := fixture.Build(t, "direct")
	for _, c := range []struct {
		name  string
		start func(t *testing.T) *fixture.Proc
		want  string
	}{
		{"jemalloc", func(t *testing.T) *fixture.Proc { return preloaded(t, direct, "libjemalloc.so.2") }, "jemalloc"},
		{"tcmalloc", func(t *testing.T) *fixture.Proc { return preloaded(t, direct, "libtcmalloc_minimal.so.4") }, "tcmalloc"},
		{"musl", func(t *testing.T) *fixture.Proc { return musl(t) }, "musl"},
		{"static musl", func(t *testing.T) *fixture.Proc { return musl(t, "-static") }, "unknown"},
		{"Go", golang, "Go"},
		{"AddressSanitizer", func(t *testing.T) *fixture.Proc {
			return fixture.StartEnv(t, []string{"ASAN_OPTIONS=detect_leaks=0"}, fixture.Build(t, "direct", "-fsanitize=address"))
		}, "AddressSanitizer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := c.start(t)
			b := scanned(t, p.PID(), Options{})
			look := b.looks[0]
			if look.Allocator != c.want || look.Walked || len(b.verdicts) > 0 || len(b.held) > 0 || len(b.gaps) != 1 {
				t.Errorf("%+v, %d verdicts, gaps %v", look, len(b.verdicts), b.gaps)
			}
			t.Logf("%v", b.gaps)
		})
	}
}

// preloaded starts a program with another allocator in front of the libc's.
func preloaded(t *testing.T, exe, lib string) *fixture.Proc {
	t.Helper()
	path := filepath.Join("/usr/lib/x86_64-linux-gnu", lib)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: apt-get install libjemalloc2 libtcmalloc-minimal4", err)
	}
	p := fixture.StartEnv(t, []string{"LD_PRELOAD=" + path}, exe)
	p.Ask("leak 20", "ok")
	return p
}

func musl(t *testing.T, flags ...string) *fixture.Proc {
	t.Helper()
	src := filepath.Join(fixture.RepoRoot(t), "testdata", "leaky", "direct.c")
	exe := filepath.Join(t.TempDir(), "direct")
	args := append([]string{"-g", "-O1", "-o", exe, src}, flags...)
	if b, err := exec.Command("musl-gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("musl-gcc (Debian package musl-tools): %v\n%s", err, b)
	}
	p := fixture.Start(t, exe)
	p.Ask("leak 20", "ok")
	return p
}

func golang(t *testing.T) *fixture.Proc {
	t.Helper()
	dir := t.TempDir()
	src := filepath.Join(dir, "main.go")
	const text = `package main

import "os"

func main() {
	os.Stdout.WriteString("ready\n")
	os.Stdin.Read(make([]byte, 1))
}
`
	if err := os.WriteFile(src, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "main")
	cmd := exec.Command("go", "build", "-o", exe, src)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, b)
	}
	return fixture.Start(t, exe)
}
