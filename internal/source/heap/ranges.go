package heap

import (
	"slices"

	"stanch/internal/leak"
)

// sortRanges orders ranges by their start.
func sortRanges(r []leak.Range) {
	slices.SortFunc(r, func(a, b leak.Range) int {
		switch {
		case a.Start < b.Start:
			return -1
		case a.Start > b.Start:
			return 1
		}
		return 0
	})
}

// union sorts ranges and joins those that touch. It leaves r alone.
func union(r []leak.Range) []leak.Range {
	r = slices.Clone(r)
	sortRanges(r)
	out := r[:0]
	for _, x := range r {
		if k := len(out) - 1; k >= 0 && x.Start <= out[k].End {
			out[k].End = max(out[k].End, x.End)
		} else if x.Start < x.End {
			out = append(out, x)
		}
	}
	return out
}

// subtract gives what of all, sorted, is in none of taken. It sorts taken.
func subtract(all, taken []leak.Range) []leak.Range {
	sortRanges(taken)
	var out []leak.Range
	k := 0
	for _, r := range all {
		for k < len(taken) && taken[k].End <= r.Start {
			k++
		}
		at := r.Start
		for i := k; i < len(taken) && taken[i].Start < r.End; i++ {
			t := taken[i]
			if t.Start > at {
				out = append(out, leak.Range{Start: at, End: t.Start})
			}
			at = max(at, t.End)
		}
		if at < r.End {
			out = append(out, leak.Range{Start: at, End: r.End})
		}
	}
	return out
}

// resident lists the parts of r that may hold anything but zeros.
func (img *Image) resident(r leak.Range) []leak.Range {
	if img.Resident == nil {
		return []leak.Range{r}
	}
	parts, err := img.Resident(r)
	if err != nil {
		return []leak.Range{r}
	}
	return parts
}
