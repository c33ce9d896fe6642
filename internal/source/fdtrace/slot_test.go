package fdtrace

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"stanch/internal/leak"
)

// TestSettle holds in which order calls that overlap are taken to have worked.
func TestSettle(t *testing.T) {
	opens := func(enter, exit uint64, stack leak.StackID) action {
		return action{enter: enter, exit: exit, opens: true, stack: stack}
	}
	closes := func(enter, exit uint64) action { return action{enter: enter, exit: exit, closes: true} }
	dups := func(enter, exit uint64, stack leak.StackID) action {
		return action{enter: enter, exit: exit, opens: true, closes: true, stack: stack}
	}
	held := holder{open: true, stack: 9}
	for name, c := range map[string]struct {
		base   holder
		recent []action
		open   bool
		stack  leak.StackID
		sure   bool
	}{
		"the close is told before the opening":       {holder{}, []action{closes(3, 4), opens(1, 5, 1)}, false, 0, true},
		"the old one is closed first":                {held, []action{opens(1, 5, 1), closes(2, 6)}, true, 1, true},
		"the close waits while another opens":        {held, []action{opens(3, 4, 1), closes(1, 9)}, true, 1, true},
		"two openings around one close, by time":     {holder{}, []action{opens(1, 2, 1), closes(3, 4), opens(3, 5, 2)}, true, 2, true},
		"two openings around one close, overlapping": {holder{}, []action{opens(1, 5, 1), closes(2, 6), opens(3, 7, 2)}, true, 0, false},
		"the same line opened both":                  {holder{}, []action{opens(1, 5, 1), closes(2, 6), opens(3, 7, 1)}, true, 1, true},
		"dup2 over an open one":                      {held, []action{dups(1, 2, 1)}, true, 1, true},
		"dup2 and a close that overlap":              {held, []action{dups(1, 5, 1), closes(2, 4)}, false, 0, false},
		"a close was not seen":                       {held, []action{opens(5, 6, 1)}, true, 1, true},
	} {
		s := slot{base: c.base, recent: c.recent}
		end, sure := s.settle()
		if sure != c.sure || sure && (end.open != c.open || end.open && end.stack != c.stack) {
			t.Errorf("%s: %+v, sure %v", name, end, sure)
		}
	}
	s := slot{base: held, recent: []action{opens(5, 6, 1)}, doubt: 7}
	if end, sure := s.settle(); sure || end.open {
		t.Errorf("after a loss: %+v, sure %v", end, sure)
	}
}

// TestLayout holds the structs of the programs against those that read them.
func TestLayout(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct {
		name       string
		key, value any
	}{{"uses", lostKey{}, useValue{}}, {"lost", lostKey{}, uint64(0)}, {"fails", failSite{}, uint64(0)}, {"watch", uint32(0), uint64(0)}} {
		s := spec.Maps[m.name]
		if int(s.KeySize) != binary.Size(m.key) || int(s.ValueSize) != binary.Size(m.value) {
			t.Errorf("%s has keys of %d and values of %d bytes", m.name, s.KeySize, s.ValueSize)
		}
	}
	var regs *btf.Struct
	if err := spec.Types.TypeByName("regs", &regs); err != nil || int(regs.Size) != binary.Size(event{}.Regs) {
		t.Errorf("struct regs is %+v: %v", regs, err)
	}
	if size := binary.Size(event{}); size != eventSize {
		t.Errorf("struct event has holes: %d of %d bytes", size, eventSize)
	}
}
