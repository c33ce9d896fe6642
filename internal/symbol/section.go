package symbol

import (
	"compress/zlib"
	"container/list"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Debug files can be far larger than the memory stanch may use, so nothing is
// loaded as a whole: sections are read in blocks, and the blocks of all files
// of one Symbolizer share one cache of bounded size.
const (
	blockSize     = 1 << 15
	cacheBlocks   = 512     // 16 MiB
	inMemory      = 4 << 20 // a compressed section up to this size is unpacked into memory
	maxUnpacked   = 1 << 33 // and none larger than this anywhere,
	maxRatio      = 100     // nor this many times as large as it is packed, plus
	plainUnpacked = 64 << 20
	maxSpillless  = 1 << 28 // what may be unpacked into memory when no temporary file can be made
)

var errTruncated = errors.New("debug data ends too early")

// section is one section of an ELF file, or bytes that stand for one.
type section struct {
	r     io.ReaderAt
	size  uint64
	mem   []byte // all of it, when it is small; then r is nil
	cache *blockCache
}

// memSection is a section whose bytes are at hand.
func memSection(b []byte) *section { return &section{mem: b, size: uint64(len(b))} }

// block returns the bytes around off and the offset of the first of them. It
// is empty at and beyond the end.
func (s *section) block(off uint64) ([]byte, uint64, error) {
	if off >= s.size {
		return nil, off, errTruncated
	}
	if s.r == nil {
		return s.mem, 0, nil
	}
	n := off / blockSize
	b, err := s.cache.get(s, n)
	if err != nil {
		return nil, off, err
	}
	if off-n*blockSize >= uint64(len(b)) {
		return nil, off, errTruncated
	}
	return b, n * blockSize, nil
}

// bytes copies n bytes at off.
func (s *section) bytes(off, n uint64) ([]byte, error) {
	if s == nil || off > s.size || n > s.size-off {
		return nil, errTruncated
	}
	if s.r == nil {
		return append([]byte(nil), s.mem[off:off+n]...), nil
	}
	b := make([]byte, n)
	if m, err := s.r.ReadAt(b, int64(off)); m < len(b) {
		return nil, fmt.Errorf("read debug data: %w", err)
	}
	return b, nil
}

// str reads the zero-terminated string at off, "" when there is none.
func (s *section) str(off uint64) string {
	if s == nil {
		return ""
	}
	c := newCursor(s, off)
	return c.str()
}

type blockKey struct {
	s *section
	n uint64
}

type cachedBlock struct {
	key blockKey
	b   []byte
}

// blockCache keeps the blocks that were used last.
type blockCache struct {
	mu     sync.Mutex
	max    int
	blocks map[blockKey]*list.Element
	order  list.List // front: used last
}

func newBlockCache(blocks int) *blockCache {
	return &blockCache{max: blocks, blocks: map[blockKey]*list.Element{}}
}

func (c *blockCache) get(s *section, n uint64) ([]byte, error) {
	k := blockKey{s, n}
	c.mu.Lock()
	if e, ok := c.blocks[k]; ok {
		c.order.MoveToFront(e)
		c.mu.Unlock()
		return e.Value.(*cachedBlock).b, nil
	}
	c.mu.Unlock()

	size := min(blockSize, s.size-n*blockSize)
	b := make([]byte, size)
	m, err := s.r.ReadAt(b, int64(n*blockSize))
	if m == 0 && err != nil {
		return nil, fmt.Errorf("read debug data: %w", err)
	}
	b = b[:m]

	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.blocks[k]; ok {
		return b, nil
	}
	c.blocks[k] = c.order.PushFront(&cachedBlock{k, b})
	for len(c.blocks) > c.max {
		last := c.order.Back()
		delete(c.blocks, last.Value.(*cachedBlock).key)
		c.order.Remove(last)
	}
	return b, nil
}

// openSection makes a section of a section of the ELF file r, unpacked when it
// is compressed. The io.Closer, when not nil, belongs to the caller.
func openSection(r io.ReaderAt, s *elf.Section, cache *blockCache) (*section, io.Closer, error) {
	if s.Type == elf.SHT_NOBITS {
		return nil, nil, fmt.Errorf("section %s has no contents", s.Name)
	}
	if s.Flags&elf.SHF_COMPRESSED == 0 && !strings.HasPrefix(s.Name, ".zdebug_") {
		return &section{r: s.ReaderAt, size: s.FileSize, cache: cache}, nil, nil
	}
	packed, size, err := unpacker(io.NewSectionReader(r, int64(s.Offset), int64(s.FileSize)), s.FileSize, s.Flags&elf.SHF_COMPRESSED != 0)
	if err != nil {
		return nil, nil, fmt.Errorf("unpack section %s: %w", s.Name, err)
	}
	sec, closer, err := unpack(packed, size, cache)
	if bad := packed.Close(); err == nil {
		err = bad
	}
	if err != nil {
		return nil, closer, fmt.Errorf("unpack section %s: %w", s.Name, err)
	}
	return sec, closer, nil
}

// unpacker reads the header of a compressed section: Elf64_Chdr (elf(5)), or
// the "ZLIB" of the old .zdebug_ sections. It gives the contents and how many
// bytes they claim to be.
func unpacker(r io.Reader, packed uint64, standard bool) (io.ReadCloser, uint64, error) {
	var h [24]byte
	head := h[:]
	if !standard {
		head = h[:12]
	}
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, 0, err
	}
	var size uint64
	typ := elf.COMPRESS_ZLIB
	switch {
	case standard:
		typ, size = elf.CompressionType(binary.LittleEndian.Uint32(head)), binary.LittleEndian.Uint64(head[8:])
	case string(head[:4]) == "ZLIB":
		size = binary.BigEndian.Uint64(head[4:])
	default:
		return nil, 0, errors.New("unknown compression")
	}
	if size > min(maxUnpacked, plainUnpacked+maxRatio*packed) {
		return nil, 0, fmt.Errorf("%d bytes claim to be %d", packed, size)
	}
	switch typ {
	case elf.COMPRESS_ZLIB:
		z, err := zlib.NewReader(r)
		return z, size, err
	case elf.COMPRESS_ZSTD:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(64<<20))
		if err != nil {
			return nil, 0, err
		}
		return z.IOReadCloser(), size, nil
	}
	return nil, 0, fmt.Errorf("unknown compression %v", typ)
}

// unpack puts size bytes of r into memory, or when they are many into an
// unlinked temporary file, whose pages the kernel can drop.
func unpack(r io.Reader, size uint64, cache *blockCache) (*section, io.Closer, error) {
	if size <= inMemory {
		return unpackToMemory(r, size)
	}
	f, err := os.CreateTemp("", "stanch-debug-*")
	if err != nil {
		if size > maxSpillless {
			return nil, nil, err
		}
		return unpackToMemory(r, size)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, f, err
	}
	n, err := io.CopyN(f, r, int64(size))
	if err != nil {
		return nil, f, err
	}
	return &section{r: f, size: uint64(n), cache: cache}, f, nil
}

func unpackToMemory(r io.Reader, size uint64) (*section, io.Closer, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err != nil {
		return nil, nil, err
	}
	return memSection(b), nil, nil
}
