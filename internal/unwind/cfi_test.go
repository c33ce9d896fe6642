package unwind

import (
	"bytes"
	"slices"
	"testing"
)

// TestInstructions compiles one function each and compares its rows.
func TestInstructions(t *testing.T) {
	sp := func(off int32) Row { return Row{CFA: CFASP, CFAOff: off} }
	saved := func(r Row, off int16) Row { r.BPOff = off; return r }
	other := Row{CFA: CFAOther}
	tests := []struct {
		name         string
		augmentation string
		instructions []byte
		want         []Row
	}{
		{"nothing", "", nil, []Row{atCall.at(0)}},
		{"push rbp", "",
			[]byte{cfaAdvance | 1, cfaDefOffset, 16, cfaOffset | regBP, 2, cfaAdvance | 3, cfaDefReg, regBP, cfaAdvance1, 0x40, cfaDef, regSP, 8},
			[]Row{atCall.at(0), saved(sp(16), -16).at(1), saved(Row{CFA: CFABP, CFAOff: 16}, -16).at(4), saved(sp(8), -16).at(0x44)}},
		{"advances", "",
			[]byte{cfaAdvance1, 0x80, cfaDefOffset, 16, cfaAdvance2, 0, 1, cfaDefOffset, 24, cfaAdvance4, 0, 2, 0, 0, cfaDefOffset, 32},
			[]Row{atCall.at(0), sp(16).at(0x80), sp(24).at(0x180), sp(32).at(0x380)}},
		{"set_loc", "",
			append(le.AppendUint64([]byte{cfaSetLoc}, codeAt+0x20), cfaDefOffset, 16),
			[]Row{atCall.at(0), sp(16).at(0x20)}},
		{"set_loc backwards", "",
			append(le.AppendUint64([]byte{cfaAdvance | 8, cfaSetLoc}, codeAt), cfaDefOffset, 16),
			[]Row{atCall.at(0), none.at(8)}},
		{"remember and restore", "",
			[]byte{cfaAdvance | 1, cfaDefOffset, 32, cfaOffset | regBP, 2, cfaAdvance | 1, cfaRemember, cfaDefOffset, 8, cfaRestore | regBP, cfaAdvance | 1, cfaRestoreState},
			[]Row{atCall.at(0), saved(sp(32), -16).at(1), atCall.at(2), saved(sp(32), -16).at(3)}},
		{"restore_extended", "",
			[]byte{cfaOffsetExt, regBP, 3, cfaAdvance | 1, cfaRestoreExt, regBP},
			[]Row{saved(atCall, -24).at(0), atCall.at(1)}},
		{"signed", "",
			[]byte{cfaDefSF, regSP, 0x7e, cfaOffsetExtSF, regBP, 2, cfaAdvance | 1, cfaDefOffsetSF, 0x7d, cfaNegOffsetExt, regBP, 0x01},
			[]Row{saved(sp(16), -16).at(0), saved(sp(24), 8).at(1)}},
		{"no change", "",
			[]byte{cfaAdvance | 1, cfaDefOffset, 8, cfaAdvance | 1, cfaArgsSize, 0x90, 1, cfaOffset | regR12, 4, cfaAdvance | 1, cfaDefOffset, 16},
			[]Row{atCall.at(0), sp(16).at(3)}},
		{"rbp", "",
			[]byte{cfaSame, regBP, cfaAdvance | 1, cfaUndefined, regBP, cfaAdvance | 1, cfaValOffset, regBP, 2, cfaAdvance | 1, cfaSame, regBP, cfaAdvance | 1, cfaRegister, regBP, regR9},
			[]Row{atCall.at(0), saved(atCall, BPLost).at(1), atCall.at(3), saved(atCall, BPLost).at(4)}},
		{"rbp where no row can say", "",
			[]byte{cfaOffset | regBP, 0, cfaAdvance | 1, cfaOffsetExt, regBP, 0x80, 0x20, cfaAdvance | 1, cfaOffsetExt, regBP, 0x81, 0x20, cfaAdvance | 1, cfaValOffsetSF, regBP, 1},
			[]Row{saved(atCall, BPLost).at(0), saved(atCall, -32768).at(1), saved(atCall, BPLost).at(2)}},
		{"realigned stack", "",
			join([]byte{cfaDef, regR10, 0, cfaAdvance | 4, cfaExpr, regBP}, block(0x76, 0), []byte{cfaAdvance | 4, cfaDefExpr}, block(0x76, 0x70, opDeref)),
			[]Row{other.at(0), Row{CFA: CFAOther, CFAOff: 1}.at(4), Row{CFA: CFADeref, CFAOff: -16, Flags: FlagBPAtBP}.at(8)}},
		{"linkage table", "",
			join([]byte{cfaDefExpr}, block(0x77, 8, 0x80, 0, 0x3f, opAnd, 0x3b, opGE, 0x33, opShl, opPlus)),
			[]Row{Row{CFA: CFAPLT, CFAOff: 11}.at(0)}},
		{"linkage table with endbr64", "",
			join([]byte{cfaDefExpr}, block(0x77, 8, 0x80, 0, 0x3f, opAnd, 0x39, opGE, 0x33, opShl, opPlus)),
			[]Row{Row{CFA: CFAPLT, CFAOff: 9}.at(0)}},
		{"assembler", "",
			join([]byte{cfaDefExpr}, block(0x77, 0x28, opDeref, opPlusUConst, 8)),
			[]Row{other.at(0)}},
		{"signal frame", "zS", signalFrame(160), []Row{Row{CFA: CFASignal, CFAOff: 160, Flags: FlagSignal}.at(0)}},
		{"signal frame at another place", "zS", signalFrame(168), []Row{Row{CFA: CFASignal, CFAOff: 168, Flags: FlagSignal}.at(0)}},
		{"not a signal frame", "", signalFrame(160), []Row{other.at(0)}},
		{"signal frame with rbp elsewhere", "zS",
			join(signalFrame(160), []byte{cfaExpr, regBP}, block(0x77, 8)),
			[]Row{Row{CFA: CFAOther, Flags: FlagSignal}.at(0)}},
		{"outermost", "",
			[]byte{cfaUndefined, regRA, cfaAdvance | 2, cfaDefOffset, 16},
			[]Row{Row{CFA: CFASP, CFAOff: 8, Flags: FlagOutermost, BPOff: BPLost}.at(0), Row{CFA: CFASP, CFAOff: 16, Flags: FlagOutermost, BPOff: BPLost}.at(2)}},
		{"outermost with a strange CFA", "",
			[]byte{cfaUndefined, regRA, cfaDef, regR10, 0},
			[]Row{Row{Flags: FlagOutermost, BPOff: BPLost}.at(0)}},
		{"return address in a register", "", []byte{cfaRegister, regRA, regRDI}, []Row{other.at(0)}},
		{"return address elsewhere", "", []byte{cfaOffset | regRA, 2}, []Row{other.at(0)}},
		{"rsp has a rule", "", []byte{cfaRegister, regSP, regR8}, []Row{other.at(0)}},
		{"rsp is the CFA", "", []byte{cfaValOffset, regSP, 0}, []Row{atCall.at(0)}},
		{"unknown instruction", "", []byte{cfaAdvance | 4, 0x3c, 1, 2, 3}, []Row{atCall.at(0), none.at(4)}},
		{"nothing remembered", "", []byte{cfaAdvance | 4, cfaRestoreState}, []Row{atCall.at(0), none.at(4)}},
		{"remembered without end", "", append([]byte{cfaAdvance | 4}, bytes.Repeat([]byte{cfaRemember}, maxRemembered+1)...), []Row{atCall.at(0), none.at(4)}},
		{"offset of an expression", "", join([]byte{cfaDefExpr}, block(0x77, 0x28, opDeref), []byte{cfaDefOffset, 8}), []Row{none.at(0)}},
		{"expression past the end", "", []byte{cfaDefExpr, 0x7f}, []Row{none.at(0)}},
		{"offset too large", "", []byte{cfaDefOffset, 0x80, 0x80, 0x80, 0x80, 0x08}, []Row{none.at(0)}},
		{"moves past the end", "", []byte{cfaAdvance2, 0xff, 0xff, cfaDefOffset, 16}, []Row{atCall.at(0)}},
		{"vector register", "", []byte{cfaRegister, regRA, 17}, []Row{{Flags: FlagOutermost, BPOff: BPLost, CFA: CFASP, CFAOff: 8, PC: codeAt}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := object{}
			cie := o.cie(test.augmentation, nil, initially...)
			o.fde(cie, le.AppendUint64(nil, o.code(0)), le.AppendUint64(nil, 0x500), test.augmentation != "", test.instructions...)
			// Most of the code is described, so that nothing is assumed.
			o.simple(o.cie("", nil, initially...), o.code(0x500), all-0x500, cfaDefOffset, 48)
			table, err := o.compile()
			if err != nil {
				t.Fatal(err)
			}
			checkTable(t, table)
			want := append(slices.Clone(test.want), sp(48).at(0x500), none.at(all))
			if want[0].says(none) {
				want = want[1:] // a table does not begin with nothing
			}
			if !slices.Equal(table.Rows, want) {
				t.Errorf("got\n%swant\n%s", show(table.Rows), show(want))
			}
		})
	}
}

// signalFrame is how libc describes the code that a signal handler returns to.
func signalFrame(off int64) []byte {
	at := func(reg byte, off int64) []byte {
		return join([]byte{cfaExpr, reg}, block(appendSleb([]byte{0x77}, off)...))
	}
	cfa := append(appendSleb([]byte{0x77}, off), opDeref)
	return join([]byte{cfaDefExpr}, block(cfa...), at(regBP, off-40), at(regSP, off), at(regRA, off+8), at(regRBX, off-32))
}
