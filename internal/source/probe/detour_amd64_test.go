package probe

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRelocate moves the first instructions of real allocators, read from
// objdump, and compares what they do elsewhere.
func TestRelocate(t *testing.T) {
	const addr, to = 0x7f0000100000, 0x7f0010000000
	for _, c := range []struct {
		name, code string
		at         uint64 // where the jump goes, relative to addr
		len        int
		want       string // disassembly at to
	}{
		{"glibc 2.36 malloc", "4154 55 53 4889fb 4883ec10 803d461b140000", 0, 7,
			"push r12; push rbp; push rbx; mov rbx, rdi; jmp 0x7f0000100007"},
		{"glibc 2.36 free", "4885ff 0f84bf000000 55 488d77f0", 0, 9,
			"test rdi, rdi; jz 0x7f00001000c8; jmp 0x7f0000100009"},
		{"glibc 2.36 memalign", "803d710e140000 7407 e932f6ffff", 0, 7,
			"cmp byte ptr [0x7f0000240e78], 0x0; jmp 0x7f0000100007"},
		{"musl malloc", "e96b190000", 0, 5, "jmp 0x7f0000101970; jmp 0x7f0000100005"},
		{"short condition", "4885ff 7413 4883ec08", 0, 5, "test rdi, rdi; jz 0x7f0000100018; jmp 0x7f0000100005"},
		{"endbr64 stays", "f30f1efa 4885ff b801000000 53", 4, 8, "test rdi, rdi; mov eax, 0x1; jmp 0x7f000010000c"},
		{"load through rip", "488b0599411c00 4885c0", 0, 7, "mov rax, qword ptr [0x7f00002c41a0]; jmp 0x7f0000100007"},
		{"wide immediate", "48b8 0102030405060708 c3", 0, 10, "mov rax, 0x807060504030201; jmp 0x7f000010000a"},
		{"store of an immediate through rip", "c705 00100000 78563412 c3", 0, 10,
			"mov dword ptr [0x7f000010100a], 0x12345678; jmp 0x7f000010000a"},
		{"thread local", "644889 0c25 00000000 c3", 0, 9, "mov qword ptr fs:[], rcx; jmp 0x7f0000100009"},
		{"a call returns to its own place", "4883ec08 e800020000 4883c408 c3", 0, 9,
			"sub rsp, 0x8; lea rsp, ptr [rsp-0x8]; mov dword ptr [rsp], 0x100009; mov dword ptr [rsp+0x4], 0x7f00; jmp 0x7f0000100209; jmp 0x7f0000100009"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := function{addr: addr, code: unhex(t, c.code)}
			d, err := f.displace()
			if err != nil {
				t.Fatal(err)
			}
			if d.at != addr+c.at || len(d.bytes) != c.len {
				t.Errorf("displaces %d bytes at +%d, want %d at +%d", len(d.bytes), d.at-addr, c.len, c.at)
			}
			code, err := d.relocate(to)
			if err != nil {
				t.Fatal(err)
			}
			if got := disassemble(t, code, to); got != c.want {
				t.Errorf("elsewhere:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

// disassemble writes instructions with absolute addresses.
func disassemble(t *testing.T, code []byte, at uint64) string {
	t.Helper()
	var out []string
	f := function{addr: at, code: code}
	for off := 0; off < len(code); {
		in, err := f.decode(off)
		if err != nil {
			t.Fatal(err)
		}
		s := x86asm.IntelSyntax(in.x86, in.at, nil)
		if m, ok := operand(in.x86); ok && m.Base == x86asm.RIP {
			x := in.x86
			for i, a := range x.Args {
				if _, ok := a.(x86asm.Mem); ok {
					m.Base, m.Disp = 0, int64(in.next()+uint64(int64(int32(m.Disp))))
					x.Args[i] = m
				}
			}
			x.PCRel = 0
			s = x86asm.IntelSyntax(x, 0, nil)
		}
		out = append(out, s)
		off += len(in.bytes)
	}
	return strings.Join(out, "; ")
}

func operand(x x86asm.Inst) (x86asm.Mem, bool) {
	for _, a := range x.Args {
		if m, ok := a.(x86asm.Mem); ok {
			return m, true
		}
	}
	return x86asm.Mem{}, false
}

// TestRefused lists functions that no jump may be written into.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name, code string
		addr       uint64
		why        string
	}{
		{"too short", "31c0 c3 90 90 90", 0x1000, "shorter than 5"},
		{"ends", "53 4889fb", 0x1000, "shorter than 5"},
		{"a loop back behind the first instruction", "53 4889fb 48ffc8 75fa c3", 0x1000, "0x1007 jumps"},
		{"a loop back in long form", "53 4889fb 48ffc8 0f85f6ffffff c3", 0x1000, "0x1007 jumps"},
		{"no long form", "e305 4889fb c3 90 90 90", 0x1000, "no form with a long distance"},
		{"an unknown instruction first", "0f01ca c3 90 90 90", 0x1000, "instruction at 0x1000"},
		{"a possible loop behind an unknown one", "53 4889fb 48ffc8 0f01ca 75f6", 0x1000, "0x100a jumps"},
		{"two pages", "4154 55 53 4889fb 4883ec10", 0x1ffd, "two pages"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := function{addr: c.addr, code: unhex(t, c.code)}
			d, err := f.displace()
			if err == nil {
				_, err = d.relocate(0x2000)
			}
			if !errors.Is(err, errDetour) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("got %v, want an error about %q", err, c.why)
			}
		})
	}
	f := function{addr: 0x7f0000000000, code: unhex(t, "4154 55 53 4889fb")}
	d, err := f.displace()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.relocate(0x7e0000000000); err == nil {
		t.Error("a trampoline out of reach is accepted")
	}
	// A loop to the very start is fine: it meets the jump.
	loop := function{addr: 0x1000, code: unhex(t, "53 4889fb 48ffc8 75f7 c3")}
	if _, err := loop.displace(); err != nil {
		t.Errorf("a loop to the start: %v", err)
	}
}

func TestLongBranches(t *testing.T) {
	code := bytes.Repeat([]byte{0x90}, 64)
	copy(code[10:], unhex(t, "0f84 ecffffff")) // to 10+6-20 = -4
	copy(code[30:], unhex(t, "e9 e0ffffff"))   // to 35-32 = 3
	from, to, ok := longBranches(code, 0x1000, 0x1001, 0x1005, func(to uint64) bool { return true })
	if !ok || from != 0x101e || to != 0x1003 {
		t.Errorf("got %#x to %#x %v", from, to, ok)
	}
	if _, _, ok := longBranches(code, 0x1000, 0x1001, 0x1005, func(to uint64) bool { return to != 0x1003 }); ok {
		t.Error("found what is not asked for")
	}
}

func TestLeadsTo(t *testing.T) {
	for _, c := range []struct {
		name, code string
		want       uint64
	}{
		{"jump", "e91bffffff", 0xf20},
		{"endbr and jump", "f30f1efa e9f7020000", 0x1300},
		{"call behind moves", "53 4889fb 4889f7 4889de e891b4f5ff", 0xfffffffffff5c4a0},
		{"a branch first", "4885ff 7413 e812330000", 0},
		{"an indirect jump", "ff2500100000", 0},
		{"a return", "31c0 c3", 0},
	} {
		f := function{addr: 0x1000, code: unhex(t, c.code)}
		got, ok := f.leadsTo()
		if !ok {
			got = 0
		}
		if got != c.want {
			t.Errorf("%s: leads to %#x, want %#x", c.name, got, c.want)
		}
	}
}

func TestPLT(t *testing.T) {
	for _, code := range []string{"ff25 f20f0000 6800000000", "f30f1efa f2ff25 eb0f0000", "f30f1efa ff25 ec0f0000"} {
		b := unhex(t, code)
		slot, ok := pltSlot(b, 0x1000)
		if !ok || slot < 0x1ff0 || slot > 0x2000 {
			t.Errorf("%s: slot %#x %v", code, slot, ok)
		}
	}
	if _, ok := pltSlot(unhex(t, "4154 55 53 4889fb"), 0x1000); ok {
		t.Error("a function is no entry of a procedure linkage table")
	}
}

// FuzzDisplace: whatever the bytes of a function are, no panic, and what is
// accepted can be decoded again.
func FuzzDisplace(f *testing.F) {
	f.Add([]byte{0x41, 0x54, 0x55, 0x53, 0x48, 0x89, 0xfb}, uint64(0x1000))
	f.Add([]byte{0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x85, 0xff, 0x74, 0x10}, uint64(0x7f0000000ffa))
	f.Add([]byte{0xe8, 1, 2, 3, 4}, uint64(0x400000))
	f.Fuzz(func(t *testing.T, code []byte, addr uint64) {
		fn := function{addr: addr, code: code}
		fn.leadsTo()
		fn.callees()
		pltSlot(code, addr)
		d, err := fn.displace()
		if err != nil {
			return
		}
		if len(d.bytes) < jumpSize || len(d.bytes) > patchBytes {
			t.Fatalf("displaces %d bytes", len(d.bytes))
		}
		out, err := d.relocate(addr &^ 0xffff)
		if err == nil && len(out) > maxTrampoline {
			t.Fatalf("trampoline of %d bytes", len(out))
		}
	})
}
