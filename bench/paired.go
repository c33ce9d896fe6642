package main

import (
	"fmt"
	"slices"
)

// rounds is how often each way to record is compared with native. Of 9 values
// in order, the 2nd and the 8th enclose the median of what they are drawn from
// with 96 %: the binomial distribution, whatever they are.
const rounds = 9

// quotient is one quantity with stanch attached, of the same without it, in
// each round.
type quotient []float64

// String is the median and its 95 % interval.
func (q quotient) String() string {
	middle := median(q) // it sorts
	return fmt.Sprintf("%.3f (95 %% interval %.3f to %.3f)", middle, q[1], q[len(q)-2])
}

// paired measures quantities of a process, in turns alone and with stanch
// attached in each way: what is measured while it is attached is divided by the
// mean of what was measured just before and just after. It gives the quotients
// by way and quantity, and the medians of the quantities alone.
func paired(b *bench, pid int, ways []way, measure func() []float64) (quotients [][]quotient, native []float64) {
	before := measure()
	quotients = make([][]quotient, len(ways))
	natives := make([][]float64, len(before))
	for w := range ways {
		quotients[w] = make([]quotient, len(before))
	}
	for range rounds {
		for w := range ways {
			r := b.record(pid, ways[w])
			during := measure()
			if r.end().Total.Acquired.Count == 0 {
				b.Fatalf("%s recorded nothing", ways[w].name)
			}
			after := measure()
			for i := range during {
				quotients[w][i] = append(quotients[w][i], 2*during[i]/(before[i]+after[i]))
				natives[i] = append(natives[i], after[i])
			}
			before = after
		}
	}
	for _, list := range natives {
		native = append(native, median(slices.Clone(list)))
	}
	return quotients, native
}
