package sampler

import (
	"bytes"
	"time"

	"stanch/internal/series"
)

// machine is what was said of the host.
type machine struct {
	next    time.Duration // from when limits are said again, though they are the same
	due     bool
	limits  map[series.Metric]float64
	sockets parts
}

// sayMachine says what the host itself has. Files that this kernel lacks are
// left out.
func (h *Host) sayMachine() {
	m := &h.machine
	if m.limits == nil {
		m.limits = map[series.Metric]float64{}
	}
	m.due = h.out.At.Boot >= m.next
	if m.due {
		m.next = h.out.At.Boot + h.slow()
	}
	h.sayHost(series.HostProcesses, float64(h.processes()))
	h.sayMemory()
	h.sayFiles()
	h.saySockets()
	h.sayTraffic()
}

// processes counts those that are not threads of the kernel.
func (h *Host) processes() int {
	n := 0
	for _, p := range h.all {
		if !p.pulse.Kernel() {
			n++
		}
	}
	return n
}

func (h *Host) sayHost(m series.Metric, value float64) {
	h.out.Samples = append(h.out.Samples, series.Sample{Key: series.Key{Metric: m}, At: h.out.At.At, Value: value})
}

// sayHostLimit says what hardly ever changes at the slow pace, and at once when
// it does.
func (h *Host) sayHostLimit(m series.Metric, value float64) {
	if last, said := h.machine.limits[m]; h.machine.due || !said || last != value {
		h.machine.limits[m] = value
		h.sayHost(m, value)
	}
}

func (h *Host) sayMemory() {
	b, err := h.reader.Host("meminfo")
	if err != nil {
		return
	}
	keys(b, func(key, value []byte) {
		switch string(key) {
		case "MemTotal":
			h.sayHostLimit(series.HostMemory, kilobytes(value))
		case "MemAvailable":
			h.sayHost(series.HostAvailable, kilobytes(value))
		case "Committed_AS":
			h.sayHost(series.HostCommitted, kilobytes(value))
		case "CommitLimit":
			h.sayHostLimit(series.HostCommitLimit, kilobytes(value))
		case "SwapTotal":
			h.sayHostLimit(series.HostSwap, kilobytes(value))
		case "SwapFree":
			h.sayHost(series.HostSwapFree, kilobytes(value))
		case "SUnreclaim":
			h.sayHost(series.HostSlab, kilobytes(value))
		}
	})
	if b, err = h.reader.Host("vmstat"); err == nil { // oom_kill: Linux 4.13
		if _, rest, found := bytes.Cut(b, []byte("\noom_kill ")); found {
			h.sayHost(series.HostOOMKills, decimal(rest))
		}
	}
}

// noLimit is where fs.file-max is as good as none: systemd sets it to the
// largest number there is.
const noLimit = 1 << 53

func (h *Host) sayFiles() {
	if b, err := h.reader.Host("sys/fs/file-nr"); err == nil { // used, free, limit
		if f := bytes.Fields(b); len(f) == 3 {
			h.sayHost(series.HostFiles, decimal(f[0])-decimal(f[1]))
			if limit := decimal(f[2]); limit < noLimit {
				h.sayHostLimit(series.HostFilesMax, limit)
			}
		}
	}
	if b, err := h.reader.Host("sys/net/netfilter/nf_conntrack_count"); err == nil {
		h.sayHost(series.HostConntrack, decimal(b))
	}
	if b, err := h.reader.Host("sys/net/netfilter/nf_conntrack_max"); err == nil {
		h.sayHostLimit(series.HostConntrackMax, decimal(b))
	}
}

// saySockets says sockets by protocol; TCP's that have no owner any longer, and
// those in TIME_WAIT, are apart.
func (h *Host) saySockets() {
	h.machine.sockets.reset()
	for _, file := range []string{"net/sockstat", "net/sockstat6"} {
		b, err := h.reader.Host(file)
		if err != nil {
			continue
		}
		keys(b, func(key, value []byte) {
			f := bytes.Fields(value)
			name := string(bytes.ToLower(key))
			for i := 0; i+1 < len(f); i += 2 {
				n := int(decimal(f[i+1]))
				switch {
				case name == "sockets" && string(f[i]) == "used":
					h.machine.sockets.set("all", n)
				case string(f[i]) == "inuse":
					h.machine.sockets.set(name, n)
				case string(f[i]) == "orphan":
					h.machine.sockets.set(name+" orphan", n)
				case string(f[i]) == "tw":
					h.machine.sockets.set(name+" time wait", n)
				}
			}
		})
	}
	for i := range h.machine.sockets {
		if s := &h.machine.sockets[i]; s.count > 0 || s.said {
			s.said = true
			h.out.Samples = append(h.out.Samples, series.Sample{
				Key: series.Key{Metric: series.HostSockets, Part: s.name}, At: h.out.At.At, Value: float64(s.count),
			})
		}
	}
}

// sayTraffic says the counters of the network namespace that stanch is in.
func (h *Host) sayTraffic() {
	if b, err := h.reader.Host("net/snmp"); err == nil {
		if n, ok := snmp(b, "Tcp:", "PassiveOpens"); ok {
			h.sayHost(series.HostAccepted, n)
		}
	}
	b, err := h.reader.Host("net/dev")
	if err != nil {
		return
	}
	var received, sent float64
	keys(b, func(key, value []byte) {
		const sentField = 8 // net/core/net-procfs.c
		f := bytes.Fields(value)
		if name := bytes.TrimSpace(key); len(f) <= sentField || string(name) == "lo" {
			return
		}
		received += decimal(f[0])
		sent += decimal(f[sentField])
	})
	h.sayHost(series.HostReceived, received)
	h.sayHost(series.HostSent, sent)
}

// snmp finds a counter in pairs of lines, names and values.
func snmp(b []byte, protocol, name string) (n float64, ok bool) {
	var names [][]byte
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 0 || string(f[0]) != protocol {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i := range f {
			if i < len(names) && string(names[i]) == name {
				return decimal(f[i]), true
			}
		}
	}
	return 0, false
}
