package tokens

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// cause is why a session is renewed.
type cause struct {
	refused bool // by the homeserver, else the token is near its end by the clock
	soft    bool // the homeserver has said that the device is still there
}

// flight is one renewal of the session.
type flight struct {
	cause
	landed chan struct{} // closed at its end
	token  string        // the access token that there is then
	err    error
}

// flightTime bounds a flight. It does not end with a request that waits for it, for the server may have taken the refresh token already.
const flightTime = 45 * time.Second

// begin gives the flight that is on its way, or a new one. It fails where one has failed just now. The caller has the lock.
func (k *Keeper) begin(now time.Time, why cause) (*flight, error) {
	switch {
	case k.flight != nil:
		return k.flight, nil
	case now.Before(k.again):
		return nil, k.failed
	}
	f := &flight{cause: why, landed: make(chan struct{})}
	k.flight = f
	k.flights.Add(1)
	go k.fly(f, k.now)
	return f, nil
}

// wait waits for the flight's end.
func (f *flight) wait(ctx context.Context) (string, error) {
	select {
	case <-f.landed:
		return f.token, f.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// fly renews a session.
func (k *Keeper) fly(f *flight, from session) {
	defer k.flights.Done()
	ctx, cancel := context.WithTimeout(context.Background(), flightTime)
	defer cancel()
	next, err := k.obtain(ctx, f.cause, from)
	if err == nil && next.AccessToken != from.AccessToken {
		k.config.Changed(next.Token)
	}

	k.mu.Lock()
	defer k.mu.Unlock()
	k.flight = nil
	k.pause = min(max(2*k.pause, firstPause), longestPause)
	wait := k.pause
	var answer *Answer
	if errors.As(err, &answer) {
		wait = max(wait, min(time.Duration(answer.After)*time.Millisecond, longestAsked))
	}
	k.again = k.config.Now().Add(wait)
	switch {
	case err == nil && next.AccessToken == from.AccessToken: // it is used until the homeserver refuses it
		k.now, k.failed, k.again, k.pause = next, nil, time.Time{}, 0
	case err == nil:
		k.now, k.failed = next, errNewToken // until the token is accepted
		k.config.Log.Debug().Stringer("session", next.Token).Time("expires", next.Expires).Msg("Session renewed")
	case errors.Is(err, ErrSignedOut):
		k.end, k.failed = err, err
		close(k.ended)
		k.config.Log.Error().Stringer("session", from.Token).Err(err).Msg("Session has ended")
	default:
		k.failed = err
		k.config.Log.Warn().Stringer("session", from.Token).Err(err).Dur("again_in", wait).Msg("Session cannot be renewed now")
	}
	f.token, f.err = k.now.AccessToken, err
	close(f.landed)
}

// obtain gets a session in the place of one, and keeps it in the file.
func (k *Keeper) obtain(ctx context.Context, why cause, from session) (session, error) {
	unlock, err := Lock(ctx, k.config.Files)
	if err != nil {
		return session{}, fmt.Errorf("session: cannot renew the session while another process does: %v", err)
	}
	defer unlock()
	kept, found, err := Load(k.config.Files)
	if err != nil {
		return session{}, err
	}
	if found && kept.AccessToken != "" && kept.AccessToken != from.AccessToken { // by another process
		k.unsaved = nil
		if kept.DeviceID != from.DeviceID || kept.UserID != from.UserID {
			return session{}, &signedOut{text: fmt.Sprintf("another process has signed in here as %s, device %s: start this one again", kept.UserID, kept.DeviceID)}
		}
		from = newSession(kept, k.config.Now())
		if from.left(k.config.Now()) > from.early {
			return from, nil
		}
		why = cause{} // of the other token
	}
	if k.unsaved != nil {
		return k.save(*k.unsaved)
	}
	return k.obtainNew(ctx, why, from)
}

// obtainNew gets tokens from the server: for the refresh token, else for the password.
func (k *Keeper) obtainNew(ctx context.Context, why cause, from session) (session, error) {
	var refused error
	if from.RefreshToken != "" && k.config.Refresher != nil && !from.unusable {
		next, err := k.config.Refresher.Refresh(ctx, from.Token)
		switch {
		case err == nil:
			return k.save(next)
		case !errors.Is(err, errRefused):
			return session{}, fmt.Errorf("session: cannot refresh the access token now: %w", hide(err))
		case !why.refused: // the homeserver will say, when the access token is used, whether the device is still there
			from.unusable = true
			k.config.Log.Warn().Stringer("session", from.Token).Err(err).Msg("The refresh token is refused")
			return from, nil
		}
		refused = err
	}
	switch {
	case !why.refused:
		return from, nil
	case !why.soft && from.left(k.config.Now()) > 0:
		return session{}, k.signOut(Token{Server: from.Server, Homeserver: from.Homeserver, UserID: from.UserID, OAuth: from.OAuth},
			&signedOut{"the homeserver has logged out the device; a bot with a password signs in with a new one when it is started again", refused})
	case k.config.Password == nil:
		return session{}, k.signOut(from.withoutTokens(), &signedOut{"the homeserver has ended the session, and there is no password: sign in again", refused})
	}
	// A login ends the device's other tokens. A process that dies before it has kept the new one must not find the old one, for the homeserver would
	// seem to have logged out the device.
	if err := Save(k.config.Files, from.withoutTokens()); err != nil {
		return session{}, err
	}
	next, err := k.config.Password.Login(ctx, from.withoutTokens())
	switch {
	case errors.Is(err, ErrWrongPassword), errors.Is(err, errRefused):
		return session{}, k.signOut(from.withoutTokens(), &signedOut{"the homeserver has ended the session, and does not take the password: correct it, and start again", err})
	case err != nil:
		return session{}, hide(err)
	}
	return k.save(next)
}

// withoutTokens is the session as one that is to be signed in again.
func (t Token) withoutTokens() Token {
	t.AccessToken, t.RefreshToken, t.Expires = "", "", time.Time{}
	return t
}

// save keeps a new session in the file. Only then it is used; but it stays in memory, for an authorization server has no other any more.
func (k *Keeper) save(next Token) (session, error) {
	if err := Save(k.config.Files, next); err != nil {
		k.unsaved = &next
		return session{}, err
	}
	k.unsaved = nil
	return newSession(next, k.config.Now()), nil
}

// signOut keeps in the file that the session has ended, so that the next start does not go on with it.
func (k *Keeper) signOut(left Token, err error) error {
	if failed := Save(k.config.Files, left); failed != nil {
		return errors.Join(err, failed)
	}
	return err
}

// hide takes the kind from errors of contexts. It was not the request's own that ended.
func hide(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return errors.New(err.Error())
	}
	return err
}
