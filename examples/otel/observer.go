// Package roomkvotel tells OpenTelemetry of the operations of roomkv's stores: a span of each, and metrics of all. It is an example to copy from, with
// names of OpenTelemetry's semantic conventions for database clients.
package roomkvotel

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/roomkv/roomkv"
)

// scope names what makes these spans and metrics.
const scope = "github.com/roomkv/roomkv/examples/otel"

// system is what roomkv is called among databases.
var system = semconv.DBSystemNameKey.String("roomkv")

// answers are errors that say what the memory has, or that the caller wants no more. They make no span one that failed.
var answers = []string{"", "ErrNotFound", "ErrExists", "ErrConflict", "context.Canceled"}

// buckets are those that the conventions advise, in seconds.
var buckets = metric.WithExplicitBucketBoundaries(.001, .005, .01, .05, .1, .5, 1, 5, 10)

// observer implements [roomkv.Observer].
type observer struct {
	tracer   trace.Tracer
	duration metric.Float64Histogram
	requests metric.Int64Counter
	retries  metric.Int64Counter
	merges   metric.Int64Counter
	bytes    metric.Int64Counter
}

// New returns an observer for [roomkv.WithObserver]. It fails where a meter of the provider does.
func New(traces trace.TracerProvider, metrics metric.MeterProvider) (roomkv.Observer, error) {
	meter := metrics.Meter(scope)
	o := observer{tracer: traces.Tracer(scope)}
	var err error
	counter := func(name, unit, description string) metric.Int64Counter {
		made, failed := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		if failed != nil {
			err = failed
		}
		return made
	}
	o.requests = counter("roomkv.requests", "{request}", "Requests to the homeserver, those that were made again included")
	o.retries = counter("roomkv.retries", "{request}", "Requests that were made again")
	o.merges = counter("roomkv.merges", "{event}", "State events that merge what several writers have written")
	o.bytes = counter("roomkv.io", "By", "Bodies of requests and of answers")
	if err != nil {
		return nil, err
	}
	o.duration, err = meter.Float64Histogram("db.client.operation.duration", metric.WithUnit("s"), metric.WithDescription("How long operations take"), buckets)
	return o, err
}

// Start implements [roomkv.Observer].
func (o observer) Start(ctx context.Context, op roomkv.Operation) context.Context {
	attributes := []attribute.KeyValue{system, semconv.DBOperationName(op.Kind), attribute.String("roomkv.layout", op.Layout)}
	if len(op.Keys) > 0 {
		attributes = append(attributes, attribute.StringSlice("roomkv.keys", op.Keys))
	}
	ctx, _ = o.tracer.Start(ctx, "roomkv "+op.Kind, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	return ctx
}

// End implements [roomkv.Observer]. Rooms and keys are on spans alone: a metric has a time series for each value of its attributes.
func (o observer) End(ctx context.Context, op roomkv.Operation, outcome roomkv.Outcome) {
	of := []attribute.KeyValue{system, semconv.DBOperationName(op.Kind)}
	span := trace.SpanFromContext(ctx)
	defer span.End()
	if op.Room != "" {
		span.SetAttributes(semconv.DBNamespace(op.Room.String())) // resolved by now
	}
	span.SetAttributes(attribute.Int("roomkv.requests", outcome.Requests), attribute.Int("roomkv.retries", outcome.Retries), attribute.Int("roomkv.merges", outcome.Merges),
		attribute.Int64("roomkv.sent", outcome.Sent), attribute.Int64("roomkv.received", outcome.Received))
	if outcome.Error != "" {
		class := semconv.ErrorTypeKey.String(outcome.Error)
		of = append(of, class)
		span.SetAttributes(class)
	}
	if !slices.Contains(answers, outcome.Error) {
		span.SetStatus(codes.Error, outcome.Error)
	}

	if op.Kind != "Watch" { // which lasts for as long as somebody watches
		o.duration.Record(ctx, outcome.Duration.Seconds(), metric.WithAttributes(of...))
	}
	kind := metric.WithAttributes(of[:2]...)
	o.requests.Add(ctx, int64(outcome.Requests), kind)
	o.retries.Add(ctx, int64(outcome.Retries), kind)
	o.merges.Add(ctx, int64(outcome.Merges), kind)
	o.bytes.Add(ctx, outcome.Sent, kind, metric.WithAttributes(attribute.String("direction", "sent")))
	o.bytes.Add(ctx, outcome.Received, kind, metric.WithAttributes(attribute.String("direction", "received")))
}
