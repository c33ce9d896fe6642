package fdcalls

import (
	"errors"
	"os"
	"strconv"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// table is a table of descriptors: of one process, or of several that share it
// (clone with CLONE_FILES).
//
// A close is booked when it begins and an open when it has ended. Within one
// table the books are right then whatever the order in which threads come to
// stand: a number is free in them before the kernel can give it out again.
type table struct {
	owners map[leak.ProcID]bool
	open   map[int]opening
	went   map[int]opening // who had opened what was last closed under a number
	inside map[int]inside  // calls that have begun, by thread
	// blind are numbers that a close found in use though the books had nothing
	// there: another thread's call must be about to end that opened it.
	blind map[int]bool
	// doubt says that a range was closed beside calls that are still inside.
	doubt bool
}

// inside is a call that will have a result.
type inside struct {
	call   *proc.FDCall
	of     leak.ProcID
	began  time.Duration
	target int // of FDReplaces: the number that is replaced; of FDCloses: that is closed
}

func newTable(id leak.ProcID) *table {
	return &table{
		owners: map[leak.ProcID]bool{id: true}, open: map[int]opening{}, went: map[int]opening{},
		inside: map[int]inside{}, blind: map[int]bool{},
	}
}

// leave takes a process away that has ended, or has a table of its own now.
func (tab *table) leave(id leak.ProcID) {
	delete(tab.owners, id)
	for tid, in := range tab.inside {
		if in.of == id {
			delete(tab.inside, tid)
		}
	}
}

// calm forgets doubts when no call is under way that could raise them.
func (tab *table) calm() {
	if len(tab.inside) == 0 {
		clear(tab.blind)
		tab.doubt = false
	}
}

// replacing reports whether a call is under way that may have changed what is
// open under a number, without the books knowing.
func (tab *table) replacing(num int) bool {
	for _, in := range tab.inside {
		if in.call.Does == proc.FDReplaces && in.target == num {
			return true
		}
	}
	return false
}

// opener says who opened what a new process has open under a number, as far as
// its parent's books tell; unknown when a call that may have done it is still
// under way.
func (tab *table) opener(num int) opening {
	o, open := tab.open[num]
	if !open && len(tab.inside) == 0 {
		o = tab.went[num] // closed by now, or about to be
	}
	if tab.replacing(num) {
		o = opening{}
	}
	return o
}

// numbers lists the open descriptors of a process.
func numbers(t *proc.Target) (map[int]bool, error) {
	dir, err := os.Open(t.Path("fd"))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	open := make(map[int]bool, len(names))
	for _, name := range names {
		if num, err := strconv.Atoi(name); err == nil {
			open[num] = true
		}
	}
	return open, nil
}

// isOpen reports whether a number is open now.
func isOpen(t *proc.Target, num int) bool {
	_, err := os.Lstat(t.Path("fd", strconv.Itoa(num)))
	return !errors.Is(err, os.ErrNotExist)
}
