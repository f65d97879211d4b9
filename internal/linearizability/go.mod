// This module checks histories of the simulation in internal/commit with a checker of others. It is a module of its own so that the
// checker never reaches a program that imports roomkv.
module github.com/roomkv/roomkv/internal/linearizability

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1
	github.com/stretchr/testify v1.12.0
)

require gopkg.in/yaml.v3 v3.0.1 // indirect
