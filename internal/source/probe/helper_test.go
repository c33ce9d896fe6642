package probe

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"stanch/internal/leak"
	"stanch/internal/proc"
)

// helperWord makes the test binary a small stanch: STANCH_PROBE_HELPER is
// "cycle PID" to place, look and remove, or "stay PID" to place and watch.
const helperWord = "STANCH_PROBE_HELPER"

func TestMain(m *testing.M) {
	if job := os.Getenv(helperWord); job != "" {
		if err := helper(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func helper(job string) error {
	what, number, _ := strings.Cut(job, " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	t, err := proc.Default.Open(pid)
	if err != nil {
		return err
	}
	ctx := context.Background()
	o := options()
	o.Clock, o.Atlas, o.Aim = proc.NewClock(), leak.NewAtlas(leak.Ignore{}, nil), aim(400, 100)
	o.Inputs = true
	p, err := Place(ctx, t, o)
	if err != nil {
		return err
	}
	fmt.Println("placed")
	if what == "stay" {
		return p.Watch(ctx, t, leak.Ignore{})
	}
	for range 2 {
		if err := p.look(ctx, leak.Ignore{}); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond) // some allocations more
	}
	return p.Remove(ctx)
}
