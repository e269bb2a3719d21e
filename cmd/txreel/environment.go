package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// passwordVariable holds the password that setup gives an account; it is no flag's.
const passwordVariable = "TXREEL_ACCOUNT_PASSWORD"

// checkEnvironment refuses variables that look like a flag's and are none's: what was meant to count and does not, such as a
// name that was mistyped, or that another version knew.
func checkEnvironment(app *kong.Node, environ []string) error {
	known := map[string]bool{passwordVariable: true}
	collectVariables(app, known)
	var unknown []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "TXREEL_") && !known[name] && !kubernetesSets(name) && !strings.HasPrefix(name, "TXREEL_TEST_") {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return fmt.Errorf("the environment has %s, and no command of this version has such a flag: correct the name, or unset it", strings.Join(unknown, ", "))
}

func collectVariables(n *kong.Node, known map[string]bool) {
	for _, f := range n.Flags {
		for _, name := range f.Envs {
			known[name] = true
		}
	}
	for _, child := range n.Children {
		collectVariables(child, known)
	}
}

// kubernetesSets reports whether a name is one that Kubernetes gives every container beside a service called txreel.
func kubernetesSets(name string) bool {
	return name == "TXREEL_PORT" || strings.HasPrefix(name, "TXREEL_PORT_") || strings.HasPrefix(name, "TXREEL_SERVICE_")
}
