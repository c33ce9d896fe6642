package tsdb

import (
	"encoding/json"
	"testing"
)

func checkJSON(t *testing.T, a Answer, want string) {
	t.Helper()
	got, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
