package probe

import (
	"os"
	"strings"
	"sync"
	"time"

	"stanch/internal/proc"
)

// rdtsc reads the time stamp counter, which the hooks tell the time by.
func rdtsc() uint64

// clock relates the counter to the observation's clock.
type clock struct {
	c *proc.Clock

	mu   sync.Mutex
	tsc0 uint64        // at at0
	at0  time.Duration // of the observation
	hz   float64       // ticks a second, from the longest distance measured
}

// lastHz is the speed that the last clock has found.
var lastHz struct {
	sync.Mutex
	hz float64
}

// startClock takes the first pair of readings.
func startClock(c *proc.Clock) *clock {
	k := &clock{c: c}
	lastHz.Lock()
	k.hz = lastHz.hz
	lastHz.Unlock()
	k.tsc0, k.at0 = k.both()
	return k
}

// both reads the two clocks close together: the best of a few tries.
func (k *clock) both() (tsc uint64, at time.Duration) {
	best := ^uint64(0)
	for range 5 {
		before := rdtsc()
		now := k.c.Now()
		if after := rdtsc(); after-before < best {
			best, tsc, at = after-before, before+(after-before)/2, now
		}
	}
	return tsc, at
}

// tune measures again. Both clocks may stop or jump when the machine sleeps;
// then the pair starts anew.
func (k *clock) tune() {
	tsc, at := k.both()
	k.mu.Lock()
	defer k.mu.Unlock()
	passed := (at - k.at0).Seconds()
	if tsc <= k.tsc0 || passed <= 0 {
		k.tsc0, k.at0 = tsc, at
		return
	}
	hz := float64(tsc-k.tsc0) / passed
	if passed < leastReady.Seconds() {
		return
	}
	if k.hz != 0 && (hz < k.hz*0.9 || hz > k.hz*1.1) {
		k.tsc0, k.at0 = tsc, at
		return
	}
	k.hz = hz
	lastHz.Lock()
	lastHz.hz = hz
	lastHz.Unlock()
}

// leastReady is the distance that tells the speed to a thousandth.
const leastReady = 10 * time.Millisecond

// ready waits until the speed is known, unless another clock has found it.
func (k *clock) ready() {
	if k.hz != 0 {
		return
	}
	for k.c.Now()-k.at0 < leastReady {
		time.Sleep(time.Millisecond)
	}
	k.tune()
}

// after is the counter's value when d will have passed.
func (k *clock) after(d time.Duration) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return rdtsc() + uint64(d.Seconds()*k.hz)
}

// seconds converts ticks.
func (k *clock) seconds(ticks float64) float64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return ticks / k.hz
}

// steady reports whether the kernel trusts the counter: it runs at one speed
// (constant_tsc), also while the processor sleeps (nonstop_tsc).
func steady(r proc.Root) bool {
	if is, ok := knownSteady.get(r); ok {
		return is
	}
	is := readSteady(r)
	knownSteady.put(r, is)
	return is
}

var knownSteady = known[proc.Root, bool]{most: 16}

func readSteady(r proc.Root) bool {
	b, err := os.ReadFile(string(r) + "/cpuinfo")
	if err != nil {
		return false
	}
	_, flags, _ := strings.Cut(string(b), "\nflags")
	flags, _, _ = strings.Cut(flags, "\n")
	return strings.Contains(flags, " constant_tsc") && strings.Contains(flags, " nonstop_tsc")
}
