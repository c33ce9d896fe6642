package term

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stanch/internal/ui/example"
)

// drawEnv asks the test's own program to draw charts and to wait.
const drawEnv = "STANCH_TEST_DRAW"

func TestMain(m *testing.M) {
	if name := os.Getenv(drawEnv); name != "" {
		s := &example.Reports()[name].Services[0]
		if err := Charts(os.Stdout, s, Options{Color: true, ASCII: !UTF8(os.Getenv)}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Print("drawn")
		// The terminal lives as long as its program: until its input ends.
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestTmux draws in a real terminal of 80 columns and reads its screen: no
// line has wrapped, and the marks are there.
func TestTmux(t *testing.T) {
	for _, c := range []struct {
		locale string
		want   []string
	}{
		{"C.UTF-8", []string{"1.5 GB ┤╌╌ memory.max 1.5 GB", "▲", "•", "R", "┊", "░", "└──", "⣀", "21 Nov"}},
		{"C", []string{"1.5 GB +== memory.max 1.5 GB", "^", "o oo", "R", ":", "***", "+--", "21 Nov"}},
	} {
		t.Run(c.locale, func(t *testing.T) {
			screen := capture(t, c.locale, "steps")
			var lines []string
			for line := range strings.Lines(screen) {
				lines = append(lines, strings.TrimRight(line, "\n"))
			}
			plain := colours.ReplaceAllString(draw(t, &example.Reports()["steps"].Services[0], Options{ASCII: c.locale == "C"}), "")
			for i, want := range strings.Split(strings.TrimSuffix(plain, "\n"), "\n") {
				if i >= len(lines) || lines[i] != want {
					t.Fatalf("line %d of the screen is not the one that was drawn: %q\n%s", i+1, want, screen)
				}
			}
			for _, want := range c.want {
				if !strings.Contains(screen, want) {
					t.Errorf("no %q on the screen:\n%s", want, screen)
				}
			}
		})
	}
}

// capture gives the screen of a terminal of 80 columns and 40 lines in which
// an example was drawn.
func capture(t *testing.T, locale, name string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "tmux")
	tmux := func(args ...string) (string, error) {
		// -u: the screen itself is UTF-8, whatever the program believes.
		cmd := exec.Command("tmux", append([]string{"-u", "-f", "/dev/null", "-S", socket}, args...)...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() {
		if out, err := tmux("kill-server"); err != nil {
			t.Errorf("tmux kill-server: %v: %s", err, out)
		}
	})
	if out, err := tmux("new-session", "-d", "-x", "80", "-y", "40", "-e", drawEnv+"="+name, "-e", "LC_ALL="+locale, exe); err != nil {
		t.Fatalf("tmux new-session: %v: %s", err, out)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		screen, err := tmux("capture-pane", "-p")
		if err == nil && strings.Contains(screen, "drawn") {
			return screen
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing was drawn: %v\n%s", err, screen)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
