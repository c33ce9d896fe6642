package logs

import (
	"slices"

	"stanch/internal/series"
)

// Fold adds the series of templates that a more general one covers to it: what
// was seen before a word turned out to be variable, and what is left of it in
// a store. Series of one template, of several logs or workers, become one.
func Fold(templates []series.Series) []series.Series {
	type group struct {
		words  []string
		series series.Series
		parts  int
	}
	var groups []*group
	order := slices.Clone(templates)
	slices.SortStableFunc(order, func(a, b series.Series) int { return generality(split(b.Key.Part)) - generality(split(a.Key.Part)) })
	for _, s := range order {
		words := split(s.Key.Part)
		if len(words) == 0 {
			continue
		}
		i := slices.IndexFunc(groups, func(g *group) bool { return covers(g.words, words) })
		if i < 0 {
			groups = append(groups, &group{words, s, 1})
			continue
		}
		g := groups[i]
		g.series.Points = slices.Concat(g.series.Points, s.Points)
		g.parts++
	}
	folded := make([]series.Series, 0, len(groups))
	for _, g := range groups {
		if g.parts > 1 {
			g.series.Points = inOrder(g.series.Points)
		}
		folded = append(folded, g.series)
	}
	return folded
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
