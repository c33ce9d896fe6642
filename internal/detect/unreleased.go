package detect

import (
	"fmt"
	"slices"
	"strings"

	"stanch/internal/leak"
)

// Mappings reports memory that a program maps itself and does not unmap.
var Mappings = &Detector{
	Name: "mapping.unreleased",
	Doc:  "memory mappings that were not unmapped",
	Run:  func(p *Pass) { unreleased(p, leak.KindMapping) },
}

// Threads reports threads that nobody joined or detached.
var Threads = &Detector{
	Name: "thread.unjoined",
	Doc:  "threads that were neither joined nor detached",
	Run:  func(p *Pass) { unreleased(p, leak.KindThread) },
}

// Pools reports blocks of a program's own allocator that were not given back.
var Pools = &Detector{
	Name: "pool.unreleased",
	Doc:  "blocks of the program's own allocators that were not given back",
	Run:  func(p *Pass) { unreleased(p, leak.KindPool) },
}

// The most sites of a kind that are reported one by one, and how many mappings
// of a line are reported without being asked for.
const (
	maxUnreleased = 5
	leastMappings = 2
)

// unreleased reports by site what is held at the exit, as a note: much is meant
// to be held as long as the program lives, and nobody looked for pointers to
// it. During a watch it reports what grew all the time.
func unreleased(p *Pass, kind leak.Kind) {
	sites := holdings(p, kind)
	if p.Proc.Ended() {
		// A line that maps once, and for good, is how programs keep memory.
		if kind == leak.KindMapping && !p.Config.Reachable {
			sites = slices.DeleteFunc(sites, func(h *holding) bool { return h.n < leastMappings })
		}
		for _, h := range most(sites, maxUnreleased) {
			f := h.finding()
			f.Title = fmt.Sprintf("%s from %s %s", f.What, h.who(), unreleasedWords[kind])
			f.Evidence = []string{unreleasedEvidence[kind]}
			p.Report(f)
		}
		return
	}
	n := 0
	for _, h := range sites {
		if f, ok := h.growth(p); ok && n < maxUnreleased {
			n++
			p.Report(f)
		}
	}
}

// What stands in titles and evidence. Nothing here says "leak".
var (
	unreleasedWords = map[leak.Kind]string{
		leak.KindMapping: "were not unmapped",
		leak.KindThread:  "were neither joined nor detached",
		leak.KindPool:    "were not given back",
	}
	unreleasedEvidence = map[leak.Kind]string{
		leak.KindMapping: "held: until it exited; whether a pointer still led to them was not examined",
		leak.KindThread:  "held: until it exited; a thread that ended and was not joined keeps its stack",
		leak.KindPool:    "held: until it exited; whether a pointer still led to them was not examined",
	}
	unreleasedAdvice = map[leak.Kind]string{
		leak.KindMapping: "find who should unmap what %s maps",
		leak.KindThread:  "join or detach what %s starts: each keeps its stack until then",
		leak.KindPool:    "find who should give back what %s takes",
	}
)

// growth makes a finding of a site that holds more in every third of a watch;
// the probe saw all of it come, and nothing of it go.
func (h *holding) growth(p *Pass) (leak.Finding, bool) {
	window := p.View.End - max(p.Proc.ProbeAt, 0)
	all := h.thirds[0] + h.thirds[1] + h.thirds[2]
	if h.site == nil || window < trendTime || all < leastBlocks {
		return leak.Finding{}, false
	}
	for _, n := range h.thirds {
		if n*6 < all {
			return leak.Finding{}, false
		}
	}
	f := h.finding()
	f.Severity = leak.SeverityGrowth
	f.Title = fmt.Sprintf("%s more %s from %s after %s", leak.FormatCount(f.Count), nounOf(h.kind), h.who(), leak.FormatDuration(window))
	if f.Rate = eventRate(h.n, h.bytes, window); h.bytes == 0 {
		f.Rate.BytesPerHourLow, f.Rate.BytesPerHourHigh = nil, nil
	}
	f.Evidence = []string{fmt.Sprintf("seen: +%s, +%s and +%s in the three thirds of the watch are still held", number(float64(h.thirds[0])), number(float64(h.thirds[1])), number(float64(h.thirds[2])))}
	if lostEvents(p.View) {
		f.Evidence = append(f.Evidence, "weaker: events were missed, so some may have been released unseen")
	}
	f.Advice = []string{fmt.Sprintf(unreleasedAdvice[h.kind], h.site.short())}
	return f, true
}

func nounOf(kind leak.Kind) string {
	switch kind {
	case leak.KindMapping:
		return "mappings"
	case leak.KindThread:
		return "threads"
	case leak.KindPool:
		return "pool blocks"
	}
	return "blocks"
}

// asked reports whether the program itself asked for a thing. The C library
// maps memory for its allocator, for the stacks of threads and for what it
// loads, and starts threads of its own, as other allocators do; that is not the
// program's to release.
func asked(p *Pass, kind leak.Kind, id leak.StackID, s *site) bool {
	calls := mappingCalls
	switch {
	case s == nil:
		return true
	case kind == leak.KindThread:
		calls = threadCalls
	case kind != leak.KindMapping:
		return true
	}
	var all []leak.StackFrame
	for _, f := range p.View.Stacks[id] {
		all = append(all, p.names.frame(f)...)
	}
	line := len(all) - len(s.stack) + s.line
	for i := range all[:line+1] {
		name := plain(all[i].Function)
		inside := cLibrary(all[i].Module) || kind == leak.KindMapping && (systemModule(all[i].Module) || allocators[name])
		if inside && !calls[name] {
			return false
		}
	}
	return true
}

// The functions of libc by which a program asks for mappings and threads.
var (
	mappingCalls = words("mmap mmap64 __mmap __mmap64 __GI___mmap mremap __mremap sbrk __sbrk brk __brk shmat")
	threadCalls  = words("pthread_create __pthread_create __pthread_create_2_1 thrd_create")
)

func cLibrary(module string) bool {
	for _, m := range []string{"libc.so", "libc-2.", "libc.musl-", "libpthread", "ld-linux", "ld-musl-", "ld-2."} {
		if strings.HasPrefix(module, m) {
			return true
		}
	}
	return false
}
