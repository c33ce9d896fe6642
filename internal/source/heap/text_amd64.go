package heap

import "stanch/internal/leak"

// refersTo reports whether the bytes b at address at may be the part of an
// instruction that addresses the arena at addr: a ModRM byte for rip-relative
// addressing and its displacement, up to four more bytes of an immediate
// following; or, in a program that is not position-independent, the address
// itself in four bytes.
func refersTo(b []byte, at, addr uint64) bool {
	if b[0]&0xc7 == 0x05 {
		target := at + 5 + uint64(int64(int32(order.Uint32(b[1:]))))
		for _, immediate := range [...]uint64{0, 1, 4} {
			if target+immediate-addr < maxState {
				return true
			}
		}
	}
	return addr < 1<<31 && uint64(order.Uint32(b[1:]))-addr < maxState
}

// afterCall reports whether a call instruction may end right before the last
// byte of b+1: code holds the seven bytes before a return address.
func afterCall(code []byte) bool {
	if code[2] == 0xe8 {
		return true
	}
	for _, length := range []int{2, 3, 4, 6, 7} {
		if i := 7 - length; code[i] == 0xff && code[i+1]>>3&7 == 2 {
			return true
		}
	}
	return false
}

// functions lists where the functions of the module of m begin, sorted, by the
// search table of its .eh_frame_hdr (Linux Standard Base, 10.6.2), nil when it
// has none that can be read.
func (img *Image) functions(m *leak.Mapping) []uint64 {
	head := -1
	for i := range img.Maps {
		if o := &img.Maps[i]; sameFile(o, m) && o.Offset == 0 {
			head = i
			break
		}
	}
	if head < 0 {
		return nil
	}
	base := uint64(img.Maps[head].Start)
	var b [pageSize]byte
	if readFull(img.Mem, b[:], base) != nil || string(b[:4]) != "\x7fELF" {
		return nil
	}
	const (
		loadSegment, ehFrame = 1, 0x6474e550
		headerLen, entryLen  = 64, 56
	)
	var table, lowest uint64
	for k := range min(int(order.Uint16(b[56:])), (pageSize-headerLen)/entryLen) {
		switch ph := b[headerLen+k*entryLen:]; order.Uint32(ph) {
		case ehFrame:
			table = load(ph[16:])
		case loadSegment:
			if load(ph[8:]) == 0 { // the segment that base maps
				lowest = load(ph[16:])
			}
		}
	}
	if table == 0 {
		return nil
	}
	return img.searchTable(table - lowest + base)
}

// searchTable reads the search table of the .eh_frame_hdr at at.
func (img *Image) searchTable(at uint64) []uint64 {
	const (
		sdata4, udata4, relative = 0x0b, 0x03, 0x30 // DW_EH_PE_*
		maxFunctions             = 1 << 22
	)
	var h [12]byte // version, three encodings, eh_frame_ptr, fde_count
	if readFull(img.Mem, h[:], at) != nil || h[0] != 1 || h[2] != udata4 || h[3] != relative|sdata4 {
		return nil
	}
	n := order.Uint32(h[8:])
	if n > maxFunctions {
		return nil
	}
	entries := make([]byte, 8*int(n))
	if readFull(img.Mem, entries, at+12) != nil {
		return nil
	}
	starts := make([]uint64, n)
	for i := range starts {
		starts[i] = at + uint64(int64(int32(order.Uint32(entries[8*i:]))))
	}
	return starts
}
