package unwind

import (
	"strings"
	"testing"

	"stanch/internal/leak"
)

// FuzzCompile compiles anything: no panic, and what every table promises.
func FuzzCompile(f *testing.F) {
	for _, o := range []object{{}, {named: true}, {named: true, debug: true}, {named: true, noHdr: true}} {
		cie := o.cie("", nil, initially...)
		o.simple(cie, o.code(0), 0x800, join([]byte{cfaAdvance | 1, cfaDefOffset, 16, cfaOffset | regBP, 2, cfaRemember, cfaAdvance1, 5, cfaRestoreState, cfaDefExpr}, block(0x77, 0x28, opDeref, opPlusUConst, 8))...)
		o.cie("zPLRS", append([]byte{peIndirect | pePCRel | peSdata4, 1, 2, 3, 4, pePCRel | peSdata4}, pePCRel|peSdata4), signalFrame(160)...)
		if !o.debug {
			o.table = []entry{{o.code(0), o.frameAddr()}}
		}
		f.Add(o.bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := Compile(strings.NewReader(string(b)))
		if err != nil {
			return
		}
		checkTable(t, table)
		for i := range table.full {
			u := New([]Module{{Start: base, End: base + 0x1000, Base: base, Table: &Table{Rows: []Row{{CFA: CFAOther, CFAOff: int32(i)}}, full: table.full}}})
			var general [16]uint64
			u.Unwind(Regs{PC: base, SP: 0x7000, General: &general}, words(1, base+1, base+2, 0x7000), 10)
		}
	})
}

// FuzzFrame compiles anything that stands in the place of .eh_frame.
func FuzzFrame(f *testing.F) {
	for _, o := range []object{{}, {debug: true}} {
		cie := o.cie("", nil, initially...)
		o.simple(cie, o.code(0), 0x800, cfaAdvance|1, cfaDefOffset, 16, cfaOffset|regBP, 2, cfaRemember, cfaAdvance1, 5, cfaRestoreState)
		f.Add(o.frame, o.debug)
		o.cie("zPLRS", append([]byte{peIndirect | pePCRel | peSdata4, 1, 2, 3, 4, pePCRel | peSdata4}, pePCRel|peSdata4), signalFrame(160)...)
		f.Add(o.frame, o.debug)
	}
	f.Fuzz(func(t *testing.T, b []byte, debug bool) {
		o := object{frame: b, debug: debug, named: true}
		table, err := o.compile()
		if err != nil {
			t.Fatal(err)
		}
		checkTable(t, table)
	})
}

// FuzzUnwind walks any stack over rows of all kinds, with a live-like memory
// and with a copied piece.
func FuzzUnwind(f *testing.F) {
	f.Add(place(0x100), uint64(0x7000), uint64(0x7010), words(place(0x201), 0x7018, place(0x301), place(0x401), ucontext(0x7008, place(0x101))[3]).Bytes)
	f.Fuzz(func(t *testing.T, pc, sp, bp uint64, b []byte) {
		var rows []Row
		for i := range uint32(64) {
			rows = append(rows, Row{PC: i * 256, CFA: CFA(i % 8), CFAOff: int32(i) * 4, Flags: Flags(i / 8 & 6), BPOff: -8 * int16(i%5)})
		}
		table := Table{Rows: rows, golang: pc&1 != 0, full: make([]fullRow, 256)}
		for i := range table.full {
			table.full[i] = fullRow{cfa: fullRule{kind: ruleValExpr, expr: string(b[:min(len(b), i)])}, ra: fullRule{kind: ruleOffset, off: -8}}
		}
		u := New([]Module{{Start: base, End: base + 0x4000, Base: base, Table: &table}})
		stack := Stack{Start: leak.Addr(sp), Bytes: b}
		for _, memory := range []leak.Memory{stack, struct{ leak.Memory }{stack}} {
			places, _ := u.Unwind(Regs{PC: pc, SP: sp, BP: bp}, memory, 50)
			if len(places) == 0 || len(places) > 50 || places[0] != leak.Addr(pc) {
				t.Fatalf("places %v", places)
			}
		}
	})
}
