package probe

import (
	"bytes"
	"os"
	"sync"
	"syscall"

	"stanch/internal/leak"
	"stanch/internal/unwind"
)

// What depends on files alone is kept for the life of stanch: a test suite
// under stanch runs thousands of programs, all of which load the same libc.

// fileID names the contents of a file as far as its metadata tell. A file
// whose time cannot be told has none.
type fileID struct {
	dev, inode   uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func idOf(f *os.File) (fileID, bool) {
	info, err := f.Stat()
	if err != nil {
		return fileID{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}, false
	}
	return fileID{dev: st.Dev, inode: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}, true
}

// known is a bounded map, emptied when it is full.
type known[K comparable, V any] struct {
	mu   sync.Mutex
	most int
	m    map[K]V
}

func (k *known[K, V]) get(key K) (V, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.m[key]
	return v, ok
}

func (k *known[K, V]) put(key K, v V) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil || len(k.m) >= k.most {
		k.m = map[K]V{}
	}
	k.m[key] = v
}

// tableKey: the same file is compiled differently when it is a whole program.
type tableKey struct {
	file   fileID
	static bool
	image  string // of the vdso, which is no file
}

// knownTables are unwind tables, nil for a file that has none.
var knownTables = known[tableKey, *compiled]{most: 512}

// compiled is a table as stanch and as the target read it.
type compiled struct {
	*unwind.Table
	rows []byte
}

func compiledOf(t *unwind.Table) *compiled { return &compiled{t, t.Bytes()} }

// allocatorKey says what of a process decides how a file's allocator is seen.
type allocatorKey struct {
	file             fileID
	exe, alone, musl bool
	others           bool // the plan is for functions of libc that do not allocate
}

// knownAllocators has nil for a file without one.
var knownAllocators = known[allocatorKey, *known1]{most: 4096}

// known1 is a plan for an allocator, for a process in which its file is loaded
// at address 0.
type known1 struct {
	alloc allocator
	plan  plan
	heads map[int][]byte // by site: what stands at its function's start
}

// keep makes a plan known.
func (v *view) keep(pl *plan) {
	a := pl.alloc
	if a.key == nil {
		return
	}
	a.title() // while there is a file to look at
	k := &known1{alloc: *a, heads: map[int][]byte{}}
	k.alloc.file = nil
	k.alloc.move(-a.bias)
	k.plan = *pl
	k.plan.sites = nil
	for i, s := range pl.sites {
		if s.moved != nil {
			head, err := read(v.mem, s.moved.at, headSize)
			if err != nil {
				return
			}
			k.heads[i] = head
		}
		k.plan.sites = append(k.plan.sites, s.rebased(-a.bias))
	}
	knownAllocators.put(*a.key, k)
}

// headSize is how much of each function is compared with what is known.
const headSize = 32

// planOf gives the known plan for a, when the target's functions are as known.
func (v *view) planOf(a *allocator) (*plan, bool) {
	if a.file != nil || a.known == nil {
		return nil, false
	}
	pl := a.known.plan
	pl.alloc, pl.sites = a, nil
	pl.notes = append([]string(nil), pl.notes...)
	for i, s := range a.known.plan.sites {
		s = s.rebased(a.bias)
		if s.moved != nil {
			now, err := read(v.mem, s.moved.at, headSize)
			if err != nil || !bytes.Equal(now, a.known.heads[i]) {
				return nil, false
			}
		}
		pl.sites = append(pl.sites, s)
	}
	return &pl, true
}

// instance is the known allocator as object o of a process.
func (k *known1) instance(o *object) *allocator {
	a := k.alloc
	a.object, a.known = *o, k
	a.move(o.bias)
	return &a
}

// move adds to all addresses.
func (a *allocator) move(by uint64) {
	names, sizes, slots := map[string]uint64{}, map[uint64]uint64{}, map[uint64]string{}
	for name, at := range a.names {
		names[name] = at + by
	}
	for at, size := range a.sizes {
		sizes[at+by] = size
	}
	for at, name := range a.slots {
		slots[at+by] = name
	}
	a.names, a.sizes, a.slots = names, sizes, slots
	if a.ends.size > 0 {
		a.ends.start += by
	}
}

// rebased is the site with by added to its addresses.
func (s site) rebased(by uint64) site {
	if s.passes != 0 {
		s.passes += by
	}
	if s.moved != nil {
		d := *s.moved
		d.at += by
		d.insts = append([]inst(nil), d.insts...)
		for i := range d.insts {
			d.insts[i].at += by
		}
		s.moved = &d
	}
	return s
}

// vdsoOf reads the image of the vdso, to be compared.
func vdsoOf(mem leak.Memory, m *leak.Mapping) string {
	b, err := read(mem, uint64(m.Start), m.Size())
	if err != nil {
		return ""
	}
	return string(b)
}
