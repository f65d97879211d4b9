package dump_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/roomkv/roomkv/internal/dump"
)

// sealed adds the closing line that makes text a whole file, whatever it says.
func sealed(text string) string {
	return text + fmt.Sprintf("{\"lines\":%d,\"sha256\":\"%x\"}\n", max(0, strings.Count(text, "\n")-1), sha256.Sum256([]byte(text)))
}

// FuzzDump reads hostile text, with the right hash and without, and writes keys and values and reads them back, whole, cut and
// with a bit flipped.
func FuzzDump(f *testing.F) {
	f.Add("", []byte(`null`), uint(0))
	f.Add("key", []byte("{ \"a\" :\n1.50 }"), uint(77))
	f.Add("\x00\n", []byte(`{"format":"roomkv","version":1}`+"\n"+`{"key":"a","value":1}`+"\n"), uint(300))
	f.Fuzz(func(t *testing.T, key string, value []byte, at uint) {
		_, _ = read(bytes.NewReader(value))
		_, _ = read(strings.NewReader(sealed(string(value))))
		if !utf8.ValidString(key) || !utf8.Valid(value) || !json.Valid(value) {
			return
		}
		file := write(t, dump.Line{Key: key, Value: value})
		lines, err := read(bytes.NewReader(file))
		var compact bytes.Buffer
		if err == nil && len(lines) == 1 {
			err = json.Compact(&compact, value)
		}
		if err != nil || len(lines) != 1 || lines[0].Key != key || !bytes.Equal(lines[0].Value, compact.Bytes()) && !bytes.Equal(lines[0].Value, value) {
			t.Fatalf("%q: %q came back as %+v: %v", key, value, lines, err)
		}
		if _, err := read(bytes.NewReader(file[:at%uint(len(file))])); !errors.Is(err, dump.ErrDamaged) {
			t.Fatalf("cut: %v", err)
		}
		bit := at % uint(8*len(file))
		file[bit/8] ^= 1 << (bit % 8)
		if _, err := read(bytes.NewReader(file)); !errors.Is(err, dump.ErrDamaged) {
			t.Fatalf("bit %d: %v", bit, err)
		}
	})
}
