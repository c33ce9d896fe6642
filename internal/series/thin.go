package series

// Thin keeps at most about most points of ps, in order: the first and the
// last, and of each stretch of time between the lowest and the highest value,
// so that no peak and no valley is lost in a picture. It returns ps itself when
// that is short enough.
func Thin(ps []Point, most int) []Point {
	most = max(most, 4)
	if len(ps) <= most {
		return ps
	}
	stretches := int64((most - 2) / 2)
	start, end := ps[0].At, ps[len(ps)-1].At
	width := max((end-start)/stretches+1, 1)
	out := make([]Point, 0, most)
	out = append(out, ps[0])
	for i := 1; i < len(ps)-1; {
		stretch := (ps[i].At - start) / width
		low, high := i, i
		for ; i < len(ps)-1 && (ps[i].At-start)/width == stretch; i++ {
			if ps[i].Value < ps[low].Value {
				low = i
			}
			if ps[i].Value > ps[high].Value {
				high = i
			}
		}
		out = append(out, ps[min(low, high)])
		if low != high {
			out = append(out, ps[max(low, high)])
		}
	}
	return append(out, ps[len(ps)-1])
}

// Rate gives how fast a total grew, per second, at the end of each stretch of
// at least width milliseconds. A total that fell began anew: what it counted
// before is left out.
func Rate(ps []Point, width int64) []Point {
	var out []Point
	from := 0
	for i := 1; i < len(ps); i++ {
		if ps[i].Value < ps[i-1].Value {
			from = i
			continue
		}
		if long := ps[i].At - ps[from].At; long >= max(width, 1) {
			out = append(out, Point{ps[i].At, 1000 * (ps[i].Value - ps[from].Value) / float64(long)})
			from = i
		}
	}
	return out
}
