package unwind

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestEncodings compiles the same function with its addresses written in each
// way, at two link addresses.
func TestEncodings(t *testing.T) {
	type encoded struct {
		name         string
		augmentation string
		data         []byte // of the CIE
		got          uint64
		begin, size  func(o *object) []byte
	}
	abs8 := func(o *object) []byte { return le.AppendUint64(nil, o.code(0)) }
	size8 := func(*object) []byte { return le.AppendUint64(nil, all) }
	size4 := func(*object) []byte { return le.AppendUint32(nil, all) }
	rel4 := func(o *object) []byte { return le.AppendUint32(nil, uint32(o.code(0)-o.here())) }
	enc := func(e byte) []byte { return []byte{e} }
	tests := []encoded{
		{"absolute", "", nil, 0, abs8, size8},
		{"absolute zR", "zR", enc(peAbs), 0, abs8, size8},
		{"udata8", "zR", enc(peUdata8), 0, abs8, size8},
		{"udata4", "zR", enc(peUdata4), 0, func(o *object) []byte { return le.AppendUint32(nil, uint32(o.code(0))) }, size4},
		{"sdata4", "zR", enc(peSdata4), 0, func(o *object) []byte { return le.AppendUint32(nil, uint32(o.code(0))) }, size4},
		{"uleb", "zR", enc(peUleb), 0, func(o *object) []byte { return appendUleb(nil, o.code(0)) }, func(*object) []byte { return appendUleb(nil, all) }},
		{"sleb", "zR", enc(peSleb), 0, func(o *object) []byte { return appendSleb(nil, int64(o.code(0))) }, func(*object) []byte { return appendSleb(nil, all) }},
		{"pcrel sdata2", "zR", enc(pePCRel | peSdata2), 0, func(o *object) []byte { return le.AppendUint16(nil, uint16(o.code(0)-o.here())) }, func(*object) []byte { return le.AppendUint16(nil, all) }},
		{"pcrel sdata4", "zR", enc(pePCRel | peSdata4), 0, rel4, size4},
		{"pcrel sdata8", "zR", enc(pePCRel | peSdata8), 0, func(o *object) []byte { return le.AppendUint64(nil, o.code(0)-o.here()) }, size8},
		{"datarel", "zR", enc(peDataRel | peSdata4), 0x5000, func(o *object) []byte { return le.AppendUint32(nil, uint32(o.code(0)-o.got)) }, size4},
		{"textrel", "zR", enc(peTextRel | peUdata8), 0, abs8, size8},
		{"aligned", "zR", enc(peAligned), 0, func(o *object) []byte {
			pad := make([]byte, -o.here()&7)
			return le.AppendUint64(pad, o.code(0))
		}, size8},
		{"indirect", "zR", enc(peIndirect | pePCRel | peSdata4), 0, func(o *object) []byte {
			return le.AppendUint32(nil, uint32(o.frameAddr()+0x800-o.here()))
		}, size4},
		{"personality", "zPLR", append([]byte{peIndirect | pePCRel | peSdata4, 1, 2, 3, 4, pePCRel | peSdata4}, pePCRel|peSdata4), 0, rel4, size4},
		{"personality in 8 bytes", "zPLR", []byte{peAbs, 1, 2, 3, 4, 5, 6, 7, 8, peOmit, pePCRel | peSdata4}, 0, rel4, size4},
		{"no personality", "zPR", []byte{peOmit, pePCRel | peSdata4}, 0, rel4, size4},
		{"signed with key B", "zRB", enc(pePCRel | peSdata4), 0, rel4, size4},
		{"unknown letter", "zR?", append(enc(pePCRel|peSdata4), 7, 7, 7), 0, rel4, size4},
	}
	for _, test := range tests {
		for _, link := range []uint64{0, 0x400000, 0x3a00000000} {
			if link > 1<<32 && (test.name == "udata4" || test.name == "sdata4") {
				continue // the address does not fit
			}
			t.Run(fmt.Sprintf("%s/%#x", test.name, link), func(t *testing.T) {
				o := object{link: link, named: link == 0}
				if test.got != 0 {
					o.got = link + test.got
				}
				cie := o.cie(test.augmentation, test.data, initially...)
				if strings.HasPrefix(test.name, "aligned") {
					o.frame = append(o.frame, 0, 0, 0, 0)
					o.named = true
				}
				o.fde(cie, test.begin(&o), test.size(&o), test.augmentation != "", cfaAdvance|1, cfaDefOffset, 16)
				if test.name == "indirect" {
					o.lastIn = le.AppendUint64(make([]byte, 0x800-len(o.frame)), o.code(0))
				}
				table, err := o.compile()
				if err != nil {
					t.Fatal(err)
				}
				checkTable(t, table)
				want := []Row{atCall.at(0), Row{CFA: CFASP, CFAOff: 16}.at(1), none.at(all)}
				if !slices.Equal(table.Rows, want) || table.Assumed {
					t.Errorf("got\n%swant\n%s", show(table.Rows), show(want))
				}
			})
		}
	}
}

// TestBrokenCIE leaves out the functions of CIEs that cannot be understood,
// and only those.
func TestBrokenCIE(t *testing.T) {
	bodies := map[string][]byte{
		"version 2":                    {2, 0, 1, 0x78, regRA},
		"other return address":         {1, 0, 1, 0x78, regRBX},
		"unknown augmentation":         {1, '?', 0, 1, 0x78, regRA},
		"z not first":                  {1, 'R', 'z', 0, 1, 0x78, regRA, peAbs, 0},
		"augmentation past the end":    {1, 'z', 'R', 0, 1, 0x78, regRA, 0x7f, peAbs},
		"augmentation longer than it":  {1, 'z', 'P', 0, 1, 0x78, regRA, 1, peAbs, 1, 2, 3, 4, 5, 6, 7, 8},
		"no end of augmentation":       bytes.Repeat([]byte{'z'}, 16),
		"instructions nobody knows":    {1, 0, 1, 0x78, regRA, 0x3d},
		"version 4 belongs to another": {4, 0, 8, 0, 1, 0x78, regRA},
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			o := object{}
			o.record(0, body...)
			o.simple(0, o.code(0), 0x100)
			good := o.cie("", nil, initially...)
			o.simple(good, o.code(0x100), 0xf00)
			table, err := o.compile()
			if err != nil {
				t.Fatal(err)
			}
			if want := []Row{atCall.at(0x100), none.at(all)}; !slices.Equal(table.Rows, want) {
				t.Errorf("got\n%swant\n%s", show(table.Rows), show(want))
			}
		})
	}
}

// TestOldCIE reads the augmentation of GCC 2 and the versions with a longer
// return address register.
func TestOldCIE(t *testing.T) {
	for name, body := range map[string][]byte{
		"eh":        join([]byte{1, 'e', 'h', 0}, make([]byte, 8), []byte{1, 0x78, regRA}, initially),
		"version 3": join([]byte{3, 0, 1, 0x78, 0x80 | regRA, 0}, initially),
	} {
		t.Run(name, func(t *testing.T) {
			o := object{}
			o.record(0, body...)
			o.simple(0, o.code(0), all)
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
