package unwind

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"stanch/internal/leak"
)

// base is where the module of synthetic walks is.
const base = 0x400000

// place is an address in it whose row is at row address n.
func place(n uint64) uint64 { return base + n }

// synthetic makes an unwinder for one module with these rows.
func synthetic(rows ...Row) *Unwinder {
	return New([]Module{{Start: base, End: base + 0x10000, Base: base, Table: &Table{Rows: rows}}})
}

// words makes a stack at 0x7000.
func words(values ...uint64) Stack {
	s := Stack{Start: 0x7000}
	for _, v := range values {
		s.Bytes = le.AppendUint64(s.Bytes, v)
	}
	return s
}

// TestSteps walks over rows of each kind, and into everything that ends a
// walk.
func TestSteps(t *testing.T) {
	row := func(pc uint32, cfa CFA, off int32, flags Flags, bp int16) Row {
		return Row{PC: pc, CFA: cfa, CFAOff: off, Flags: flags, BPOff: bp}
	}
	outermost := row(0x900, CFASP, 8, FlagOutermost, BPLost)
	const stack = 0x7000
	tests := []struct {
		name     string
		rows     []Row
		regs     Regs
		memory   leak.Memory
		want     []uint64 // beyond the first, as row addresses
		complete bool
	}{
		{"outermost", []Row{row(0x100, CFASP, 8, FlagOutermost, 0)}, Regs{SP: stack}, words(1), nil, true},
		{"outermost without CFA", []Row{row(0x100, CFANone, 0, FlagOutermost, 0)}, Regs{SP: stack}, words(1), nil, true},
		{"rsp", []Row{row(0x100, CFASP, 16, 0, 0), outermost}, Regs{SP: stack}, words(1, place(0x905)), []uint64{0x904}, true},
		{"return address at a row's end", []Row{row(0x100, CFASP, 16, 0, 0), outermost, row(0x905, CFANone, 0, 0, 0)}, Regs{SP: stack}, words(1, place(0x905)), []uint64{0x904}, true},
		{"return address 0", []Row{row(0x100, CFASP, 16, 0, 0)}, Regs{SP: stack}, words(1, 0), nil, true},
		{"rbp", []Row{row(0x100, CFABP, 16, 0, -16), outermost}, Regs{SP: stack, BP: stack + 8}, words(1, 2, place(0x905)), []uint64{0x904}, true},
		{"rbp saved", []Row{row(0x100, CFASP, 24, 0, -24), row(0x200, CFABP, 16, 0, 0), outermost}, Regs{SP: stack},
			words(stack+0x18, 0, place(0x201), 1, place(0x901)), []uint64{0x200, 0x900}, true},
		{"rbp the same", []Row{row(0x100, CFASP, 8, 0, BPSame), row(0x200, CFABP, 16, 0, 0), outermost}, Regs{SP: stack, BP: stack + 8},
			words(place(0x201), 1, place(0x901)), []uint64{0x200, 0x900}, true},
		{"rbp lost", []Row{row(0x100, CFASP, 8, 0, BPLost), row(0x200, CFABP, 16, 0, 0), outermost}, Regs{SP: stack, BP: stack + 8},
			words(place(0x201), 1, place(0x901)), []uint64{0x200}, false},
		{"rbp saved at rbp", []Row{row(0x100, CFADeref, -8, FlagBPAtBP, 0), row(0x200, CFABP, 16, 0, 0), outermost}, Regs{SP: stack, BP: stack + 8},
			words(stack+0x18, stack+0x18, place(0x201), 1, place(0x901)), []uint64{0x200, 0x900}, true},
		{"linkage table", []Row{row(0x100, CFAPLT, 11, 0, 0), outermost}, Regs{PC: place(0x10a), SP: stack}, words(place(0x905), place(0x907)), []uint64{0x904}, true},
		{"linkage table, pushed", []Row{row(0x100, CFAPLT, 11, 0, 0), outermost}, Regs{PC: place(0x10b), SP: stack}, words(place(0x905), place(0x907)), []uint64{0x906}, true},
		{"signal", []Row{row(0x100, CFASignal, 160, FlagSignal, 0), row(0x200, CFASP, 8, FlagOutermost, 0)}, Regs{SP: stack},
			words(ucontext(0x9000, place(0x200))...), []uint64{0x200}, true},
		{"signal, elsewhere", []Row{row(0x100, CFASignal, 168, FlagSignal, 0), row(0x200, CFASP, 8, FlagOutermost, 0)}, Regs{SP: stack - 8},
			words(ucontext(0x10, place(0x200))...), []uint64{0x200}, true},
		{"signal, its own frame", []Row{row(0x100, CFASignal, 160, FlagSignal, 0)}, Regs{SP: stack},
			words(ucontext(stack, place(0x100))...), slices.Repeat([]uint64{0x100}, maxLeaps), false},
		{"signal, nowhere", []Row{row(0x100, CFASignal, 160, FlagSignal, 0)}, Regs{SP: stack},
			words(ucontext(stack, 0x10)...), []uint64{1<<64 - base + 0x10}, false},
		{"interrupted in another way", []Row{row(0x100, CFASP, 16, FlagSignal, 0), outermost}, Regs{SP: stack}, words(1, place(0x905)), []uint64{0x905}, true},
		{"no data", []Row{row(0x100, CFANone, 0, 0, 0)}, Regs{SP: stack}, words(1, 2), nil, false},
		{"frame pointers", []Row{row(0x100, CFAFrame, 0, 0, 0), outermost}, Regs{SP: stack, BP: stack}, words(stack+0x10, place(0x201), 0, place(0x905)), []uint64{0x200, 0x904}, true},
		{"frame pointer below", []Row{row(0x100, CFAFrame, 0, 0, 0)}, Regs{SP: stack + 8, BP: stack}, words(stack+0x10, place(0x201), 0), nil, false},
		{"frame pointer odd", []Row{row(0x100, CFAFrame, 0, 0, 0)}, Regs{SP: stack, BP: stack + 4}, words(0, 0, 0), nil, false},
		{"frame pointer zero", []Row{row(0x100, CFAFrame, 0, 0, 0)}, Regs{SP: stack}, words(0, 0, 0), nil, false},
		{"frame pointer to itself", []Row{row(0x100, CFAFrame, 0, 0, 0)}, Regs{SP: stack, BP: stack}, words(stack, place(0x201), 0), []uint64{0x200}, false},
		{"outside", []Row{row(0x100, CFASP, 16, 0, 0)}, Regs{SP: stack}, words(1, 0x12345), nil, false},
		{"just outside", []Row{row(0x100, CFASP, 16, 0, 0)}, Regs{SP: stack}, words(1, base), nil, false},
		{"stack does not grow", []Row{row(0x100, CFASP, 0, 0, 0)}, Regs{SP: stack + 8}, words(place(0x201), 1), nil, false},
		{"stack shrinks", []Row{row(0x100, CFABP, 16, 0, 0)}, Regs{SP: stack + 0x20, BP: stack}, words(1, place(0x201), 1, 1, 1, 1, 1), nil, false},
		{"stack odd", []Row{row(0x100, CFABP, 16, 0, 0)}, Regs{SP: stack, BP: stack + 1}, words(1, 1, 1, 1, 1), nil, false},
		{"stack unreadable", []Row{row(0x100, CFASP, 16, 0, 0)}, Regs{SP: stack}, words(1), nil, false},
		{"no memory", []Row{row(0x100, CFASP, 16, 0, 0)}, Regs{SP: stack}, unreadable{}, nil, false},
		{"end of the address space", []Row{row(0x100, CFASP, 16, 0, 0)}, Regs{SP: 1<<64 - 16}, unreadable{}, nil, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.regs.PC == 0 {
				test.regs.PC = place(0x100)
			}
			u := synthetic(test.rows...)
			places, complete := u.Unwind(test.regs, test.memory, 100)
			want := []leak.Addr{leak.Addr(test.regs.PC)}
			for _, pc := range test.want {
				want = append(want, leak.Addr(place(pc)))
			}
			if !slices.Equal(places, want) || complete != test.complete {
				t.Errorf("complete %v, %v; want %v, %v", complete, places, test.complete, want)
			}
		})
	}
}

// ucontext is the words of a struct ucontext with these rsp and rip.
func ucontext(sp, pc uint64) []uint64 {
	w := make([]uint64, 23)
	w[20], w[21] = sp, pc
	return w
}

type unreadable struct{}

func (unreadable) ReadAt([]byte, leak.Addr) (int, error) { return 0, errors.New("unreadable") }

// TestGenerated walks from a known module into generated code, for which there
// is a module without a table.
func TestGenerated(t *testing.T) {
	u := New([]Module{
		{Start: 0x900000, End: 0x901000},
		{Start: base, End: base + 0x1000, Base: base, Table: &Table{Rows: []Row{{PC: 0, CFA: CFASP, CFAOff: 8}}}},
	})
	places, complete := u.Unwind(Regs{PC: base + 5, SP: 0x7000}, words(0x900010, 1, 2), 100)
	if want := []leak.Addr{base + 5, 0x90000f}; complete || !slices.Equal(places, want) {
		t.Errorf("complete %v, %v; want %v", complete, places, want)
	}
}

// TestLimit never gives more places than asked for.
func TestLimit(t *testing.T) {
	u := synthetic(Row{PC: 0, CFA: CFASP, CFAOff: 8})
	memory := words(slices.Repeat([]uint64{place(0x11)}, 50)...)
	for _, limit := range []int{-1, 0, 1, 10, 1000} {
		places, complete := u.Unwind(Regs{PC: place(0x10), SP: 0x7000}, memory, limit)
		if want := max(0, min(limit, 51)); len(places) != want || complete {
			t.Errorf("limit %d: %d places, complete %v", limit, len(places), complete)
		}
	}
}

// TestExpressions evaluates expressions over registers and memory.
func TestExpressions(t *testing.T) {
	general := [16]uint64{regRAX: 7, regRDX: 1 << 63, regR9: 2}
	regs := Regs{PC: 0x100b, SP: 0x7000, BP: 0x7010, General: &general}
	var w window
	w.look(words(0x11, 0x22, 0x33))
	tests := []struct {
		expr []byte
		want uint64
		ok   bool
	}{
		{[]byte{0x77, 8}, 0x7008, true},
		{[]byte{0x77, 8, opDeref}, 0x22, true},
		{[]byte{0x76, 0x70, opDeref, opPlusUConst, 0x80, 1}, 0x91, true},
		{[]byte{0x77, 0, opBReg0 + regR9, 0, 0x38, opMul, opPlus, opDeref}, 0x33, true},
		{[]byte{0x77, 8, 0x80, 0, 0x3f, opAnd, 0x3b, opGE, 0x33, opShl, opPlus}, 0x7010, true},
		{[]byte{opConst1U, 0xff}, 0xff, true},
		{[]byte{opConst1S, 0xff}, ^uint64(0), true},
		{[]byte{opConst2U, 0xfe, 0xff}, 0xfffe, true},
		{[]byte{opConst2S, 0xfe, 0xff}, ^uint64(1), true},
		{[]byte{opConst4U, 0xfe, 0xff, 0xff, 0xff}, 0xfffffffe, true},
		{[]byte{opConst4S, 0xfe, 0xff, 0xff, 0xff}, ^uint64(1), true},
		{[]byte{opConst8U, 1, 2, 3, 4, 5, 6, 7, 8}, 0x0807060504030201, true},
		{[]byte{opConstU, 0x80, 1}, 128, true},
		{[]byte{opConstS, 0x7f}, ^uint64(0), true},
		{[]byte{0x35, opDup, opPlus}, 10, true},
		{[]byte{0x35, 0x36, opDrop}, 5, true},
		{[]byte{0x35, 0x36, opOver, opMinus, opMinus}, 4, true},
		{[]byte{0x35, 0x36, opSwap, opMinus}, 1, true},
		{[]byte{0x35, opNeg, opNot}, 4, true},
		{[]byte{0x3c, 0x3a, opOr}, 0xe, true},
		{[]byte{0x3c, 0x3a, opXor}, 6, true},
		{[]byte{opBReg0 + regRDX, 0, 0x38 + 7, opShr}, 1 << 48, true},
		{[]byte{opBReg0 + regRDX, 0, 0x30, opNop, opShra}, 1 << 63, true},
		{[]byte{opBRegX, regRAX, 1}, 8, true},
		{[]byte{0x35, 0x35, opEQ, 0x35, 0x36, opNE, opAnd}, 1, true},
		{[]byte{0x35, 0x36, opGT, 0x35, 0x36, opLE, opOr}, 1, true},
		{[]byte{0x35, 0x36, opLT}, 1, true},
		{nil, 0, false},
		{[]byte{opDeref}, 0, false},
		{[]byte{0x35, opPlus}, 0, false},
		{[]byte{0x35, opDrop}, 0, false},
		{[]byte{0x35, opDeref}, 0, false},    // unreadable
		{[]byte{0x77}, 0, false},             // no operand
		{[]byte{opBRegX, 17, 0}, 0, false},   // no such register
		{[]byte{0x35, 0x35, 0xf1}, 0, false}, // no such operation
		{[]byte{0x35, 0x2f, 0, 0}, 0, false}, // DW_OP_skip
		{slices.Repeat([]byte{0x31}, 65), 0, false},
		{append(slices.Repeat([]byte{0x31}, 64), slices.Repeat([]byte{opDup, opDrop}, 4)...), 0, false},
	}
	for _, test := range tests {
		set := regs.set()
		got, err := evaluate(string(test.expr), &set, &w, nil)
		if (err == nil) != test.ok || err == nil && got != test.want {
			t.Errorf("% x: %#x, %v; want %#x", test.expr, got, err, test.want)
		}
	}
}

// TestVDSO compiles the vdso of this process.
func TestVDSO(t *testing.T) {
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(b)) {
		m := leak.Mapping{Path: "[vdso]"}
		if !strings.HasSuffix(line, "[vdso]\n") {
			continue
		}
		if _, err := fmt.Sscanf(line, "%x-%x", &m.Start, &m.End); err != nil {
			t.Fatal(err)
		}
		table, err := compileMapped(&m, openMem(t, os.Getpid()))
		if err != nil {
			t.Fatal(err)
		}
		checkTable(t, table)
		if len(table.Rows) < 10 || table.Assumed {
			t.Errorf("%d rows, assumed %v", len(table.Rows), table.Assumed)
		}
		module, ok := table.Module(&m)
		if !ok || module.Base != m.Start {
			t.Errorf("%+v, mapping at %v", module, m.Start)
		}
		return
	}
	t.Skip("no vdso")
}
