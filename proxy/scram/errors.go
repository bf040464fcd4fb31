// Error: what is wrong with a client's side of a conversation.

package scram

// Kind says what is wrong with a client's message, as finely as Postgres's SQLSTATEs do.
type Kind uint8

const (
	// Malformed is a message that breaks the protocol.
	Malformed Kind = iota + 1
	// Unsupported is a wish that the protocol allows and that Postgres does not grant.
	Unsupported
	// Downgraded is a disagreement about channel binding, which somebody between the two ends may have caused.
	Downgraded
	// BadProof is a wrong password, or any proof where no such user exists.
	BadProof
)

// SQLSTATE returns the code that Postgres reports for such an error.
func (k Kind) SQLSTATE() string {
	switch k {
	case Unsupported:
		return "0A000"
	case Downgraded:
		return "28000"
	case BadProof:
		return "28P01"
	default:
		return "08P01"
	}
}

// Error is what a conversation ends with when the client is at fault. Message and Detail may be shown to the client and
// logged: they repeat nothing that it sent. For BadProof the caller words the message, because it knows the user.
type Error struct {
	Kind    Kind
	Message string
	Detail  string // may be empty
}

// Error implements error.
func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Message
	}
	return e.Message + ": " + e.Detail
}

// malformed is the error for a message that cannot be read.
func malformed(detail string) *Error {
	return &Error{Kind: Malformed, Message: "malformed SCRAM message", Detail: detail}
}
