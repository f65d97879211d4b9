// Bridge is an application service whose bot remembers, in each room, how many messages everybody has sent. It is what a bridge needs of roomkv: a store
// of an intent's client, which the events that the homeserver pushes keep current.
//
// Make a registration, name its file in the homeserver's configuration (Synapse: app_service_config_files), restart that, and run the bridge:
//
//	go run . -generate -domain example.org
//	go run . -homeserver http://127.0.0.1:8008 -domain example.org
//
// Then invite @counter:example.org to a room, and give it the power to send state there.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"regexp"
	"strconv"

	"maunium.net/go/mautrix/appservice"
)

func main() {
	path := flag.String("registration", "registration.yaml", "the file of the registration")
	homeserver := flag.String("homeserver", "http://127.0.0.1:8008", "the homeserver's URL")
	domain := flag.String("domain", "localhost", "the homeserver's name")
	listen := flag.String("listen", "http://127.0.0.1:29300", "with -generate: where the homeserver reaches the bridge")
	generate := flag.Bool("generate", false, "write a new registration, and do nothing else")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := error(nil)
	if *generate {
		err = newRegistration(*listen, *domain).Save(*path)
	} else {
		err = run(ctx, *path, *homeserver, *domain)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bridge:", err)
		os.Exit(1)
	}
}

func newRegistration(listen, domain string) *appservice.Registration {
	registration := appservice.CreateRegistration()
	registration.ID, registration.URL, registration.SenderLocalpart = "counter", listen, "counter"
	registration.Namespaces.UserIDs.Register(regexp.MustCompile("@counter_.*:"+regexp.QuoteMeta(domain)), true)
	rateLimited := false
	registration.RateLimited = &rateLimited
	return registration
}

// service is an application service of a registration that has been saved. It is not started.
func service(path, homeserver, domain string) (*appservice.AppService, error) {
	registration, err := appservice.LoadRegistration(path)
	if err != nil {
		return nil, err
	}
	own, err := url.Parse(registration.URL)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(own.Port(), 10, 16)
	if err != nil {
		return nil, errors.Join(errors.New("the registration's URL has no port"), err)
	}
	return appservice.CreateFull(appservice.CreateOpts{
		Registration: registration, HomeserverDomain: domain, HomeserverURL: homeserver,
		HostConfig: appservice.HostConfig{Hostname: own.Hostname(), Port: uint16(port)},
	})
}

func run(ctx context.Context, path, homeserver, domain string) error {
	as, err := service(path, homeserver, domain)
	if err != nil {
		return err
	}
	if err := as.BotIntent().EnsureRegistered(ctx); err != nil {
		return err
	}
	counter, err := newCounter(as)
	if err != nil {
		return err
	}
	counter.processor.Start(ctx)
	go as.Start()
	<-ctx.Done()
	as.Stop()
	counter.processor.Stop()
	return nil
}
