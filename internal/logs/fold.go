package logs

import (
	"slices"
	"strings"

	"stanch/internal/series"
)

// Fold adds the series of templates that a more general one covers to it: what
// was seen before a word turned out to be variable, and what is left of it in
// a store. Series of one template, of several logs or workers, become one. The
// given series are not changed.
func Fold(templates []series.Series) []series.Series {
	order := make([]*folded, 0, len(templates))
	for _, s := range templates {
		if words := split(s.Key.Part); len(words) > 0 {
			order = append(order, &folded{words: words, general: generality(words), series: s, parts: 1})
		}
	}
	slices.SortStableFunc(order, func(a, b *folded) int { return b.general - a.general })
	// Of tens of thousands few begin alike.
	alike := map[beginning][]*folded{}
	var kept []*folded
	for _, f := range order {
		own := f.begins()
		g := covering(alike[own], f)
		if other := covering(alike[beginning{own.words, wildcard}], f); g == nil || other != nil && other.place < g.place {
			g = other
		}
		if g != nil {
			g.add(f.series.Points)
			continue
		}
		f.place = len(kept)
		kept = append(kept, f)
		alike[own] = append(alike[own], f)
	}
	list := make([]series.Series, 0, len(kept))
	for _, f := range kept {
		if f.parts > 1 {
			f.series.Points = inOrder(f.series.Points)
		}
		list = append(list, f.series)
	}
	return list
}

// folded is a series with those that were added to it.
type folded struct {
	words   []string
	general int
	series  series.Series
	parts   int
	place   int // among those that are kept
}

func (f *folded) add(points []series.Point) {
	if f.parts == 1 {
		f.series.Points = slices.Clone(f.series.Points)
	}
	f.series.Points = append(f.series.Points, points...)
	f.parts++
}

// beginning is what templates have in common if one may cover the other: the
// number of words and the first one, of which k=* covers all that begin with k;
// or * instead of it.
type beginning struct {
	words int
	first string
}

func (f *folded) begins() beginning {
	first, _, _ := strings.Cut(f.words[0], "=")
	return beginning{len(f.words), first}
}

// covering finds the one of the list that covers another.
func covering(list []*folded, f *folded) *folded {
	for _, g := range list {
		if (g.general > 0 || len(g.series.Key.Part) == len(f.series.Key.Part)) && covers(g.words, f.words) {
			return g
		}
	}
	return nil
}

// inOrder sorts points and adds up those of one time.
func inOrder(points []series.Point) []series.Point {
	slices.SortStableFunc(points, func(a, b series.Point) int {
		switch {
		case a.At < b.At:
			return -1
		case a.At > b.At:
			return 1
		}
		return 0
	})
	kept := points[:0]
	for _, p := range points {
		if n := len(kept); n > 0 && kept[n-1].At == p.At {
			kept[n-1].Value += p.Value
			continue
		}
		kept = append(kept, p)
	}
	return kept
}
