package proc

import (
	"math"
	"os"
	"strconv"
	"strings"
)

// Unlimited is the value of a limit that does not exist.
const Unlimited = math.MaxUint64

// Limit is one resource limit; Unlimited where there is none.
type Limit struct{ Soft, Hard uint64 }

// Limits are the resource limits of a process that stanch uses, getrlimit(2).
type Limits struct {
	NOFILE  Limit // descriptors: one more than the highest number
	NPROC   Limit // threads of the real user
	AS      Limit // bytes of address space
	DATA    Limit // bytes of private writable memory, mmap included since Linux 4.7
	STACK   Limit // bytes
	MEMLOCK Limit // bytes
	CORE    Limit // bytes
}

// Limits reads /proc/PID/limits.
func (t *Target) Limits() (*Limits, error) {
	b, err := os.ReadFile(t.Path("limits"))
	if err != nil {
		return nil, gone(t.ID.PID, err)
	}
	return parseLimits(string(b)), nil
}

// parseLimits reads the table: a name of 25 characters, then soft, hard, unit.
// A line that is missing counts as unlimited.
func parseLimits(text string) *Limits {
	none := Limit{Unlimited, Unlimited}
	l := &Limits{none, none, none, none, none, none, none}
	byName := map[string]*Limit{
		"Max open files": &l.NOFILE, "Max processes": &l.NPROC, "Max address space": &l.AS, "Max data size": &l.DATA,
		"Max stack size": &l.STACK, "Max locked memory": &l.MEMLOCK, "Max core file size": &l.CORE,
	}
	const nameWidth = 25
	for line := range strings.Lines(text) {
		if len(line) <= nameWidth {
			continue
		}
		limit := byName[strings.TrimSpace(line[:nameWidth])]
		values := strings.Fields(line[nameWidth:])
		if limit == nil || len(values) < 2 {
			continue
		}
		*limit = Limit{limitValue(values[0]), limitValue(values[1])}
	}
	return l
}

func limitValue(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return Unlimited // "unlimited"
	}
	return n
}
