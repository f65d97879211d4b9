package fault

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestName(t *testing.T) {
	for want, err := range map[string]error{
		"":                 errors.New("of somebody else"),
		"ErrNotFound":      fmt.Errorf("a caller's: %w", Of(ErrNotFound, nil, "key")),
		"ErrUndecryptable": Of(ErrUndecryptable, ErrRedacted, "event"),
		"ErrForbidden":     errors.Join(ErrRefused, Of(ErrForbidden, nil, "state")),
		"ErrExists":        Because(ErrExists, "cannot create"),
	} {
		assert.Equal(t, want, Name(err))
	}
	assert.Empty(t, Name(nil))
	assert.Empty(t, Name(Because(nil, "cannot")))
}

// Each kind that has a name has that of its variable.
func TestNamesAreThoseOfVariables(t *testing.T) {
	parsed, err := parser.ParseFile(token.NewFileSet(), "fault.go", nil, 0)
	require.NoError(t, err)
	n := 0
	ast.Inspect(parsed, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Names) != 1 || !spec.Names[0].IsExported() || spec.Names[0].Name == "ErrRefused" {
			return true
		}
		n++
		name, made := spec.Names[0].Name, spec.Values[0].(*ast.CallExpr)
		if function, ok := made.Fun.(*ast.Ident); assert.True(t, ok && function.Name == "kindOf", "%s is not made by kindOf", name) {
			assert.Equal(t, fmt.Sprintf("%q", name), made.Args[0].(*ast.BasicLit).Value)
		}
		return true
	})
	assert.Greater(t, n, 20)
}
