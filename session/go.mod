module github.com/roomkv/roomkv/session

go 1.26.0

replace github.com/roomkv/roomkv => ..

require (
	github.com/roomkv/roomkv v0.0.0
	github.com/rs/zerolog v1.35.1
	github.com/stretchr/testify v1.12.0
	go.mau.fi/util v0.11.0
	maunium.net/go/mautrix v0.32.0
	modernc.org/sqlite v1.50.0
)
