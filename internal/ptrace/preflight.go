package ptrace

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/proc"
)

// Plan is what a snapshot of a target would cost and whether it may be made,
// seen from outside.
type Plan struct {
	Pause      time.Duration // predicted, of the one stop with a fork; a second, short one follows
	Memory     uint64        // bytes the snapshot may take at the target's expense: page tables and copied pages
	Headroom   uint64        // bytes the target can spare; proc.Unlimited without any limit
	HeadroomBy string        // what limits it: "cgroup memory.max of /system.slice/x.service", "host memory"
	Fork       bool          // a snapshot by fork is possible, as far as can be seen from outside
	Refusals   []string      // why it would be refused, as sentences with what to do; none: it may go on
	Notes      []string      // what is worth knowing, likewise
}

// A fork takes 10 to 13 ms per GB of memory in 4 KiB pages (measured,
// kernel 6.18). Threads are stopped and released one by one, 37 to
// 42 microseconds each with 1000 of them; the map is read and copied, 2.3
// microseconds a mapping with 60,000 of them.
const (
	pausePerGB     = 12 * time.Millisecond
	pauseAnyway    = 1500 * time.Microsecond
	pausePerThread = 40 * time.Microsecond
	pausePerMap    = 2500 * time.Nanosecond
)

// pause predicts how long a stop with a fork lasts. Memory in huge pages takes
// less.
func (l *outlook) pause() time.Duration {
	pages := float64(l.status.RSSAnon + l.status.VMSwap)
	return pauseAnyway + time.Duration(l.status.Threads)*pausePerThread + time.Duration(l.maps)*pausePerMap +
		time.Duration(pages/1e9*float64(pausePerGB))
}

// Preflight predicts what a snapshot of t costs and finds what would refuse
// it. It touches nothing: it only reads procfs and cgroupfs. An error means
// that the target cannot be looked at, or is gone; everything else is in the
// plan.
func Preflight(t *proc.Target, o Options) (*Plan, error) {
	return preflight(t, o, true)
}

// PreflightCalls is Preflight for stops in which system calls may be made, and
// nothing is forked: those that place a probe. The pause is that of one stop.
func PreflightCalls(t *proc.Target, o Options) (*Plan, error) {
	return preflight(t, o, false)
}

func preflight(t *proc.Target, o Options, fork bool) (*Plan, error) {
	p := &Plan{}
	if err := refuse(t); err != nil {
		if errors.Is(err, proc.ErrGone) {
			return nil, err
		}
		p.Refusals = append(p.Refusals, sentence(err.Error()))
		return p, nil
	}
	l, err := outlookOf(t, fork)
	if err != nil {
		return nil, err
	}
	p.rights(t)
	if fork {
		p.Pause = l.pause()
		p.room(l)
	} else {
		p.Pause = pauseAnyway + time.Duration(l.status.Threads)*pausePerThread
	}
	p.confined(t.Root, l.status)
	if p.Pause > o.maxPause() {
		p.Fork = false
		p.Refusals = append(p.Refusals, fmt.Sprintf("The target would stand still for about %v, longer than the allowed %v: raise --max-pause if it can bear that.",
			p.Pause.Round(time.Millisecond), o.maxPause()))
	}
	if l.status.State == 'T' {
		p.Notes = append(p.Notes, "The target is stopped by a signal; it stays so.")
	}
	return p, nil
}

// room judges the headroom.
func (p *Plan) room(l *outlook) {
	b, err := l.budget()
	p.Memory, p.Headroom, p.HeadroomBy = b.need, b.least.Left, b.least.String()
	if err == nil {
		err = l.handler
	}
	if err == nil {
		p.Fork = len(p.Refusals) == 0
	} else {
		p.Notes = append(p.Notes, fmt.Sprintf("No snapshot by fork: %v. The target is read while it stands still if that fits into --max-pause.", err))
	}
	if l.room != nil {
		for _, n := range l.room.Notes {
			p.Notes = append(p.Notes, sentence(n))
		}
	}
}

// rights judges whether stanch may attach.
func (p *Plan) rights(t *proc.Target) {
	if mayTrace(t.Root) {
		return
	}
	scope, _ := t.Root.Sysctl("kernel/yama/ptrace_scope")
	if scope > 0 {
		p.Refusals = append(p.Refusals, sentence(whyDenied(t)))
	}
}

// confined looks at seccomp.
func (p *Plan) confined(r proc.Root, st *proc.Status) {
	switch st.Seccomp {
	case 1:
		p.Fork = false
		p.Refusals = append(p.Refusals, "The target is in strict seccomp mode, which kills it for any new system call: a core file taken by the kernel is the only way.")
	case 2:
		if why := whyNoFilters(r); why != "" {
			p.Fork = false
			p.Notes = append(p.Notes, "The target has seccomp filters that stanch cannot read, so no system call is made in it: no snapshot by fork, and no probe. "+why)
			return
		}
		p.Notes = append(p.Notes, "The target has seccomp filters: they are evaluated for each system call once it is stopped, and what they do not surely allow is not tried.")
	}
}

// whyNoFilters says why PTRACE_SECCOMP_GET_FILTER will be refused, as far as
// that can be known before; "" when nothing speaks against it.
func whyNoFilters(r proc.Root) string {
	self, err := r.Self()
	if err != nil {
		return ""
	}
	st, err := self.Status()
	switch {
	case err != nil:
		return ""
	case st.CapEffective>>unix.CAP_SYS_ADMIN&1 == 0:
		return "That needs CAP_SYS_ADMIN: run stanch as root (sudo stanch ...), outside of a container."
	case st.Seccomp != 0:
		return "The kernel shows filters only to a process that has none itself: run stanch outside of a container."
	}
	return ""
}

// sentence gives text a capital letter and a full stop.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	if c := text[0]; c >= 'a' && c <= 'z' {
		text = string(c-'a'+'A') + text[1:]
	}
	if text[len(text)-1] != '.' {
		text += "."
	}
	return text
}
