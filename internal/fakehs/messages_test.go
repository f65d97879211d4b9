package fakehs_test

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
)

// placesOf reads the place of storage out of tokens.
func placesOf(t *testing.T, tokens []string) (places []int) {
	form := regexp.MustCompile(`^t\d+[-_](\d+)`)
	for _, token := range tokens {
		match := form.FindStringSubmatch(token)
		require.NotNil(t, match, token)
		place, err := strconv.Atoi(match[1])
		require.NoError(t, err)
		places = append(places, place)
	}
	return places
}

func TestPages(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		ctx, client := t.Context(), fakehstest.Client(t, server)
		room := joined(t, client)
		var sent []id.EventID
		for i := range 7 {
			sent = append(sent, put(t, client, room, "k", content{"i": i}))
		}
		server.Settle()
		all := func(dir mautrix.Direction, from string) (found []id.EventID, pages int) {
			for {
				page, err := client.Messages(ctx, room, from, "", dir, nil, 3)
				require.NoError(t, err)
				if pages++; len(page.Chunk) == 0 || page.End == "" {
					return found, pages
				}
				found, from = append(found, ids(page.Chunk)...), page.End
			}
		}
		backward, pages := all(mautrix.DirectionBackward, "")
		assert.Len(t, backward, 13, "six are of a new room")
		assert.Equal(t, 6, pages)
		for i, evt := range sent {
			assert.Equal(t, evt, backward[6-i])
		}
		resp, err := client.SyncRequest(ctx, 0, "", `{"room":{"timeline":{"limit":1}}}`, false, "")
		require.NoError(t, err)
		before, _ := all(mautrix.DirectionBackward, resp.Rooms.Join[room].Timeline.PrevBatch)
		assert.Equal(t, backward[1:], before)
	})
}

// Synapse gives as many events as were asked for, and the end where there are any. Dendrite counts what the filter hides, by the filter's
// limit, and leaves the end out where that is all.
func TestFilteredPages(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		ctx, client := t.Context(), fakehstest.Client(t, server)
		room := joined(t, client)
		sent := put(t, client, room, "k", content{"a": 1})
		for range 5 {
			_, err := client.SendText(ctx, room, "talk")
			require.NoError(t, err)
		}
		server.Settle()
		page := list(t, client, room, "", 3)
		if server.Mode() == fakehs.Linear {
			assert.Empty(t, page.Chunk)
			assert.Empty(t, page.End)
			page = list(t, client, room, "", 100)
		}
		assert.Equal(t, []id.EventID{sent}, ids(page.Chunk))
		assert.NotEmpty(t, page.End)
		page = list(t, client, room, page.End, 100)
		assert.Empty(t, page.Chunk)
		assert.Empty(t, page.End)

		not, err := client.Messages(ctx, room, "", "", mautrix.DirectionBackward, &mautrix.FilterPart{NotTypes: []event.Type{{Type: "m.room.*"}}, Limit: 100}, 100)
		require.NoError(t, err)
		assert.Equal(t, []id.EventID{sent}, ids(not.Chunk))
	})
}

// A page of Dendrite that ends among events of one depth leaves the others out of the next one.
func TestPageAmongForks(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		clients, room := several(t, server, 3)
		sent := atOnce(t, server, clients, room, "k")
		var seen []id.EventID
		for from := ""; ; {
			page, err := clients[0].Messages(t.Context(), room, from, "", mautrix.DirectionBackward, nil, 1)
			require.NoError(t, err)
			if len(page.Chunk) == 0 || page.End == "" {
				break
			}
			seen, from = append(seen, page.Chunk[0].ID), page.End
		}
		there := 0
		for _, evt := range sent {
			for _, listed := range seen {
				if evt == listed {
					there++
				}
			}
		}
		assert.Equal(t, map[fakehs.Mode]int{fakehs.Linear: 1, fakehs.Forking: 3}[server.Mode()], there)
	})
}

func TestRedaction(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		ctx := t.Context()
		admin, bot, room := pair(t, server)
		first := put(t, bot, room, "", content{"a": 1})
		second := put(t, bot, room, "", content{"a": 2})
		level(t, admin, room, bot.UserID, 50)
		others := put(t, admin, room, "k", content{"a": 1})
		level(t, admin, room, bot.UserID, 0)
		_, err := bot.RedactEvent(ctx, room, others)
		assert.ErrorIs(t, err, mautrix.MForbidden)
		for _, evt := range []id.EventID{first, second} {
			_, err := bot.RedactEvent(ctx, room, evt, mautrix.ReqRedact{Reason: "why", TxnID: "txn " + evt.String()})
			require.NoError(t, err, "it is one's own")
		}
		server.Settle()
		assert.Equal(t, second, current(t, bot, room, ""), "it stays the current one")
		var got content
		require.NoError(t, bot.StateEvent(ctx, room, kind, "", &got))
		assert.Empty(t, got)
		evt, err := bot.GetEvent(ctx, room, second)
		require.NoError(t, err)
		require.NotNil(t, evt.Unsigned.RedactedBecause)
		assert.Equal(t, bot.UserID, evt.Unsigned.RedactedBecause.Sender)
		assert.JSONEq(t, `{}`, string(evt.Content.VeryRaw))
	})
}

// A request with a transaction ID is done once for each device.
func TestTransactions(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		ctx, client := t.Context(), fakehstest.Client(t, server)
		room := joined(t, client)
		send := func(client *mautrix.Client, i int) id.EventID {
			sent, err := client.SendMessageEvent(ctx, room, event.EventMessage, content{"msgtype": "m.text", "body": "x", "i": i}, mautrix.ReqSendEvent{TransactionID: "once"})
			require.NoError(t, err)
			return sent.EventID
		}
		first := send(client, 1)
		assert.Equal(t, first, send(client, 2))
		assert.NotEqual(t, first, send(fakehstest.Device(t, server, client), 1))
	})
}
