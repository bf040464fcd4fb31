// What Postgres is asked for its roles, and what its operator makes there for that.

package roles

import (
	"fmt"
	"strings"
)

// Query lists all roles. Everything in it is qualified: no search_path changes what it means. One row more than may be tells that
// there are too many.
var Query = fmt.Sprintf(`SELECT r.rolname, r.rolpassword, pg_catalog.date_part('epoch', r.rolvaliduntil), r.rolcanlogin, r.rolconnlimit
FROM postern.login_roles() AS r LIMIT %d`, MaxRoles+1)

// Asker is what the role that lists roles is called, unless somebody calls it otherwise.
const Asker = "postern_auth"

// Setup is the SQL that gives user the right to list roles, and to nothing else. It is for a superuser of the tenant's Postgres, in
// the database that the list is asked for in. It fails where there is a schema of that name already: whoever owns that could put
// another function in its place.
func Setup(user string) string {
	return strings.ReplaceAll(`BEGIN;
-- The role that Postern logs in as. It can list roles, and nothing that PUBLIC cannot.
CREATE ROLE $USER LOGIN NOINHERIT CONNECTION LIMIT 10;
CREATE SCHEMA postern;
CREATE FUNCTION postern.login_roles(OUT rolname name, OUT rolpassword text, OUT rolvaliduntil timestamptz, OUT rolcanlogin boolean, OUT rolconnlimit integer)
	RETURNS SETOF record LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS $$
		SELECT a.rolname, a.rolpassword, a.rolvaliduntil, a.rolcanlogin, a.rolconnlimit
		FROM pg_catalog.pg_authid AS a
		WHERE a.rolcanlogin
			AND NOT a.rolsuper AND NOT a.rolreplication AND NOT a.rolbypassrls -- take out what should be able to come through Postern
			AND a.rolname OPERATOR(pg_catalog.<>) session_user                  -- Postern's own
	$$;
REVOKE ALL ON FUNCTION postern.login_roles() FROM PUBLIC;
GRANT USAGE ON SCHEMA postern TO $USER;
GRANT EXECUTE ON FUNCTION postern.login_roles() TO $USER;
COMMIT;
-- Then give the role its password with the line that postern verifier prints.
`, "$USER", quote(user))
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
