package logs

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"stanch/internal/series"
)

// TestFold compares with the definition: the first of those that say least
// takes all that it covers.
func TestFold(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	words := []string{"a", "b", "*", "k=*", "k=a", "k=a=*", "k=a=b", "*=a", "=*", "c"}
	for range 300 {
		var given []series.Series
		for i := range 1 + r.IntN(40) {
			text := words[r.IntN(len(words))]
			for range r.IntN(3) {
				text += " " + words[r.IntN(len(words))]
			}
			given = append(given, lines(text, int64(100*r.IntN(20)), int64(100*i)))
		}
		before := fmt.Sprint(given)
		got := Fold(given)
		if now := fmt.Sprint(given); now != before {
			t.Fatalf("what was given is changed from\n%s to\n%s", before, now)
		}
		if want := foldSlowly(given); !reflect.DeepEqual(got, want) {
			t.Fatalf("given %v\n got %v\nwant %v", given, got, want)
		}
	}
}

func foldSlowly(templates []series.Series) []series.Series {
	order := slices.Clone(templates)
	slices.SortStableFunc(order, func(a, b series.Series) int { return generality(split(b.Key.Part)) - generality(split(a.Key.Part)) })
	out := []series.Series{}
	for _, s := range order {
		i := slices.IndexFunc(out, func(g series.Series) bool { return covers(split(g.Key.Part), split(s.Key.Part)) })
		if i < 0 {
			out = append(out, series.Series{Key: s.Key, Points: slices.Clone(s.Points)})
			continue
		}
		out[i].Points = inOrder(slices.Concat(out[i].Points, s.Points))
	}
	return out
}

// TestFoldMany folds what a store may hold after weeks of a log without kinds.
// It takes half a second; a search through all pairs takes minutes.
func TestFoldMany(t *testing.T) {
	const many = 50_000
	r := rand.New(rand.NewPCG(7, 8))
	given := make([]series.Series, many)
	for i := range given {
		given[i] = lines(fmt.Sprintf("%s %s and %s", word(r.Uint64()), word(r.Uint64()), word(r.Uint64())), int64(100*i))
	}
	begin := time.Now()
	if n := len(Fold(given)); n < many-100 {
		t.Errorf("%d templates are left of %d that differ", n, many)
	}
	given[0].Key.Part = "* * and *"
	if n := len(Fold(given)); n != 1 {
		t.Errorf("%d templates are left of %d that one covers", n, many)
	}
	if d := time.Since(begin); d > 30*time.Second {
		t.Errorf("it took %v", d)
	}
}
