// What the suite shares: see package harness.

package chaos

import (
	"os"
	"testing"

	"github.com/postern/postern/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
