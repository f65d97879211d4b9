package secure

import (
	"time"

	"maunium.net/go/mautrix/crypto/verificationhelper"
	"maunium.net/go/mautrix/id"
)

// NewVerifierIn is NewVerifier with a store that the test sees too.
var NewVerifierIn = newVerifier

// Expect has the verifier take part in a verification that it did not receive a request for.
func (v *Verifier) Expect(txn id.VerificationTransactionID, user id.UserID, room id.RoomID) {
	v.enter(txn, peer{user: user, room: room, until: time.Now().Add(maxAge)}, time.Now())
}

func (v *Verifier) Helper() *verificationhelper.VerificationHelper { return v.helper }

// Held is how many verifications have the other side's MAC and not the bot's.
func (v *Verifier) Held() (count int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, from := range v.peers {
		if from.mac != nil {
			count++
		}
	}
	return count
}

// Peers is how many verifications go on.
func (v *Verifier) Peers() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.peers)
}
