package ptrace

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// command starts a shell command under a family.
func command(t *testing.T, script string) *Family {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = null.Close() })
	f, err := Launch(Command{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: os.Environ(), Files: []*os.File{null, null, os.Stderr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// TestFamily follows a shell and what it starts.
func TestFamily(t *testing.T) {
	f := command(t, "/bin/true; (exit 3); /bin/false & wait; sh -c 'kill -SEGV $$'; exit 7")
	var moments []Moment
	status := map[int]syscall.WaitStatus{}
	deadline := time.After(20 * time.Second)
	for open := true; open; {
		select {
		case e, ok := <-f.Events():
			if !ok {
				open = false
				break
			}
			moments = append(moments, e.Moment)
			t.Logf("%d: pid %d %#x %v", e.Moment, e.Target.ID.PID, e.Status, e.Err)
			switch e.Moment {
			case Born, Ready, Exiting:
				if e.Err == nil {
					if err := f.Resume(e.Target); err != nil {
						t.Error(err)
					}
				}
			case Ended:
				status[e.Target.ID.PID] = e.Status
			}
		case <-deadline:
			t.Fatal("the family does not end")
		}
	}
	if s := status[f.PID()]; !s.Exited() || s.ExitStatus() != 7 {
		t.Errorf("the program ended with %#x", s)
	}
	t.Log(moments)
}
