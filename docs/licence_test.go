package docs_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// licences are told by a sentence that each of them has. The first that fits counts, so what is a condition of others comes first.
var licences = []struct {
	name, sentence string
	goesWith       bool // whether a program of several licences, Apache-2.0 and this among them, may be passed on without further conditions
}{
	{"AGPL", "GNU AFFERO GENERAL PUBLIC LICENSE", false},
	{"LGPL", "GNU LESSER GENERAL PUBLIC LICENSE", false},
	{"GPL", "GNU GENERAL PUBLIC LICENSE", false},
	{"MPL-2.0", "Mozilla Public License Version 2.0", true}, // it is about its own files
	{"MPL-2.0", "Mozilla Public License, version 2.0", true},
	{"Apache-2.0", "Apache License Version 2.0", true},
	{"BSD-3-Clause", "may be used to endorse or promote products", true},
	{"BSD-2-Clause", "Redistribution and use in source and binary forms", true},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee", true},
	{"ISC", "Permission to use, copy, modify, and distribute this software for any purpose with or without fee", true},
	{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy", true},
	{"Unlicense", "This is free and unencumbered software released into the public domain", true},
}

var (
	licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying)([.-].*)?$`)
	blanks      = regexp.MustCompile(`\s+`)
)

// licencesOf are the licences of what is in the folder, and whether they go with that of roomkv: of those that are known, at least one, all must.
func licencesOf(t *testing.T, folder string) (names []string, fit bool) {
	t.Helper()
	refused := false
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	for _, entry := range entries {
		if entry.IsDir() || !licenceFile.MatchString(entry.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		require.NoError(t, err)
		for _, licence := range licences {
			if strings.Contains(blanks.ReplaceAllString(string(text), " "), licence.sentence) {
				names, refused = append(names, licence.name), refused || !licence.goesWith
				break
			}
		}
	}
	return slices.Compact(names), len(names) > 0 && !refused
}

func TestLicencesAreTold(t *testing.T) {
	for _, test := range []struct {
		texts []string
		names string
		fit   bool
	}{
		{nil, "", false},
		{[]string{"All rights reserved."}, "", false},
		{[]string{"GNU AFFERO GENERAL PUBLIC\n  LICENSE Version 3"}, "AGPL", false},
		{[]string{"Permission is hereby granted, free\n\tof charge, to any person obtaining a copy"}, "MIT", true},
		{[]string{"Permission is hereby granted, free of charge, to any person obtaining a copy", "GNU GENERAL PUBLIC LICENSE"}, "MIT GPL", false},
		{[]string{"Mozilla Public License Version 2.0", "Exceptions"}, "MPL-2.0", true},
	} {
		folder := t.TempDir()
		for i, text := range test.texts {
			require.NoError(t, os.WriteFile(filepath.Join(folder, []string{"LICENSE", "LICENSE-other.md"}[i]), []byte(text), 0o600))
		}
		names, fit := licencesOf(t, folder)
		assert.Equal(t, test.names, strings.Join(names, " "))
		assert.Equal(t, test.fit, fit, "%q", test.texts)
	}
}

// What is linked with roomkv's packages and programs has a licence that goes with roomkv's. With -nested that is true of the nested modules too.
// Dendrite is not among them: it is a program that tests start, and nothing is linked with it.
func TestLicences(t *testing.T) {
	own, _ := licencesOf(t, "..")
	assert.Equal(t, []string{"Apache-2.0"}, own)
	modules, err := filepath.Glob("../go.mod")
	require.NoError(t, err)
	if *nested {
		require.NoError(t, filepath.WalkDir("..", func(path string, entry os.DirEntry, err error) error {
			if entry.Name() == "go.mod" && path != "../go.mod" && path != "../internal/homeserver/dendrite/go.mod" {
				modules = append(modules, path)
			}
			return err
		}))
	}
	found := map[string]string{}
	for _, module := range modules {
		list := exec.CommandContext(t.Context(), "go", "list", "-tags", "goolm", "-deps", "-f", "{{with .Module}}{{.Path}}\t{{.Version}}\t{{.Dir}}{{end}}", "./...")
		list.Dir, list.Env, list.Stderr = filepath.Dir(module), append(os.Environ(), "GOPROXY=off"), t.Output()
		text, err := list.Output()
		require.NoError(t, err, "%s: have its modules been downloaded? go mod download", module)
		for line := range strings.Lines(string(text)) {
			part := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
			if len(part) != 3 || strings.HasPrefix(part[0], "github.com/roomkv/roomkv") || found[part[0]+" "+part[1]] != "" {
				continue
			}
			names, fit := licencesOf(t, part[2])
			assert.True(t, fit, "the licence of %s, of which %s needs version %s, does not go with Apache-2.0, or is not known: %q", part[0], module, part[1], names)
			found[part[0]+" "+part[1]] = strings.Join(names, ", ") + "."
		}
	}
	assert.NotEmpty(t, found)
	for _, name := range slices.Sorted(maps.Keys(found)) {
		t.Log(name+":", found[name])
	}
}
