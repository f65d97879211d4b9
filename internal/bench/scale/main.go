// Scale measures what many rooms, many keys and many processes cost, and prints docs/scale.md's tables.
//
//	go run -tags goolm ./internal/bench/scale                         on the homeserver in memory
//	go run -tags goolm ./internal/bench/scale -federation             on two Dendrites that federate
//	go run -tags goolm ./internal/bench/scale -write docs/scale.md    put the tables into the page
//	go run -tags goolm ./internal/bench/scale -short                  small sizes, to see that the program runs
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
)

func main() {
	federated := flag.Bool("federation", false, "measure on two Dendrites that federate")
	short := flag.Bool("short", false, "use small sizes")
	page := flag.String("write", "", "replace the tables in this file")
	flag.Parse()
	name, tables := "fakehs", inMemory
	if *federated {
		name, tables = "federation", federation
	}
	text, err := tables(context.Background(), sizesOf(*short))
	if err == nil {
		fmt.Print(text)
	}
	if err == nil && *page != "" {
		err = rewrite(*page, name, text)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// sizes are what is measured, and what is answered for.
type sizes struct {
	rooms     []size // that are measured: a rule tells of others
	answered  []size // that the page tells of
	deep      []int  // keys of one room, with an event for each
	keys      []int  // of the rooms in which operations are counted
	processes []int
	rests     bool // whether operations are also counted after a rest
	puts      int  // of each process
	federated int  // puts on each side
}

// size is so many rooms of so many keys each.
type size struct{ rooms, keys int }

// maxDicts is how many state events all rooms together have where they are measured.
const maxDicts = 10_000

func sizesOf(short bool) sizes {
	if short {
		return sizes{
			rooms: []size{{5, 2}, {10, 2}}, answered: []size{{10, 2}, {100, 2}}, deep: []int{20}, keys: []int{2, 1000}, processes: []int{1, 2},
			puts: 3, federated: 5,
		}
	}
	return sizes{
		rooms:    []size{{100, 10}, {100, 100}, {1000, 10}, {1000, 100}, {5000, 10}},
		answered: []size{{100, 10}, {100, 100}, {1000, 10}, {1000, 100}, {10_000, 10}, {10_000, 100}},
		deep:     []int{1000, 10_000, 40_000}, keys: []int{10, 100, 1000}, processes: []int{1, 4, 16}, rests: true, puts: 10, federated: 50,
	}
}

// inMemory measures on the homeserver in memory.
func inMemory(ctx context.Context, s sizes) (string, error) {
	operations, err := prepare(ctx, s.keys)
	if err != nil {
		return "", err
	}
	m := measured{answered: s.answered}
	for _, layout := range layouts {
		for _, size := range s.rooms {
			if size.rooms == s.rooms[0].rooms {
				kept, err := measureWritten(ctx, layout, size)
				if err != nil {
					return "", err
				}
				m.written = append(m.written, kept)
			}
			if layout.dicts(size) > maxDicts {
				continue
			}
			grown, err := measureRooms(ctx, layout, size)
			if err != nil {
				return "", err
			}
			m.rooms = append(m.rooms, grown)
		}
	}
	for _, keys := range s.deep {
		grown, err := measureRooms(ctx, perKey, size{1, keys})
		if err != nil {
			return "", err
		}
		m.deep = append(m.deep, grown)
	}
	if m.capacity, err = measureCapacity(ctx); err != nil {
		return "", err
	}
	if m.rivals, err = measureRivals(ctx, s); err != nil {
		return "", err
	}
	if m.operations, err = operations.measure(ctx, s.rests); err != nil {
		return "", err
	}
	return m.tables(), nil
}

// rewrite replaces what stands between the page's two comments of that name.
func rewrite(path, name, tables string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	begin, end := []byte("<!-- "+name+" begins -->\n"), []byte("<!-- "+name+" ends -->")
	before, rest, begins := bytes.Cut(page, begin)
	_, after, ends := bytes.Cut(rest, end)
	if !begins || !ends {
		return fmt.Errorf("%s has not both comments of %s", path, name)
	}
	return os.WriteFile(path, bytes.Join([][]byte{before, begin, []byte(tables), end, after}, nil), 0o644)
}
