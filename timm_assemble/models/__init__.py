"""The network, its registered variants, and loading of trained models."""
