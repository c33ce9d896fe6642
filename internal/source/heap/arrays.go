package heap

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// array is a large slice outside the Go heap: it is zero and takes no memory
// until it is touched, the collector does not look at it, and it is given back
// at once. T must hold no pointers.
type array[T any] struct {
	s   []T
	raw []byte
}

// newArray makes an array of n elements.
func newArray[T any](n int) (array[T], error) {
	var zero T
	if n <= 0 {
		return array[T]{}, nil
	}
	size := n * int(unsafe.Sizeof(zero))
	if size/n != int(unsafe.Sizeof(zero)) {
		return array[T]{}, fmt.Errorf("an array of %d elements: %w", n, unix.ENOMEM)
	}
	raw, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return array[T]{}, fmt.Errorf("%d bytes of working memory: %w", size, err)
	}
	if size >= 2<<20 {
		_ = unix.Madvise(raw, unix.MADV_HUGEPAGE) // only faster; a kernel may lack it
	}
	return array[T]{s: unsafe.Slice((*T)(unsafe.Pointer(&raw[0])), n), raw: raw}, nil
}

// free gives the memory back. It may be called twice.
func (a *array[T]) free() {
	if a.raw != nil {
		_ = unix.Munmap(a.raw) // cannot fail for a mapping of ours
	}
	a.s, a.raw = nil, nil
}

// bitset is a set of small numbers.
type bitset []uint64

func (b bitset) has(i uint32) bool { return b[i>>6]>>(i&63)&1 != 0 }
func (b bitset) set(i uint32)      { b[i>>6] |= 1 << (i & 63) }

// newBits makes room for n numbers.
func newBits(n int) (array[uint64], error) { return newArray[uint64](n/64 + 1) }
