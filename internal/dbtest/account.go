package dbtest

import (
	"errors"
	"os"
	"os/user"
	"strconv"
)

// account is the operating system user a server runs as. PostgreSQL refuses to run as root, so root borrows another.
type account struct {
	uid, gid int
	borrowed bool // the process is root and must change owner and credentials
}

// serverAccount picks the user to run as: ourselves, or for root the user postgres, or failing that nobody.
func serverAccount() (account, error) {
	if os.Getuid() != 0 {
		return account{uid: os.Getuid(), gid: os.Getgid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil && uid != 0 {
			return account{uid: uid, gid: gid, borrowed: true}, nil
		}
	}
	return account{}, errors.New("PostgreSQL does not run as root and there is no user postgres or nobody to run it as: " +
		"run as an ordinary user")
}

// own gives path to the account; a no-op unless borrowed.
func (a account) own(path string) error {
	if !a.borrowed {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}
