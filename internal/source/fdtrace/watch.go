package fdtrace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

const (
	readEvery   = 20 * time.Millisecond
	resyncEvery = 3 * time.Second
)

// Watch says to sink what happens to the descriptors of the target, until ctx
// ends or, unless a cgroup is watched, the target exits; of a tree, the last of
// its processes. What happened before is said before it returns. It calls Start
// unless that was done, and can be called once.
func (t *Tracer) Watch(ctx context.Context, target *proc.Target, sink leak.Sink) error {
	if t.books == nil {
		if err := t.Start(target); err != nil {
			return err
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer hurry()()
	defer close(t.ended)
	b := t.books
	b.sink = sink
	before := threadTime()
	defer func() { b.cpu.Add(int64(threadTime() - before)) }()
	synced := bootNow()
	for ctx.Err() == nil && !b.over() {
		now, err := t.read(time.Now().Add(readEvery))
		if err != nil {
			return err
		}
		if now > synced+uint64(resyncEvery) {
			synced = now
			b.resync()
			b.sayFailures()
		}
		b.tick(now)
		if err := t.answer(); err != nil {
			return err
		}
	}
	return t.finish()
}

// finish says everything that has happened until now.
func (t *Tracer) finish() error {
	b := t.books
	// Twice, so that what came unseen has been seen for long enough; and twice
	// more where a listing has first to find what was lost.
	rounds := 2
	for n := 0; n < rounds; n++ {
		if b.told > 0 {
			rounds = 4
		}
		b.resync()
		end := bootNow() + grace + uint64(suspicion)
		for now := uint64(0); now < end; {
			var err error
			if now, err = t.read(time.Now().Add(readEvery)); err != nil {
				return err
			}
			b.tick(now)
		}
	}
	for _, table := range b.tables {
		b.settleTable(table)
	}
	b.sayFailures()
	b.sayUses()
	b.gaps()
	return nil
}

// read takes what is in the ring and waits until then for more. It gives the
// time up to which all events have been taken.
func (t *Tracer) read(until time.Time) (uint64, error) {
	t.reader.SetDeadline(until)
	var rec ringbuf.Record
	var e event
	now := bootNow()
	for n := 1; ; n++ {
		if n%64 == 0 {
			now = bootNow()
		}
		// What the ring holds at the deadline is still read.
		err := t.reader.ReadInto(&rec)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return now, nil
		}
		if err != nil {
			return 0, fmt.Errorf("read events: %w", err)
		}
		tail, err := e.decode(rec.RawSample)
		if err != nil {
			return 0, err
		}
		t.books.event(&e, tail)
		if n%256 == 0 && time.Now().After(until) {
			return e.Exit, nil
		}
	}
}

// over reports that all have exited who are to be watched.
func (b *books) over() bool {
	switch {
	case b.t.o.Scope == Cgroup || b.target.tgid == 0:
		return false
	case b.t.o.Scope == Tree:
		return len(b.live) == 0
	}
	return b.live[b.target.tgid] != b.target
}

// tick does what waits for its time. All events up to now have been taken.
func (b *books) tick(now uint64) {
	b.dropped()
	b.ripe(now)
	b.compareAll(now)
	n := 0
	for n < len(b.due) && b.due[n].at <= now {
		d := b.due[n]
		n++
		s := d.table.slots[d.num]
		if s == nil {
			continue
		}
		if at := s.last() + grace; at > now {
			b.due = append(b.due, dueSlot{d.table, d.num, at})
			continue
		}
		s.due = false
		b.say(d.table, d.num, s)
	}
	b.due = append(b.due[:0], b.due[n:]...)
}

// hurry lets the calling thread run before others where that is allowed, since
// events are lost while it waits, and gives the way back.
func hurry() (back func()) {
	const ahead = -10
	if unix.Setpriority(unix.PRIO_PROCESS, 0, ahead) != nil {
		return func() {}
	}
	return func() { _ = unix.Setpriority(unix.PRIO_PROCESS, 0, 0) }
}

// threadTime is the CPU time of the calling thread.
func threadTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) // cannot fail with a valid pointer
	return time.Duration(ts.Nano())
}
