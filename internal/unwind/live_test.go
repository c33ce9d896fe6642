package unwind

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stanch/internal/leak"
)

// start runs a program, waits for its line "ready" and returns what it printed
// before, and kills it at the end of the test.
func start(t testing.TB, exe string, args ...string) (pid int, said []string) {
	t.Helper()
	cmd := exec.Command(exe, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("%s ended; it said %q", exe, said)
			}
			if line == "ready" {
				return cmd.Process.Pid, said
			}
			said = append(said, line)
		case <-deadline:
			t.Fatalf("%s is not ready; it said %q", exe, said)
		}
	}
}

// stop sends SIGSTOP and waits until all threads have stopped.
func stop(t testing.TB, pid int) (tids []int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		tids = tids[:0]
		running := false
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range stats {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, after, _ := strings.Cut(string(b), ") ")
			running = running || !strings.HasPrefix(after, "T")
			tid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			tids = append(tids, tid)
		}
		if !running {
			return tids
		}
		if time.Now().After(deadline) {
			t.Fatal("the program does not stop")
		}
	}
}

// registers reads the registers of stopped threads through ptrace.
func registers(t testing.TB, tids []int) map[int]Regs {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out := map[int]Regs{}
	for _, tid := range tids {
		if err := syscall.PtraceAttach(tid); err != nil {
			t.Skipf("ptrace is refused: %v", err)
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(tid, &status, syscall.WALL, nil); err != nil {
			t.Fatal(err)
		}
		var user syscall.PtraceRegs
		err := syscall.PtraceGetRegs(tid, &user)
		if err == nil {
			// Stays in its group stop.
			_, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, syscall.PTRACE_DETACH, uintptr(tid), 0, uintptr(syscall.SIGSTOP), 0, 0)
			if errno != 0 {
				err = errno
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := binary.Write(&b, binary.LittleEndian, &user); err != nil {
			t.Fatal(err)
		}
		words := make([]uint64, b.Len()/8)
		if err := binary.Read(&b, binary.LittleEndian, words); err != nil {
			t.Fatal(err)
		}
		out[tid] = UserRegs(words)
	}
	return out
}

// gdbThreads attaches gdb to a program and gives what it says of each thread.
func gdbThreads(t *testing.T, pid int) map[int]gdbStop {
	t.Helper()
	gdb, err := exec.LookPath("gdb")
	if err != nil {
		t.Skip(err)
	}
	answers, answersW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer answers.Close()
	cmd := exec.CommandContext(t.Context(), gdb, "-nx", "-batch", "-iex", "set debug-file-directory /nonexistent", "-iex", "set auto-load no",
		"-p", strconv.Itoa(pid), "-x", "testdata/threads.py")
	cmd.ExtraFiles = []*os.File{answersW}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	answersW.Close()
	out := map[int]gdbStop{}
	lines := bufio.NewScanner(answers)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		s, err := parseStop(lines.Text())
		if err != nil {
			t.Fatal(err)
		}
		out[s.pid] = s
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("gdb: %v\n%s", err, log.Bytes())
	}
	return out
}

// copyStack copies the stack of a thread, up to size bytes.
func copyStack(t testing.TB, mem leak.Memory, sp uint64, size int) Stack {
	t.Helper()
	b := make([]byte, size)
	n, _ := mem.ReadAt(b, leak.Addr(sp))
	if n == 0 {
		t.Fatalf("no stack at %#x", sp)
	}
	return Stack{Start: leak.Addr(sp), Bytes: b[:n]}
}

// TestThreads stops a program of two threads, deep in every shape of frame,
// with SIGSTOP, walks both stacks and compares them with gdb's.
func TestThreads(t *testing.T) {
	for _, flags := range [][]string{{"-O2"}, {"-O2", "-s", "-no-pie", "-fno-pie"}, {"-O2", "-static"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			pid, _ := start(t, build(t, "shapes.cc", flags...), "park")
			tids := stop(t, pid)
			mem := openMem(t, pid)
			regs := registers(t, tids)
			var tables tables
			u := New(tables.modules(t, pid, mem))
			want := gdbThreads(t, pid)
			if len(want) != 2 || len(tids) != 2 {
				t.Fatalf("%d threads, gdb has %d", len(tids), len(want))
			}
			for tid, regs := range regs {
				gdb := want[tid]
				if *regs.General != *gdb.regs.General || regs.PC != gdb.regs.PC || regs.SP != gdb.regs.SP || regs.BP != gdb.regs.BP {
					t.Errorf("registers %#v, gdb has %#v", *regs.General, *gdb.regs.General)
				}
				places, complete := u.Unwind(regs, mem, 500)
				if err := compareWalk(places, complete, gdb.frames); err != nil {
					t.Errorf("thread %d: %v", tid, err)
				}
				if len(places) < 60 {
					t.Errorf("only %d frames", len(places))
				}
				// The stack changes in the middle, where a signal is handled on another one.
				few := Regs{PC: regs.PC, SP: regs.SP, BP: regs.BP}
				part, complete := u.Unwind(few, copyStack(t, mem, regs.SP, 1<<14), 500)
				if len(part) < 10 || complete || !slices.Equal(part, places[:len(part)]) {
					t.Errorf("copied stack, complete %v:\n%v\nmemory:\n%v", complete, part, places)
				}
				limited, complete := u.Unwind(regs, mem, 5)
				if complete || !slices.Equal(limited, places[:5]) {
					t.Errorf("limit 5, complete %v: %v", complete, limited)
				}
			}
		})
	}
}

// BenchmarkUnwind walks real stacks again and again, from a copy and from
// /proc/PID/mem.
func BenchmarkUnwind(b *testing.B) {
	pid, _ := start(b, build(b, "shapes.cc", "-O2"), "park")
	tids := stop(b, pid)
	mem := openMem(b, pid)
	regs := registers(b, tids)[pid]
	var tables tables
	u := New(tables.modules(b, pid, mem))
	stack := copyStack(b, mem, regs.SP, 1<<14)
	for _, c := range []struct {
		name  string
		mem   leak.Memory
		limit int
	}{{"copy", stack, 12}, {"live", mem, 500}} {
		b.Run(c.name, func(b *testing.B) {
			frames := 0
			for b.Loop() {
				places, _ := u.Unwind(regs, c.mem, c.limit)
				frames += len(places)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(frames), "ns/frame")
			b.ReportMetric(float64(frames)/float64(b.N), "frames")
		})
	}
}
