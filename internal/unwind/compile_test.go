package unwind

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"stanch/internal/leak"
)

// all is the whole page of code, for files that describe all their code.
const all = 0x1000

var (
	none   = Row{}
	atCall = Row{CFA: CFASP, CFAOff: 8}
)

// show writes rows with addresses relative to the code.
func show(rows []Row) string {
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "%#x: cfa %d %d flags %d rbp %d\n", int64(r.PC)-codeAt, r.CFA, r.CFAOff, r.Flags, r.BPOff)
	}
	return b.String()
}

// at gives a row its address, relative to the code.
func (r Row) at(pc uint32) Row {
	r.PC = codeAt + pc
	return r
}

func block(expr ...byte) []byte { return append([]byte{byte(len(expr))}, expr...) }

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// TestFunctions compiles several functions: gaps, order, overlaps, and records
// that say nothing.
func TestFunctions(t *testing.T) {
	deeper := []byte{cfaDefOffset, 16}
	deep := Row{CFA: CFASP, CFAOff: 16}
	type function struct {
		begin, size  uint64
		instructions []byte
	}
	tests := []struct {
		name      string
		functions []function
		want      []Row
	}{
		{"gap", []function{{0, 0x700, nil}, {0x800, 0x800, nil}}, []Row{atCall.at(0), none.at(0x700), atCall.at(0x800), none.at(all)}},
		{"neighbours that say the same", []function{{0, 0x800, nil}, {0x800, 0x800, nil}}, []Row{atCall.at(0), none.at(all)}},
		{"not in order", []function{{0x800, 0x800, deeper}, {0, 0x700, nil}}, []Row{atCall.at(0), none.at(0x700), deep.at(0x800), none.at(all)}},
		{"overlap", []function{{0, 0x900, nil}, {0x800, 0x100, deeper}, {0xa00, 0x600, nil}}, []Row{atCall.at(0), deep.at(0x800), none.at(0x900), atCall.at(0xa00), none.at(all)}},
		{"inside another", []function{{0, all, nil}, {0x800, 0x100, deeper}}, []Row{atCall.at(0), deep.at(0x800), none.at(0x900)}},
		{"twice", []function{{0, all, nil}, {0, all, deeper}, {0, 1, deeper}}, []Row{atCall.at(0), none.at(all)}},
		{"empty", []function{{0, 0, deeper}, {0, all, nil}}, []Row{atCall.at(0), none.at(all)}},
		{"outside the code", []function{{0, all, nil}, {0x5000, 16, nil}, {^uint64(0x1100), 16, nil}}, []Row{atCall.at(0), none.at(all)}},
		{"around the address space", []function{{0, all, nil}, {0x800, ^uint64(0), deeper}}, []Row{atCall.at(0), none.at(all)}},
	}
	for _, test := range tests {
		for _, named := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", test.name, named), func(t *testing.T) {
				o := object{named: named, noHdr: named}
				cie := o.cie("", nil, initially...)
				for _, f := range test.functions {
					o.simple(cie, o.code(f.begin), f.size, f.instructions...)
				}
				table, err := o.compile()
				if err != nil {
					t.Fatal(err)
				}
				checkTable(t, table)
				if !slices.Equal(table.Rows, test.want) {
					t.Errorf("got\n%swant\n%s", show(table.Rows), show(test.want))
				}
			})
		}
	}
}

// TestEnd finds the end of .eh_frame: by its section, by the search table, or
// by a zero length.
func TestEnd(t *testing.T) {
	for _, c := range []struct {
		name         string
		named, table bool
		second       bool // the function after the zero belongs to the section
	}{{"section", true, false, true}, {"search table", false, true, true}, {"zero", false, false, false}} {
		t.Run(c.name, func(t *testing.T) {
			o := object{named: c.named}
			cie := o.cie("", nil, initially...)
			o.simple(cie, o.code(0), 0x800)
			o.frame = append(o.frame, 0, 0, 0, 0)
			if c.table {
				o.table = []entry{{o.code(0), o.frameAddr() + uint64(cie)}, {o.code(0x800), o.frameAddr() + uint64(len(o.frame))}}
			}
			o.simple(cie, o.code(0x800), 0x800)
			// Not part of it: a function that would be wrong.
			o.lastIn = append([]byte{}, o.frame[cie:]...)
			table, err := o.compile()
			if err != nil {
				t.Fatal(err)
			}
			want := []Row{atCall.at(0), none.at(all)}
			if !c.second {
				want = []Row{atCall.at(0), none.at(0x800)}
			}
			if !slices.Equal(table.Rows, want) {
				t.Errorf("got\n%swant\n%s", show(table.Rows), show(want))
			}
		})
	}
}

// TestDebugFrame reads .debug_frame, whose CIEs have another id and whose
// pointers to them are offsets.
func TestDebugFrame(t *testing.T) {
	narrow := object{debug: true, named: true}
	narrow.cie("", nil, initially...)
	narrow.simple(0, narrow.code(0), all)

	wide := object{debug: true, named: true}
	record := func(id uint64, body ...byte) {
		wide.frame = le.AppendUint32(wide.frame, 0xffffffff)
		wide.frame = le.AppendUint64(wide.frame, uint64(8+len(body)))
		wide.frame = le.AppendUint64(wide.frame, id)
		wide.frame = append(wide.frame, body...)
	}
	record(^uint64(0), join([]byte{4, 0, 8, 0, 1, 0x78, regRA}, initially)...)
	record(0, le.AppendUint64(le.AppendUint64(nil, wide.code(0)), all)...)

	for name, o := range map[string]*object{"32 bits, version 1": &narrow, "64 bits, version 4": &wide} {
		t.Run(name, func(t *testing.T) {
			table, err := o.compile()
			if err != nil {
				t.Fatal(err)
			}
			if want := []Row{atCall.at(0), none.at(all)}; !slices.Equal(table.Rows, want) {
				t.Errorf("got\n%swant\n%s", show(table.Rows), show(want))
			}
		})
	}
}

// TestStripped compiles real files with and without section headers: the
// tables are the same.
func TestStripped(t *testing.T) {
	for _, path := range objects {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		want, err := Compile(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		clear(data[40:48]) // e_shoff
		got, err := Compile(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Rows, want.Rows) {
			t.Errorf("%s: %d rows without section headers, %d with", path, len(got.Rows), len(want.Rows))
		}
		if want.Assumed || got.Assumed {
			t.Errorf("%s: frame pointers assumed: %v, without section headers %v", path, want.Assumed, got.Assumed)
		}
	}
}

// TestNothing compiles files that describe nothing, and no ELF files.
func TestNothing(t *testing.T) {
	o := object{noHdr: true}
	table, err := o.compile()
	if err != nil {
		t.Fatal(err)
	}
	if want := []Row{Row{CFA: CFAFrame}.at(0), none.at(all)}; !slices.Equal(table.Rows, want) || !table.Assumed {
		t.Errorf("got\n%swant\n%s", show(table.Rows), show(want))
	}
	whole := o.bytes()
	for _, b := range [][]byte{nil, []byte("\x7fELF"), whole[:64], append([]byte("\x7fELF\x01"), whole[5:]...), bytes.Replace(whole, []byte{62, 0}, []byte{183, 0}, 1)} {
		if _, err := Compile(bytes.NewReader(b)); err == nil {
			t.Errorf("no error for %d bytes", len(b))
		}
	}
	if _, err := Compile(bytes.NewReader(make([]byte, 64))); !errors.Is(err, ErrFormat) {
		t.Errorf("zeros: %v", err)
	}
}

// TestModule places tables in processes: position independent, prelinked and
// fixed ones, and parts of a segment.
func TestModule(t *testing.T) {
	for _, c := range []struct {
		link, start  uint64
		offset, base uint64
	}{
		{0, 0x7f0000001000, codeAt, 0x7f0000000000},
		{0x400000, 0x401000, codeAt, 0x400000},
		{0x3a00000000, 0x3a00001000, codeAt, 0x3a00000000},
		{0x3a00000000, 0x7f0000001000, codeAt, 0x7f0000000000}, // prelinked, but loaded elsewhere
		{0x400800, 0x401000, codeAt, 0x3ff800},
	} {
		o := object{link: c.link}
		table, err := o.compile()
		if err != nil {
			t.Fatal(err)
		}
		m, ok := table.Module(&leak.Mapping{Start: leak.Addr(c.start), End: leak.Addr(c.start) + all, Offset: c.offset})
		// The row of an address must be that of its byte in the file.
		if !ok || uint64(m.Start)-uint64(m.Base)+table.base != c.link+codeAt {
			t.Errorf("%+v: %+v", c, m)
		}
		if _, ok := table.Module(&leak.Mapping{Start: leak.Addr(c.start), End: leak.Addr(c.start) + all, Offset: 0x5000}); ok {
			t.Errorf("%+v: a mapping of no segment", c)
		}
	}
}

// TestBytes fixes the layout that the probe reads.
func TestBytes(t *testing.T) {
	table := Table{Rows: []Row{{PC: 0x01020304, CFAOff: -2, CFA: CFADeref, Flags: FlagBPAtBP, BPOff: -16}, {PC: 0x01020305}}}
	want := []byte{4, 3, 2, 1, 0xfe, 0xff, 0xff, 0xff, 3, 2, 0xf0, 0xff, 5, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0}
	if got := table.Bytes(); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

// TestLookup looks before, at, between and after rows.
func TestLookup(t *testing.T) {
	table := Table{Rows: []Row{atCall.at(0), {PC: codeAt + 4, Flags: FlagOutermost}, none.at(8)}}
	for pc, want := range map[uint32]bool{0: false, codeAt - 1: false, codeAt: true, codeAt + 3: true, codeAt + 4: true, codeAt + 7: true, codeAt + 8: false, 1<<32 - 1: false} {
		if row, ok := table.Lookup(pc); ok != want {
			t.Errorf("%#x: %+v %v", pc, row, ok)
		}
	}
	if _, ok := (&Table{}).Lookup(0); ok {
		t.Error("a row in an empty table")
	}
}

func BenchmarkCompile(b *testing.B) {
	for _, path := range []string{"/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/bin/gdb"} {
		b.Run(path[strings.LastIndexByte(path, '/')+1:], func(b *testing.B) {
			data, err := os.ReadFile(path)
			if err != nil {
				b.Skip(err)
			}
			var t *Table
			for b.Loop() {
				if t, err = Compile(bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(t.Rows)), "rows")
		})
	}
}
