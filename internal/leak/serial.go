package leak

import "sync"

// Serial makes a sink that several sources may call at once: each call waits
// its turn. The target never waits for a source, so a source may wait here.
func Serial(s Sink) Sink { return SerialBy(&sync.Mutex{}, s) }

// SerialBy is Serial whose calls hold lock: who holds it too may look at what
// the sink keeps.
func SerialBy(lock sync.Locker, s Sink) Sink {
	locked := &serial{lock: lock, sink: s}
	if e, ok := s.(EdgeSink); ok {
		return &edgeSerial{serial: locked, edges: e}
	}
	return locked
}

type serial struct {
	lock sync.Locker
	sink Sink
}

func (l *serial) do(say func(Sink)) {
	l.lock.Lock()
	defer l.lock.Unlock()
	say(l.sink)
}

func (l *serial) Map(m Mapping)                    { l.do(func(s Sink) { s.Map(m) }) }
func (l *serial) Stack(id StackID, frames []Frame) { l.do(func(s Sink) { s.Stack(id, frames) }) }
func (l *serial) Acquire(a Acquire)                { l.do(func(s Sink) { s.Acquire(a) }) }
func (l *serial) Release(r Release)                { l.do(func(s Sink) { s.Release(r) }) }
func (l *serial) Invalid(i Invalid)                { l.do(func(s Sink) { s.Invalid(i) }) }
func (l *serial) Tally(y Tally)                    { l.do(func(s Sink) { s.Tally(y) }) }
func (l *serial) Gauge(g Gauge)                    { l.do(func(s Sink) { s.Gauge(g) }) }
func (l *serial) Look(k Look)                      { l.do(func(s Sink) { s.Look(k) }) }
func (l *serial) Verdicts(v []Verdict)             { l.do(func(s Sink) { s.Verdicts(v) }) }
func (l *serial) Held(h []Held)                    { l.do(func(s Sink) { s.Held(h) }) }
func (l *serial) Listing(x Listing)                { l.do(func(s Sink) { s.Listing(x) }) }
func (l *serial) Ownerless(x Ownerless)            { l.do(func(s Sink) { s.Ownerless(x) }) }
func (l *serial) Usage(x Usage)                    { l.do(func(s Sink) { s.Usage(x) }) }
func (l *serial) Failure(x Failure)                { l.do(func(s Sink) { s.Failure(x) }) }
func (l *serial) Use(x Use)                        { l.do(func(s Sink) { s.Use(x) }) }
func (l *serial) Input(x Input)                    { l.do(func(s Sink) { s.Input(x) }) }
func (l *serial) Gap(g Gap)                        { l.do(func(s Sink) { s.Gap(g) }) }

type edgeSerial struct {
	*serial
	edges EdgeSink
}

func (l *edgeSerial) Blocks(v []Verdict) {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.edges.Blocks(v)
}

func (l *edgeSerial) Edges(e []Edge) {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.edges.Edges(e)
}
