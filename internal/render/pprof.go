package render

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/pprof/profile"

	"stanch/internal/leak"
)

// Pprof writes the profile in pprof's format, compressed, with the sample
// types that heap profiles of Go programs have.
func Pprof(w io.Writer, p *leak.Profile) error {
	p.Normalize()
	if p.Count > 0 && len(p.Stacks) == 0 {
		return errors.New("a profile in JSON has no whole stacks to make a pprof profile of; make it of the recording")
	}
	out := newPprof(p)
	for i := range p.Stacks {
		out.stack(&p.Stacks[i])
	}
	if len(p.Targets) > 0 {
		out.mainFirst(p.Targets[0].Exe)
	}
	if err := out.CheckValid(); err != nil {
		return fmt.Errorf("make a pprof profile: %w", err)
	}
	return out.Write(w)
}

// pprof builds a profile.
type pprof struct {
	profile.Profile
	mappings  map[leak.MapID]*profile.Mapping
	locations map[locationKey]*profile.Location
	functions map[functionKey]*profile.Function
}

// locationKey tells locations apart. Of an innermost one the functions of the
// allocator may be cut off.
type locationKey struct {
	frame leak.Frame
	names int
}

type functionKey struct{ name, file string }

func newPprof(p *leak.Profile) *pprof {
	space := func(kind, unit string) *profile.ValueType { return &profile.ValueType{Type: kind, Unit: unit} }
	out := &pprof{
		Profile: profile.Profile{
			SampleType: []*profile.ValueType{
				space("inuse_space", "bytes"), space("inuse_objects", "count"),
				space("alloc_space", "bytes"), space("alloc_objects", "count"),
			},
			DefaultSampleType: "inuse_space",
			PeriodType:        space("space", "bytes"),
			Period:            1,
			DurationNanos:     int64(p.Observed.DurationS * float64(time.Second)),
		},
		mappings: map[leak.MapID]*profile.Mapping{}, locations: map[locationKey]*profile.Location{},
		functions: map[functionKey]*profile.Function{},
	}
	if p.Recorded.Mode == leak.RecordSample && p.Recorded.SampleBytes > 0 {
		out.Period = int64(p.Recorded.SampleBytes)
	}
	if !p.Observed.Start.IsZero() {
		out.TimeNanos = p.Observed.Start.UnixNano()
	}
	for i := range p.Targets {
		out.Comments = append(out.Comments, fmt.Sprintf("stanch record of %s[%d]", Clean(p.Targets[i].Comm), p.Targets[i].PID))
	}
	for _, s := range append(append([]string(nil), p.Gaps...), p.Notes...) {
		out.Comments = append(out.Comments, Clean(s))
	}
	return out
}

// mainFirst makes the program the first mapping: pprof calls the profile after
// it.
func (p *pprof) mainFirst(exe string) {
	for i, m := range p.Mapping {
		if m.File == Clean(exe) && i > 0 {
			copy(p.Mapping[1:], p.Mapping[:i])
			p.Mapping[0] = m
			break
		}
	}
	for i, m := range p.Mapping {
		m.ID = uint64(i + 1)
	}
}

func (p *pprof) stack(s *leak.ProfileStack) {
	sample := &profile.Sample{Value: []int64{
		int64(s.Held.Bytes), int64(s.Held.Count), int64(s.Acquired.Bytes), int64(s.Acquired.Count),
	}}
	for i := range s.Places {
		sample.Location = append(sample.Location, p.location(&s.Places[i]))
	}
	if len(s.Places) == 0 {
		sample.Location = append(sample.Location, p.location(&leak.Place{Names: []leak.StackFrame{{Function: "[no stack was recorded]"}}}))
	}
	p.Sample = append(p.Sample, sample)
}

// location makes the location of a place, with a line for each function that
// was inlined there.
func (p *pprof) location(at *leak.Place) *profile.Location {
	key := locationKey{at.Frame, len(at.Names)}
	if l := p.locations[key]; l != nil {
		return l
	}
	m := p.mapping(&at.Mapping)
	l := &profile.Location{ID: uint64(len(p.Location) + 1), Mapping: m}
	if m != nil {
		l.Address = uint64(at.Mapping.Start) + at.Frame.Off - at.Mapping.Offset
	}
	for i := range at.Names {
		n := &at.Names[i]
		if n.Function == "" {
			continue
		}
		l.Line = append(l.Line, profile.Line{Function: p.function(n), Line: int64(n.Line)})
		if m != nil {
			m.HasFunctions = true
			m.HasFilenames = m.HasFilenames || n.File != ""
			m.HasLineNumbers = m.HasLineNumbers || n.Line > 0
			m.HasInlineFrames = m.HasInlineFrames || len(at.Names) > 1
		}
	}
	p.Location = append(p.Location, l)
	p.locations[key] = l
	return l
}

func (p *pprof) mapping(m *leak.Mapping) *profile.Mapping {
	if m.ID == 0 {
		return nil
	}
	if known := p.mappings[m.ID]; known != nil {
		return known
	}
	out := &profile.Mapping{
		ID: uint64(len(p.Mapping) + 1), Start: uint64(m.Start), Limit: uint64(m.End), Offset: m.Offset,
		File: Clean(m.Path), BuildID: Clean(m.BuildID),
	}
	p.Mapping = append(p.Mapping, out)
	p.mappings[m.ID] = out
	return out
}

func (p *pprof) function(n *leak.StackFrame) *profile.Function {
	key := functionKey{n.Function, n.File}
	if f := p.functions[key]; f != nil {
		return f
	}
	// pprof shortens names that are both: parameters and template arguments go.
	name := functionName(n)
	f := &profile.Function{ID: uint64(len(p.Function) + 1), Name: name, SystemName: name, Filename: Clean(n.File)}
	p.Function = append(p.Function, f)
	p.functions[key] = f
	return f
}
