package proc

import (
	"debug/elf"
	"os"
	"slices"
)

// Imports reports whether the program's file takes one of these functions from
// a library, as its dynamic symbols say; false as well when that cannot be
// read. A statically linked program imports nothing.
func (t *Target) Imports(functions ...string) bool {
	f, err := os.Open(t.Path("exe"))
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // it was only read
	object, err := elf.NewFile(f)
	if err != nil {
		return false
	}
	symbols, err := object.ImportedSymbols()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(symbols, func(s elf.ImportedSymbol) bool { return slices.Contains(functions, s.Name) })
}
