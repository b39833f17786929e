//! Several crates together on one machine: a real API server, no kubelet, no GPU.
