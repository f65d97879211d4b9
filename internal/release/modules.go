package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
)

// module is a module of the repository: what its go.mod says.
type module struct {
	folder  string // from the root
	path    string
	require map[string]string // versions by path
	replace map[string]string // folders by path, from the module's own
}

// modulesIn are the modules below the folder.
func modulesIn(root string) (modules []module, err error) {
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() != "go.mod" {
			return err
		}
		text, err := run(filepath.Dir(path), "go", "mod", "edit", "-json")
		if err != nil {
			return err
		}
		var said struct {
			Module  struct{ Path string }
			Require []struct{ Path, Version string }
			Replace []struct {
				Old, New struct{ Path, Version string }
			}
		}
		if err := json.Unmarshal([]byte(text), &said); err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		m := module{filepath.ToSlash(folder), said.Module.Path, map[string]string{}, map[string]string{}}
		for _, required := range said.Require {
			m.require[required.Path] = required.Version
		}
		for _, replaced := range said.Replace {
			m.replace[replaced.Old.Path] = replaced.New.Path
		}
		modules = append(modules, m)
		return nil
	})
	return modules, err
}

// moduleProblems is about what the repository's modules say of each other. A published one is built by others without what it replaces: with the
// version that it requires. The others require the same, for go mod tidy takes the latest that any of them requires.
func moduleProblems(modules []module, version string) (wrong []string) {
	folders := map[string]string{}
	for _, m := range modules {
		folders[m.path] = m.folder
	}
	for _, folder := range published {
		if !slices.ContainsFunc(modules, func(m module) bool { return m.folder == folder }) {
			wrong = append(wrong, fmt.Sprintf("there is no module in %s", folder))
		}
	}
	for _, m := range modules {
		for _, path := range slices.Sorted(maps.Keys(m.require)) {
			folder, ours := folders[path]
			if !ours {
				continue
			}
			if required := m.require[path]; required != version {
				wrong = append(wrong, fmt.Sprintf("%s/go.mod requires %s %s: go mod edit -require=%s@%s", m.folder, path, required, path, version))
			}
			if to, ok := m.replace[path]; !ok || filepath.ToSlash(filepath.Join(m.folder, to)) != folder {
				wrong = append(wrong, fmt.Sprintf("%s/go.mod must replace %s by its folder, %s", m.folder, path, folder))
			}
		}
		for _, path := range slices.Sorted(maps.Keys(m.replace)) {
			if _, ours := folders[path]; !ours && slices.Contains(published, m.folder) {
				wrong = append(wrong, fmt.Sprintf("%s/go.mod replaces %s, which does not count for those who import it", m.folder, path))
			}
		}
	}
	return wrong
}
