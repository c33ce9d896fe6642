package ptrace

import "fmt"

// emitter writes amd64 machine code with forward references: to labels in the
// code and to words of data that follow it.
type emitter struct {
	code   []byte
	data   []uint64
	labels map[string]int
	fixups []fixup
}

// fixup is a 32-bit rip-relative or branch displacement, filled in by finish.
type fixup struct {
	at    int    // where the displacement lies; it counts from at+4
	label string // target in the code, or
	word  int    // index of the data word when label is ""
}

func newEmitter() *emitter { return &emitter{labels: map[string]int{}} }

func (e *emitter) bytes(b ...byte)   { e.code = append(e.code, b...) }
func (e *emitter) label(name string) { e.labels[name] = len(e.code) }

// word adds a data word and returns its index.
func (e *emitter) word(v uint64) int {
	e.data = append(e.data, v)
	return len(e.data) - 1
}

func (e *emitter) ref(f fixup) {
	f.at = len(e.code)
	e.fixups = append(e.fixups, f)
	e.bytes(0, 0, 0, 0)
}

// register numbers as in ModRM and REX.
const (
	rax = iota
	rcx
	rdx
	rbx
	rsp
	rbp
	rsi
	rdi
	r8
	r9
	r10
	r11
	r12
	r13
	r14
	r15
)

// rex gives REX.W with the bit for a register in ModRM.reg.
func rex(reg int) byte { return 0x48 | byte(reg>>3)<<2 }

// ripRelative is the ModRM byte for [rip+disp32].
func ripRelative(reg int) byte { return byte(reg&7)<<3 | 0x05 }

// load is mov reg, [rip+word].
func (e *emitter) load(reg, word int) {
	e.bytes(rex(reg), 0x8b, ripRelative(reg))
	e.ref(fixup{word: word})
}

// lea is lea reg, [rip+word].
func (e *emitter) lea(reg, word int) {
	e.bytes(rex(reg), 0x8d, ripRelative(reg))
	e.ref(fixup{word: word})
}

// imm is mov reg32, imm32, which clears the upper half and leaves the flags.
func (e *emitter) imm(reg int, v uint32) {
	if reg >= r8 {
		e.bytes(0x41)
	}
	e.bytes(0xb8|byte(reg&7), byte(v), byte(v>>8), byte(v>>16), byte(v>>24))
}

func (e *emitter) syscall() { e.bytes(0x0f, 0x05) }

// branch is a jump with a 32-bit displacement: 0xe9 jmp, or 0x0f 0x8x.
func (e *emitter) branch(label string, op ...byte) {
	e.bytes(op...)
	e.ref(fixup{label: label})
}

// jump is jmp *[rip+word]. With the notrack prefix it is also allowed where
// indirect branches are tracked.
func (e *emitter) jump(word int) {
	e.bytes(0x3e, 0xff, 0x25)
	e.ref(fixup{word: word})
}

// finish lays the data behind the code, 8-aligned, and fills in the
// displacements. The code must itself be placed 8-aligned.
func (e *emitter) finish() ([]byte, error) {
	for len(e.code)%8 != 0 {
		e.bytes(0xcc)
	}
	start := len(e.code)
	for _, f := range e.fixups {
		to := start + 8*f.word
		if f.label != "" {
			at, ok := e.labels[f.label]
			if !ok {
				return nil, fmt.Errorf("stub: no label %q", f.label)
			}
			to = at
		}
		order.PutUint32(e.code[f.at:], uint32(to-(f.at+4)))
	}
	out := e.code
	for _, w := range e.data {
		out = order.AppendUint64(out, w)
	}
	return out, nil
}
