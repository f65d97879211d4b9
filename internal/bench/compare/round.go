package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/bench/compare/result"
	"github.com/roomkv/roomkv/internal/homeserver"
)

// round measures all kinds of memories in one size. Each has a user and rooms of its own, so that none reads what another has written. They
// take turns, so that what slows the machine down slows all of them.
type round struct {
	result.Size
	server *homeserver.Server
	nats   *natsServer
	rounds int
	times  int // how often each process does an operation in each round
}

// contender is one memory, with its processes.
type contender struct {
	job
	workers []*worker
	total   map[string]done // by operation
	wrote   [][]written     // by process
}

func (r round) measure(ctx context.Context) (rows []result.Row, err error) {
	ctx, cancel := context.WithCancel(ctx) // which ends the processes
	defer cancel()
	var all []*contender
	for _, kind := range kinds {
		c, err := r.start(ctx, kind)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		all = append(all, c)
	}
	ops := []string{result.Put}
	if r.Processes == 1 {
		ops = append(ops, result.Get)
	}
	for range r.rounds {
		for _, op := range ops {
			for _, c := range all {
				if err := c.do(order{op, r.times}); err != nil {
					return nil, fmt.Errorf("%s: %s: %w", c.Kind, op, err)
				}
			}
		}
	}
	for _, op := range ops {
		for _, c := range all {
			rows = append(rows, r.row(c, op, all[0].total[op].Nanos))
		}
	}
	for _, c := range all {
		kept, err := r.kept(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Kind, err)
		}
		for i := range rows {
			if rows[i].Memory == c.Kind {
				rows[i].Kept = kept
			}
		}
		for _, w := range c.workers {
			if err := w.end(); err != nil {
				return nil, fmt.Errorf("%s: %w", c.Kind, err)
			}
		}
	}
	return rows, nil
}

func (r round) row(c *contender, op string, rawNanos int64) result.Row {
	total, times := c.total[op], r.rounds*r.times*r.Processes
	each := func(sum int64) float64 { return rounded(float64(sum) / float64(times)) }
	return result.Row{Size: r.Size, Memory: c.Kind, Op: op, Times: times, Requests: each(total.Requests), Up: each(total.Up), Down: each(total.Down),
		Bytes: each(total.Bytes), Allocs: each(total.Allocs), Micros: rounded(float64(total.Nanos) / float64(times) / 1000), Raw: rounded(float64(total.Nanos) / float64(rawNanos))}
}

// rounded is a number with four digits.
func rounded(n float64) float64 {
	n, _ = strconv.ParseFloat(strconv.FormatFloat(n, 'g', 4, 64), 64)
	return n
}

// start fills a memory and starts its processes.
func (r round) start(ctx context.Context, kind string) (*contender, error) {
	c := &contender{job: job{Kind: kind, URL: r.server.URL, NATS: r.nats.ClientURL()}, total: map[string]done{}, wrote: make([][]written, r.Processes)}
	if kind == inNATS {
		for i := range r.Rooms {
			c.Rooms = append(c.Rooms, id.RoomID(fmt.Sprintf("%d-%d-%d-%d", r.Keys, r.Rooms, r.Processes, i)))
		}
	} else {
		user, err := r.server.Register(ctx, "compare")
		if err != nil {
			return nil, err
		}
		for range r.Rooms {
			made, err := user.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "private_chat"})
			if err != nil {
				return nil, err
			}
			c.Rooms = append(c.Rooms, made.RoomID)
		}
		c.User, c.Device, c.Token = user.UserID, user.DeviceID, user.AccessToken
	}
	values := map[string]string{}
	for i := range r.Keys {
		key := fmt.Sprintf("key-%04d", i)
		c.Keys = append(c.Keys, key)
		values[key] = valueOf(0)
	}
	filled, end, err := r.reader(ctx, c)
	if err != nil {
		return nil, err
	}
	defer end()
	for _, room := range c.Rooms {
		if err := filled.fill(ctx, room, values); err != nil {
			return nil, err
		}
	}
	for i := range r.Processes {
		own := c.job
		own.Keys = c.Keys[i*r.Keys/r.Processes : (i+1)*r.Keys/r.Processes]
		own.Rooms = nil
		for n := range min(r.Rooms, r.rounds*r.times) {
			own.Rooms = append(own.Rooms, c.Rooms[(i*r.Rooms/r.Processes+n)%r.Rooms])
		}
		if kind != inNATS && i > 0 {
			device, err := r.server.NewDevice(ctx, c.User)
			if err != nil {
				return nil, err
			}
			own.Device, own.Token = device.DeviceID, device.AccessToken
		}
		w, err := startWorker(ctx, own)
		if err != nil {
			return nil, err
		}
		c.workers = append(c.workers, w)
	}
	for _, w := range c.workers {
		if err := w.ready(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// reader is the memory in this process, which does not follow.
func (r round) reader(ctx context.Context, c *contender) (m memory, end func(), err error) {
	if c.Kind == inNATS {
		conn, err := nats.Connect(c.NATS)
		if err != nil {
			return nil, nil, err
		}
		m, err = newMemory(ctx, c.Kind, nil, conn)
		return m, conn.Close, err
	}
	client, err := mautrix.NewClient(c.URL, c.User, c.Token)
	if err != nil {
		return nil, nil, err
	}
	kind := c.Kind
	if kind == following {
		kind = byDefault
	}
	m, err = newMemory(ctx, kind, client, nil)
	return m, func() {}, err
}

// do has all processes do the same at the same time.
func (c *contender) do(o order) error {
	errs, dones := make([]error, len(c.workers)), make([]done, len(c.workers))
	var group sync.WaitGroup
	for i, w := range c.workers {
		group.Go(func() { dones[i], errs[i] = w.do(o) })
	}
	group.Wait()
	for i, d := range dones {
		total := c.total[o.Op]
		total.Requests += d.Requests
		total.Up += d.Up
		total.Down += d.Down
		total.Bytes += d.Bytes
		total.Allocs += d.Allocs
		total.Nanos += d.Nanos
		c.total[o.Op] = total
		c.wrote[i] = d.Wrote
	}
	return errors.Join(errs...)
}

// kept is the part of the keys that have what was last acknowledged.
func (r round) kept(ctx context.Context, c *contender) (float64, error) {
	m, end, err := r.reader(ctx, c)
	if err != nil {
		return 0, err
	}
	defer end()
	all, kept := 0, 0
	for _, wrote := range c.wrote {
		for _, w := range wrote {
			got, err := m.get(ctx, w.Room, w.Key)
			if err != nil {
				return 0, err
			}
			all++
			if got == w.Value {
				kept++
			}
		}
	}
	return float64(kept) / float64(all), nil
}
