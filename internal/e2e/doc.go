// Package e2e holds black-box tests of the txreel binary on real servers; it has no code of its own.
package e2e
