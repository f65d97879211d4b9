module github.com/roomkv/roomkv/session

go 1.26.0

replace github.com/roomkv/roomkv => ..

require (
	github.com/roomkv/roomkv v0.0.0
	github.com/rs/zerolog v1.35.1
	github.com/stretchr/testify v1.12.0
	go.mau.fi/util v0.11.0
	golang.org/x/sys v0.49.0
	maunium.net/go/mautrix v0.32.0
	modernc.org/sqlite v1.50.0
)

require (
	filippo.io/edwards25519 v1.2.0 // indirect
	github.com/mattn/go-colorable v0.1.14 // indirect
	github.com/mattn/go-isatty v0.0.20 // indirect
	github.com/tidwall/gjson v1.20.0 // indirect
	github.com/tidwall/match v1.1.1 // indirect
	github.com/tidwall/pretty v1.2.1 // indirect
	github.com/tidwall/sjson v1.2.5 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/exp v0.0.0-20261014143641-f0251eb4aa3e // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	gopkg.in/yaml.v3 v3.0.1 // indirect
)
