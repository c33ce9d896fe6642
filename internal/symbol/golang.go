package symbol

import (
	"debug/gosym"
	"encoding/binary"
)

const (
	maxPclntab = 1 << 28
	maxGoFuncs = 1 << 19 // gosym keeps some 200 bytes of each
	// Offsets in runtime.moduledata since Go 1.18 and in runtime.pcHeader from
	// Go 1.18 to 1.25 (runtime/symtab.go).
	moduleText = 0xb0
	headerText = 24
)

// goTable is a Go program's own table of functions and lines, which stays in
// the program when its symbols and debug information are stripped.
type goTable struct{ t *gosym.Table }

// newGoTable reads .gopclntab; nil when there is none that can be read.
func newGoTable(o *object) (g *goTable) {
	var data []byte
	var addr uint64
	for _, s := range o.elf.Sections {
		if (s.Name == ".gopclntab" || s.Name == ".data.rel.ro.gopclntab") && s.FileSize <= maxPclntab {
			data, _ = s.Data()
			addr = s.Addr
		}
	}
	// The number of functions follows the magic bytes in all versions.
	if len(data) < headerText+8 || binary.LittleEndian.Uint64(data[8:]) > maxGoFuncs {
		return nil
	}
	// gosym takes the tables as the linker wrote them; what a damaged one makes
	// it do must not end stanch.
	defer func() {
		if recover() != nil {
			g = nil
		}
	}()
	t, err := gosym.NewTable(nil, gosym.NewLineTable(data, o.goText(addr)))
	if err != nil || len(t.Funcs) == 0 {
		return nil
	}
	return &goTable{t}
}

// goText finds what the addresses in the table count from. With cgo that is
// not the start of .text.
func (o *object) goText(pclntab uint64) uint64 {
	start := uint64(0)
	for _, s := range o.elf.Sections {
		switch s.Name {
		case ".text":
			if start == 0 {
				start = s.Addr
			}
		case ".go.module": // since Go 1.26
			w := o.words(s.Addr, s.Addr+moduleText)
			if w[0].ok && w[0].value == pclntab && w[1].ok && o.executable(w[1].value, w[1].value+1) {
				return w[1].value
			}
		}
	}
	var magic [4]byte
	if o.readAt(magic[:], pclntab) == 4 {
		// Go 1.18 to 1.25; 1.26 writes zero.
		switch binary.LittleEndian.Uint32(magic[:]) {
		case 0xfffffff0, 0xfffffff1:
			if w := o.words(pclntab + headerText); w[0].ok && o.executable(w[0].value, w[0].value+1) {
				return w[0].value
			}
		}
	}
	return start
}

// find gives function, file and line of pc. Where the compiler inlined a call,
// file and line are those of the inlined function, so they are only given
// when they lie in the function's own file.
func (g *goTable) find(pc uint64) (name, file string, line int) {
	defer func() {
		if recover() != nil {
			name, file, line = "", "", 0
		}
	}()
	file, line, fn := g.t.PCToLine(pc)
	if fn == nil {
		return "", "", 0
	}
	if own, _, _ := g.t.PCToLine(fn.Entry); own != file {
		file, line = "", 0
	}
	return fn.Name, file, line
}
