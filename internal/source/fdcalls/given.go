package fdcalls

import (
	"encoding/binary"

	"stanch/internal/leak"
	"stanch/internal/proc"
	"stanch/internal/ptrace"
)

var order = binary.LittleEndian // linux/amd64

// given lists the descriptors that a successful call gave.
func given(c *ptrace.Call, call *proc.FDCall) []int {
	switch call.Does {
	case proc.FDReturns:
		return []int{int(c.Result)}
	case proc.FDReplaces:
		if uint32(c.Args[0]) == uint32(c.Args[1]) {
			return nil // dup2 of a descriptor onto itself does nothing
		}
		return []int{int(c.Result)}
	case proc.FDPair:
		return ints(c, leak.Addr(c.Args[call.Arg]), 2)
	case proc.FDReceives:
		return received(c, leak.Addr(c.Args[call.Arg]))
	case proc.FDReceivesAll:
		var nums []int
		for i := range min(c.Result, mostMessages) {
			nums = append(nums, received(c, leak.Addr(c.Args[call.Arg])+leak.Addr(mmsghdrSize*i))...)
		}
		return nums
	case proc.FDBears:
		return pidfd(c)
	}
	return nil
}

// ints reads n numbers of type int.
func ints(m leak.Memory, at leak.Addr, n int) []int {
	b := make([]byte, 4*n)
	if _, err := m.ReadAt(b, at); err != nil {
		return nil
	}
	nums := make([]int, n)
	for i := range nums {
		nums[i] = int(int32(order.Uint32(b[4*i:])))
	}
	return nums
}

// pidfd is the descriptor for the child that clone or clone3 gave, if it was
// asked for one (sched.h: CLONE_PIDFD, struct clone_args).
func pidfd(c *ptrace.Call) []int {
	const wanted = 0x1000
	flags, at := c.Args[0], c.Args[2]
	if c.Nr == clone3 {
		var args [16]byte // flags, pidfd
		if _, err := c.ReadAt(args[:], leak.Addr(c.Args[0])); err != nil {
			return nil
		}
		flags, at = order.Uint64(args[:]), order.Uint64(args[8:])
	}
	if flags&wanted == 0 {
		return nil
	}
	return ints(c, leak.Addr(at), 1)
}

// Of struct msghdr, struct mmsghdr and struct cmsghdr, socket(7), on 64-bit
// Linux.
const (
	msghdrSize   = 56
	mmsghdrSize  = 64
	atControl    = 32 // msg_control, and msg_controllen behind it
	cmsghdrSize  = 16
	solSocket    = 1
	scmRights    = 1
	scmPidfd     = 4 // Linux 6.5
	mostMessages = 1024
	mostControl  = 1 << 16
)

// hasControl reports whether one of n messages has room for a descriptor.
func hasControl(m leak.Memory, at leak.Addr, n uint64) bool {
	for i := range min(n, mostMessages) {
		if _, size := control(m, at+leak.Addr(mmsghdrSize*i)); size >= cmsghdrSize+4 {
			return true
		}
	}
	return false
}

// control says where the control data of a message is.
func control(m leak.Memory, at leak.Addr) (leak.Addr, uint64) {
	var b [msghdrSize]byte
	if _, err := m.ReadAt(b[:], at); err != nil {
		return 0, 0
	}
	data, size := order.Uint64(b[atControl:]), order.Uint64(b[atControl+8:])
	if data == 0 {
		return 0, 0
	}
	return leak.Addr(data), min(size, mostControl)
}

// received lists the descriptors in the control data of a message.
func received(m leak.Memory, at leak.Addr) []int {
	data, size := control(m, at)
	b := make([]byte, size)
	if _, err := m.ReadAt(b, data); err != nil {
		return nil
	}
	var nums []int
	for len(b) >= cmsghdrSize {
		length := order.Uint64(b)
		if length < cmsghdrSize || length > uint64(len(b)) {
			break
		}
		level, kind := order.Uint32(b[8:]), order.Uint32(b[12:])
		if level == solSocket && (kind == scmRights || kind == scmPidfd) {
			for d := b[cmsghdrSize:length]; len(d) >= 4; d = d[4:] {
				nums = append(nums, int(int32(order.Uint32(d))))
			}
		}
		b = b[min((length+7)&^7, uint64(len(b))):]
	}
	return nums
}
