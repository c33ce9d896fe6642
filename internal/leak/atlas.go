package leak

import (
	"sort"
	"sync"
)

// Atlas gives mappings and stacks their IDs, one space for all sources of an
// observation, and says each to the sink once before it is used. Its methods
// may be called from several goroutines.
type Atlas struct {
	buildID func(*Mapping) string
	now     []Mapping // the current view, sorted by address, IDs set
	*given
}

// given are the IDs that the atlases of one observation share.
type given struct {
	mu      sync.Mutex
	sink    Sink
	known   map[mapKey]MapID
	stacks  map[string]StackID
	nextMap MapID
}

// mapKey is what makes two lines of /proc/PID/maps the same mapping. The end
// is left out: a heap that grows stays the same mapping.
type mapKey struct {
	start   Addr
	offset  uint64
	dev     uint64
	inode   uint64
	path    string
	deleted bool
}

// NewAtlas makes an empty atlas that says new mappings and stacks to sink.
// buildID, when not nil, is asked once for each new file mapping.
func NewAtlas(sink Sink, buildID func(*Mapping) string) *Atlas {
	return &Atlas{buildID: buildID, given: &given{sink: sink, known: map[mapKey]MapID{}, stacks: map[string]StackID{}}}
}

// Beside makes an atlas of another process of the same observation: it has a
// view of its own, and gives IDs from the same space. What both have mapped
// alike, as after a fork, has one ID.
func (a *Atlas) Beside(buildID func(*Mapping) string) *Atlas {
	return &Atlas{buildID: buildID, given: a.given}
}

// Update makes maps, sorted by address, the current view. The slice is copied.
// Anonymous memory behind a file's data counts as the file's (its .bss).
// Only mappings that something refers to are said to the sink.
func (a *Atlas) Update(maps []Mapping) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now = append(a.now[:0:0], maps...)
	for i := range a.now {
		a.now[i].ID = 0
		if i > 0 {
			a.now[i].followData(&a.now[i-1])
		}
	}
}

// followData makes the anonymous memory directly behind a file's writable data
// part of that file: it is the .bss of the program or library, and its
// variables are named by offsets beyond the file's end.
func (m *Mapping) followData(before *Mapping) {
	if m.Path != "" || m.Inode != 0 || !m.Write || m.Start != before.End || !before.File() || !before.Write {
		return
	}
	m.Path, m.Dev, m.Inode, m.Deleted, m.BuildID = before.Path, before.Dev, before.Inode, before.Deleted, before.BuildID
	m.Offset = before.Offset + before.Size()
}

// Frame gives the place of an address in the current view; the zero Frame when
// no mapping holds it. The caller subtracts one from a return address first.
func (a *Atlas) Frame(addr Addr) Frame {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := sort.Search(len(a.now), func(i int) bool { return a.now[i].End > addr })
	if i == len(a.now) || a.now[i].Start > addr {
		return Frame{}
	}
	m := &a.now[i]
	if m.ID == 0 {
		a.name(m)
	}
	return m.Frame(addr)
}

// name finds or gives m's ID, and says a new one to the sink.
func (a *Atlas) name(m *Mapping) {
	k := mapKey{m.Start, m.Offset, m.Dev, m.Inode, m.Path, m.Deleted}
	if id, ok := a.known[k]; ok {
		m.ID = id
		return
	}
	a.nextMap++
	m.ID = a.nextMap
	a.known[k] = m.ID
	if a.buildID != nil && m.File() && m.BuildID == "" {
		m.BuildID = a.buildID(m)
	}
	a.sink.Map(*m)
}

// Stack gives frames, innermost first, their ID, and says a new stack to the
// sink. The slice is copied. No frames means StackID 0.
func (a *Atlas) Stack(frames []Frame) StackID {
	if len(frames) == 0 {
		return 0
	}
	key := make([]byte, 0, len(frames)*12)
	for _, f := range frames {
		for s := 0; s < 32; s += 8 {
			key = append(key, byte(f.Map>>s))
		}
		for s := 0; s < 64; s += 8 {
			key = append(key, byte(f.Off>>s))
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if id, ok := a.stacks[string(key)]; ok {
		return id
	}
	id := StackID(len(a.stacks) + 1)
	a.stacks[string(key)] = id
	a.sink.Stack(id, append([]Frame(nil), frames...))
	return id
}
