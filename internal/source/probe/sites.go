package probe

import (
	"bytes"
	"debug/elf"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
	"stanch/internal/unwind"
)

// readCalls bring bytes from the descriptor that is their first argument.
var readCalls = []uint64{unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_READV, unix.SYS_PREADV, unix.SYS_PREADV2, unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG}

// deeds are what the calls of proc.FDCalls do, as the probe has it.
var deeds = map[proc.FDDeed]byte{
	proc.FDReturns: wDoesReturn, proc.FDPair: wDoesPair, proc.FDReplaces: wDoesReplace, proc.FDCloses: wDoesClose,
	proc.FDClosesRange: wDoesCloseRange, proc.FDReceives: wDoesReceive, proc.FDReceivesAll: wDoesReceiveAll, proc.FDBears: wDoesBear,
}

// doesOf gives what a call does to descriptors; 0: nothing that is recorded.
func doesOf(nr uint64) byte {
	if nr == unix.SYS_VFORK {
		return wDoesLend
	}
	if i := slices.IndexFunc(proc.FDCalls, func(c proc.FDCall) bool { return c.Nr == nr }); i >= 0 {
		return deeds[proc.FDCalls[i].Does]
	}
	return 0
}

// beforeCall reports whether something is noted before the call.
func beforeCall(nr uint64) bool {
	switch doesOf(nr) {
	case wDoesReplace, wDoesClose, wDoesCloseRange, wDoesBear, wDoesLend:
		return true
	}
	return false
}

// afterCall reports whether something is noted after it.
func afterCall(nr uint64) bool {
	switch doesOf(nr) {
	case wDoesClose, wDoesCloseRange:
		return false
	case 0:
		return slices.Contains(readCalls, nr)
	}
	return true
}

// callName is the name of a system call that opened a descriptor.
func callName(nr uint64) string {
	i := slices.IndexFunc(proc.FDCalls, func(c proc.FDCall) bool { return c.Nr == nr })
	if i < 0 {
		return ""
	}
	switch c := &proc.FDCalls[i]; c.Does {
	case proc.FDReceives, proc.FDReceivesAll:
		return "received"
	default:
		return c.Name
	}
}

// callTables are the books' tables of system calls.
func callTables() (calls, whens []byte) {
	calls, whens = make([]byte, wCalls*wDeedSize), make([]byte, wCallWhens*wWhenSize)
	n := 0
	for i := range proc.FDCalls {
		c := &proc.FDCalls[i]
		if c.Nr >= wCalls {
			continue
		}
		b := calls[c.Nr*wDeedSize:]
		b[wDeedDoes], b[wDeedArg] = deeds[c.Does], byte(c.Arg)
		if c.When == nil || n == wCallWhens {
			continue
		}
		w := whens[n*wWhenSize:]
		order.PutUint32(w[wWhenArg:], uint32(c.When.Arg))
		order.PutUint32(w[wWhenN:], uint32(min(len(c.When.Values), wCallValues)))
		for k, v := range c.When.Values[:min(len(c.When.Values), wCallValues)] {
			order.PutUint32(w[wWhenValue+4*k:], v)
		}
		n++
		b[wDeedWhen] = byte(n)
	}
	calls[unix.SYS_VFORK*wDeedSize+wDeedDoes] = wDoesLend
	return calls, whens
}

// siteList is what is known of a file's system calls.
type siteList struct {
	sites  []callSite // for the file at address 0
	missed []string   // calls that stand somewhere where they cannot be hooked
	closes bool       // close itself is among them
}

// knownSites has the lists of files.
var knownSites = known[fileID, *siteList]{most: 64}

// planSites finds the system calls that Options.Descriptors and Inputs ask for.
// Nothing that goes wrong here is in the way of the probe: it is noted.
func (p *Probe) planSites(v *view, pl *plan) error {
	if !p.o.Descriptors && !p.o.Inputs {
		return nil
	}
	note := func(why string) {
		if p.o.Descriptors {
			pl.notes = append(pl.notes, "who opens descriptors is not seen: "+why)
		}
	}
	objects, err := v.objects()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(objects, func(o object) bool { return o.libc() || len(objects) == 1 })
	if i < 0 {
		note("no C library was found")
		return nil
	}
	o := &objects[i]
	lo, hi := span(v.maps, &o.m)
	list, err := p.siteList(v, o)
	if err != nil {
		note(err.Error())
		return nil
	}
	p.chooseSites(v, o, list, note)
	if place := (region{lo, hi - lo}); len(p.sites) == 0 {
		return nil
	} else if inReach(lo, hi, p.allocator, p.libc) {
		p.sited = place
	} else {
		p.islands = append(p.islands, &island{region: region{size: callIsland}, near: place, calls: p.sites})
	}
	return nil
}

// callIsland is how large an island for system calls is.
const callIsland = (islandFirst + wSites*wStub + pageSize - 1) &^ (pageSize - 1)

// callsOnly reports whether a text that stayed can serve again with its islands:
// it has none, or the one for libc's system calls.
func (p *placed) callsOnly() bool {
	return len(p.head.islands) == 0 || len(p.head.islands) == 1 && p.head.islands[0].size == callIsland
}

// inReach reports whether a text can lie within reach of all.
func inReach(lo, hi uint64, others ...region) bool {
	for _, r := range others {
		if r.size > 0 {
			lo, hi = min(lo, r.start), max(hi, r.end())
		}
	}
	return hi-lo < reach/2
}

func (p *Probe) siteList(v *view, o *object) (*siteList, error) {
	f, err := v.openObject(o)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	id, named := idOf(f)
	if l, ok := knownSites.get(id); ok && named {
		return l, nil
	}
	l, err := newSiteList(f, p.code.table(v.mem, &o.m))
	if err == nil && named {
		knownSites.put(id, l)
	}
	return l, err
}

func newSiteList(f *os.File, table *unwind.Table) (*siteList, error) {
	file, err := elf.NewFile(f)
	if err != nil {
		return nil, err
	}
	if table == nil {
		return nil, errNoTable
	}
	found, err := findSites(file, table, func(nr uint64) bool {
		return nr == wSiteAny || beforeCall(nr) || afterCall(nr)
	})
	if err != nil {
		return nil, err
	}
	l := &siteList{sites: found.sites}
	slices.SortFunc(l.sites, func(a, b callSite) int { return int(a.moved.at) - int(b.moved.at) })
	for n := len(l.sites) - 1; n >= wSites; n-- {
		found.missed[l.sites[n].nr()] = true
		l.sites = l.sites[:n]
	}
	for i := range l.sites {
		s := &l.sites[i]
		s.stub = i
		switch nr := s.nr(); {
		case !s.after() || !slices.Contains(readCalls, nr):
		case doesOf(nr) == 0:
			s.info |= wSiteRead
		default:
			s.info |= wSiteReads
		}
	}
	for nr := range found.missed {
		if name := callName(nr); name != "" {
			l.missed = append(l.missed, name)
		}
	}
	slices.Sort(l.missed)
	l.closes = found.inFunction("close", unix.SYS_CLOSE)
	return l, nil
}

// chooseSites takes those of the list that are asked for and stand in the target
// as in the file.
func (p *Probe) chooseSites(v *view, o *object, list *siteList, note func(string)) {
	for i := range list.sites {
		s := list.sites[i]
		s.site = s.rebased(o.bias)
		now, err := read(v.mem, s.moved.at, uint64(len(s.moved.bytes)))
		if err != nil || !bytes.Equal(now, s.moved.bytes) {
			p.sites = nil
			note("the code of " + o.name() + " differs from its file, another tool may have changed it")
			return
		}
		reads := s.info&(wSiteRead|wSiteReads) != 0 && p.o.Inputs
		if reads || p.o.Descriptors && s.info&wSiteRead == 0 {
			p.sites = append(p.sites, s)
		}
	}
	switch {
	case !p.o.Descriptors:
	case !list.closes:
		// Without it a number would keep the stack of an owner that is gone.
		p.sites = slices.DeleteFunc(p.sites, func(s callSite) bool { return s.info&wSiteRead == 0 })
		p.unseen = true
		note("close of " + o.name() + " cannot be hooked")
	case len(list.missed) > 0:
		note(fmt.Sprintf("not everywhere: %s cannot be hooked at each place of %s", strings.Join(list.missed, ", "), o.name()))
	}
}

// fdCount is for how many descriptors there is room in the books: as many as the
// target may open, when they are asked for.
func (p *Probe) fdCount(room uint64) uint64 {
	if !p.o.Descriptors || len(p.sites) == 0 || p.unseen {
		return 0
	}
	most := uint64(1 << 20) // the usual fs.nr_open
	if l, err := p.t.Limits(); err == nil {
		most = min(most, l.NOFILE.Hard)
	}
	most = min(max(most, 1024), max(1024, room/8/8))
	return 1 << bits.Len64(most-1)
}
