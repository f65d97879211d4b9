package roomkv_test

import (
	"fmt"
	"testing"
	"time"
	"strings"
	"sort"
	"regexp"

	"github.com/stretchr/testify/require"
	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

func TestLocalCopyCost(t *testing.T) {
	src, client, room := newStore(t, roomkv.WithShards(64))
	values := map[string]any{}
	for i := range 2000 {
		values[fmt.Sprintf("score/@member%05d:example.org", i)] = i
	}
	began := time.Now()
	require.NoError(t, src.PutAll(t.Context(), values))
	t.Log("put", time.Since(began))
	rec := hstest.Record(client)
	began = time.Now()
	_, err := roomkv.Copy(t.Context(), open(t, client, room, roomkv.WithShards(128), roomkv.WithEventType("com.example.more")), open(t, client, room, roomkv.WithShards(64)))
	require.NoError(t, err)
	t.Log("copy", time.Since(began), rec.Count())
	kinds := map[string]int{}
	sizes := map[string]int{}
	re := regexp.MustCompile(`[0-9]+`)
	for _, r := range rec.Requests() {
		p := r.Method + " " + re.ReplaceAllString(strings.ReplaceAll(r.Path, room.String(), "R"), "N")
		if i := strings.Index(p, "/context/"); i > 0 { p = p[:i+9] }
		kinds[p]++
		sizes[p] += len(r.Response)
	}
	var keys []string
	for k := range kinds { keys = append(keys, k) }
	sort.Strings(keys)
	for _, k := range keys { t.Log(kinds[k], sizes[k]/1000, "KB", k) }
}
