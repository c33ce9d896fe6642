package probe

import (
	"debug/elf"
	"os"
	"testing"

	"stanch/internal/unwind"
)

// TestFromCode compares rows computed from instructions with those that the
// compiler wrote, in a file that has both: where both know, they agree.
func TestFromCode(t *testing.T) {
	const path = "/usr/lib/x86_64-linux-gnu/libc.so.6"
	f, err := os.Open(path)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = f.Close() }()
	truth, err := unwind.Compile(f)
	if err != nil {
		t.Fatal(err)
	}
	file, err := elf.NewFile(f)
	if err != nil {
		t.Fatal(err)
	}
	// As if the file described nothing.
	blank := *truth
	blank.Rows = []unwind.Row{{PC: 0, CFA: unwind.CFAFrame}}
	c := &coder{file: file, table: &blank}
	c.load()
	c.functions()
	calls, right, wrong, unknown := 0, 0, 0, 0
	computed := blank
	computed.Rows = c.merge()
	for i := 1; i < len(computed.Rows); i++ {
		if computed.Rows[i].PC <= computed.Rows[i-1].PC {
			t.Fatalf("rows %d and %d are not in order: %#x %#x", i-1, i, computed.Rows[i-1].PC, computed.Rows[i].PC)
		}
	}
	// What matters is inside of calls: there the walk looks rows up.
	for _, start := range c.starts {
		code, _ := c.in(start)
		code.code = code.code[:min(len(code.code), 4096)]
		for off := 0; off < len(code.code); {
			in, err := code.decode(off)
			if err != nil || in.ends() {
				break
			}
			off += len(in.bytes)
			if in.x86.Op.String() != "CALL" {
				continue
			}
			calls++
			pc := uint32(in.at - c.base)
			want, ok := truth.Lookup(pc)
			got, ok2 := computed.Lookup(pc)
			switch {
			case !ok || want.CFA != unwind.CFASP && want.CFA != unwind.CFABP:
			case !ok2 || got.CFA == unwind.CFANone || got.CFA == unwind.CFAFrame:
				unknown++
			case got.CFA == want.CFA && got.CFAOff == want.CFAOff && got.BPOff == want.BPOff:
				right++
			case got.CFA != want.CFA:
				right++ // the same place, told by another register
			default:
				wrong++
				if wrong < 4 {
					t.Logf("%#x: computed %+v, the file says %+v", pc, got, want)
				}
			}
		}
	}
	t.Logf("%d calls: %d right, %d wrong, %d unknown", calls, right, wrong, unknown)
	if right < 2000 || wrong*200 > right || unknown*10 > right {
		t.Error("too few are right")
	}
}
