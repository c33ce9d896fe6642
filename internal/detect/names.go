package detect

import (
	"fmt"
	"hash/fnv"
	"path"
	"slices"
	"strconv"
	"strings"

	"stanch/internal/leak"
	"stanch/internal/ledger"
)

// names gives names to frames and stacks, each once.
type names struct {
	view     *ledger.View
	config   *Config
	wrappers map[string]bool
	frames   map[leak.Frame][]leak.StackFrame
	sites    map[leak.StackID]*site
	objects  map[leak.Frame]string
}

// site is a call site: a stack without its allocator frames, cut to what makes
// it the same site.
type site struct {
	key     string // build-id and offsets of the frames around the line
	nameKey string // module and functions; survives a rebuild
	place   string // build-id and offset of the line alone
	lines   string // the line and its callers in words; the key where lines are not known
	stack   []leak.StackFrame
	line    int // index of the first frame outside of libraries and wrappers
}

// siteCallers is how many callers beyond the line tell two sites apart: a
// function that makes buffers for everybody is as many sites as it has callers.
// Stacks that differ only further out are one site.
const siteCallers = 1

// nameFrames is how many functions a name key holds.
const nameFrames = 8

func newNames(v *ledger.View, c *Config) *names {
	n := &names{
		view: v, config: c, wrappers: map[string]bool{},
		frames: map[leak.Frame][]leak.StackFrame{}, sites: map[leak.StackID]*site{}, objects: map[leak.Frame]string{},
	}
	for _, w := range c.Wrappers {
		n.wrappers[plain(w)] = true
	}
	return n
}

// frame names one place; the result is never empty.
func (n *names) frame(f leak.Frame) []leak.StackFrame {
	if s, ok := n.frames[f]; ok {
		return s
	}
	m := n.view.Maps[f.Map]
	var out []leak.StackFrame
	if n.config.Name != nil {
		out = append(out, n.config.Name(f)...)
	}
	if len(out) == 0 {
		out = []leak.StackFrame{{Offset: f.Off}}
	}
	for i := range out {
		if out[i].Module == "" {
			out[i].Module = moduleName(m)
		}
		if out[i].BuildID == "" {
			out[i].BuildID = m.BuildID
		}
		if out[i].Offset == 0 {
			out[i].Offset = f.Off
		}
	}
	n.frames[f] = out
	return out
}

func moduleName(m leak.Mapping) string {
	if m.Path == "" {
		return "anonymous memory"
	}
	return path.Base(m.Path)
}

// stack gives the site of a stack; nil for none.
func (n *names) stack(id leak.StackID) *site {
	if s, ok := n.sites[id]; ok {
		return s
	}
	frames := n.view.Stacks[id]
	if len(frames) == 0 {
		return nil
	}
	s := &site{}
	for _, f := range frames {
		s.stack = append(s.stack, n.frame(f)...)
	}
	inner := 0
	for inner < len(s.stack)-1 && (allocator(plain(s.stack[inner].Function)) || systemCall(&s.stack[inner])) {
		inner++
	}
	s.stack = s.stack[inner:]
	s.line = slices.IndexFunc(s.stack, func(f leak.StackFrame) bool { return !n.skipped(&f) })
	if s.line < 0 {
		s.line = outermost(s.stack)
	}
	s.keys()
	n.sites[id] = s
	return s
}

// skipped reports whether a frame is not the line to look at.
func (n *names) skipped(f *leak.StackFrame) bool {
	name := plain(f.Function)
	return systemModule(f.Module) || goLibrary(name) || wrappers[name] || n.wrappers[name] || library(name) || allocator(name)
}

func (s *site) keys() {
	line := &s.stack[s.line]
	h := fnv.New64a()
	var last string
	for i := range s.stack[:min(len(s.stack), s.line+1+siteCallers)] {
		// Inlined frames share one place.
		if place := where(&s.stack[i]); place != last {
			fmt.Fprintln(h, place)
			last = place
		}
	}
	id := line.BuildID
	if id == "" {
		id = line.Module
	}
	s.key = fmt.Sprintf("%.8s:%x:%08x", id, line.Offset, uint32(h.Sum64()>>32))
	s.place = where(line)
	if s.lines = linesOf(s.stack, s.line); s.lines == "" {
		s.lines = s.key
	}
	parts := []string{line.Module}
	for i := s.line; i < len(s.stack) && len(parts) <= nameFrames; i++ {
		name := functionName(&s.stack[i])
		if starts[name] {
			break
		}
		parts = append(parts, name)
	}
	s.nameKey = strings.Join(parts, ":")
}

// starts are the functions of libc that call main and the functions of
// threads. Their names change between versions.
var starts = words(`__libc_start_main __libc_start_main_impl __libc_start_main@@GLIBC_2.34 __libc_start_call_main _start
	start_thread clone clone3 __clone __clone3 generic_start_main`)

// beyond names the first caller of a stack that is not part of its site.
func (s *site) beyond() string {
	i := s.line + 1 + siteCallers
	if i >= len(s.stack) {
		return ""
	}
	if name := functionName(&s.stack[i]); !starts[name] {
		return name
	}
	return ""
}

// where is a frame's place that survives ASLR.
func where(f *leak.StackFrame) string {
	id := f.BuildID
	if id == "" {
		id = f.Module
	}
	return id + "+" + strconv.FormatUint(f.Offset, 16)
}

// functionName is a function's plain name, or its place when it has none.
func functionName(f *leak.StackFrame) string {
	if f.Function == "" {
		return fmt.Sprintf("%s+%#x", f.Module, f.Offset)
	}
	return plain(f.Function)
}

// short names the line: "parse_reply net.c:88".
func (s *site) short() string {
	f := &s.stack[s.line]
	if f.File == "" || f.Line == 0 {
		return functionName(f)
	}
	return fmt.Sprintf("%s %s:%d", functionName(f), path.Base(f.File), f.Line)
}

// object names a data symbol; "" when there is none.
func (n *names) object(f leak.Frame) string {
	if n.config.Object == nil || f == (leak.Frame{}) {
		return ""
	}
	if s, ok := n.objects[f]; ok {
		return s
	}
	s := n.config.Object(f)
	n.objects[f] = s
	return s
}

// class gives the C++ class whose vtable or type information a block's first
// word points to.
func (n *names) class(f leak.Frame) (string, bool) {
	object := n.object(f)
	for _, prefix := range []string{"vtable for ", "typeinfo for ", "VTT for ", "construction vtable for "} {
		if class, ok := strings.CutPrefix(object, prefix); ok {
			return className(class), true
		}
	}
	return "", false
}

// className shortens what a compiler calls a class: anonymous namespaces go,
// and the block that make_shared makes is called after its object.
func className(class string) string {
	class = strings.ReplaceAll(class, "(anonymous namespace)::", "")
	// libstdc++ (bits/shared_ptr_base.h) and libc++ (__memory/shared_ptr.h).
	for _, holder := range []string{"std::_Sp_counted_ptr_inplace<", "std::_Sp_counted_deleter<", "std::_Sp_counted_ptr<", "std::__1::__shared_ptr_emplace<", "std::__1::__shared_ptr_pointer<"} {
		if args, ok := strings.CutPrefix(class, holder); ok {
			depth := 0
			for i := range len(args) {
				switch args[i] {
				case '<', '(':
					depth++
				case '>', ')':
					depth--
				}
				if depth < 0 || depth == 0 && args[i] == ',' {
					return "shared " + strings.TrimRight(args[:i], " *")
				}
			}
		}
	}
	return class
}

// kind says in words what a group's blocks are, as far as that may be told.
func (n *names) kind(g *ledger.Group) string {
	switch {
	case g.Shape == leak.ShapeType:
		if class, ok := n.class(g.Type); ok {
			return class + " object"
		}
		if object := n.object(g.Type); object != "" {
			return "starts with a pointer to " + object
		}
		m := n.view.Maps[g.Type.Map]
		return fmt.Sprintf("starts with a pointer into %s+%#x", moduleName(m), g.Type.Off)
	case g.Magic != 0 && int(g.Magic) < len(leak.Magics):
		return "starts with " + leak.Magics[g.Magic].Name
	}
	return g.Shape.String()
}
