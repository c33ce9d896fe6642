// Package symbol names places: a mapping and an offset become function, file,
// line and inlined calls, or a variable. It reads symbol tables and DWARF of
// the mapped files, of separate debug files and of Go programs, and what
// just-in-time compilers leave for perf. It works on live processes, core
// files and recordings, uses no network, and says in Notes what it could not
// name.
package symbol

import (
	"os"
	"path"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// DebugDirs is where distributions put separate debug files.
var DebugDirs = []string{"/usr/lib/debug"}

// maxPlaces bounds the cached places of one module; when there are more the
// cache starts afresh.
const maxPlaces = 1 << 18

// Options say where names come from. The zero value names places of
// recordings from this machine's files.
type Options struct {
	// Target is the live process the mappings belong to, nil offline. Its
	// files are then read as it sees them, and [vdso] and the code of
	// just-in-time compilers have names too.
	Target *proc.Target
	// Open opens the file behind a mapping, when that is not Target.OpenFile:
	// proc.Core's OpenFile for a core file. When it fails, or when it and
	// Target are nil, the file at the mapping's path is taken if its build-id
	// (or, for want of one, device and inode) is the mapping's.
	Open func(*leak.Mapping) (*os.File, error)
	// Memory is read for [vdso]; nil means the target's.
	Memory leak.Memory
	// DebugDirs replaces the package's DebugDirs; they are looked up below the
	// target's root first, then on this machine.
	DebugDirs []string
}

// Symbolizer names places. Its methods may be called from several goroutines.
// It holds open files until Close.
type Symbolizer struct {
	o     Options
	cache *blockCache
	trees []tree
	root  *os.Root // the target's, nil when there is none

	mu      sync.RWMutex
	modules map[moduleKey]*module
	closed  bool
	packs   map[string]string // package by path, for Notes
}

// moduleKey is what makes mappings show the same file. Memory without a file
// is told apart by where it starts.
type moduleKey struct {
	path, buildID string
	dev, inode    uint64
	deleted       bool
	start         leak.Addr
}

// New makes a Symbolizer. It opens nothing of the target but its root
// directory.
func New(o Options) *Symbolizer {
	if o.DebugDirs == nil {
		o.DebugDirs = DebugDirs
	}
	if o.Open == nil && o.Target != nil {
		o.Open = o.Target.OpenFile
	}
	s := &Symbolizer{o: o, cache: newBlockCache(cacheBlocks), modules: map[moduleKey]*module{}}
	if o.Target != nil {
		// Without the right to look there, this machine's files still help.
		if root, err := os.OpenRoot(o.Target.Path("root")); err == nil {
			s.root = root
			s.trees = append(s.trees, rootTree{root})
		}
	}
	s.trees = append(s.trees, hostTree{})
	return s
}

// Close closes all files. The Symbolizer gives module and offset only from
// then on, for places it has not named before. It may be called twice.
func (s *Symbolizer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, m := range s.modules {
		m.close()
	}
	if s.root != nil {
		return s.root.Close()
	}
	return nil
}

// Frames names a place of code: innermost first, so that all but the last
// frame are inlined calls. The slice is never empty and belongs to the
// Symbolizer. An unknown place has Module and Offset and no Function.
func (s *Symbolizer) Frames(m leak.Mapping, f leak.Frame) []leak.StackFrame {
	mod := s.module(&m)
	mod.cacheMu.RLock()
	frames, ok := mod.places[f.Off]
	mod.cacheMu.RUnlock()
	if ok {
		return frames
	}
	frames, final := mod.frames(&m, f.Off)
	if final {
		mod.cacheMu.Lock()
		if len(mod.places) >= maxPlaces {
			clear(mod.places)
		}
		mod.places[f.Off] = frames
		mod.cacheMu.Unlock()
	}
	return frames
}

// Object names the variable, virtual table or type information at an offset
// of a mapping, as in leak.Frame.Off; delta is how many bytes after its start.
// Virtual tables of stripped programs are named from their type information.
// Offsets beyond a file's data are those of its .bss, as leak.Atlas gives them.
func (s *Symbolizer) Object(m leak.Mapping, off uint64) (name string, delta uint64, ok bool) {
	mod := s.module(&m)
	addr, ok := mod.address(&m, off)
	if !ok {
		return "", 0, false
	}
	return mod.object(addr)
}

func (s *Symbolizer) module(m *leak.Mapping) *module {
	k := moduleKey{path: m.Path, buildID: m.BuildID, dev: m.Dev, inode: m.Inode, deleted: m.Deleted}
	if !m.File() {
		k.start = m.Start
	}
	s.mu.RLock()
	mod := s.modules[k]
	s.mu.RUnlock()
	if mod != nil {
		return mod
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if mod := s.modules[k]; mod != nil {
		return mod
	}
	mod = &module{s: s, mapping: *m, name: moduleName(m), places: map[uint64][]leak.StackFrame{}}
	mod.opened, mod.closed = s.closed, s.closed
	s.modules[k] = mod
	return mod
}

// moduleName is the base name of the file, or a word in brackets.
func moduleName(m *leak.Mapping) string {
	switch {
	case m.File():
		return printable(path.Base(m.Path))
	case m.Path != "":
		return printable(m.Path)
	case m.Start == 0 && m.End == 0:
		return "[unknown]"
	}
	return "[anonymous]"
}

// printable replaces what could drive a terminal: names come from files that
// anybody may have written.
func printable(s string) string {
	bad := func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }
	if strings.IndexFunc(s, bad) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if bad(r) {
			return '?'
		}
		return r
	}, s)
}
