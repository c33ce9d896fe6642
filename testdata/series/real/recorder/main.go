// Recorder starts real programs, healthy and leaking ones, gives them work and
// writes what /proc says of them, at a steady pace, to one file a program.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(log.Ltime)
	b := &bench{}
	flag.StringVar(&b.out, "out", "", "where the recordings go")
	flag.StringVar(&b.work, "work", "", "an empty directory for what the programs keep")
	flag.StringVar(&b.sources, "sources", "", "the directory with the programs' sources")
	minutes := flag.Float64("minutes", 25, "how long to record")
	every := flag.Duration("every", time.Second, "the time between two samples")
	flag.Parse()
	b.length, b.every = time.Duration(*minutes*float64(time.Minute)), *every

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := b.run(ctx, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

// run starts the programs, works with them for the time of the recording and
// ends them.
func (b *bench) run(ctx context.Context, names []string) (err error) {
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.startOrigin(); err != nil {
		return err
	}
	var chosen []*subject
	for _, s := range subjects() {
		if len(names) > 0 && !slices.Contains(names, s.name) {
			continue
		}
		if err := s.start(b, s); err != nil {
			return fmt.Errorf("start %s: %w", s.name, err)
		}
		log.Printf("%s runs as %d", s.name, s.pid)
		chosen = append(chosen, s)
	}

	ctx, cancel := context.WithTimeout(ctx, b.length)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range chosen {
		wg.Go(func() { s.load(ctx, b.length) })
		wg.Go(func() {
			if err := record(ctx, b.out, b.every, s); err != nil {
				log.Printf("record %s: %v", s.name, err)
			}
		})
	}
	wg.Wait()
	return nil
}
