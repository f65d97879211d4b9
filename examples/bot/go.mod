// This module is one of its own so that it is what people copy: a bot's program with what it needs. The root module must not need package session.
module github.com/roomkv/roomkv/examples/bot

go 1.26.0

replace (
	github.com/roomkv/roomkv => ../..
	github.com/roomkv/roomkv/session => ../../session
)

require (
	github.com/roomkv/roomkv v0.0.0
	github.com/roomkv/roomkv/session v0.0.0
	github.com/stretchr/testify v1.12.0
	maunium.net/go/mautrix v0.32.0
)
