// Package policy has every duration that roomkv goes by, but for those of one commit, which package commit has, and those of a request that is made
// again, which package matrix has.
package policy

import "time"

// Policy is how long something counts, is waited for, or may take. It is set before the first use and not changed then.
type Policy struct {
	// AnswerFor is how long the homeserver's word counts where no sync tells of a change: that a room is not encrypted (a client that can encrypt
	// asks for each write), that it was not upgraded, that the user has no power. What is written in that time goes where it was right to go before.
	AnswerFor time.Duration

	// ThereFor is how long the homeserver's word counts that it has an event or an attachment, where no sync tells of redactions. A write that is
	// the same as what is stored refers to it again.
	ThereFor time.Duration

	// UploadLimitFor is how long its word counts on how large an upload may be. That is a setting, which changes with its administrator's mind.
	UploadLimitFor time.Duration

	// ClockFor is how long the process's monotonic clock goes on from the homeserver's time until that is asked for again.
	ClockFor time.Duration

	// SyncSilence is how long the client's sync can say nothing and still be believed to go on. mautrix asks the homeserver to answer within 30
	// seconds. A read from memory can be as old as that after a sync has died.
	SyncSilence time.Duration

	// PowerRace is how long before or after a change of power or membership, at most, an event was sent at the same time. Homeservers make requests
	// that come at the same time part of different branches, and such an event can be missing from the state, or be listed though it is missing.
	// It is package commit's LeftOut.
	PowerRace time.Duration

	// StoredLate is how long a homeserver takes, at most, to store an event after it has given that its time and its depth, by which it lists it.
	// It is package commit's Skew.
	StoredLate time.Duration

	// ListLag is the pause after which a list is asked for once more that lacks what is current. It doubles. Dendrite lists an event some
	// milliseconds after it has acknowledged it.
	ListLag time.Duration

	// Unmerged is how long before the last write to a room that was upgraded, at most, an event was sent whose writer has not merged what others
	// wrote at the same time, and now will not. A writer that can goes on for half as long, which is package commit's GiveUp.
	Unmerged time.Duration

	// FollowPause is how long a replacement of a room that could not be used is not tried again at first, for the invitation may be on its way.
	// It doubles up to AnswerFor.
	FollowPause time.Duration

	// MoveFor is how long it may take to find out where a memory is written, and to move it between account data and the state. That goes on
	// when who needs it gives up.
	MoveFor time.Duration

	// KeyAgain is how long a Megolm session is not waited for that was waited for in vain, nor asked for.
	KeyAgain time.Duration

	// FlushPause is how long the edits of a room wait at first after they could not be sent. It doubles up to FlushLongest.
	FlushPause   time.Duration
	FlushLongest time.Duration

	// TellLate is how often the log says, at most, that edits wait for much longer than they are meant to.
	TellLate time.Duration

	// WithheldPause is between two looks for a Megolm session that was withheld.
	WithheldPause time.Duration
}

var defaults = Policy{
	AnswerFor: 10 * time.Second, ThereFor: 10 * time.Second, UploadLimitFor: time.Hour, ClockFor: 10 * time.Minute, SyncSilence: 40 * time.Second,
	PowerRace: 10 * time.Second, StoredLate: 500 * time.Millisecond, ListLag: 10 * time.Millisecond, Unmerged: 20 * time.Second,
	FollowPause: 300 * time.Millisecond, MoveFor: time.Minute, KeyAgain: time.Minute, WithheldPause: 100 * time.Millisecond,
	FlushPause: 5 * time.Second, FlushLongest: 5 * time.Minute, TellLate: time.Minute,
}

// Default is a copy of the policy that goes where nobody has set another.
func Default() *Policy {
	p := defaults
	return &p
}

// Or is the policy, or the default where it is nil.
func (p *Policy) Or() *Policy {
	if p == nil {
		return &defaults
	}
	return p
}
