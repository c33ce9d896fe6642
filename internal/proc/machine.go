package proc

import (
	"debug/elf"
	"strings"
)

// machineName is the short name of an ELF machine: "386", "aarch64".
func machineName(machine uint16) string {
	return strings.ToLower(strings.TrimPrefix(elf.Machine(machine).String(), "EM_"))
}
