package descriptors

import (
	"cmp"
	"slices"

	"stanch/internal/leak"
)

// queuesShown is how many listen queues are said, the fullest ones.
const queuesShown = 16

// backlogs says how full the queues of the listening sockets are. What is not
// known, without the kernel's answer, is not said. longest is the largest
// backlog that listen(2) grants here, 0 when not known.
func (w *watcher) backlogs(sockets map[uint64]*leak.Socket, longest uint64) {
	var queues []*leak.Socket
	for _, s := range sockets {
		if s == nil || s.State != "LISTEN" {
			continue
		}
		w.listens = true
		if s.SendQueue > 0 {
			queues = append(queues, s)
		}
	}
	slices.SortFunc(queues, func(a, b *leak.Socket) int {
		return cmp.Or(cmp.Compare(b.ReceiveQueue*a.SendQueue, a.ReceiveQueue*b.SendQueue), cmp.Compare(a.Local, b.Local))
	})
	for _, s := range queues[:min(len(queues), queuesShown)] {
		limit := "listen backlog"
		if s.SendQueue == longest {
			limit = "net.core.somaxconn"
		}
		w.usage(leak.Usage{Name: leak.UsageBacklog, Scope: s.Local, Used: s.ReceiveQueue, Max: s.SendQueue, Limit: limit})
	}
}
