package leak

import "testing"

// said is a sink that counts what an atlas says.
type said struct {
	Ignore
	maps, stacks int
}

func (s *said) Map(Mapping)            { s.maps++ }
func (s *said) Stack(StackID, []Frame) { s.stacks++ }

// TestAtlasesBesideEachOther holds that two processes of one observation have
// views of their own and IDs of one space.
func TestAtlasesBesideEachOther(t *testing.T) {
	var s said
	program := Mapping{Start: 0x1000, End: 0x2000, Read: true, Exec: true, Dev: 1, Inode: 7, Path: "/bin/parent"}
	other := Mapping{Start: 0x1000, End: 0x2000, Read: true, Exec: true, Dev: 1, Inode: 8, Path: "/bin/child"}
	parent := NewAtlas(&s, nil)
	parent.Update([]Mapping{program})
	child := parent.Beside(nil)
	child.Update([]Mapping{program})
	a, b := parent.Frame(0x1010), child.Frame(0x1010)
	if a != b || a.Map == 0 {
		t.Errorf("the same place after a fork is %v and %v", a, b)
	}
	child.Update([]Mapping{other})
	c := child.Frame(0x1010)
	if c.Map == a.Map || parent.Frame(0x1010) != a {
		t.Errorf("after an exec the child's place is %v, the parent's %v, before %v", c, parent.Frame(0x1010), a)
	}
	if parent.Stack([]Frame{a}) != child.Stack([]Frame{b}) || parent.Stack([]Frame{a}) == child.Stack([]Frame{c}) {
		t.Error("stacks are not told apart as their frames are")
	}
	if s.maps != 2 || s.stacks != 2 {
		t.Errorf("%d mappings and %d stacks were said", s.maps, s.stacks)
	}
}
