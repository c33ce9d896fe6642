package sampler

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"stanch/internal/proc"
	"stanch/internal/series"
)

// What the costly part costs, as measured on one machine; a budget needs no
// more exactness. The page tables: see proc.Target.Rollup.
const (
	costTurn       = 100 * time.Microsecond
	costDescriptor = 2500 * time.Nanosecond
	costGiB        = 15 * time.Millisecond
	costSocket     = 2 * time.Microsecond
	costTable      = 8 * time.Millisecond // of 262,144 buckets, as with 24 GB of memory, twice; most are empty
)

// largestRollup is the resident memory above which page tables are not walked:
// meanwhile the target's mmap and munmap may wait, here 30 ms.
const largestRollup = 2 << 30

const (
	defaultShare = 0.001
	// oneOfTen is how much of the costly part's time a single process may have,
	// so that a large one does not keep the others from their turns.
	oneOfTen = 10
	// firstRound is in what time the costly part is done for all the first time.
	firstRound = time.Minute
)

func (h *Host) share() float64 { return cmp.Or(h.Share, defaultShare) }

// schedule says the limits of a new process at once, and spreads its later
// turns, so that those of processes that came together do not.
func (h *Host) schedule(p *process) {
	now := h.out.At.Boot
	// Fibonacci hashing: neighbouring PIDs come far from one another.
	fraction := float64(uint32(p.ID.PID)*2654435769) / (1 << 32)
	h.slowly(p)
	p.nextSlow = now + time.Duration(fraction*float64(h.slow()))
	p.nextCostly = now + time.Duration(fraction*float64(min(h.slow(), firstRound)))
}

// turns does what is due of the slower parts.
func (h *Host) turns() {
	now := h.out.At.Boot
	h.due = h.due[:0]
	for _, p := range h.sampled {
		if p.ending() {
			continue
		}
		if now >= p.nextSlow {
			p.nextSlow = h.turnAfter(p.nextSlow)
			if p.renamed && !p.pulse.Stuck() && !h.identify(p) {
				continue
			}
			h.slowly(p)
		}
		if now >= p.nextCostly {
			h.due = append(h.due, p)
		}
	}
	h.sampled = slices.DeleteFunc(h.sampled, func(p *process) bool { return p.service == nil })
	tick := 10 * time.Second
	if h.last.Boot != 0 {
		tick = min(now-h.last.Boot, time.Minute) // no more after a suspend
	}
	earned := time.Duration(float64(tick) * h.share())
	h.budget = min(h.budget+earned, max(earned, 10*time.Millisecond))
	slices.SortStableFunc(h.due, func(a, b *process) int { return cmp.Compare(a.nextCostly, b.nextCostly) })
	for _, p := range h.due {
		if h.budget <= 0 {
			break // they keep their place in the queue
		}
		if p.service == nil {
			continue
		}
		cost := h.costly(p)
		h.budget -= cost
		p.nextCostly = max(h.turnAfter(p.nextCostly), now+time.Duration(oneOfTen*float64(cost)/h.share()))
	}
	h.noteDenied()
}

// turnAfter is the next turn of whoever had the last one: turns stay spread also
// when a sweep comes late, or after a suspend.
func (h *Host) turnAfter(last time.Duration) time.Duration {
	return last + ((h.out.At.Boot-last)/h.slow()+1)*h.slow()
}

// identify names a process anew that has executed another program, or has given
// itself another name; false when it is not sampled any longer. Where that
// changes its service, one process has ended and another has begun.
func (h *Host) identify(p *process) bool {
	was := p.Process
	if !h.name(p) || !h.wanted(p) || p.Service != was.Service {
		now := p.Process
		p.Process = was
		h.end(p)
		p.Process, p.renamed = now, true // and will be asked for in the next sweep
		return false
	}
	return true
}

// slowly says what changes slowly and is cheap.
func (h *Host) slowly(p *process) {
	pid := p.ID.PID
	if b, err := h.reader.File(pid, "status"); err == nil {
		keys(b, func(key, value []byte) {
			switch string(key) {
			case "VmData":
				h.say(p, series.Data, kilobytes(value))
			case "VmSwap":
				h.say(p, series.Swap, kilobytes(value))
			}
		})
	}
	b, err := h.reader.File(pid, "io")
	p.denied = errors.Is(err, proc.ErrDenied)
	if err == nil {
		keys(b, func(key, value []byte) {
			switch string(key) {
			case "rchar":
				h.say(p, series.Received, decimal(value))
			case "wchar":
				h.say(p, series.Sent, decimal(value))
			}
		})
	}
	if b, err := h.reader.File(pid, "limits"); err == nil {
		h.limit(p, series.FDLimit, b, "Max open files")
		h.limit(p, series.AddressLimit, b, "Max address space")
	}
}

// limit says the soft limit of a line of /proc/PID/limits, where there is one.
func (h *Host) limit(p *process, m series.Metric, b []byte, name string) {
	_, line, found := bytes.Cut(b, []byte(name))
	if line = bytes.TrimLeft(line, " "); found && len(line) > 0 && line[0] != 'u' { // "unlimited"
		h.say(p, m, decimal(line))
	}
}

// costly reads the page tables and the descriptors, and tells what that cost.
func (h *Host) costly(p *process) time.Duration {
	cost := costTurn
	if p.denied {
		return cost
	}
	switch {
	case p.pulse.Stuck(): // the next turn may find it otherwise
	case p.pulse.RSS > largestRollup:
		h.note("processes with more than %d GiB of resident memory: pss and private dirty memory are not measured, since their mmap would wait for it", largestRollup>>30)
	default:
		cost += h.rollup(p)
	}
	return cost + h.descriptors(p)
}

// pages is what is known of a process's pages.
type pages struct {
	minor, major, rss uint64 // when they were walked
	pss, dirty        float64
	again             int // how often they may be said again
}

// sayAgain is how often what was found of pages is said again.
const sayAgain = 10

// rollup walks the page tables, and tells what that cost. Of a process that has
// had no page fault since, and has as much memory, what was found is said again:
// of many that sleep, most. That others have given up what they shared with it,
// or that pages were written back, is seen after some turns.
func (h *Host) rollup(p *process) time.Duration {
	cost := time.Duration(0)
	was := &p.pages
	if k := &p.pulse; was.again == 0 || was.minor != k.Minor || was.major != k.Major || was.rss != k.RSS {
		b, err := h.reader.File(p.ID.PID, "smaps_rollup") // Linux 4.14
		if err != nil {
			return 0
		}
		*was = pages{minor: k.Minor, major: k.Major, rss: k.RSS, again: sayAgain}
		keys(b, func(key, value []byte) {
			switch string(key) {
			case "Pss":
				was.pss = kilobytes(value)
			case "Private_Dirty":
				was.dirty = kilobytes(value)
			}
		})
		cost = time.Duration(float64(k.RSS) / (1 << 30) * float64(costGiB))
	} else {
		was.again--
	}
	h.say(p, series.PSS, was.pss)
	h.say(p, series.PrivateDirty, was.dirty)
	return cost
}

// noteDenied says once of how many processes much may not be read, when all
// have had their first turn, and what to do.
func (h *Host) noteDenied() {
	if h.noted["denied"] || len(h.sampled) == 0 {
		return
	}
	var who []string
	for _, p := range h.sampled {
		if p.denied {
			who = append(who, fmt.Sprintf("%s[%d]", p.Comm, p.ID.PID))
		}
	}
	if len(who) > 0 {
		h.noted["denied"] = true
		h.note("%d of %d processes (%s) are seen in part only, without pss, private dirty memory, kinds of descriptors, sockets, and bytes read and written: %s",
			len(who), len(h.sampled), some(who), whyDenied(proc.OwnRights()))
	}
}

// some names a few of many.
func some(list []string) string {
	const shown = 3
	if len(list) <= shown {
		return strings.Join(list, ", ")
	}
	return strings.Join(list[:shown], ", ") + ", ..."
}

// whyDenied tells in words why processes may not be read, and what to do.
func whyDenied(r proc.Rights) string {
	switch {
	case r.Ptrace && r.Files:
		return "the kernel refuses although stanch has the rights for it (CAP_SYS_PTRACE): they are in another user namespace, or a security module (AppArmor, SELinux, BPF) protects them; run stanch on the host, unconfined, or go without"
	case r.Ptrace:
		return "their files in /proc are open to their own user alone, and stanch has CAP_SYS_PTRACE without CAP_DAC_READ_SEARCH; give it that capability too"
	case r.User == 0:
		return "stanch is root without CAP_SYS_PTRACE, as in a container, and they belong to other users or have capabilities that it has not; run it on the host, or give the container that capability (--cap-add SYS_PTRACE)"
	}
	return "they belong to other users, or have rights that stanch has not; run it as root, or give it CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH"
}

// keys calls each with the lines "Key:   value".
func keys(b []byte, each func(key, value []byte)) {
	for line := range bytes.Lines(b) {
		if key, value, ok := bytes.Cut(line, []byte{':'}); ok {
			each(key, value)
		}
	}
}

// decimal reads a number after blanks; what is behind it does not matter.
func decimal(b []byte) float64 {
	n := uint64(0)
	for _, c := range bytes.TrimLeft(b, " \t") {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + uint64(c-'0')
	}
	return float64(n)
}

// kilobytes reads "123 kB".
func kilobytes(b []byte) float64 { return decimal(b) * 1024 }
