package symbol

import (
	"path/filepath"
	"testing"
)

// BenchmarkCachedPlace is a place that was named before.
func BenchmarkCachedPlace(b *testing.B) {
	exe := compile(b, cSources, "-O2", "-g")
	m, place := mapping(b, exe, elfFile(b, exe), callSites(b, exe)[0])
	s := symbolizer(b, Options{})
	s.Frames(m, place)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.Frames(m, place)
		}
	})
}

// BenchmarkFirstName opens glibc and its debug file, and names one place.
func BenchmarkFirstName(b *testing.B) {
	real, err := filepath.EvalSymlinks(libcPath)
	if err != nil {
		b.Skip("no glibc at " + libcPath)
	}
	f := elfFile(b, real)
	syms, err := f.DynamicSymbols()
	if err != nil {
		b.Fatal(err)
	}
	for _, sym := range syms {
		if sym.Name != "malloc" {
			continue
		}
		m, place := mapping(b, real, f, sym.Value+8)
		for b.Loop() {
			s := New(Options{})
			s.Frames(m, place)
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkNextName names all call sites of a program that is open.
func BenchmarkNextName(b *testing.B) {
	exe := compile(b, []string{"shapes.cc"}, "-O2", "-g")
	f, sites := elfFile(b, exe), callSites(b, exe)
	n := 0
	for b.Loop() {
		s := New(Options{})
		for _, pc := range sites {
			m, place := mapping(b, exe, f, pc)
			n += len(s.Frames(m, place))
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(sites)), "ns/place")
	b.ReportMetric(float64(n)/float64(b.N*len(sites)), "frames/place")
}
