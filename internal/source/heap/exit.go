package heap

import (
	"context"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
)

// ScanExit looks at the heap of a process that stands still at its end, all of
// its threads too (ptrace.Exiting): no snapshot is needed, and since nothing is
// on its way any more, this one look proves. The threads are those that the
// process ended with.
//
// A thread that was killed in the middle of the allocator's work holds its
// arena's lock, or has left its lists half done; that arena is then left out
// and named, as in a Scan.
func ScanExit(ctx context.Context, t *proc.Target, threads []ptrace.Thread, o Options, sink leak.Sink) error {
	mem, err := t.Mem()
	if err != nil {
		return err
	}
	defer func() { _ = mem.Close() }() // it was only read
	maps, err := t.Maps()
	if err != nil {
		return err
	}
	img := &Image{
		Mem: mem, Maps: maps,
		OpenFile: func(m *leak.Mapping) (File, error) { return t.OpenFile(m) },
		Resident: func(r leak.Range) ([]leak.Range, error) { return pagesOf(t, r) },
	}
	if o.Exclude != nil {
		img.Exclude = o.Exclude()
	}
	for i := range threads {
		th := threadOf(threads[i].TID, &threads[i].Regs)
		th.InSyscall = threads[i].InSyscall
		img.Threads = append(img.Threads, th)
	}
	kernel, err := newKernelState(t)
	if err != nil {
		return err
	}
	if img.Kernel, img.PendingIO, err = kernel.read(maps); err != nil {
		return err
	}
	r, err := Analyze(ctx, img, o)
	if err != nil {
		return err
	}
	defer r.Close()
	r.Doubts = append(r.Doubts, kernel.doubts...)
	look := Look{N: 1, Proc: t.ID, Final: true}
	if o.Clock != nil {
		look.At = o.Clock.Now()
	}
	return r.Emit(sink, look)
}
