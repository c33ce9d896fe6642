package proc

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// CoreThread is one thread of a core file.
type CoreThread struct {
	TID    int
	Signal int             // the signal it was handling when dumped, 0 for none
	Regs   unix.PtraceRegs // all general registers; Fs_base is its thread pointer
}

// parsePRStatus reads struct elf_prstatus of x86-64: pr_cursig is at 12, pr_pid
// at 32, pr_reg, laid out as user_regs_struct, at 112.
func parsePRStatus(b []byte) (CoreThread, bool) {
	const regsAt = 112
	var t CoreThread
	if len(b) < regsAt+binary.Size(t.Regs) {
		return t, false
	}
	t.TID = int(int32(binary.LittleEndian.Uint32(b[32:])))
	t.Signal = int(int16(binary.LittleEndian.Uint16(b[12:])))
	// A bytes.Reader of sufficient length cannot fail.
	_ = binary.Read(bytes.NewReader(b[regsAt:]), binary.LittleEndian, &t.Regs)
	return t, true
}
