package fdtrace

import (
	"fmt"
	"unsafe"

	"stanch/internal/unwind"
)

// Kinds of events, as fdtrace.bpf.c numbers them.
const (
	eventCall = iota
	eventFork
	eventExec
	eventExit
	eventTable
	eventFail
)

// numbersMost is how many descriptors one event names at most.
const numbersMost = 16

// event is struct event of fdtrace.bpf.c.
type event struct {
	Enter, Exit   uint64
	Files, Before uint64
	Ret           int64
	Start         uint64
	Regs          [21]uint64
	Tgid, Tid     uint32
	Subject       uint32
	Visible       uint32
	Nr, Kind      uint32
	Bytes, Most   uint32
	Count         uint32
	Numbers       [numbersMost]int32
	_             uint32
}

// eventSize is the length of struct event.
const eventSize = int(unsafe.Sizeof(event{}))

// Where the arguments of a call are in Regs.
const (
	regArg4 = 7  // r10
	regArg3 = 12 // rdx
	regArg2 = 13 // rsi
	regArg1 = 14 // rdi
	regIP   = 16
	regSP   = 19
)

// decode reads a record; tail is the stack or the bitmap behind the event.
func (e *event) decode(b []byte) (tail []byte, err error) {
	n := eventSize
	if len(b) < n {
		return nil, fmt.Errorf("an event of %d bytes", len(b))
	}
	*e = *(*event)(unsafe.Pointer(&b[0]))
	if uint64(e.Bytes) > uint64(len(b)-n) || e.Count > numbersMost {
		return nil, fmt.Errorf("an event of %d bytes claims %d", len(b), e.Bytes)
	}
	return b[n:][:e.Bytes], nil
}

func (e *event) regs() unwind.Regs { return unwind.UserRegs(e.Regs[:]) }

// site is the key under which the programs look for sites with long stacks.
func (e *event) site() uint64 {
	return e.Regs[regIP] ^ uint64(e.Tgid)<<48 ^ (e.Regs[regSP]&4095)<<36
}

// bitmap is a copied set of open descriptors.
type bitmap []byte

func (b bitmap) has(n int32) bool { return n >= 0 && int(n>>3) < len(b) && b[n>>3]>>(n&7)&1 != 0 }

// each calls f for all numbers in the set, in order.
func (b bitmap) each(f func(n int32)) {
	for i, bits := range b {
		for n := int32(i) * 8; bits != 0; n, bits = n+1, bits>>1 {
			if bits&1 != 0 {
				f(n)
			}
		}
	}
}
