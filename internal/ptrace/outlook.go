package ptrace

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// outlook is what a fork of the target would mean, read before it is stopped,
// so that the reading does not lengthen the pause.
type outlook struct {
	status  *proc.Status
	maps    int // how many mappings it has
	room    *proc.Headroom
	handler error // a userfaultfd that would make the fork wait, or no right to end its child
	err     error // why the headroom is unknown
}

// outlookOf reads it; without fork, only what a system call needs.
func outlookOf(t *proc.Target, fork bool) (*outlook, error) {
	status, err := t.Status()
	if err != nil {
		return nil, err
	}
	l := &outlook{status: status}
	if !fork {
		l.err = errors.New("not looked at")
		return l, nil
	}
	l.room, l.err = t.Headroom()
	if l.handler = forkHandler(t); l.handler == nil {
		l.handler = endless(t)
	}
	maps, err := os.ReadFile(t.Path("maps"))
	if err != nil && l.err == nil {
		l.err = err
	}
	l.maps = bytes.Count(maps, []byte{'\n'})
	return l, nil
}

// forkHandler returns an error when t holds a userfaultfd that is told of
// forks: the fork waits for the reader of that descriptor, which may be one
// of the threads that stand still.
func forkHandler(t *proc.Target) error {
	fds, err := t.Descriptors()
	if err != nil {
		return fmt.Errorf("its descriptors cannot be listed: %w", err)
	}
	for i := range fds {
		if fds[i].Kind != "userfaultfd" {
			continue
		}
		info, err := t.FDInfo(fds[i].Num)
		if errors.Is(err, proc.ErrGone) {
			continue // closed meanwhile
		}
		if err != nil || info.Userfaultfd&proc.UFFDEventFork != 0 {
			return fmt.Errorf("descriptor %d is a userfaultfd that handles forks, which would make a fork wait for it", fds[i].Num)
		}
	}
	return nil
}

// endless returns an error when a child of t could not be ended: it has the
// credentials of t, and a signal needs the same user or CAP_KILL, kill(2).
func endless(t *proc.Target) error {
	if err := unix.Kill(t.ID.PID, 0); errors.Is(err, unix.EPERM) {
		return errors.New("stanch could not end it without CAP_KILL, since the process is of another user")
	}
	return nil
}

// Bounds of the guess at how much the target writes while a snapshot lives:
// a sixteenth of its anonymous memory, within these.
const (
	leastWrites = 4 << 20
	mostWrites  = 128 << 20
)

// How much the target can write between the moment when half of its room is
// used and the moment when the snapshot is gone: a first write to a page costs
// at least 2.4 microseconds (measured, kernel 6.18), 1.7 GB/s for each of at most a few
// processors. The watch looks every 5 ms, and may be late on a busy machine.
const (
	writeRate = 1700 << 20 // bytes per second
	reaction  = 50 * time.Millisecond
	writers   = 4
)

// burst is that amount.
func (l *outlook) burst() uint64 {
	n := min(l.status.Threads, runtime.NumCPU(), writers)
	return min(l.status.RSSAnon, uint64(n)*uint64(writeRate*reaction.Seconds()))
}

// spareTasks is how many further threads the target must be able to make
// while the snapshot takes up one place.
const spareTasks = 8

// budget is what the target can spare while a snapshot lives.
type budget struct {
	least proc.Room // the tightest limit on memory when the snapshot was made
	need  uint64    // bytes the snapshot is expected to take: page tables and copied pages
	floor uint64    // bytes that must be left, else the snapshot is given up
}

// budget returns what a snapshot needs and what there is. The error says why
// there is too little.
func (l *outlook) budget() (budget, error) {
	if l.err != nil {
		return budget{}, fmt.Errorf("its headroom is unknown: %w", l.err)
	}
	// Pages pinned for devices are copied by the fork itself.
	at := l.status.VMPTE + l.status.VMPin
	b := budget{least: l.room.Least(proc.RoomMemory), need: at + min(max(l.status.RSSAnon/16, leastWrites), mostWrites)}
	if tasks := l.room.Least(proc.RoomTasks); tasks.Left <= spareTasks {
		return b, fmt.Errorf("%s leaves room for %d more threads, and a snapshot takes one and leaves at least %d", tasks, tasks.Left, spareTasks)
	}
	if promise := l.room.Least(proc.RoomCommit); promise.Left < l.status.VMData {
		return b, fmt.Errorf("%s leaves %s, and a fork promises %s once more", promise, mib(promise.Left), mib(l.status.VMData))
	}
	b.floor = b.least.Left / 2
	// Room for a copy of everything is always enough.
	if all := l.status.RSSAnon + at; b.least.Left >= all+b.need {
		b.floor = min(b.floor, b.least.Left-all)
		return b, nil
	}
	// Else the snapshot is given up when half of the room is used, and what is
	// written until it is gone must fit into the other half. That the kernel
	// would kill the snapshot first is no help: once it is dying, the kernel
	// looks for another.
	if half := max(b.need, l.burst()); b.least.Left/2 < half {
		return b, fmt.Errorf("%s leaves %s, and a snapshot may take twice %s", b.least, mib(b.least.Left), mib(half))
	}
	return b, nil
}

func mib(n uint64) string { return fmt.Sprintf("%d MiB", n>>20) }

// affords checks whether the target can be forked now.
func (s *Stop) affords() (budget, error) {
	b, err := s.outlook.budget()
	if err == nil {
		err = s.outlook.handler
	}
	if err == nil {
		err = s.waitsForAny()
	}
	if err != nil {
		return b, fmt.Errorf("%w: %w", ErrNoFork, err)
	}
	if need, left := s.outlook.pause(), s.left(); need > left {
		return b, fmt.Errorf("%w: the fork takes about %v, and %v of the allowed pause are left", ErrPause, need, left)
	}
	return b, nil
}

// waitsForAny returns an error when a thread waits for children of any kind
// (__WALL, __WCLONE), as debuggers and sandboxes do: it would see ours.
func (s *Stop) waitsForAny() error {
	for _, th := range s.threads {
		r := &th.Regs
		if th.state != stopped || !th.InSyscall {
			continue
		}
		var options uint64
		switch syscallNumber(r) {
		case unix.SYS_WAIT4:
			options = syscallArg(r, 2)
		case unix.SYS_WAITID:
			options = syscallArg(r, 3)
		}
		if options&(unix.WALL|unix.WCLONE) != 0 {
			return fmt.Errorf("thread %d waits for children of every kind, as debuggers do, and would see the snapshot's", th.TID)
		}
	}
	return nil
}

// bearsHere returns an error when a child of th would not live in its own PID
// namespace but in another (unshare with CLONE_NEWPID): as the first process
// there it would take the namespace along when it ends.
func (s *Stop) bearsHere(th *thread) error {
	dir := s.target.Path("task", strconv.Itoa(th.TID), "ns")
	own, err := os.Readlink(filepath.Join(dir, "pid"))
	if err != nil {
		return err
	}
	if child, err := os.Readlink(filepath.Join(dir, "pid_for_children")); err != nil || child != own {
		return fmt.Errorf("children of thread %d are born into another PID namespace", th.TID)
	}
	return nil
}

// short reports which limit leaves less than it must.
func (b *budget) short(now *proc.Headroom) (string, bool) {
	if r := now.Least(proc.RoomMemory); r.Left < b.floor {
		return fmt.Sprintf("%s leaves %s of %s", r, mib(r.Left), mib(b.least.Left)), true
	}
	return "", false
}
