// Logging in, by hand: a driver would read on in the background, or hide what was reported.

package transcripts

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/jackc/pgproto3/v2"
	"github.com/xdg-go/scram"
)

// loginPatience bounds a login, also on a busy machine.
const loginPatience = 30 * time.Second

// A Target is where and as whom to log in.
type Target struct {
	Network, Address         string // as for net.Dial
	User, Password, Database string
}

// Login connects with additional startup parameters. A refusal is no error: see Conn.refused.
func Login(ctx context.Context, to Target, settings []Setting) (*Conn, error) {
	socket, err := new(net.Dialer).DialContext(ctx, to.Network, to.Address)
	if err != nil {
		return nil, err
	}
	c := &Conn{net: socket, sent: make(chan error, 1)}
	if err := c.login(to, settings); err != nil {
		c.Close()
		return nil, fmt.Errorf("login: %w", err)
	}
	return c, nil
}

func (c *Conn) login(to Target, settings []Setting) error {
	startup := &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": to.User, "database": to.Database}}
	for _, s := range settings {
		startup.Parameters[s.Name] = s.Value
	}
	client, err := scram.SHA256.NewClientUnprepped("", to.Password, "") // the user is in the startup packet
	if err != nil {
		return err
	}
	talk := client.NewConversation()
	if err := c.put(startup); err != nil {
		return err
	}
	for deadline := time.Now().Add(loginPatience); ; {
		kind, body, err := c.next(deadline)
		if err != nil {
			return err
		}
		switch kind {
		case 'R':
			if err := c.prove(talk, body); err != nil {
				return err
			}
		case 'K':
			c.pid = binary.BigEndian.Uint32(body)
		case 'E':
			c.refused = true
			c.greeting = append(c.greeting, render(kind, body), closed)
			return nil
		case 'Z':
			slices.Sort(c.greeting)
			return nil
		default:
			c.greeting = append(c.greeting, render(kind, body))
		}
	}
}

// prove answers one step of SCRAM-SHA-256.
func (c *Conn) prove(talk *scram.ClientConversation, body []byte) error {
	if len(body) < 4 {
		return fmt.Errorf("an authentication request of %d bytes", len(body))
	}
	switch step := binary.BigEndian.Uint32(body); step {
	case pgproto3.AuthTypeOk:
		return nil
	case pgproto3.AuthTypeSASL:
		first, err := talk.Step("")
		if err != nil {
			return err
		}
		return c.put(&pgproto3.SASLInitialResponse{AuthMechanism: "SCRAM-SHA-256", Data: []byte(first)})
	case pgproto3.AuthTypeSASLContinue:
		proof, err := talk.Step(string(body[4:]))
		if err != nil {
			return err
		}
		return c.put(&pgproto3.SASLResponse{Data: []byte(proof)})
	case pgproto3.AuthTypeSASLFinal:
		_, err := talk.Step(string(body[4:]))
		return err
	default:
		return fmt.Errorf("authentication request %d", step)
	}
}

// put sends one message.
func (c *Conn) put(m pgproto3.FrontendMessage) error {
	b, err := m.Encode(nil)
	if err != nil {
		return err
	}
	_, err = c.net.Write(b)
	return err
}

// ask runs a command whose answer is of no interest, unless it fails.
func (c *Conn) ask(text string) error {
	if err := c.put(&pgproto3.Query{String: text}); err != nil {
		return err
	}
	for deadline := time.Now().Add(loginPatience); ; {
		kind, body, err := c.next(deadline)
		switch {
		case err != nil:
			return err
		case kind == 'E':
			return fmt.Errorf("%s: %s", text, render(kind, body))
		case kind == 'Z':
			return nil
		}
	}
}
