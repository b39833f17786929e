//! A real Kubernetes with real pods, driven from outside.
