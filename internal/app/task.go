package app

import (
	"context"
	"sync"
)

// task is a goroutine with an owner: who starts it ends it and waits for it.
type task struct {
	cancel context.CancelFunc
	done   chan struct{}
	once   sync.Once
	err    error
}

// background runs f until it returns or the task is ended.
func background(ctx context.Context, f func(context.Context) error) *task {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &task{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(t.done)
		t.err = f(ctx)
	}()
	return t
}

// end stops the task and waits for it; it may be called twice. An error that
// only says that the task was ended is none.
func (t *task) end() error {
	t.once.Do(t.cancel)
	<-t.done
	return t.err
}
