//go:build ignore

// gen builds the probe and writes what stanch embeds of it: the machine code
// as it is copied into a target, and the places in it. Run it by go generate
// in internal/source/probe; it needs gcc and ld.
package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"go/format"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

const out = "internal/source/probe"

// What keeps the code free of everything a target might not have: a libc, an
// SSE state that is ours to change, a stack protector, unwind tables.
var cflags = strings.Fields("-std=c11 -O2 -Wall -Wextra -Werror -ffreestanding -fno-builtin -fvisibility=hidden -fpie " +
	"-mgeneral-regs-only -mno-red-zone -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables " +
	"-fno-tree-loop-distribute-patterns -fno-jump-tables -fomit-frame-pointer -fno-ident -g0 -march=x86-64 -mtune=generic")

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal("probe: ", err)
	}
}

func run() error {
	root, err := repoRoot()
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "stanch-probe")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	src := filepath.Join(root, "probe")
	facts, err := offsets(src, tmp)
	if err != nil {
		return err
	}
	image := filepath.Join(tmp, "blob")
	if err := build(src, tmp, image); err != nil {
		return err
	}
	text, symbols, err := extract(image, facts)
	if err != nil {
		return err
	}
	hooks, err := os.ReadFile(filepath.Join(src, "hooks.def"))
	if err != nil {
		return err
	}
	code, err := write(facts, symbols, hooks)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, out, "blob_amd64.bin"), text, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, out, "blob_amd64.go"), code, 0o644)
}

func repoRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod above the working directory")
		}
	}
}

func tool(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, b)
	}
	return nil
}

type fact struct {
	name  string
	value string
}

func value(facts []fact, name string) string {
	for _, f := range facts {
		if f.name == name {
			return f.value
		}
	}
	return ""
}

// offsets compiles offsets.c and collects what it says; offsets.h for the
// assembly comes from it.
func offsets(src, tmp string) ([]fact, error) {
	asm := filepath.Join(tmp, "offsets.s")
	if err := tool(src, "gcc", append(cflags, "-S", "-o", asm, "offsets.c")...); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(asm)
	if err != nil {
		return nil, err
	}
	var facts []fact
	var h bytes.Buffer
	for _, m := range regexp.MustCompile(`(?m)^-> (\w+) (-?\d+)$`).FindAllSubmatch(b, -1) {
		facts = append(facts, fact{string(m[1]), string(m[2])})
		fmt.Fprintf(&h, "#define %s %s\n", m[1], m[2])
	}
	return facts, os.WriteFile(filepath.Join(tmp, "offsets.h"), h.Bytes(), 0o644)
}

func build(src, tmp, image string) error {
	var objects []string
	for _, name := range []string{"entry_amd64.S", "probe.c"} {
		o := filepath.Join(tmp, name+".o")
		if err := tool(src, "gcc", append(cflags, "-I"+tmp, "-c", "-o", o, name)...); err != nil {
			return err
		}
		objects = append(objects, o)
	}
	args := append([]string{"-static", "-nostdlib", "--no-undefined", "--build-id=none", "--orphan-handling=error", "-T", "blob.lds", "-o", image}, objects...)
	return tool(src, "ld", args...)
}

// extract takes the bytes and the symbols, and makes sure that nothing is left
// to be resolved by a loader.
func extract(image string, facts []fact) ([]byte, map[string]uint64, error) {
	f, err := elf.Open(image)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	text := f.Section(".text")
	for _, s := range f.Sections {
		if s.Type == elf.SHT_REL || s.Type == elf.SHT_RELA || s.Type == elf.SHT_DYNAMIC ||
			s.Flags&elf.SHF_WRITE != 0 && s.Size > 0 && s.Name != ".head" {
			return nil, nil, fmt.Errorf("section %s: the probe must stand by itself", s.Name)
		}
	}
	symbols := map[string]uint64{}
	all, err := f.Symbols()
	if err != nil {
		return nil, nil, err
	}
	near := uint64(0)
	for _, s := range all {
		if s.Name == "near" {
			near = s.Value
		}
		if s.Section == elf.SHN_UNDEF && s.Name != "" {
			return nil, nil, fmt.Errorf("symbol %s is undefined", s.Name)
		}
		symbols[s.Name] = s.Value
	}
	if want := "NEAR_DISTANCE"; fmt.Sprint(near) != value(facts, want) {
		return nil, nil, fmt.Errorf("blob.lds puts near at %#x, %s is %s", near, want, value(facts, want))
	}
	b, err := text.Data()
	if err != nil {
		return nil, nil, err
	}
	return append(make([]byte, text.Addr), b...), symbols, nil
}

var hookLine = regexp.MustCompile(`(?m)^(?:HOOK\((\w+), (\w+)\)|(NEW)\((\w+), (\w+)\))$`)

func write(facts []fact, symbols map[string]uint64, hooks []byte) ([]byte, error) {
	var w bytes.Buffer
	fmt.Fprint(&w, "// Code generated by probe/gen.go from probe/*.c, *.S and *.h; DO NOT EDIT.\n\npackage probe\n\n")
	fmt.Fprint(&w, "// Facts of probe/wire.h: offsets into its structs, their sizes, its constants.\nconst (\n")
	for _, f := range facts {
		fmt.Fprintf(&w, "%s = %s\n", camel(f.name), f.value)
	}
	fmt.Fprintf(&w, ")\n\n// cCode is where the code begins that uses the books; before it are the hooks' entries.\nconst cCode = %#x\n", symbols["enter"])
	var words []uint64
	fmt.Fprint(&w, "\n// hooks are the functions of probe/hooks.def, by the number that a patch keeps.\nvar hooks = []hook{\n")
	for _, m := range hookLine.FindAllSubmatch(hooks, -1) {
		kind, name, nothrow := string(m[1]), string(m[2]), ""
		if len(m[3]) > 0 {
			kind, name, nothrow = "NEW", string(m[4]), string(m[5])
		}
		at := func(what string) (uint64, error) {
			v, ok := symbols[what+"."+name]
			if !ok {
				return 0, fmt.Errorf("the blob has no %s.%s", what, name)
			}
			return v, nil
		}
		// hook is declared beside findAllocator.
		var v [4]uint64
		for i, what := range []string{"hook", "slow", "tramp", "ret"} {
			var err error
			if v[i], err = at(what); err != nil {
				return nil, err
			}
		}
		if kind == "POOL" {
			words = append(words, symbols["words."+name])
		}
		fmt.Fprintf(&w, "{name: %q, kind: %q, nothrow: %q, fast: %#x, slow: %#x, tramp: %#x, ret: %#x},\n", name, kind, nothrow, v[0], v[1], v[2], v[3])
	}
	fmt.Fprint(&w, "}\n")
	fmt.Fprint(&w, "\n// poolWords are where the originals of Options.Hooks return to when stack words were copied for them.\nvar poolWords = []uint64{")
	for _, at := range words {
		fmt.Fprintf(&w, "%#x,", at)
	}
	fmt.Fprint(&w, "}\n")
	return format.Source(w.Bytes())
}

// camel turns BOOKS_FRAMES_MAX into wBooksFramesMax: w for wire.
func camel(name string) string {
	var b strings.Builder
	b.WriteByte('w')
	for _, part := range strings.Split(name, "_") {
		b.WriteString(part[:1] + strings.ToLower(part[1:]))
	}
	return b.String()
}
