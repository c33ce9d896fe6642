package unwind

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/go-delve/delve/pkg/dwarf/frame"
)

// objects are what the oracle looks at when they are there. At least wanted of
// them must be.
var objects = []string{
	"/lib/x86_64-linux-gnu/libc.so.6",
	"/lib64/ld-linux-x86-64.so.2",
	"/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
	"/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
	"/usr/lib/x86_64-linux-gnu/libm.so.6",
	"/usr/bin/python3.11",
	"/usr/bin/gdb",
	"/usr/sbin/nginx",
	"/usr/bin/redis-server",
	"/usr/bin/memcached",
}

const (
	wanted = 3
	// longLimit is the size up to which STANCH_LONG=1 compares shared objects:
	// delve's parser takes seconds for larger ones.
	longLimit = 128 << 20
)

// TestOracle compares tables with delve's interpretation of the same call
// frame information, at random addresses. With STANCH_LONG=1 it does so for
// every shared object of the machine below a size limit.
func TestOracle(t *testing.T) {
	paths := slices.Clone(objects)
	if os.Getenv("STANCH_LONG") == "1" {
		all, err := filepath.Glob("/usr/lib/x86_64-linux-gnu/*.so*")
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, all...)
	}
	seen := map[string]bool{}
	done, pcs := 0, 0
	for _, path := range paths {
		real, err := filepath.EvalSymlinks(path)
		if err != nil || seen[real] {
			continue
		}
		seen[real] = true
		data, err := os.ReadFile(real)
		if err != nil || !bytes.HasPrefix(data, []byte("\x7fELF\x02")) || done >= wanted && len(data) > longLimit {
			continue
		}
		t.Run(filepath.Base(real), func(t *testing.T) {
			n := compareObject(t, data)
			if n > 0 {
				done++
			}
			pcs += n
		})
	}
	t.Logf("%d objects, %d addresses", done, pcs)
	if done < wanted {
		t.Skipf("only %d of the objects are installed", done)
	}
}

// compareObject compares one object and says at how many addresses.
func compareObject(t *testing.T, data []byte) int {
	table, err := Compile(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	checkTable(t, table)
	fdes, err := delveFrames(data)
	if err != nil {
		t.Skipf("delve: %v", err)
	}
	if len(fdes) == 0 {
		t.Skip("no call frame information")
	}
	random := rand.New(rand.NewSource(1))
	n, mismatches := 0, 0
	for range 12000 {
		fde := fdes[random.Intn(len(fdes))]
		pc := fde.Begin()
		switch random.Intn(8) {
		case 0: // the very first address
		case 1: // the last one
			pc = fde.End() - 1
		case 2: // just after: another function, or nothing
			pc = fde.End()
		default:
			pc += uint64(random.Int63n(int64(fde.End() - fde.Begin())))
		}
		if err := compareAt(table, fdes, pc); err != nil {
			if mismatches++; mismatches <= 5 {
				t.Errorf("%#x: %v", pc, err)
			}
		}
		n++
	}
	if mismatches > 0 {
		t.Errorf("%d of %d addresses differ", mismatches, n)
	}
	return n
}

// checkTable checks what every table promises.
func checkTable(t *testing.T, table *Table) {
	t.Helper()
	rows := table.Rows
	for i, r := range rows {
		if i > 0 && (rows[i-1].PC >= r.PC || rows[i-1].says(r)) {
			t.Fatalf("rows %d and %d are not in order or say the same: %+v %+v", i-1, i, rows[i-1], r)
		}
		if r.CFA > CFAOther || r.CFA == CFAOther && int(r.CFAOff) >= len(table.full) {
			t.Fatalf("row %d: %+v", i, r)
		}
	}
	if n := len(rows); n > 0 && !rows[n-1].says(Row{}) {
		t.Fatalf("the last row is %+v", rows[n-1])
	}
	if len(table.Bytes()) != RowSize*len(rows) {
		t.Fatalf("%d bytes for %d rows", len(table.Bytes()), len(rows))
	}
}

func delveFrames(data []byte) (frame.FrameDescriptionEntries, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	var s *elf.Section
	addr := uint64(0)
	if s = f.Section(".eh_frame"); s != nil && s.Type != elf.SHT_NOBITS {
		addr = s.Addr
	} else if s = f.Section(".debug_frame"); s == nil {
		return nil, nil
	}
	b, err := s.Data()
	if err != nil {
		return nil, err
	}
	fdes, err := frame.Parse(b, binary.LittleEndian, 0, 8, addr)
	if err != nil {
		return nil, err
	}
	fdes = frame.FrameDescriptionEntries{}.Append(fdes)
	return slices.DeleteFunc(fdes, func(fde *frame.FrameDescriptionEntry) bool { return fde.End() <= fde.Begin() || fde.Begin() == 0 }), nil
}

// compareAt compares what table and fdes say of one virtual address.
func compareAt(table *Table, fdes frame.FrameDescriptionEntries, pc uint64) error {
	row, known := table.Lookup(uint32(pc - table.base))
	fde, err := fdes.FDEForPC(pc)
	if err != nil {
		if known && row.CFA != CFAFrame {
			return fmt.Errorf("row %+v, delve: %w", row, err)
		}
		return nil
	}
	want, err := fde.EstablishFrame(pc)
	if err != nil {
		return fmt.Errorf("delve: %w", err)
	}
	ra := want.Regs[regRA]
	switch {
	case row.Flags&FlagOutermost != 0:
		if ra.Rule != frame.RuleUndefined {
			return fmt.Errorf("outermost, delve %+v", ra)
		}
		return nil
	case row.CFA == CFAOther:
		return compareFull(&table.full[row.CFAOff], want)
	}
	if !sameCFA(row, want.CFA) {
		return fmt.Errorf("row %+v, delve's CFA %+v", row, want.CFA)
	}
	bp := want.Regs[regBP]
	if row.CFA == CFASignal {
		if ra.Rule != frame.RuleExpression || bp.Rule != frame.RuleExpression {
			return fmt.Errorf("signal frame, delve %+v %+v", ra, bp)
		}
		return nil
	}
	if ra.Rule != frame.RuleOffset || ra.Offset != -8 {
		return fmt.Errorf("row %+v, delve's return address %+v", row, ra)
	}
	if !sameBP(table, row, bp) {
		return fmt.Errorf("row %+v, delve's rbp %+v", row, bp)
	}
	return nil
}

func sameCFA(row Row, cfa frame.DWRule) bool {
	sleb := func(v int32) []byte { return appendSleb(nil, int64(v)) }
	switch row.CFA {
	case CFASP:
		return cfa.Rule == frame.RuleCFA && cfa.Reg == regSP && cfa.Offset == int64(row.CFAOff)
	case CFABP:
		return cfa.Rule == frame.RuleCFA && cfa.Reg == regBP && cfa.Offset == int64(row.CFAOff)
	case CFADeref:
		return cfa.Rule == frame.RuleExpression && bytes.Equal(cfa.Expression, append(append([]byte{0x76}, sleb(row.CFAOff)...), 0x06))
	case CFASignal:
		return cfa.Rule == frame.RuleExpression && bytes.Equal(cfa.Expression, append(append([]byte{0x77}, sleb(row.CFAOff)...), 0x06))
	case CFAPLT:
		return cfa.Rule == frame.RuleExpression && bytes.Equal(cfa.Expression, []byte{0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x30 + byte(row.CFAOff), 0x2a, 0x33, 0x24, 0x22})
	}
	return false
}

func sameBP(table *Table, row Row, bp frame.DWRule) bool {
	switch bp.Rule {
	case frame.RuleUndefined, frame.RuleSameVal: // delve says undefined for what is not said
		return row.Flags&FlagBPAtBP == 0 && (row.BPOff == BPSame || bp.Rule == frame.RuleUndefined && row.BPOff == BPLost || table.golang)
	case frame.RuleOffset:
		return row.Flags&FlagBPAtBP == 0 && int64(row.BPOff) == bp.Offset
	case frame.RuleExpression:
		return row.Flags&FlagBPAtBP != 0 && bytes.Equal(bp.Expression, appendSleb([]byte{0x76}, int64(row.BPOff))) ||
			row.Flags&FlagBPAtBP == 0 && row.BPOff == BPLost
	}
	return row.Flags&FlagBPAtBP == 0 && row.BPOff == BPLost
}

// compareFull compares a rule that only Go follows.
func compareFull(full *fullRow, want *frame.FrameContext) error {
	rules := []struct {
		name string
		got  fullRule
		want frame.DWRule
	}{{"CFA", full.cfa, want.CFA}, {"rbp", full.bp, want.Regs[regBP]}, {"rsp", full.sp, want.Regs[regSP]}, {"return address", full.ra, want.Regs[regRA]}}
	for _, r := range rules {
		var same bool
		switch r.want.Rule {
		case frame.RuleUndefined:
			same = r.got.kind == ruleNone || r.got.kind == ruleUndefined
		case frame.RuleSameVal:
			same = r.got.kind == ruleSame
		case frame.RuleOffset:
			same = r.got.kind == ruleOffset && r.got.off == r.want.Offset
		case frame.RuleValOffset:
			same = r.got.kind == ruleValOffset && r.got.off == r.want.Offset
		case frame.RuleRegister:
			same = r.got.kind == ruleRegister && uint64(r.got.reg) == r.want.Reg
		case frame.RuleCFA:
			same = r.got.kind == ruleRegister && uint64(r.got.reg) == r.want.Reg && r.got.off == r.want.Offset
		case frame.RuleExpression:
			same = (r.got.kind == ruleExpr || r.got.kind == ruleValExpr) && r.got.expr == string(r.want.Expression)
		case frame.RuleValExpression:
			same = r.got.kind == ruleValExpr && r.got.expr == string(r.want.Expression)
		}
		if !same {
			return fmt.Errorf("%s: %+v, delve %+v", r.name, r.got, r.want)
		}
	}
	return nil
}
