package roomkvotel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	roomkvotel "github.com/roomkv/roomkv/examples/otel"
	"github.com/roomkv/roomkv/internal/fakehs"
)

// observed is a bot on a homeserver in memory, and the SDK's exporters in memory.
type observed struct {
	client  *mautrix.Client
	room    id.RoomID
	store   *roomkv.Store
	spans   *tracetest.InMemoryExporter
	metrics *metric.ManualReader
}

func newObserved(ctx context.Context, opts ...roomkv.Option) (*observed, error) {
	o := &observed{spans: tracetest.NewInMemoryExporter(), metrics: metric.NewManualReader()}
	client, err := fakehs.New(fakehs.Options{}).Register(ctx, "bot")
	if err != nil {
		return nil, err
	}
	client.DefaultHTTPBackoff = time.Millisecond
	room, err := client.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "private_chat"})
	if err != nil {
		return nil, err
	}
	traces := trace.NewTracerProvider(trace.WithSyncer(o.spans))
	client.Client = &http.Client{Transport: otelhttp.NewTransport(client.Client.Transport, otelhttp.WithTracerProvider(traces))} // a span of each request
	observer, err := roomkvotel.New(traces, metric.NewMeterProvider(metric.WithReader(o.metrics)))
	if err != nil {
		return nil, err
	}
	o.client, o.room = client, room.RoomID
	o.store, err = roomkv.New(client, room.RoomID.String(), append(opts, roomkv.WithObserver(observer))...)
	return o, err
}

// operations are the spans of operations, each with those of its requests.
func (o *observed) operations() (spans []tracetest.SpanStub, children map[string][]tracetest.SpanStub) {
	all := o.spans.GetSpans()
	children = map[string][]tracetest.SpanStub{}
	for _, span := range all {
		if strings.HasPrefix(span.Name, "roomkv ") {
			spans = append(spans, span)
		}
		children[span.Parent.SpanID().String()] = append(children[span.Parent.SpanID().String()], span)
	}
	return spans, children
}

// Example prints the span of each operation, with how many spans of requests are in it.
func Example() {
	ctx := context.Background()
	bot, err := newObserved(ctx, roomkv.WithPerKeyState())
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		if err := bot.store.Put(ctx, "greeting", "Hello!"); err != nil {
			log.Fatal(err)
		}
	}
	if err := bot.store.Get(ctx, "missing", new(string)); !errors.Is(err, roomkv.ErrNotFound) {
		log.Fatal(err)
	}
	spans, children := bot.operations()
	for _, span := range spans {
		fmt.Println(span.Name, len(children[span.SpanContext.SpanID().String()]))
	}
	// Output:
	// roomkv Put 3
	// roomkv Put 1
	// roomkv Get 1
}

func attributesOf(all []attribute.KeyValue) map[attribute.Key]any {
	found := map[attribute.Key]any{}
	for _, one := range all {
		found[one.Key] = one.Value.AsInterface()
	}
	return found
}

func TestSpans(t *testing.T) {
	ctx := t.Context()
	o, err := newObserved(ctx, roomkv.WithObservedKeys())
	require.NoError(t, err)
	require.NoError(t, o.store.Put(ctx, "k", "a value"))
	require.ErrorIs(t, o.store.Create(ctx, "k", "a value"), roomkv.ErrExists)
	require.ErrorIs(t, o.store.Get(ctx, "k", new(int)), roomkv.ErrDecode)

	spans, children := o.operations()
	require.Len(t, spans, 3)
	for i, want := range []struct {
		name, class string
		status      codes.Code
	}{{"Put", "", codes.Unset}, {"Create", "ErrExists", codes.Unset}, {"Get", "ErrDecode", codes.Error}} {
		span := spans[i]
		assert.Equal(t, "roomkv "+want.name, span.Name)
		assert.Equal(t, want.status, span.Status.Code, want.name)
		got := attributesOf(span.Attributes)
		requests := children[span.SpanContext.SpanID().String()]
		assert.NotEmpty(t, requests)
		assert.EqualValues(t, len(requests), got["roomkv.requests"])
		assert.Equal(t, want.name, got["db.operation.name"])
		assert.Equal(t, o.room.String(), got["db.namespace"])
		assert.Equal(t, []string{"k"}, got["roomkv.keys"])
		if want.class == "" {
			assert.NotContains(t, got, attribute.Key("error.type"))
		} else {
			assert.Equal(t, want.class, got["error.type"])
		}
		assert.NotContains(t, fmt.Sprintf("%+v", span), "a value")
	}
}

func TestMetrics(t *testing.T) {
	ctx := t.Context()
	o, err := newObserved(ctx, roomkv.WithPerKeyState())
	require.NoError(t, err)
	require.NoError(t, o.store.Put(ctx, "k", 1))
	next := o.client.Client.Transport
	lost := 0
	o.client.Client = &http.Client{Transport: transport(func(req *http.Request) (*http.Response, error) {
		if lost++; lost == 1 {
			return nil, io.ErrUnexpectedEOF
		}
		return next.RoundTrip(req)
	})}
	require.NoError(t, o.store.Put(ctx, "k", 2))
	require.ErrorIs(t, o.store.Get(ctx, "missing", new(int)), roomkv.ErrNotFound)

	var all metricdata.ResourceMetrics
	require.NoError(t, o.metrics.Collect(ctx, &all))
	sums := map[string]int64{} // by metric, operation and direction
	var classes []string
	for _, found := range slices.Concat(all.ScopeMetrics[0].Metrics) {
		switch data := found.Data.(type) {
		case metricdata.Sum[int64]:
			for _, point := range data.DataPoints {
				of := attributesOf(point.Attributes.ToSlice())
				assert.NotContains(t, of, attribute.Key("db.namespace"))
				name := fmt.Sprint(found.Name, " ", of["db.operation.name"])
				if direction, ok := of["direction"]; ok {
					name += fmt.Sprint(" ", direction)
				}
				sums[name] += point.Value
			}
		case metricdata.Histogram[float64]:
			assert.Equal(t, "db.client.operation.duration", found.Name)
			for _, point := range data.DataPoints {
				of := attributesOf(point.Attributes.ToSlice())
				classes = append(classes, fmt.Sprint(of["db.operation.name"], " ", point.Count, " ", of["error.type"]))
				assert.Positive(t, point.Sum)
			}
		}
	}
	slices.Sort(classes)
	assert.Equal(t, []string{"Get 1 ErrNotFound", "Put 2 <nil>"}, classes)
	assert.EqualValues(t, 5, sums["roomkv.requests Put"]) // of which one was lost
	assert.EqualValues(t, 1, sums["roomkv.retries Put"])
	assert.EqualValues(t, 1, sums["roomkv.requests Get"])
	assert.Positive(t, sums["roomkv.io Put sent"])
	assert.Positive(t, sums["roomkv.io Get received"])
	assert.Zero(t, sums["roomkv.io Get sent"])
	assert.Zero(t, sums["roomkv.merges Put"])
}

type transport func(req *http.Request) (*http.Response, error)

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) { return t(req) }
