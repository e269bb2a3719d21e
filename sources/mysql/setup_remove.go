package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"txreel/sources"
)

// PlanRemove says how to undo a setup: drop the account, and with Sync have COMMIT wait for nobody. Other settings stay,
// since nobody knows who else has come to need them. It changes nothing. It refuses while the account is logged in, and when it may do more than setup lets it.
func (s Setup) PlanRemove(ctx context.Context, conn *Conn) ([]sources.Statement, error) {
	v, err := s.visit(ctx, conn)
	if err != nil {
		return nil, err
	}
	plan, err := v.planUnsync(ctx)
	if err != nil || v.User == "" {
		return plan, err
	}
	a, err := readAccount(ctx, conn, v.account)
	if err != nil || !a.exists {
		return plan, err
	}
	row, err := conn.QueryRow(ctx, "SELECT CURRENT_USER()")
	if err != nil {
		return nil, fmt.Errorf("look at the sessions: %w", err)
	}
	if quoteAccount(splitAccount(row[0].String())) == v.account {
		return nil, fmt.Errorf("user %s is the one that runs this: remove it as an administrator, such as root", v.account)
	}
	if more := v.more(a.grants); more != "" {
		return nil, fmt.Errorf("user %s may do more than setup lets it (%s), so that others may need it: it stays; DROP USER %s removes it", v.account, more, v.account)
	}
	if row, err = conn.QueryRow(ctx, "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = "+quoteLiteral(v.User)); err != nil {
		return nil, fmt.Errorf("look at the sessions: %w", err)
	}
	if n := row[0].String(); n != "0" {
		return nil, fmt.Errorf("user %q is logged in with %s sessions: stop its capture first", v.User, n)
	}
	return append(plan, sources.Statement{SQL: "DROP USER " + v.account, Why: "Nobody captures with it any more."},
		sources.Statement{Why: "The server's settings stay as they are otherwise: they do no harm, and others may rely on them by now."}), nil
}

// more says what an account may do beyond everything that setup ever gives.
func (v *visit) more(g *grants) string {
	var known []string
	for _, n := range slices.Concat(captureNeeds(v.mariadb), baseNeeds(v.mariadb), lockNeeds()) {
		known = append(known, n.privilege)
	}
	var more []string
	for privilege := range g.global {
		if !slices.Contains(known, privilege) {
			more = append(more, privilege)
		}
	}
	slices.Sort(more)
	service := 0
	if v.set.host == onRDS || v.set.host == onAurora {
		service = 1 // mysql.rds_configuration
	}
	if g.others > service {
		more = append(more, fmt.Sprintf("%d grants on databases or tables", g.others))
	}
	return strings.Join(more, ", ")
}

// Remove runs what PlanRemove says, reporting as Apply does, and then asks the server whether the account is gone: it
// returns nil only if it is.
func (s Setup) Remove(ctx context.Context, conn *Conn, report func(sources.Statement, error)) error {
	plan, err := s.PlanRemove(ctx, conn)
	if err != nil {
		return err
	}
	v, err := s.visit(ctx, conn)
	if err != nil {
		return err
	}
	for _, st := range plan {
		run := step{Statement: st}
		err := run.execute(ctx, conn)
		if report != nil {
			report(st, err)
		}
		if err != nil {
			return v.explainRun(run, err)
		}
	}
	if v.User == "" {
		return nil
	}
	a, err := readAccount(ctx, conn, v.account)
	if err == nil && a.exists {
		err = fmt.Errorf("user %s is still there: somebody made it again; run setup --remove again", v.account)
	}
	return err
}
