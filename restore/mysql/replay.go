package mysql

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"txreel/archive"
	"txreel/change"
	"txreel/restore"
	"txreel/restore/mysql/reduce"
	"txreel/sources/mysql/gtid"
)

// Replay implements restore.Target. The target asks for what it lacks, so a replay
// that was interrupted on either side goes on where the target stands.
func (t *Target) Replay(ctx context.Context, open func(after change.Seq) *archive.Stream) error {
	executed, err := t.executed(ctx)
	if err != nil {
		return err
	}
	for !executed.Equal(t.goal) {
		t.began = executed
		err := t.replicate(ctx, open)
		var ran *ranError
		if errors.As(err, &ran) {
			err = t.passOver(ctx, ran)
			t.resumed = false // it can be so once
		} else if err == nil {
			break
		}
		if err == nil {
			executed, err = t.executed(ctx)
		}
		if err != nil {
			return t.explainAccount(err)
		}
	}
	t.applied = t.job.Plan.Seq
	t.job.Progress(restore.PhaseReplay, t.replay, t.replay, "transactions")
	return nil
}

// replicate runs the target's replica threads until they have executed the goal.
func (t *Target) replicate(ctx context.Context, open func(after change.Seq) *archive.Stream) error {
	states, err := t.readEvents(ctx)
	if err != nil {
		return err
	}
	defer states.close()
	p, err := t.newPrimary(ctx, open, states)
	if err != nil {
		return err
	}
	address, host := "127.0.0.1:0", "127.0.0.1"
	if t.opts.Serve != "" {
		address = t.opts.Serve
		if host, _, err = net.SplitHostPort(address); err != nil {
			return fmt.Errorf("serve the replay at %q: %w: give host:port as the target reaches it", address, err)
		}
	}
	if err := p.start(ctx, address, host); err != nil {
		return err
	}
	defer p.close()
	ca, remove, err := t.placeAuthority(ctx, p.cred.authority, host)
	if err != nil {
		return err
	}
	defer remove()
	port := p.listen.Addr().(*net.TCPAddr).Port
	if err := t.startReplica(ctx, host, port, p.cred, ca); err != nil {
		return err
	}
	err = t.follow(ctx, p, func() error {
		p.started()
		return t.startReplica(ctx, host, port, p.cred, ca)
	})
	// The target must not go on without us: its own next start would try.
	rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if stopped := t.stopReplica(rest); err == nil {
		err = stopped
	}
	return err
}

func (t *Target) newPrimary(ctx context.Context, open func(after change.Seq) *archive.Stream, states *events) (*primary, error) {
	own, err := t.control.value(ctx, "SELECT @@GLOBAL.server_id")
	if err != nil {
		return nil, fmt.Errorf("look at target: %w", err)
	}
	// Any id but the target's own; transactions keep those they were recorded with.
	id := uint32(1)
	if own == "1" {
		id = 2
	}
	ledger := newLedger(t.applied)
	return &primary{
		flavor: t.version.flavor, version: t.version.text, serverID: id, uuid: newUUID(),
		cut: t.job.Plan.Seq, open: open, ledger: ledger, statement: states.statement, link: t.link,
		catalog: &reducible{target: t, ledger: ledger}, window: t.window(), leftOut: &t.leftOut,
	}, nil
}

// window is how many bytes are taken to find updates that are overwritten. Memory that grows may be there twice for a moment.
func (t *Target) window() int {
	if t.opts.Memory == 0 {
		return reduce.DefaultWindow
	}
	return int(min(max(t.opts.Memory/8, 1<<20), reduce.DefaultWindow))
}

// placeAuthority puts the certificate by which the target knows txreel where the
// target's server can read it, and returns the path there; "" where that cannot be done.
func (t *Target) placeAuthority(ctx context.Context, pem []byte, host string) (path string, remove func(), err error) {
	if t.cfg.local() && t.opts.Serve == "" {
		dir, err := os.MkdirTemp("", "txreel-ca-")
		if err != nil {
			return "", nil, fmt.Errorf("write a certificate for the target: %w", err)
		}
		remove = func() { _ = os.RemoveAll(dir) } // litter at worst: it holds nothing secret
		path = filepath.Join(dir, "ca.pem")
		err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, pem, 0o644)) // the server may run as another user
		if err != nil {
			remove()
			return "", nil, fmt.Errorf("write a certificate for the target: %w", err)
		}
		return path, remove, nil
	}
	// On another machine the server itself must write it.
	rows, err := t.control.query(ctx, "SELECT @@GLOBAL.secure_file_priv, @@GLOBAL.datadir")
	if err != nil {
		return "", nil, fmt.Errorf("look at target: %w", err)
	}
	into := rows[0].text(0)
	if into == "" {
		into = rows[0].text(1)
	}
	if rows[0][0] != nil || t.version.mariadb() { // NULL means nowhere to MySQL, and anywhere to MariaDB
		path = strings.TrimRight(into, "/") + "/" + "txreel-" + newUUID() + ".pem"
		if err := t.control.exec(ctx, "SELECT "+literal(string(pem))+" INTO DUMPFILE "+literal(path)); err == nil {
			t.warn("%s on the target's machine is a certificate that was made for this restore: remove the file", path)
			return path, func() {}, nil
		}
	}
	t.warn("the target's server could not be given a certificate to know txreel by (secure_file_priv, or the privilege FILE): "+
		"the replay went over TLS with a one-time password, but nothing proved to the target that it spoke with %s", host)
	return "", func() {}, nil
}

// connectPatience is how long the target's replica threads may take to reach txreel.
const connectPatience = 20 * time.Second

// follow watches the target until it has executed the goal. again starts its replica threads anew, which forget what they have received and not executed.
func (t *Target) follow(ctx context.Context, p *primary, again func() error) error {
	began := time.Now()
	connected := time.Now()
	var idle time.Time // since when nothing is left to execute, by the target's own word
	streams := 0
	for {
		if err := t.wait(ctx); err != nil {
			return err
		}
		executed, err := t.executed(ctx)
		if err != nil {
			return err
		}
		p.ledger.executed(executed)
		t.applied = p.ledger.at()
		if executed.Equal(t.goal) {
			return nil
		}
		if err := t.checkExecuted(executed); err != nil {
			return err
		}
		t.job.Progress(restore.PhaseReplay, t.done(executed), t.replay, "transactions")
		s, err := t.replicaStatus(ctx)
		if err != nil {
			return err
		}
		if s.applierErrno != "0" && s.applierErrno != "" {
			return t.applierError(ctx, s, executed)
		}
		if err := p.failure(); err != nil {
			return err
		}
		p.mu.Lock()
		if p.streams != streams || p.stream != nil || p.complete {
			streams, connected = p.streams, time.Now()
		}
		p.mu.Unlock()
		ended := strings.Contains(s.receiverError, endText) || p.sentAll()
		switch {
		case ended:
		case strings.Contains(s.receiverError, againText):
			if err := again(); err != nil {
				return err
			}
			began, connected = time.Now(), time.Now()
		case s.receiver == "No" && s.receiverErrno != "0":
			return fmt.Errorf("the target's receiver ended: %s (error %s)%s", s.receiverError, s.receiverErrno, p.explain())
		case s.receiver == "No" && time.Since(began) > connectPatience, !s.applier && time.Since(began) > connectPatience:
			return errors.New("somebody has stopped the target's replica threads: run the same restore again, it continues")
		case time.Since(connected) > connectPatience:
			return fmt.Errorf("the target's replica threads do not reach txreel at %s: %s (error %s)%s; a target on another machine, or in a container, "+
				"needs --serve with an address of this machine that it can reach", p.listen.Addr(), s.receiverError, s.receiverErrno, p.explain())
		}
		if ended && s.applier && strings.Contains(strings.ToLower(s.applierState), "has read all relay log") {
			if idle.IsZero() {
				idle = time.Now()
			}
			if time.Since(idle) > connectPatience {
				return fmt.Errorf("the target has applied all it received, and lacks %s", executed.Missing(t.goal))
			}
		} else {
			idle = time.Time{}
		}
	}
}

// wait returns when the target has executed the goal, or after a second.
func (t *Target) wait(ctx context.Context) error {
	function := "WAIT_FOR_EXECUTED_GTID_SET"
	if t.version.mariadb() {
		function = "MASTER_GTID_WAIT"
	}
	if _, err := t.control.value(ctx, "SELECT "+function+"("+literal(t.goal.String())+", 1)"); err != nil {
		return fmt.Errorf("wait for the target: %w", err)
	}
	return nil
}

// done is how many transactions the target has executed, for progress.
func (t *Target) done(executed *gtid.Set) int64 {
	if !t.version.mariadb() {
		return int64(executed.Count() - t.base.Count())
	}
	return min(t.replay, int64(t.applied-t.job.Plan.Base.Seq)) // sequence numbers may have holes
}

// applierError turns the failure of a transaction into an error about its Seq.
func (t *Target) applierError(ctx context.Context, s replicaStatus, executed *gtid.Set) error {
	g, text := t.applierFailure(ctx, s)
	err := fmt.Errorf("the target could not apply it: %s (error %s)", withoutSecrets(text), s.applierErrno)
	seq := t.find(ctx, t.applied, g, executed)
	if seq == 0 {
		return err
	}
	err = &restore.RecordError{Seq: seq, Err: err}
	if g, may := t.mayHaveRun(ctx, s.applierErrno, seq, executed); may {
		return &ranError{g, err}
	}
	return err
}
