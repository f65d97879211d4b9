package commit

import "strings"

// nonceDigits are 32, so that a nonce of 10 has 50 bits.
const nonceDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

// nonce is what makes each event another one.
func nonce(random uint64) string {
	var text strings.Builder
	for range 10 {
		text.WriteByte(nonceDigits[random%32])
		random /= 32
	}
	return text.String()
}

// fraction is a number from 0 to 1, without 1.
func fraction(random uint64) float64 { return float64(random>>11) / (1 << 53) }
