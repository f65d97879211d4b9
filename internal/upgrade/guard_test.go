package upgrade

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/fault"
)

func TestRetry(t *testing.T) {
	failed := errors.New("failed")
	meanwhile := fault.Of(fault.ErrRoomUpgraded, errMeanwhile, "meanwhile")
	written := fmt.Errorf("more: %w", fault.Of(fault.ErrRoomUpgraded, errWritten, "written"))
	for _, test := range []struct {
		about   string
		follow  bool
		results []error
		calls   int
		want    error
		unknown bool // whether the error says that it is not known what was done
	}{
		{"success", true, []error{nil}, 1, nil, false},
		{"another error", true, []error{failed}, 1, failed, false},
		{"upgraded meanwhile", true, []error{meanwhile, meanwhile, nil}, 3, nil, false},
		{"upgraded after it was written", true, []error{written, nil}, 2, nil, false},
		{"meanwhile, then an error", true, []error{meanwhile, failed}, 2, failed, false},
		{"written, then an error", true, []error{written, meanwhile, failed}, 3, failed, true},
		{"without following", false, []error{meanwhile}, 1, errMeanwhile, false},
		{"written without following", false, []error{written}, 1, errWritten, false},
	} {
		calls := 0
		err := (&Rooms{Follow: test.follow}).Retry(func() error {
			calls++
			require.LessOrEqual(t, calls, len(test.results), test.about)
			return test.results[calls-1]
		})
		assert.ErrorIs(t, err, test.want, test.about)
		assert.Equal(t, test.calls, calls, test.about)
		assert.Equal(t, test.unknown, err != nil && errors.Is(err, fault.ErrRoomUpgraded) && errors.Is(err, failed), test.about)
	}
}
