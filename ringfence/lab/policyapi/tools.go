//go:build tools

package lab

import (
	_ "sigs.k8s.io/network-policy-api/conformance"
)
