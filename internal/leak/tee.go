package leak

// Tee says everything to each of the sinks, in order. Edges and blocks go to
// those that are EdgeSinks; the result is an EdgeSink when one of them is.
func Tee(sinks ...Sink) Sink {
	t := tee(sinks)
	for _, s := range sinks {
		if _, ok := s.(EdgeSink); ok {
			return edgeTee{t}
		}
	}
	return t
}

type tee []Sink

func (t tee) Map(m Mapping)                    { each(t, func(s Sink) { s.Map(m) }) }
func (t tee) Stack(id StackID, frames []Frame) { each(t, func(s Sink) { s.Stack(id, frames) }) }
func (t tee) Acquire(a Acquire)                { each(t, func(s Sink) { s.Acquire(a) }) }
func (t tee) Release(r Release)                { each(t, func(s Sink) { s.Release(r) }) }
func (t tee) Invalid(i Invalid)                { each(t, func(s Sink) { s.Invalid(i) }) }
func (t tee) Tally(y Tally)                    { each(t, func(s Sink) { s.Tally(y) }) }
func (t tee) Gauge(g Gauge)                    { each(t, func(s Sink) { s.Gauge(g) }) }
func (t tee) Look(l Look)                      { each(t, func(s Sink) { s.Look(l) }) }
func (t tee) Verdicts(v []Verdict)             { each(t, func(s Sink) { s.Verdicts(v) }) }
func (t tee) Held(h []Held)                    { each(t, func(s Sink) { s.Held(h) }) }
func (t tee) Listing(x Listing)                { each(t, func(s Sink) { s.Listing(x) }) }
func (t tee) Ownerless(x Ownerless)            { each(t, func(s Sink) { s.Ownerless(x) }) }
func (t tee) Usage(x Usage)                    { each(t, func(s Sink) { s.Usage(x) }) }
func (t tee) Failure(x Failure)                { each(t, func(s Sink) { s.Failure(x) }) }
func (t tee) Use(x Use)                        { each(t, func(s Sink) { s.Use(x) }) }
func (t tee) Input(x Input)                    { each(t, func(s Sink) { s.Input(x) }) }
func (t tee) Gap(g Gap)                        { each(t, func(s Sink) { s.Gap(g) }) }

func each(t tee, say func(Sink)) {
	for _, s := range t {
		say(s)
	}
}

type edgeTee struct{ tee }

func (t edgeTee) Blocks(v []Verdict) {
	for _, s := range t.tee {
		if e, ok := s.(EdgeSink); ok {
			e.Blocks(v)
		}
	}
}

func (t edgeTee) Edges(edges []Edge) {
	for _, s := range t.tee {
		if e, ok := s.(EdgeSink); ok {
			e.Edges(edges)
		}
	}
}
