package roomkv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
)

// skewEnv says by how many seconds a process's clock is off, in a binary of [withSkew].
const skewEnv = "ROOMKV_TEST_SKEW"

// withSkew builds this test binary with a clock that can be wrong: Go has no other way to give a process another time.
func withSkew(t *testing.T) (binary string) {
	t.Helper()
	dir := t.TempDir()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	require.NoError(t, err)
	const now = "	sec, nsec, mono := runtimeNow()\n"
	require.Equal(t, 1, strings.Count(string(text), "func Now() Time {\n"+now))
	wrong := strings.Replace(string(text), "func Now() Time {\n"+now, "func Now() Time {\n"+now+"	sec += skew\n", 1)
	files := map[string]string{
		source: wrong,
		filepath.Join(filepath.Dir(source), "skew.go"): `package time

import "syscall"

var skew = func() (seconds int64) {
	text, _ := syscall.Getenv("` + skewEnv + `")
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		text = text[1:]
	}
	for _, digit := range []byte(text) {
		seconds = 10*seconds + int64(digit-'0')
	}
	if negative {
		return -seconds
	}
	return seconds
}()
`,
	}
	overlay := map[string]map[string]string{"Replace": {}}
	for path, text := range files {
		at := filepath.Join(dir, filepath.Base(path))
		require.NoError(t, os.WriteFile(at, []byte(text), 0o600))
		overlay["Replace"][path] = at
	}
	list, err := json.Marshal(overlay)
	require.NoError(t, err)
	at := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(at, list, 0o600))
	binary = filepath.Join(dir, "skewed.test")
	build := exec.Command("go", "test", "-c", "-tags", "goolm", "-overlay", at, "-o", binary, ".")
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))
	return binary
}

// expire puts values that expire, and says how many of the memory's keys it finds from then on.
func (j job) expire(ctx context.Context, store *roomkv.Store, say func(string)) error {
	values := map[string]any{}
	for n := range j.Times {
		values[fmt.Sprintf("%s%d", j.Name, n)] = 1
	}
	if err := store.PutAll(ctx, values, roomkv.ExpireAfter(2*time.Second)); err != nil {
		return err
	}
	say("put at " + time.Now().UTC().Format("15h"))
	for before, polls := -1, 0; polls < 100; polls++ {
		keys, err := store.Keys(ctx)
		if err != nil {
			return err
		}
		if len(keys) != before {
			say(fmt.Sprintf("finds %d", len(keys)))
		}
		before = len(keys)
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// Processes whose clocks are off by an hour decide alike what has expired.
func TestExpiryOfProcessesWithOtherClocks(t *testing.T) {
	long(t)
	binary := withSkew(t)
	client, j := shared(t)
	j.Do, j.Times = "expire", 333
	var processes []*process
	for i, skew := range []time.Duration{-time.Hour, 0, time.Hour} {
		j.Name = string(rune('a' + i))
		processes = append(processes, startAs(t, binary, j, fmt.Sprintf("%s=%d", skewEnv, int(skew.Seconds()))))
	}
	began := time.Now()
	for _, p := range processes {
		p.begin()
	}
	type line struct {
		of   int
		text string
		at   time.Duration
	}
	lines := make(chan line)
	for i, p := range processes {
		go func() {
			for text := range p.lines {
				lines <- line{i, text, time.Since(began)}
			}
			lines <- line{i, "", 0}
		}()
	}
	var put time.Duration // when the last had put its values
	hours := map[string]bool{}
	most, last := map[int]int{}, map[int]int{}
	for ended := 0; ended < len(processes); {
		l := <-lines
		var n int
		switch _, err := fmt.Sscanf(l.text, "finds %d", &n); {
		case l.text == "":
			ended++
		case strings.HasPrefix(l.text, "put at "):
			put = max(put, l.at)
			hours[l.text] = true
		case err == nil:
			t.Logf("%v: clock %d finds %d", l.at.Round(10*time.Millisecond), l.of, n)
			if n < most[l.of] {
				assert.Greater(t, l.at, time.Second, "some are hidden")
			}
			if n > 0 {
				assert.Less(t, l.at, put+3500*time.Millisecond, "some are found")
			}
			most[l.of], last[l.of] = max(most[l.of], n), n
		}
	}
	assert.Len(t, hours, 3, "each has another time")
	for i := range processes {
		assert.Equal(t, 3*j.Times, most[i])
		assert.Zero(t, last[i])
	}
	store := open(t, client, j.Room)
	require.NoError(t, store.Put(t.Context(), "next", 1))
	state := allState(t, client, j.Room)
	assert.Contains(t, state, `"next"`)
	assert.NotContains(t, state, `"a1":1`)
	assert.NotContains(t, state, "roomkv.expires", "the next write has removed all")
}
