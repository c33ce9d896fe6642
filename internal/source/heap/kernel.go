package heap

import (
	"errors"
	"fmt"
	"strings"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// kernelState collects what the kernel holds for a process. Its descriptors are
// listed before the process is stopped, since that may take long; what they
// hold is read while it stands still.
type kernelState struct {
	target *proc.Target
	epolls []int
	rings  []int
	doubts []string
}

// newKernelState lists the descriptors that hold words.
func newKernelState(t *proc.Target) (*kernelState, error) {
	fds, err := t.Descriptors()
	if err != nil {
		return nil, err
	}
	k := &kernelState{target: t}
	for i := range fds {
		switch fds[i].Kind {
		case "eventpoll":
			k.epolls = append(k.epolls, fds[i].Num)
		case "io_uring":
			k.rings = append(k.rings, fds[i].Num)
		}
	}
	return k, nil
}

// read reads the words, and whether requests may be in flight of which nobody
// can see the pointers.
func (k *kernelState) read(maps []leak.Mapping) (words []KernelWord, pending bool, err error) {
	for _, fd := range k.epolls {
		info, err := k.target.FDInfo(fd)
		if err != nil {
			if e := k.gone(err); e != nil {
				return nil, false, e
			}
			continue
		}
		for _, w := range info.Epoll {
			words = append(words, KernelWord{w.Data, "epoll"})
		}
	}
	for _, fd := range k.rings {
		info, err := k.target.FDInfo(fd)
		if err != nil {
			if e := k.gone(err); e != nil {
				return nil, false, e
			}
			continue
		}
		r := info.IOUring
		if r == nil || !r.Known || r.Polls > 0 || r.InFlight != 0 {
			pending = true
		}
		if r != nil {
			for _, w := range r.Words {
				words = append(words, KernelWord{w, "ring"})
			}
		}
	}
	timers, err := k.target.Timers()
	switch {
	case errors.Is(err, proc.ErrUnsupported):
		k.doubt("the kernel does not tell POSIX timers (built without CONFIG_CHECKPOINT_RESTORE); what only they point to may be called lost")
	case err != nil:
		return nil, false, fmt.Errorf("timers: %w", err)
	}
	for _, t := range timers {
		words = append(words, KernelWord{t.Value, "timer"})
	}
	for i := range maps {
		// The kernel maps the ring of each AIO context (fs/aio.c). How many
		// requests are in flight it does not tell.
		pending = pending || strings.HasPrefix(maps[i].Path, "/[aio]")
	}
	return words, pending, nil
}

// gone is nil when only the descriptor was closed meanwhile.
func (k *kernelState) gone(err error) error {
	if errors.Is(err, proc.ErrGone) && k.target.Check() == nil {
		return nil
	}
	return err
}

func (k *kernelState) doubt(text string) {
	for _, d := range k.doubts {
		if d == text {
			return
		}
	}
	k.doubts = append(k.doubts, text)
}
