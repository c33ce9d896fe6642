package fdtrace

import (
	"time"

	"golang.org/x/sys/unix"

	"stanch/internal/leak"
)

// useValue is struct use of fdtrace.bpf.c.
type useValue struct {
	At    uint64
	Error int32
	Nr    uint32
}

// failValue is struct fail of fdtrace.bpf.c, the key of the counts.
type failSite struct {
	IP, SP    uint64
	Tgid      uint32
	Nr, Error uint16
}

// failKey is what is counted together: several sites may have one stack.
type failKey struct {
	proc  leak.ProcID
	call  string
	errno string
	stack leak.StackID
}

// failure is a count as it was said last.
type failure struct {
	sites []failSite
	said  uint64
	at    time.Duration
}

// failed notes the first failure of a site.
func (b *books) failed(p *process, e *event, tail []byte) {
	errno := uint16(-e.Ret)
	if classOf[e.Nr&511] == classBrk {
		errno = uint16(unix.ENOMEM)
	}
	k := failKey{p.id, callNames[e.Nr], unix.ErrnoName(unix.Errno(errno)), b.stack(p, e, tail)}
	f := b.fails[k]
	if f == nil {
		f = &failure{}
		b.fails[k] = f
	}
	f.at = b.at(e.Exit)
	f.sites = append(f.sites, failSite{e.Regs[regIP], e.Regs[regSP], e.Tgid, uint16(e.Nr), errno})
}

// sayFailures says the counts that have changed.
func (b *books) sayFailures() {
	for k, f := range b.fails {
		var sum uint64
		for _, site := range f.sites {
			var n uint64
			if err := b.t.objects.Maps["fails"].Lookup(site, &n); err == nil {
				sum += n
			}
		}
		if sum == f.said {
			continue
		}
		if f.said > 0 {
			f.at = b.t.o.Clock.Now()
		}
		f.said = sum
		b.sink.Failure(leak.Failure{At: f.at, Proc: k.proc, Call: k.call, Errno: k.errno, Stack: k.stack, N: sum})
	}
}

// sayUses says the last call on each descriptor that is open and was seen to
// be opened.
func (b *books) sayUses() {
	for _, p := range b.live {
		b.sayUsesOf(p)
	}
}

func (b *books) sayUsesOf(p *process) {
	if p.table == nil || p.table.owner != p {
		return
	}
	uses := b.t.objects.Maps["uses"]
	for _, num := range p.table.numbers() {
		var u useValue
		if !p.table.slots[num].said.open || uses.Lookup(lostKey{p.tgid, num}, &u) != nil || u.At == 0 {
			continue
		}
		use := leak.Use{At: b.at(u.At), Ref: leak.Ref{Proc: p.id, Kind: leak.KindDescriptor, ID: uint64(num)}, Call: callNames[u.Nr]}
		if u.Error != 0 {
			use.Error = unix.ErrnoName(unix.Errno(u.Error))
		}
		b.sink.Use(use)
	}
}

func (b *books) forgetUse(p *process, num int32) {
	_ = b.t.objects.Maps["uses"].Delete(lostKey{p.tgid, num}) // most are not there
}
