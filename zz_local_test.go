package roomkv_test

import (
	mathrand "math/rand/v2"
	"testing"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// TestLocal is the table in memory alone.
func TestLocal(t *testing.T) {
	inMemory := func(mode fakehs.Mode) *fakehs.Server {
		return fakehs.New(fakehs.Options{Mode: mode, Seed: mathrand.Uint64()})
	}
	for _, s := range []*subject{
		{accounts: inMemory(fakehs.Linear), name: "memory, as Dendrite", like: dendrite},
		{accounts: inMemory(fakehs.Forking), name: "memory, as Synapse", like: synapse},
	} {
		t.Run(s.name, func(t *testing.T) {
			for _, row := range conformance {
				for _, setting := range row.settings(s) {
					t.Run(row.name+"/"+setting, func(t *testing.T) {
						if !row.alone {
							t.Parallel()
						}
						row.run(t, newEnv(t, s, setting))
					})
				}
			}
		})
	}
}
