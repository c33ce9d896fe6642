package symbol

import (
	"bytes"
	"errors"
	"io"

	"github.com/ulikunitz/xz"
)

const (
	maxMini     = 16 << 20 // packed; the largest libraries have about a megabyte
	maxMiniFull = 128 << 20
	minDict     = 4096 // LZMA's least dictionary; the file says which it needs
)

// miniDebugInfo unpacks .gnu_debugdata: an xz-packed ELF file whose .symtab
// has the functions that the dynamic symbols lack ("MiniDebugInfo" in GDB's
// manual). Both results are nil when there is none.
func miniDebugInfo(o *object, cache *blockCache) (*object, error) {
	s := o.section(".gnu_debugdata")
	if s == nil {
		return nil, nil
	}
	if s.size > maxMini {
		return nil, errors.New("too large")
	}
	packed, err := s.bytes(0, s.size)
	if err != nil {
		return nil, err
	}
	r, err := (xz.ReaderConfig{DictCap: minDict}).NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxMiniFull))
	if err != nil {
		return nil, err
	}
	return newObject(o.path, bytes.NewReader(b), nil, cache)
}
