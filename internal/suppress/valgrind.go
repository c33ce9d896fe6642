package suppress

import (
	"strconv"
	"strings"

	"stanch/internal/leak"
)

// block is one Valgrind suppression.
type block struct {
	name    string
	at      string
	foreign bool   // of another tool, or of another kind of error
	free    bool   // of invalid frees, else of leaks
	useless string // why it cannot match anything here; "" when it can
	kinds   map[string]bool
	frames  []location
}

// location is one line of a block that stands for a frame.
type location struct {
	kind byte     // 'f'unction, 'o'bject, 's'ource line, '.' any number of frames
	any  []string // patterns, one of which matches
	raw  string   // the pattern as it is written
	line int      // of a source; 0 for any
}

// leakKinds are the words of match-leak-kinds.
var leakKinds = []string{"definite", "indirect", "possible", "reachable"}

// block reads the lines up to the closing brace.
func (p *Parser) block(in *lines) (block, error) {
	var b block
	start := in.at()
	unclosed := func() error {
		return in.errorf("the file ends inside the suppression that begins at %s; close it with a line }", start)
	}
	if !in.next() {
		return b, unclosed()
	}
	b.name, b.at = in.text, in.at()
	if b.name == "}" {
		return b, in.errorf("a suppression needs a name, a line such as Memcheck:Leak, and frames")
	}
	if !in.next() {
		return b, unclosed()
	}
	tools, kind, ok := strings.Cut(in.text, ":")
	if !ok || tools == "" || kind == "" {
		return b, in.errorf("%s stands where the kind of error belongs; write Memcheck:Leak below the name", quote(in.text))
	}
	kind = strings.TrimSpace(kind)
	b.free = kind == "Free"
	if kind != "Leak" && !b.free || !has(tools, "Memcheck") {
		b.foreign = true
		for in.next() {
			if in.text == "}" {
				return b, nil
			}
		}
		return b, unclosed()
	}
	for in.next() {
		if in.text == "}" {
			return b, b.complete(in)
		}
		if kinds, ok := strings.CutPrefix(in.text, "match-leak-kinds:"); ok {
			if err := b.leakKinds(in, kinds); err != nil {
				return b, err
			}
			continue
		}
		l, err := p.location(in, &b)
		if err != nil {
			return b, err
		}
		b.frames = append(b.frames, l)
	}
	return b, unclosed()
}

// has reports whether a list of words with commas between holds one.
func has(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(w) == word {
			return true
		}
	}
	return false
}

// complete checks a block at its end.
func (b *block) complete(in *lines) error {
	for _, l := range b.frames {
		if l.kind != '.' {
			return nil
		}
	}
	return in.errorf("the suppression %s names no frame; write at least one of fun:GLOB, obj:GLOB, src:FILE:LINE", quote(b.name))
}

func (b *block) leakKinds(in *lines, words string) error {
	b.kinds = map[string]bool{}
	for w := range strings.SplitSeq(words, ",") {
		switch w = strings.TrimSpace(w); {
		case w == "all":
			for _, k := range leakKinds {
				b.kinds[k] = true
			}
		case w == "none":
		case has(strings.Join(leakKinds, ","), w):
			b.kinds[w] = true
		default:
			return in.errorf("%s is no kind of leak; match-leak-kinds: takes definite, indirect, possible, reachable, all or none", quote(w))
		}
	}
	return nil
}

// location reads a line that stands for a frame.
func (p *Parser) location(in *lines, b *block) (location, error) {
	if in.text == "..." {
		return location{kind: '.'}, nil
	}
	kind, pattern, _ := strings.Cut(in.text, ":")
	pattern = strings.TrimSpace(pattern)
	l := location{raw: pattern, any: []string{pattern}}
	switch {
	case pattern == "":
	case kind == "fun":
		l.kind = 'f'
		if name, ok := p.readable(pattern); !ok && (len(b.frames) > 0 || !allocates(pattern)) {
			b.useless = "the mangled name " + pattern + " cannot be compared with the readable names of a report; write the function without wildcards"
		} else if name != pattern {
			l.any = append(l.any, name)
		}
	case kind == "obj":
		l.kind = 'o'
		// Reports know the name of a module without its directory.
		base := pattern[strings.LastIndexByte(pattern, '/')+1:]
		if base != pattern && strings.Trim(base, "*?") == "" {
			b.useless = "obj:" + pattern + " names a directory, and a report knows modules by their names alone"
		}
		l.any = []string{base}
	case kind == "src":
		l.kind = 's'
		if file, number, ok := cutLast(pattern, ':'); ok {
			n, err := strconv.Atoi(number)
			if err != nil || n < 1 {
				return l, in.errorf("%s is no line number; write src:FILE or src:FILE:LINE", quote(number))
			}
			l.any, l.line = []string{file}, n
		}
	}
	if l.kind == 0 {
		return l, in.errorf("%s is no frame; write fun:GLOB, obj:GLOB, src:FILE:LINE or ..., and end the suppression with }", quote(in.text))
	}
	return l, nil
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// readable is the name that a report gives to a function of a Valgrind file,
// where C++ names are mangled. Behind a mangled name that is complete up to a *
// anything may follow; false when it is not.
func (p *Parser) readable(pattern string) (string, bool) {
	i := strings.IndexAny(pattern, "*?")
	if i < 0 {
		return p.Readable(pattern), true
	}
	if !strings.HasPrefix(pattern, "_Z") {
		// A version or the mark of a function's part, which reports leave out.
		for _, mark := range []string{"@", ".part.", ".isra.", ".constprop.", ".cold"} {
			if head, _, ok := strings.Cut(pattern, mark); ok && head != "" {
				return head, true
			}
		}
		return pattern, true
	}
	head := pattern[:i]
	for _, end := range []string{"", "v", "Ev", "E"} {
		if s := p.Readable(head + end); s != head+end {
			return s + "*", true
		}
	}
	return pattern, false
}

// match reports whether the block suppresses a finding.
func (b *block) match(f *leak.Finding) bool {
	switch {
	case len(f.Stack) == 0:
		return false
	case b.free && f.Rule != invalidFree, !b.free && !leaks(f):
		return false
	case b.kinds != nil && !b.kinds[kind(f)]:
		return false
	}
	if begins(b.frames, f.Stack, true) {
		return true
	}
	// Valgrind's stacks begin with the allocator, which reports leave out.
	for i := range b.frames {
		if l := &b.frames[i]; l.kind == '.' || !l.allocator(i == 0) {
			return false
		}
		if begins(b.frames[i+1:], f.Stack, false) {
			return true
		}
	}
	return false
}

// kind is what Valgrind would call the blocks of a finding.
func kind(f *leak.Finding) string {
	count, indirect := f.Count, f.Indirect
	if b := f.BeforeAttach; b != nil {
		count += b.Count
		indirect += b.IndirectCount
	}
	switch {
	case f.Rule != "heap.unreachable":
		return "reachable"
	case indirect > 0 && indirect >= count:
		return "indirect"
	}
	return "definite"
}

// begins reports whether a stack begins with what the frames describe. When
// they are all of a suppression, the first one of wildcards alone stands for
// the allocator, which is not in the stack.
func begins(frames []location, stack []leak.StackFrame, all bool) bool {
	if all && len(frames) > 0 && frames[0].kind != '.' && frames[0].wild() {
		return false
	}
	// As in glob: the last "..." seen, and where what follows it was tried.
	dots, from := -1, 0
	p, i := 0, 0
	for p < len(frames) {
		switch {
		case frames[p].kind == '.':
			dots, from = p, i
			p++
		case i < len(stack) && frames[p].match(&stack[i]):
			p++
			i++
		case dots >= 0 && from < len(stack):
			from++
			p, i = dots+1, from
		default:
			return false
		}
	}
	return true
}

// match reports whether a frame is at the location.
func (l *location) match(f *leak.StackFrame) bool {
	for _, pattern := range l.any {
		switch {
		case l.kind == 'f' && f.Function == "":
			if glob(pattern, "???", true) { // Valgrind's name for those
				return true
			}
		case l.kind == 'f' && function(pattern, f, true),
			l.kind == 'f' && f.Inlined && inlined(pattern, f.Function),
			l.kind == 'o' && glob(pattern, f.Module, true),
			l.kind == 's' && (l.line == 0 || l.line == f.Line) && source(pattern, f.File, true):
			return true
		}
	}
	return false
}

// inlined matches the name of an inlined function, which Valgrind has from
// the debug information: without namespace and class, and with template
// arguments in the compiler's spelling.
func inlined(pattern, name string) bool {
	return glob(last(plain(pattern, false)), last(plain(name, false)), true)
}

// last cuts the namespaces and classes off a plain name.
func last(name string) string {
	head, _, _ := strings.Cut(name, "operator")
	if i := strings.LastIndex(head, "::"); i >= 0 {
		return name[i+len("::"):]
	}
	return name
}

// wild reports whether a location says nothing of the frame.
func (l *location) wild() bool { return l.line == 0 && strings.Trim(l.raw, "*?") == "" }

// allocator reports whether a location may stand for a frame that reports
// leave out; one that may stand for anything does so only as the first.
func (l *location) allocator(first bool) bool {
	switch {
	case l.wild():
		return first
	case l.kind == 'f':
		return allocates(l.raw) || !first && library(l.any[len(l.any)-1])
	case l.kind == 'o':
		return glob(l.any[0], "vgpreload_memcheck-amd64-linux.so", true)
	}
	return false
}

// allocators are the functions that reports cut off the inner end of a stack,
// under the names that Valgrind gives to them.
var allocators = strings.Fields(`
	malloc calloc realloc reallocarray memalign posix_memalign aligned_alloc valloc pvalloc
	strdup strndup wcsdup asprintf vasprintf __strdup __strndup __vasprintf_internal __asprintf_chk __vasprintf_chk
	__builtin_new __builtin_vec_new
	_Znwm _Znam _ZnwmRKSt9nothrow_t _ZnamRKSt9nothrow_t _ZnwmSt11align_val_t _ZnamSt11align_val_t
	_ZnwmSt11align_val_tRKSt9nothrow_t _ZnamSt11align_val_tRKSt9nothrow_t
	_Znwj _Znaj
	free cfree _ZdlPv _ZdaPv _ZdlPvm _ZdaPvm _ZdlPvSt11align_val_t _ZdaPvSt11align_val_t _ZdlPvmSt11align_val_t _ZdaPvmSt11align_val_t
	__builtin_delete __builtin_vec_delete`)

// library reports whether a function is one of the C++ library's between a
// container and operator new, which reports leave out too.
func library(name string) bool {
	name = plain(name, false)
	for _, p := range []string{"std::allocator", "std::__new_allocator", "std::__allocat", "std::pmr::", "__gnu_cxx::new_allocator", "__gnu_cxx::__alloc_traits"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	switch last(name) {
	case "allocate", "_S_allocate", "_M_allocate", "_M_get_node", "_M_allocate_node", "_M_allocate_map", "__allocate_guarded", "__allocate_guarded_obj":
		return true
	}
	return false
}

func allocates(pattern string) bool {
	for _, name := range allocators {
		if glob(pattern, name, true) {
			return true
		}
	}
	return strings.HasPrefix(pattern, "operator new")
}
