package detect

import (
	"cmp"
	"fmt"
	"slices"

	"stanch/internal/leak"
)

// Failing reports system calls that fail because something has run out.
var Failing = &Detector{
	Name: "fd.failing",
	Doc:  "system calls that already fail because descriptors, ports, memory or tasks have run out",
	Run:  failing,
}

// maxFailing is how many places are reported.
const maxFailing = 8

// failed are the failures of one place with one error.
type failed struct {
	errno string
	site  *site
	calls map[string]uint64
	n     uint64
}

func failing(p *Pass) {
	byKey := map[string]*failed{}
	var all []*failed
	for i := range p.Proc.Failures {
		x := &p.Proc.Failures[i]
		s := p.names.stack(x.Stack)
		key := x.Errno + ":"
		if s != nil {
			key += s.lines
		}
		f := byKey[key]
		if f == nil {
			f = &failed{errno: x.Errno, site: s, calls: map[string]uint64{}}
			byKey[key] = f
			all = append(all, f)
		}
		f.calls[x.Call] += x.N
		f.n += x.N
	}
	slices.SortStableFunc(all, func(a, b *failed) int { return cmp.Compare(b.n, a.n) })
	for _, x := range all[:min(len(all), maxFailing)] {
		calls := counted(x.calls)
		f := leak.Finding{
			Severity: leak.SeverityRisk, Kind: failureKind(x.errno, calls[0].what).String(), SiteCertainty: leak.CertaintyNone,
			Key: x.errno, NameKey: x.errno, What: "failed calls", Count: x.n,
			Title:    fmt.Sprintf("%s failed %s with %s", calls[0].what, times(x.n), x.errno),
			Evidence: []string{"why: " + failureWords(x.errno, calls[0].what)},
			Advice:   []string{failureAdvice(x.errno)},
		}
		if s := x.site; s != nil {
			f.Stack, f.Site, f.SiteCertainty = s.stack, s.line, leak.CertaintyProved
			f.Key, f.NameKey = f.Key+":"+s.key, f.NameKey+":"+s.nameKey
		}
		if len(calls) > 1 {
			var parts string
			for i, c := range calls {
				if i > 0 {
					parts += ", "
				}
				parts += fmt.Sprintf("%s (%s)", c.what, leak.FormatCount(c.n))
			}
			f.Title = fmt.Sprintf("system calls failed %s with %s", times(x.n), x.errno)
			f.Evidence = append(f.Evidence, "calls: "+parts)
		}
		p.Report(f)
	}
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return leak.FormatCount(n) + " times"
}

func forks(call string) bool {
	return call == "fork" || call == "vfork" || call == "clone" || call == "clone3"
}

func failureKind(errno, call string) leak.Kind {
	switch {
	case errno == "EAGAIN" && forks(call):
		return leak.KindThread
	case errno == "ENOMEM":
		return leak.KindMapping
	}
	return leak.KindDescriptor
}

func failureWords(errno, call string) string {
	switch {
	case errno == "EMFILE":
		return "the process has as many descriptors open as RLIMIT_NOFILE allows"
	case errno == "ENFILE":
		return "the host has as many files open as fs.file-max allows"
	case errno == "ENOBUFS":
		return "the kernel had no memory for another socket or its buffers"
	case errno == "ENOMEM" && forks(call):
		return "the kernel had no memory for another process or thread, or would not promise it"
	case errno == "ENOMEM":
		return "memory, address space or the number of mappings has run out (RLIMIT_AS, RLIMIT_DATA, vm.max_map_count, overcommit)"
	case errno == "EAGAIN":
		return "no more threads or processes are allowed (RLIMIT_NPROC, pids.max, kernel.threads-max)"
	case errno == "EADDRNOTAVAIL":
		return "no local port is free for another connection to that peer"
	}
	return "something that the call needs has run out"
}

func failureAdvice(errno string) string {
	switch errno {
	case "EMFILE", "ENFILE":
		return "see which descriptors are not closed; a server must go on when accept fails so, and not spin: the connection stays in the queue"
	case "EADDRNOTAVAIL":
		return "reuse connections instead of making one for each request"
	case "EAGAIN":
		return "see what starts threads or processes that do not end"
	}
	return "see what holds most of it, and what the program does when the call fails"
}
