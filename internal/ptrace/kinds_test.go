package ptrace

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// TestExecs stops a program that starts itself anew all the time: the kernel
// waits for killed threads to be reaped by us while it keeps us from attaching
// to others.
func TestExecs(t *testing.T) {
	s := launch(t, build(t, "execs"))
	s.growsFDs = true
	held, gone := 0, 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		stop, err := Start(context.Background(), s.Target, Options{StopWait: time.Second})
		switch {
		case err == nil:
			held++
			if err := stop.Release(); err != nil {
				t.Fatal(err)
			}
		case errors.Is(err, proc.ErrGone), errors.Is(err, ErrStuck), errors.Is(err, proc.ErrUnsupported):
			gone++ // the last: its main thread has ended and is not replaced yet
		default:
			t.Fatal(err)
		}
	}
	var starts int
	if _, err := fmt.Sscanf(s.ask("check"), "ok %d", &starts); err != nil || starts < 10 {
		t.Errorf("%d starts, %v", starts, err)
	}
	t.Logf("%d starts, %d times held, %d times missed", starts, held, gone)
}

// TestKinds takes snapshots of programs of other kinds: static, without libc's
// padding, written in Go, in namespaces of their own, with the main thread in
// a wait for its own children.
func TestKinds(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	musl := func(t *testing.T) string {
		cc, err := exec.LookPath("musl-gcc")
		if err != nil {
			t.Skip("no musl-gcc")
		}
		exe := filepath.Join(outDir, "busy-musl")
		if out, err := exec.Command(cc, "-O1", "-static", "-o", exe, "testdata/busy.c").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return exe
	}
	for _, k := range []struct {
		name string
		exe  func(*testing.T) string
		args []string
		attr *syscall.SysProcAttr
	}{
		{"static", func(t *testing.T) string { return build(t, "busy", "-static") }, []string{"blocks", "regs", "rseq", "timer"}, nil},
		{"musl", musl, []string{"blocks", "regs", "timer"}, nil},
		{"go", func(*testing.T) string { return self }, []string{goTargetWord}, nil},
		{"pid namespace", func(t *testing.T) string { return build(t, "busy") }, []string{"blocks", "timer"}, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}},
		{"user namespace", func(t *testing.T) string { return build(t, "busy") }, []string{"blocks", "timer"}, &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 65534, Size: 1}},
			Credential: &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true},
		}},
		{"waits for its own", func(t *testing.T) string { return build(t, "waits") }, []string{t.TempDir()}, nil},
	} {
		t.Run(k.name, func(t *testing.T) {
			exe := k.exe(t)
			cmd := exec.Command(exe, k.args...)
			cmd.SysProcAttr = k.attr
			s := launchCmd(t, cmd)
			s.growsFDs = k.name == "go" // the runtime opens some when it first needs them
			s.check()
			for range 5 {
				s.snapshot()
				s.check()
			}
			// And with the stub left alone, cleaned up behind.
			tids, err := s.Threads()
			if err != nil {
				t.Fatal(err)
			}
			for _, tid := range tids[:min(len(tids), 8)] {
				if !s.leave(tid, injection{nr: unix.SYS_CLONE, args: [6]uint64{unix.CLONE_FILES | unix.CLONE_FS}, forks: true}) {
					continue
				}
				if _, err := Clean(context.Background(), s.Target); err != nil {
					t.Fatal(err)
				}
				s.check()
			}
		})
	}
}

// goTargetWord makes this test binary a target that allocates, checks what it
// allocated, and collects garbage.
const goTargetWord = "stanch-ptrace-go-target"

func goTargetMain() {
	var rounds sync.Map
	for i := range 3 {
		go func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			var kept [100][]byte
			for n := 0; ; n++ {
				k := r.IntN(len(kept))
				for _, b := range kept[k] {
					if b != byte(k) {
						fmt.Println("bad: block changed")
						os.Exit(1)
					}
				}
				kept[k] = []byte(strings.Repeat(string(rune(k)), r.IntN(5000)))
				rounds.Store(i, n)
				if n%64 == 0 {
					time.Sleep(time.Microsecond)
				}
			}
		}()
	}
	fmt.Println("ready")
	var line string
	for {
		if _, err := fmt.Scanln(&line); err != nil || line != "check" {
			os.Exit(0)
		}
		a, _ := rounds.Load(0)
		fmt.Println("ok", a)
	}
}

// TestVdsoPadding uses the last resort for room.
func TestVdsoPadding(t *testing.T) {
	s := launch(t, build(t, "busy"), "blocks", "regs")
	stop := s.hold()
	maps := slices.DeleteFunc(slices.Clone(stop.Maps()), func(m leak.Mapping) bool { return m.Path != "[vdso]" })
	at, err := choose(maps, stop.Mem(), stubRoom)
	if err != nil {
		_ = stop.Release()
		t.Skip("the vdso of this kernel has no room: ", err)
	}
	stop.stub = at
	snap, err := stop.Snapshot(SnapshotOptions{})
	if err != nil {
		t.Fatal(errors.Join(err, stop.Release()))
	}
	if err := snap.Close(); err != nil {
		t.Fatal(err)
	}
	s.check()
}

// TestPoke has a kernel that refuses forced writes through /proc/PID/mem.
func TestPoke(t *testing.T) {
	s := launch(t, build(t, "busy"), "blocks")
	stop := s.hold()
	if err := stop.held(func() error {
		denied, err := s.Mem() // not open for writing
		stop.mem, denied = denied, stop.mem
		return errors.Join(err, denied.Close())
	}); err != nil {
		t.Fatal(err)
	}
	if pid, err := stop.Call(unix.SYS_GETPID); err != nil || int(pid) != s.ID.PID {
		t.Errorf("getpid: %d, %v", pid, err)
	}
	snap, err := stop.Snapshot(SnapshotOptions{})
	if err != nil {
		t.Fatal(errors.Join(err, stop.Release()))
	}
	if err := snap.Close(); err != nil {
		t.Fatal(err)
	}
	s.check()
}

// TestStolenNews has another thread of this process wait for the target all
// the time, which takes the news of its main thread's stops.
func TestStolenNews(t *testing.T) {
	s := launch(t, build(t, "busy"), "blocks")
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
				_, _ = unix.Wait4(s.ID.PID, nil, unix.WNOHANG, nil)
			}
		}
	}()
	for range 20 {
		s.snapshot()
	}
	close(quit)
	<-done
	s.check()
}

// TestAsUser takes a snapshot without any privilege, of a program of the same
// user, and cleans up behind itself.
func TestAsUser(t *testing.T) {
	if scope, _ := proc.Default.Sysctl("kernel/yama/ptrace_scope"); scope > 0 {
		t.Skip("kernel.yama.ptrace_scope is", scope)
	}
	exe, err := helper()
	if err != nil {
		t.Fatal(err)
	}
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd := exec.Command(build(t, "busy"), "blocks", "regs", "timer")
	cmd.SysProcAttr = nobody
	s := launchCmd(t, cmd)
	run := func(env ...string) error {
		cmd := exec.Command(exe, helperWord, fmt.Sprint(s.ID.PID))
		cmd.SysProcAttr = nobody
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		if err != nil && len(out) > 0 {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	}
	for range 3 {
		if err := run(); err != nil {
			t.Error(err)
		}
		s.check()
	}
	// A snapshot's child that was killed is known by its mark.
	if err := run("STANCH_DIE_AT_NAME=kill child"); !killed(err) {
		t.Error(err)
	}
	eventually(t, "the child is dead", func() bool { return len(s.zombieChildren()) > 0 })
	cleaned, err := Clean(context.Background(), s.Target)
	if err != nil || len(cleaned) != 1 {
		t.Errorf("cleaned %q, %v", cleaned, err)
	}
	s.check()

	// A program of root's is none of its business.
	s = launch(t, build(t, "busy"), "blocks")
	if err := run(); err == nil || !strings.Contains(err.Error(), "root") {
		t.Errorf("tracing a program of root's: %v", err)
	}
	s.check()
}

// TestRandomDeath kills stanch at random moments of a loop of snapshots.
func TestRandomDeath(t *testing.T) {
	exe, err := helper()
	if err != nil {
		t.Fatal(err)
	}
	s := launch(t, build(t, "busy"), "blocks", "regs", "rseq", "timer", "churn")
	for range 25 {
		cmd := exec.Command(exe, helperWord, fmt.Sprint(s.ID.PID), "0", "forever")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5*time.Millisecond + time.Duration(rand.Int64N(int64(40*time.Millisecond)))) // the moment is the test
		_ = cmd.Process.Kill()
		if err := cmd.Wait(); !killed(err) {
			t.Error(err)
		}
		if _, err := Clean(context.Background(), s.Target); err != nil {
			t.Error(err)
		}
		if s.check(); t.Failed() {
			t.FailNow()
		}
	}
}
